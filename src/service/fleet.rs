//! Machines: lists with filters, one machine with its history, and what is decided about single ones.

use super::{Core, ServiceError, paging, text};
use crate::db::audit::{self, Actor, Entry};
use crate::db::filter::{Exactly, MachineFilter};
use crate::db::fleet::{self as rows, By, HistoryPlace, HistoryRow, MachineRow};
use crate::db::listen::Change;
use crate::db::{Conn, Run, Tx, machines};
use crate::domain::kernel::{KernelVersion, check_flavour};
use crate::domain::{Architecture, Fate, MachineId, PatchVersion, Selector, States, TierName};
use crate::wire::admin::{
    HistoryEntry, HistoryKind, HistoryQuery, Limit, Machine, MachineMove, MachineQuery,
    MachineRevoke, Page,
};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

/// Rows that the first slice of a page looks at.
const FIRST_SLICE: i64 = 2_000;
/// Rows that further slices look at, at most. Where more would be needed, the whole table is read instead. Measured with
/// a million machines on two shared cores: 5 ms for a thousand rows in the order of the key, 0.15 s for the table.
const MORE: i64 = 10_000;
/// Lines of history at exactly one time that a cursor may skip.
const MAX_SKIP: i64 = 10_000;

impl From<MachineRow> for Machine {
    fn from(row: MachineRow) -> Self {
        Self {
            machine_id: row.id,
            tier: row.tier,
            moved: row.moved,
            revoked_before: row.revoked_before,
            auth_token: row.auth_token,
            registered_at: row.registered_at,
            last_check: row.last_check,
            kernel: row.kernel,
            architecture: row.architecture,
            state: row.state,
            applied: row.applied,
            offered: row.offered,
            offered_at: row.offered_at,
            outcome: row.outcome.map(|outcome| outcome.as_str().to_owned()),
            supported: row.support,
            client_version: row.client_version,
            cpu_model: row.cpu_model,
            boot_time: row.boot_time,
            build_date: row.build_date,
            labels: row.labels,
        }
    }
}

/// Which machines, in words.
#[derive(Debug, Default)]
pub(super) struct Wanted<'q> {
    pub(super) tier: Option<&'q TierName>,
    pub(super) state: Option<&'q States>,
    pub(super) kernel: Option<&'q str>,
    pub(super) flavour: Option<&'q str>,
    pub(super) architecture: Option<Architecture>,
    pub(super) version: Option<PatchVersion>,
    pub(super) seen_before: Option<Timestamp>,
    pub(super) fate: Option<(PatchVersion, Fate)>,
    pub(super) selector: Option<&'q Selector>,
}

/// Turns words into codes and ids.
pub(super) async fn filter(
    core: &Core,
    run: &impl Run,
    wanted: &Wanted<'_>,
) -> Result<MachineFilter, ServiceError> {
    if let Some(kernel) = wanted.kernel {
        text::line("kernel", kernel, KernelVersion::MAX_LEN)?;
    }
    if let Some(flavour) = wanted.flavour {
        check_flavour(flavour)
            .map_err(|why| ServiceError::Invalid(format!("the flavour is not valid: {why}")))?;
    }
    let exactly = Exactly {
        tier_id: wanted.tier.map(|tier| known_tier(core, tier)).transpose()?,
        state: wanted.state,
        patch: wanted.version,
        kernel: wanted.kernel,
        flavour: wanted.flavour,
        architecture: wanted.architecture,
        seen_before: wanted.seen_before,
        fate: wanted.fate,
    };
    let all = Selector::default();
    let selector = wanted.selector.unwrap_or(&all);
    Ok(MachineFilter::resolve(run, &exactly, selector).await?)
}

/// The machines that a selector means.
pub(super) async fn selected(
    core: &Core,
    run: &impl Run,
    selector: &Selector,
) -> Result<MachineFilter, ServiceError> {
    let wanted = Wanted {
        selector: Some(selector),
        ..Wanted::default()
    };
    filter(core, run, &wanted).await
}

/// The database id of a tier.
pub(super) fn known_tier(core: &Core, name: &TierName) -> Result<i32, ServiceError> {
    let snapshot = core.snapshots.get();
    let tiers = snapshot.catalog.tiers();
    tiers
        .iter()
        .find(|tier| tier.name == *name)
        .map(|tier| tier.id)
        .ok_or_else(|| ServiceError::not_found("tier", name))
}

