//! Reports: what a server tells the one above it after a run, and what it keeps of those below it.
//!
//! A machine's id leaves only as an HMAC under a key that stays here, and only if `patch-sync.send-machine-reports` says
//! so; the number of machines leaves as a range unless `patch-sync.machine-count-strategy` is `unit`.

use super::{Caller, keys};
use crate::config::{MachineCount, SyncDriver};
use crate::db::deployments::{self as rows, Deployment};
use crate::domain::{Architecture, MachineState, PatchVersion, Sha256};
use crate::service::{Core, ServiceError, paging, text};
use crate::upstream::{Peer, UpstreamError};
use crate::wire::admin::{Page, PageQuery, PeerEntry};
use crate::wire::sync::{MachineReport, PeerReport};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

/// The most characters of a deployment's name for itself.
const MAX_ID: usize = 100;
/// Deployments that may report with one sync token.
const MAX_DEPLOYMENTS: u64 = 1000;
/// Machines in one report; what is above is logged and left out.
const MAX_MACHINES: u64 = 100_000;
/// The lower ends of the ranges.
const RANGES: [u64; 8] = [1, 50, 100, 500, 1000, 2000, 5000, 10_000];

/// The range that a number of machines is in; none at all stays `0`.
fn bucket(machines: u64) -> String {
    match RANGES.iter().rposition(|from| *from <= machines) {
        None => "0".to_owned(),
        Some(at) => match RANGES.get(at + 1) {
            Some(next) => format!("{}-{}", RANGES[at], next - 1),
            None => format!("{}+", RANGES[at]),
        },
    }
}

