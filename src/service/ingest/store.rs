//! What the door writes: a payload, a healed object, a quarantined file. Each is one object and one transaction.

use super::judge::{Fault, Good};
use super::spool::Spooled;
use super::{Origin, Taken, not_kept, outcome};
use crate::blob::{Key, PutOutcome};
use crate::bundle::BundleName;
use crate::db::audit::{self, Entry};
use crate::db::listen::Change;
use crate::db::{DbError, Tx, outbox, patches, payloads, quarantine as held, tiers};
use crate::domain::{EventKind, PatchVersion, Scope, TierName};
use crate::service::failpoint::failpoint;
use crate::service::{Core, ServiceError, events, quarantine as service};
use crate::wire::admin::IngestResult;
use crate::wire::event::PayloadQuarantined;
use serde_json::json;

/// How often a transaction that another one got in the way of is tried.
pub(super) const ATTEMPTS: usize = 3;

/// Writes the rows of a verified object that becomes visible at once. The inner error is the payload of that name that was faster.
pub(super) async fn insert(
    core: &Core,
    origin: &Origin<'_>,
    name: &BundleName,
    spooled: &Spooled,
    good: &Good,
) -> Result<Result<Taken, payloads::Known>, ServiceError> {
    let filename = name.to_string();
    let mut attempt = 1;
    let written = loop {
        match try_insert(core, origin, name, &filename, spooled, good).await {
            Err(DbError::Retry(_)) if attempt < ATTEMPTS => attempt += 1,
            result => break result?,
        }
    };
    let (seq, released) = match written {
        Ok(written) => written,
        Err(known) => return Ok(Err(known)),
    };
    failpoint("ingest-after-commit");
    if released {
        service::drop_object(core, &spooled.expect.sha256).await;
    }
    let mut outcome = outcome(&filename, spooled, IngestResult::Stored);
    outcome.warning.clone_from(&good.warning);
    let seq = Some(seq);
    Ok(Ok(Taken { outcome, seq }))
}

/// The place in the audit log, and whether a quarantined file became this payload; or who was faster.
type Written = Result<(i64, bool), payloads::Known>;

async fn try_insert(
    core: &Core,
    origin: &Origin<'_>,
    name: &BundleName,
    filename: &str,
    spooled: &Spooled,
    good: &Good,
) -> Result<Written, DbError> {
    let expect = spooled.expect;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let (patch_id, _) = patches::ensure(&tx, name.version).await?;
    let new = row(origin, name, filename, spooled, good, patch_id);
    let unseen = !patches::unseen(&tx, &[patch_id]).await?.is_empty();
    let Some(_) = payloads::insert(&tx, &new).await? else {
        let known = payloads::find(&tx, filename).await?;
        return known.map(Err).ok_or_else(|| {
            DbError::Row(format!(
                "{filename} cannot be added, though no payload of that name is there"
            ))
        });
    };
    let tier = enter(&tx, origin, (patch_id, name.version), unseen).await?;
    let released = held::delete_file(&tx, filename, &expect.sha256).await?;
    let entry = Entry {
        actor: origin.actor,
        action: "payload.ingest",
        target: filename,
        details: json!({
            "sha256": expect.sha256,
            "size": expect.size,
            "source": origin.source,
            "signature": good.signature,
            "signer": new.signer,
            "warning": good.warning,
            "new-patch-in-tier": tier,
            "released-from-quarantine": released,
        }),
    };
    let seq = audit::append(&tx, entry, Change::Catalog).await?;
    failpoint("ingest-before-commit");
    tx.commit().await?;
    Ok(Ok((seq, released.is_some())))
}

/// The row of a verified object.
pub(super) fn row<'a>(
    origin: &Origin<'a>,
    name: &'a BundleName,
    filename: &'a str,
    spooled: &Spooled,
    good: &'a Good,
    patch_id: i32,
) -> payloads::New<'a> {
    let examined = &good.examined;
    let signer = examined.signature.as_ref().ok();
    let signer = signer.filter(|_| good.signature == 1);
    payloads::New {
        patch_id,
        filename,
        kernel: &name.kernel,
        architecture: name.architecture,
        sha256: spooled.expect.sha256,
        size: spooled.expect.size,
        module_name: &examined.module_name,
        module_sha256: examined.module_sha256,
        vermagic: examined.vermagic.as_deref().unwrap_or_default(),
        signer: signer.map(|s| s.signer.as_str()),
        signature_algorithm: signer.map(|s| s.digest),
        signature: good.signature,
        warning: good.warning.as_deref(),
        fixes: &examined.fixes,
        obsolete: examined.obsolete,
        source: origin.source,
        added_by: &origin.actor.name,
        staged: origin.staged,
    }
}

/// Lets a patch that nobody has seen yet enter the first tier; that tier's name.
async fn enter(
    tx: &Tx<'_>,
    origin: &Origin<'_>,
    (patch_id, version): (i32, PatchVersion),
    unseen: bool,
) -> Result<Option<TierName>, DbError> {
    if !unseen {
        return Ok(None);
    }
    tiers::lock_shared(tx).await?;
    let Some(first) = tiers::order(tx).await?.into_iter().next() else {
        return Ok(None);
    };
    let (all, actor) = (Scope::default(), &origin.actor.name);
    tiers::promote(tx, patch_id, first.id, &all, actor, "new patch").await?;
    events::arrived(tx, version, Some(&first.name), origin.source, actor).await?;
    Ok(Some(first.name))
}