/// One page of machines by id.
pub(super) async fn page(
    conn: &Conn,
    filter: &MachineFilter,
    cursor: Option<&str>,
    limit: Option<Limit>,
) -> Result<Page<Machine>, ServiceError> {
    let after = paging::after("machines", cursor)?.unwrap_or(Uuid::nil());
    let limit = paging::limit(limit);
    let mut hits = if filter.is_empty() {
        Vec::new()
    } else {
        hits(conn, filter, after, limit + 1).await?
    };
    let more = hits.len() > limit;
    hits.truncate(limit);
    let rest = hits.last().copied().filter(|_| more);
    let items = rows::all_of(conn, &hits).await?;
    Ok(Page {
        items: items.into_iter().map(Machine::from).collect(),
        next_cursor: rest.map(|id| paging::encode("machines", &[&id])),
    })
}

/// The next machines that the filter lets through, `wanted` of them unless the table ends.
async fn hits(
    conn: &Conn,
    filter: &MachineFilter,
    mut after: Uuid,
    wanted: usize,
) -> Result<Vec<Uuid>, ServiceError> {
    let mut hits: Vec<Uuid> = Vec::new();
    let (mut scanned, mut size) = (0, FIRST_SLICE);
    loop {
        let missing = (wanted - hits.len()) as i64;
        let slice = rows::slice(conn, filter, after, size, missing).await?;
        hits.extend(slice.hits);
        scanned += slice.scanned;
        let missing = (wanted - hits.len()) as i64;
        let Some(last) = slice.last.filter(|_| missing > 0 && slice.scanned == size) else {
            return Ok(hits);
        };
        after = last;
        // As many rows as the page still needs if the filter goes on letting through as many as so far, and a few more.
        size = match hits.len() as i64 {
            0 => i64::MAX / 2,
            so_far => missing * scanned / so_far * 5 / 4 + 100,
        };
        if scanned + size > FIRST_SLICE + MORE {
            hits.extend(rows::sweep(conn, filter, after, missing).await?);
            return Ok(hits);
        }
    }
}

/// Machines that the query lets through, by id.
pub async fn list(core: &Core, query: &MachineQuery) -> Result<Page<Machine>, ServiceError> {
    if query.fate.is_some() && query.version.is_none() {
        return Err(ServiceError::Invalid(
            "a fate is that of a patch: give its version too".to_owned(),
        ));
    }
    let wanted = Wanted {
        tier: query.tier.as_ref(),
        state: query.state.as_ref(),
        kernel: query.kernel.as_deref(),
        flavour: query.flavour.as_deref(),
        architecture: query.architecture,
        version: query.version.filter(|_| query.fate.is_none()),
        seen_before: query.last_seen_before,
        fate: query.version.zip(query.fate),
        selector: query.selector.as_ref(),
    };
    let conn = core.db.conn().await?;
    let filter = filter(core, &conn, &wanted).await?;
    page(&conn, &filter, query.cursor.as_deref(), query.limit).await
}

/// One machine's row.
pub(super) async fn row(core: &Core, machine: MachineId) -> Result<MachineRow, ServiceError> {
    let conn = core.db.conn().await?;
    rows::find(&conn, machine)
        .await?
        .ok_or_else(|| missing(machine))
}

pub(super) fn missing(machine: MachineId) -> ServiceError {
    ServiceError::not_found("machine", machine)
}

/// One machine.
pub async fn show(core: &Core, machine: MachineId) -> Result<Machine, ServiceError> {
    Ok(row(core, machine).await?.into())
}

/// Writes the audit entry of a decision about a machine and commits; its place in the log.
async fn commit(tx: Tx<'_>, entry: Entry<'_>) -> Result<i64, ServiceError> {
    let seq = audit::append(&tx, entry, Change::Overrides).await?;
    tx.commit().await?;
    Ok(seq)
}