/// Whether this is a number of machines, exactly or as a range.
pub(in crate::service) fn is_count(text: &str) -> bool {
    let number = |part: &str| {
        (1..=12).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    match text.split_once('-') {
        Some((from, to)) => number(from) && number(to),
        None => number(text.strip_suffix('+').unwrap_or(text)),
    }
}

/// Keeps the report of a server below.
pub async fn take_report(
    core: &Core,
    caller: &Caller,
    report: &PeerReport,
) -> Result<(), ServiceError> {
    text::name("deployment", &report.deployment, MAX_ID)?;
    if !is_count(&report.machines) {
        return Err(ServiceError::Invalid(
            "machines must be a number such as 1234 or a range such as 1000-1999".to_owned(),
        ));
    }
    if report.machine_reports.len() as u64 > MAX_MACHINES {
        return Err(ServiceError::TooLarge(format!(
            "a report holds at most {MAX_MACHINES} machines"
        )));
    }
    let whole = serde_json::to_string(report)
        .map_err(|e| ServiceError::Internal(format!("keeping a report: {e}")))?;
    let conn = core.db.conn().await?;
    let id = &report.deployment;
    if rows::others(&conn, &caller.name, id).await? >= MAX_DEPLOYMENTS {
        return Err(ServiceError::Conflict(format!(
            "{MAX_DEPLOYMENTS} deployments have reported with this sync token already; give {id} one of its own"
        )));
    }
    rows::put(&conn, id, &caller.name, &report.machines, &whole).await?;
    Ok(())
}

/// Deployments that reported, by their ids.
pub async fn peers(core: &Core, query: &PageQuery) -> Result<Page<PeerEntry>, ServiceError> {
    let after: Option<String> = paging::after("sync-peers", query.cursor.as_deref())?;
    let limit = paging::limit(query.limit);
    let conn = core.db.conn().await?;
    let found = rows::page(&conn, after.as_deref(), limit as i64 + 1).await?;
    let place = |row: &Deployment| paging::encode("sync-peers", &[&row.id]);
    Ok(paging::page(found, limit, place, |row| PeerEntry {
        machine_reports: serde_json::from_str::<PeerReport>(&row.report)
            .map_or(0, |report| report.machine_reports.len() as u64),
        deployment: row.id,
        via: row.via,
        machines: row.machines,
        reported_at: row.reported_at,
    }))
}

/// A number of machines as it is told to others.
pub(in crate::service) fn count_word(strategy: MachineCount, machines: u64) -> String {
    match strategy {
        MachineCount::Unit => machines.to_string(),
        MachineCount::Bucket => bucket(machines),
    }
}

/// What this deployment reports upwards.
pub(in crate::service) async fn own_report(core: &Core) -> Result<PeerReport, ServiceError> {
    let config = &core.config.patch_sync;
    let deployment = if config.id.is_empty() {
        keys::deployment(&core.db).await?.to_string()
    } else {
        config.id.clone()
    };
    let hidden = if config.send_machine_reports {
        Some(keys::report_key(&core.db).await?)
    } else {
        None
    };
    let conn = core.db.conn().await?;
    let machines = rows::machines(&conn).await?;
    let mut machine_reports = Vec::new();
    if let Some(key) = hidden {
        if machines > MAX_MACHINES {
            tracing::warn!(
                machines,
                "only the first {MAX_MACHINES} machines are reported upwards one by one"
            );
        }
        let list = rows::machine_list(&conn, MAX_MACHINES as i64).await?;
        machine_reports = tokio::task::spawn_blocking(move || hide(&key, list))
            .await
            .map_err(|e| ServiceError::Internal(format!("hiding machine ids: {e}")))??;
    }
    Ok(PeerReport {
        deployment,
        machines: count_word(config.machine_count, machines),
        machine_reports,
    })
}

fn hide(key: &[u8], list: Vec<rows::MachineTold>) -> Result<Vec<MachineReport>, ServiceError> {
    let failed =
        |e: openssl::error::ErrorStack| ServiceError::Internal(format!("hiding machine ids: {e}"));
    let key = PKey::hmac(key).map_err(failed)?;
    list.into_iter()
        .map(|machine| {
            let mut signer = Signer::new(MessageDigest::sha256(), &key).map_err(failed)?;
            let mac = signer.sign_oneshot_to_vec(&machine.id.0).map_err(failed)?;
            Ok(MachineReport {
                machine: Sha256::try_from(mac.as_slice())?,
                tier: machine.tier,
                kernel: machine.kernel,
                architecture: Architecture::from_code(machine.architecture),
                state: MachineState::from_code(machine.state)
                    .unwrap_or(MachineState::Unknown)
                    .to_string(),
                patch: PatchVersion::from_code(machine.patch),
                last_check: machine.last_check,
            })
        })
        .collect()
}

/// Reports to the server above, if there is one of this kind; whether there is. A run that went well stays so if this fails.
pub async fn report_up(core: &Core) -> Result<bool, UpstreamError> {
    let config = &core.config.patch_sync;
    if !config.enabled || config.driver != SyncDriver::Peer {
        return Ok(false);
    }
    let report = own_report(core)
        .await
        .map_err(|e| UpstreamError::Local(format!("the report could not be made: {e}")))?;
    Peer::new(config, Vec::new())?.report(&report).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_its_range() {
        for (machines, range) in [
            (0, "0"),
            (1, "1-49"),
            (49, "1-49"),
            (50, "50-99"),
            (99, "50-99"),
            (100, "100-499"),
            (500, "500-999"),
            (1000, "1000-1999"),
            (2000, "2000-4999"),
            (5000, "5000-9999"),
            (9999, "5000-9999"),
            (10_000, "10000+"),
            (1_000_000, "10000+"),
            (u64::MAX, "10000+"),
        ] {
            assert_eq!(bucket(machines), range, "{machines}");
            assert!(is_count(range), "{range}");
        }
        assert!(is_count("1234"));
        for wrong in ["", "-", "1-", "-1", "+", "many", "1-2-3", "1 000", "1+2"] {
            assert!(!is_count(wrong), "{wrong}");
        }
    }
}
