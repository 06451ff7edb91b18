//! What taking in an archive would change, for a person to look at before it does.

use crate::bundle::BundleName;
use crate::domain::{PatchVersion, Sha256, TierName};
use crate::index::State;
use crate::service::ServiceError;
use crate::upstream::archive::Archive;
use crate::wire::sync::{BlockRecord, PromotionRecord, Record};
use serde::Serialize;
use std::collections::{BTreeSet, HashSet};

/// What comes and goes. Promotions, blocks, tiers and kernels are compared with the archive that was taken in before; payloads with
/// what is here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Changes {
    /// Payloads that are not here yet.
    pub payloads_new: u64,
    /// Their bytes.
    pub bytes_new: u64,
    /// Payloads that are here already.
    pub payloads_there: u64,
    /// Payloads that the archive before had and this one has not: they are held, not deleted.
    pub payloads_gone: Vec<String>,
    /// Patches of which no payload is here yet.
    pub patches_new: Vec<PatchVersion>,
    /// Promotions that come.
    pub promotions_new: Vec<String>,
    /// Promotions that go.
    pub promotions_gone: Vec<String>,
    /// Blocks and holds that come.
    pub blocks_new: Vec<String>,
    /// Blocks and holds that go.
    pub blocks_gone: Vec<String>,
    /// Tiers that come.
    pub tiers_new: Vec<TierName>,
    /// Tiers that go.
    pub tiers_gone: Vec<TierName>,
    /// Lines of the table of supported kernels that come.
    pub kernels_new: u64,
    /// Lines of it that go.
    pub kernels_gone: u64,
}

impl Changes {
    /// Whether there is nothing to do.
    pub fn is_none(&self) -> bool {
        *self
            == Self {
                payloads_there: self.payloads_there,
                ..Self::default()
            }
    }
}

fn promotion(record: &PromotionRecord) -> String {
    let scope = if record.scope.is_all() {
        ""
    } else {
        " in part"
    };
    format!("{} to {}{scope}", record.version, record.tier)
}

fn block(record: &BlockRecord) -> String {
    let kind = match record.kind {
        crate::wire::sync::BlockWord::Block => "block",
        crate::wire::sync::BlockWord::Hold => "hold",
    };
    let scope = if record.scope.is_all() {
        ""
    } else {
        " in part"
    };
    if record.reason.is_empty() {
        return format!("{kind} of {}{scope}", record.version);
    }
    format!("{kind} of {}{scope}: {}", record.version, record.reason)
}

/// Compares an archive with the state that was taken in before it and with what is served here.
pub(super) fn changes(
    archive: &Archive,
    before: &State,
    served: &HashSet<(String, Sha256)>,
) -> Result<Changes, ServiceError> {
    let mut changes = Changes::default();
    let wrong = |e: crate::domain::ParseError| ServiceError::Internal(e.to_string());
    let (mut new, mut there) = (BTreeSet::new(), BTreeSet::new());
    for payload in archive.state().payloads() {
        let name: BundleName = payload.filename.parse().map_err(wrong)?;
        if served.contains(&(payload.filename, payload.sha256)) {
            changes.payloads_there += 1;
            there.insert(name.version);
        } else {
            changes.payloads_new += 1;
            changes.bytes_new += payload.size;
            new.insert(name.version);
        }
    }
    changes.patches_new = new.difference(&there).copied().collect();
    for line in before.difference(archive.state()).lines() {
        let (comes, text) = match line.split_at_checked(1) {
            Some(("+", text)) => (true, text),
            Some((_, text)) => (false, text),
            None => continue,
        };
        let record = serde_json::from_str(text)
            .map_err(|e| ServiceError::Internal(format!("a record of an archive: {e}")))?;
        match (record, comes) {
            (Record::Payload(_), true) => {}
            (Record::Payload(p), false) => changes.payloads_gone.push(p.filename),
            (Record::Tier(t), true) => changes.tiers_new.push(t.name),
            (Record::Tier(t), false) => changes.tiers_gone.push(t.name),
            (Record::Promotion(p), true) => changes.promotions_new.push(promotion(&p)),
            (Record::Promotion(p), false) => changes.promotions_gone.push(promotion(&p)),
            (Record::Block(b), true) => changes.blocks_new.push(block(&b)),
            (Record::Block(b), false) => changes.blocks_gone.push(block(&b)),
            (Record::Kernel(_), true) => changes.kernels_new += 1,
            (Record::Kernel(_), false) => changes.kernels_gone += 1,
        }
    }
    Ok(changes)
}