/// Moves a machine to a tier, whatever its auth token says.
pub async fn move_to(
    core: &Core,
    actor: &Actor,
    machine: MachineId,
    request: &MachineMove,
) -> Result<Machine, ServiceError> {
    let reason = text::reason(request.reason.as_deref())?;
    let seq = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        let tier_id = rows::tier_id(&tx, &request.tier)
            .await?
            .ok_or_else(|| ServiceError::not_found("tier", &request.tier))?;
        let before = rows::find(&tx, machine)
            .await?
            .ok_or_else(|| missing(machine))?;
        let by = By {
            actor: &actor.name,
            reason,
        };
        rows::move_to(&tx, machine, tier_id, by).await?;
        let entry = Entry {
            actor,
            action: "machine.move",
            target: &machine.to_string(),
            details: json!({ "from": before.tier, "to": request.tier, "reason": reason }),
        };
        commit(tx, entry).await?
    };
    core.changed(Some(Change::Overrides), seq).await;
    show(core, machine).await
}

/// Refuses the tokens a machine was given so far; it must be enabled again.
pub async fn revoke(
    core: &Core,
    actor: &Actor,
    machine: MachineId,
    request: &MachineRevoke,
) -> Result<Machine, ServiceError> {
    let reason = text::reason(request.reason.as_deref())?;
    let seq = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        if !rows::lock(&tx, machine).await? {
            return Err(missing(machine));
        }
        let by = By {
            actor: &actor.name,
            reason,
        };
        rows::revoke(&tx, machine, Timestamp::now(), by).await?;
        let entry = Entry {
            actor,
            action: "machine.revoke",
            target: &machine.to_string(),
            details: json!({ "reason": reason }),
        };
        commit(tx, entry).await?
    };
    core.changed(Some(Change::Overrides), seq).await;
    show(core, machine).await
}

/// Deletes what is known of a machine: its row, history, pings, and the tier it was moved to. That it is revoked stays.
/// A machine that still has a good token comes back with its next check-in.
pub async fn forget(core: &Core, actor: &Actor, machine: MachineId) -> Result<(), ServiceError> {
    let seq = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        if !machines::delete(&tx, machine).await? {
            return Err(missing(machine));
        }
        let lines = rows::forget_history(&tx, machine).await?;
        let entry = Entry {
            actor,
            action: "machine.forget",
            target: &machine.to_string(),
            details: json!({ "history-lines": lines }),
        };
        commit(tx, entry).await?
    };
    core.changed(Some(Change::Overrides), seq).await;
    Ok(())
}

impl From<HistoryRow> for HistoryEntry {
    fn from(row: HistoryRow) -> Self {
        let kind = if row.ping.is_some() {
            HistoryKind::Ping
        } else {
            HistoryKind::Report
        };
        let (ping_type, message) = row.ping.unzip();
        Self {
            at: row.at,
            kind,
            kernel: row.kernel,
            architecture: row.architecture,
            state: row.state,
            applied: row.patch,
            tier: row.tier,
            offered: row.offered,
            outcome: row.outcome.map(|outcome| outcome.as_str().to_owned()),
            ping_type,
            message: message.filter(|text| !text.is_empty()),
        }
    }
}

/// A machine's check-ins and pings, newest first.
pub async fn history(
    core: &Core,
    machine: MachineId,
    query: &HistoryQuery,
) -> Result<Page<HistoryEntry>, ServiceError> {
    let mut place = HistoryPlace::default();
    if let Some(cursor) = &query.cursor {
        let [at, skip] = paging::decode("history", cursor)?;
        place.at = Some(paging::time(&at)?);
        place.skip = paging::part::<u16>(&skip)?.into();
    }
    let limit = paging::limit(query.limit);
    let conn = core.db.conn().await?;
    let range = (query.since, query.until);
    let mut lines = rows::history(&conn, machine, range, place, limit as i64 + 1).await?;
    if lines.is_empty() && query.cursor.is_none() && rows::find(&conn, machine).await?.is_none() {
        return Err(missing(machine));
    }
    let more = lines.len() > limit;
    lines.truncate(limit);
    let next_cursor = lines.last().filter(|_| more).map(|last| {
        let given = lines.iter().filter(|line| line.at == last.at).count() as i64;
        let before = if place.at == Some(last.at) {
            place.skip
        } else {
            0
        };
        let skip = (given + before).min(MAX_SKIP);
        paging::encode("history", &[&last.at.as_microsecond(), &skip])
    });
    Ok(Page {
        items: lines.into_iter().map(HistoryEntry::from).collect(),
        next_cursor,
    })
}
