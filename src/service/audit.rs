//! The audit log, read: pages of entries, and the proof that nothing in it was changed.

use super::{Core, ServiceError, paging, text};
use crate::db::audit::{self as rows, Filter, Logged};
use crate::domain::Sha256;
use crate::wire::admin::{AuditEntry, AuditQuery, AuditVerdict, Page};

/// Entries that are read at once while verifying.
const STEP: i64 = 1_000;

/// The most characters of a filter.
const MAX_FILTER: usize = 255;

fn hash(entry: i64, bytes: &[u8]) -> Result<Sha256, ServiceError> {
    Sha256::try_from(bytes).map_err(|_| {
        ServiceError::Conflict(format!(
            "entry {entry} of the audit log has been altered: its hashes are not hashes; run `livepatch-admin audit verify`"
        ))
    })
}

fn entry(logged: Logged) -> Result<AuditEntry, ServiceError> {
    Ok(AuditEntry {
        prev_hash: hash(logged.seq, &logged.prev_hash)?,
        hash: hash(logged.seq, &logged.hash)?,
        seq: logged.seq,
        at: logged.at,
        actor: logged.actor,
        source: logged.source,
        action: logged.action,
        target: logged.target,
        details: logged.details,
    })
}

/// Entries, newest first.
pub async fn list(core: &Core, query: &AuditQuery) -> Result<Page<AuditEntry>, ServiceError> {
    let before = paging::after("audit", query.cursor.as_deref())?;
    for (what, given) in [
        ("actor", &query.actor),
        ("action", &query.action),
        ("target", &query.target),
    ] {
        text::line(what, given.as_deref().unwrap_or_default(), MAX_FILTER)?;
    }
    let filter = Filter {
        before,
        actor: query.actor.clone(),
        action: query.action.clone(),
        target: query.target.clone(),
        since: query.since,
        until: query.until,
    };
    let limit = paging::limit(query.limit);
    let conn = core.db.conn().await?;
    let found = rows::page(&conn, &filter, limit as i64 + 1).await?;
    let place = |logged: &Logged| paging::encode("audit", &[&logged.seq]);
    let page = paging::page(found, limit, place, |logged| logged);
    Ok(Page {
        items: page
            .items
            .into_iter()
            .map(entry)
            .collect::<Result<_, _>>()?,
        next_cursor: page.next_cursor,
    })
}

/// Where the chain stands while it is followed.
struct Chain {
    seq: i64,
    hash: Vec<u8>,
}

impl Chain {
    /// What is wrong with the next entry, if anything.
    fn fault(&self, next: &Logged) -> Option<String> {
        let expected = self.seq + 1;
        if next.seq != expected {
            return Some(format!(
                "entry {expected} is missing; the next one is {}",
                next.seq
            ));
        }
        if next.prev_hash != self.hash {
            return Some(if next.seq == 1 {
                "the first entry does not begin a chain".to_owned()
            } else {
                format!("it does not follow from entry {}", self.seq)
            });
        }
        (next.hash != next.expected_hash())
            .then(|| "its content does not agree with its hash: it was altered".to_owned())
    }
}

/// Follows the chain from its first entry to the head, in one state of the database, and tells where it breaks.
pub async fn verify(core: &Core) -> Result<AuditVerdict, ServiceError> {
    let mut conn = core.db.conn().await?;
    let tx = conn.begin_read().await?;
    let (head_seq, head_hash) = rows::head(&tx).await?;
    let verdict = |entries: i64, broken: Option<(i64, String)>| {
        let (broken_at, why) = broken.unzip();
        AuditVerdict {
            ok: broken_at.is_none(),
            entries: entries.unsigned_abs(),
            // A head that is no hash is a break of its own and shown as zeros.
            head: Sha256::try_from(head_hash.as_slice()).unwrap_or(Sha256([0; 32])),
            broken_at,
            why,
        }
    };
    let mut chain = Chain {
        seq: 0,
        hash: vec![0; 32],
    };
    let mut looked_at = 0;
    // From before the first place, so that entries put in front of the chain are seen too.
    let mut after = i64::MIN;
    loop {
        let page = rows::from(&tx, after, STEP).await?;
        let last = (page.len() as i64) < STEP;
        for next in page {
            looked_at += 1;
            if let Some(why) = chain.fault(&next) {
                return Ok(verdict(looked_at, Some((chain.seq + 1, why))));
            }
            after = next.seq;
            chain = Chain {
                seq: next.seq,
                hash: next.hash,
            };
        }
        if last {
            break;
        }
    }
    // Entries taken away from the end leave a chain that is whole, but not up to the head.
    let broken = (chain.seq != head_seq || chain.hash != head_hash).then(|| {
        let why = format!(
            "the chain ends at entry {}, but its head says {head_seq}",
            chain.seq
        );
        (chain.seq.min(head_seq) + 1, why)
    });
    Ok(verdict(looked_at, broken))
}