/// Makes a payload visible that a sync had staged or a pruning had hidden; `None` if it went away meanwhile. For a sync
/// it only becomes one of its staged ones.
pub(super) async fn unhide(
    core: &Core,
    origin: &Origin<'_>,
    filename: &str,
    spooled: &Spooled,
    known: &payloads::Known,
) -> Result<Option<Taken>, ServiceError> {
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if let Some(run) = origin.staged {
        let there = payloads::stage_again(&tx, known.id, run).await?;
        tx.commit().await?;
        let outcome = outcome(filename, spooled, IngestResult::AlreadyThere);
        return Ok(there.then_some(Taken { outcome, seq: None }));
    }
    let Some((patch_id, version)) = payloads::patch_of(&tx, known.id).await? else {
        return Ok(None);
    };
    let unseen = !patches::unseen(&tx, &[patch_id]).await?.is_empty();
    let shown = payloads::unstage(&tx, known.id, origin.source, &origin.actor.name).await?;
    if shown.is_none() {
        return Ok(None);
    }
    let tier = enter(&tx, origin, (patch_id, version), unseen).await?;
    let entry = Entry {
        actor: origin.actor,
        action: "payload.ingest",
        target: filename,
        details: json!({
            "sha256": spooled.expect.sha256,
            "size": spooled.expect.size,
            "source": origin.source,
            "version": version,
            "verified-when": "it was staged",
            "new-patch-in-tier": tier,
        }),
    };
    let seq = audit::append(&tx, entry, Change::Catalog).await?;
    tx.commit().await?;
    let outcome = outcome(filename, spooled, IngestResult::Stored);
    Ok(Some(Taken {
        outcome,
        seq: Some(seq),
    }))
}

/// Stores the object of a known payload again, whose own is damaged or gone.
pub(super) async fn heal(
    core: &Core,
    origin: &Origin<'_>,
    filename: &str,
    spooled: &Spooled,
    known: &payloads::Known,
) -> Result<Taken, ServiceError> {
    let key = Key::Payload(spooled.expect.sha256);
    let put = core
        .store
        .put_again(&key, spooled.content.clone(), spooled.expect)
        .await
        .map_err(not_kept)?;
    failpoint("heal-after-object");
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let marked = payloads::clear_damaged(&tx, known.id).await?;
    // Several may come with the same content at once: the first heals, the others find it whole.
    if marked.is_none() && put == PutOutcome::AlreadyThere {
        let outcome = outcome(filename, spooled, IngestResult::AlreadyThere);
        return Ok(Taken { outcome, seq: None });
    }
    let damage = marked.and_then(|(_, _, damage)| damage);
    let damage = damage.unwrap_or_else(|| "its object was missing".to_owned());
    let entry = Entry {
        actor: origin.actor,
        action: "payload.heal",
        target: filename,
        details: json!({
            "sha256": spooled.expect.sha256,
            "source": origin.source,
            "damage": damage,
        }),
    };
    let seq = audit::append(&tx, entry, Change::Catalog).await?;
    failpoint("heal-before-commit");
    tx.commit().await?;
    let mut outcome = outcome(filename, spooled, IngestResult::Stored);
    outcome.warning = Some(format!(
        "the payload was damaged and is whole again: {damage}"
    ));
    let seq = Some(seq);
    Ok(Taken { outcome, seq })
}

/// Keeps a refused file apart, with the reason. The same file refused for the same reason again changes nothing.
pub(super) async fn quarantine(
    core: &Core,
    origin: &Origin<'_>,
    filename: &str,
    spooled: &Spooled,
    fault: &Fault,
) -> Result<Taken, ServiceError> {
    let expect = spooled.expect;
    let key = Key::Quarantine(expect.sha256);
    failpoint("quarantine-before-object");
    core.store
        .put(&key, spooled.content.clone(), expect)
        .await
        .map_err(not_kept)?;
    failpoint("quarantine-after-object");
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    held::lock(&tx, &expect.sha256).await?;
    let before = held::find(&tx, filename, &expect.sha256).await?;
    let same = |row: &held::Held| row.code == fault.code && row.reason == fault.reason;
    let id = if let Some(row) = before.filter(same) {
        row.id
    } else {
        let new = held::New {
            filename,
            sha256: expect.sha256,
            size: expect.size,
            code: fault.code,
            reason: &fault.reason,
            source: origin.source,
            actor: &origin.actor.name,
        };
        let id = held::add(&tx, &new).await?;
        // Someone may have dropped the same content since it was put; under the lock nobody can any more.
        core.store
            .put(&key, spooled.content.clone(), expect)
            .await
            .map_err(not_kept)?;
        let event = PayloadQuarantined {
            quarantine_id: id,
            filename: filename.to_owned(),
            sha256: expect.sha256,
            size: expect.size,
            code: fault.code.to_owned(),
            reason: fault.reason.clone(),
            source: origin.source.to_owned(),
            actor: origin.actor.name.clone(),
        };
        outbox::emit(&tx, EventKind::PayloadQuarantined, &event).await?;
        let entry = Entry {
            actor: origin.actor,
            action: "quarantine.add",
            target: filename,
            details: json!({
                "id": id,
                "sha256": expect.sha256,
                "size": expect.size,
                "source": origin.source,
                "code": fault.code,
                "reason": fault.reason,
                "release-refused": origin.release,
            }),
        };
        audit::append(&tx, entry, Change::Nothing).await?;
        failpoint("quarantine-before-commit");
        id
    };
    tx.commit().await?;
    failpoint("quarantine-after-commit");
    let mut outcome = outcome(filename, spooled, IngestResult::Quarantined);
    outcome.code = Some(fault.code.to_owned());
    outcome.reason = Some(fault.reason.clone());
    outcome.quarantine_id = Some(id);
    Ok(Taken { outcome, seq: None })
}
