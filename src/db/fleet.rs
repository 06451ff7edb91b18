//! Machines as administrators see them: facts with their words, filters, history, and what was decided about single
//! ones. What check-ins write is in `machines`.
//!
//! No index stands on what a check-in changes, so a filter reads rows: first a slice of the primary key, which holds a
//! page of any filter that lets enough through, and otherwise the whole table, which is much faster in the order in which
//! it lies there than in that of the key. A label that must have a certain value is in an index: only its machines are read.

use super::filter::{MachineFilter, matching, source};
use super::run::{DbError, Run};
use super::statements;
use crate::domain::{Architecture, MachineId, MachineState, PatchVersion, TierName};
use crate::rollout::Outcome;
use jiff::{Timestamp, civil::Date};
use std::collections::BTreeMap;
use tokio_postgres::Row;
use uuid::Uuid;

/// A machine with its words; see [`MachineRow::from_row`].
macro_rules! machine {
    ($from:literal, $rest:literal) => {
        concat!(
            "select m.id, t.name, o.tier_id is not null, o.revoked_before, a.name, m.registered_at, m.last_check,
            k.text, m.architecture, m.state, m.patch, m.offered, m.offered_at, m.outcome, m.support, c.text, p.text,
            m.boot_time, m.build_date, m.auth_token_id, m.tier_id,
            (select jsonb_object_agg(l.key, l.value) from machine_labels l where l.machine_id = m.id) from ",
            $from,
            " left join machine_overrides o on o.machine_id = m.id
            join tiers t on t.id = coalesce(o.tier_id, m.tier_id)
            left join auth_tokens a on a.id = m.auth_token_id
            left join words k on k.id = m.kernel_id
            left join words c on c.id = m.client_version_id
            left join words p on p.id = m.cpu_model_id ",
            $rest
        )
    };
}

/// See [`slice`].
macro_rules! slice {
    ($($rows:tt)+) => {
        concat!(
            "with slice as materialized (
            select m.id, m.tier_id, m.state, m.kernel_id, m.architecture, m.patch, m.offered, m.last_check",
            $($rows)+,
            "),
        hits as (select m.id from slice m where ",
            matching!(),
            " order by m.id limit $18)
        select (select count(*) from slice), (select id from slice order by id desc limit 1),
            coalesce((select array_agg(id order by id) from hits), '{}')"
        )
    };
}

/// See [`sweep`].
macro_rules! swept {
    ($source:ident, $id:literal) => {
        concat!(
            "with hits as materialized (select m.id",
            source!($source),
            $id,
            " > $16 and ",
            matching!(),
            ")
        select coalesce(array_agg(id order by id), '{}') from (select id from hits order by id limit $17) page"
        )
    };
}

statements! {
    SELECT_TIER_FOR_USE = "select id from tiers where name = $1 for key share";
    SELECT_MACHINE = machine!("machines m", "where m.id = $1");
    SELECT_MACHINES = machine!("machines m", "where m.id = any ($1::uuid[]) order by m.id");
    SELECT_MACHINE_SLICE = slice!(source!(all), "m.id > $16 order by m.id limit $17");
    // Limited before it is joined: a join by merging would begin at the first machine, and take longer with each page.
    SELECT_MACHINE_SLICE_LED = slice!(" from (select machine_id from machine_labels
            where key = $10 and value = $11 and machine_id > $16 order by machine_id limit $17) d
        join machines m on m.id = d.machine_id");
    SELECT_MACHINES_SWEPT = swept!(all, "m.id");
    SELECT_MACHINES_SWEPT_LED = swept!(led, "d.machine_id");
    MOVE_MACHINE = "update machines set tier_id = $2 where id = $1";
    UPSERT_MOVE = "insert into machine_overrides (machine_id, tier_id, actor, reason) values ($1, $2, $3, $4)
        on conflict (machine_id) do update set tier_id = excluded.tier_id, at = now(), actor = excluded.actor,
            reason = excluded.reason";
    UPSERT_REVOKE = "insert into machine_overrides (machine_id, revoked_before, actor, reason)
        values ($1, greatest(now(), $2, (select registered_at + interval '1 microsecond' from machines where id = $1)), $3, $4)
        on conflict (machine_id) do update set revoked_before = greatest(excluded.revoked_before, machine_overrides.revoked_before),
            at = now(), actor = excluded.actor, reason = excluded.reason";
    LOCK_MACHINE = "select id from machines where id = $1 for update";
    DELETE_MACHINE_REPORTS = "delete from machine_reports where machine_id = $1";
    DELETE_MACHINE_PINGS = "delete from pings where machine_id = $1";
    DELETE_OVERRIDE = "delete from machine_overrides where machine_id = $1 and revoked_before is null";
    CLEAR_OVERRIDE_TIER = "update machine_overrides set tier_id = null where machine_id = $1";
    SELECT_HISTORY = "with line as (
            (select at, 0 as kind, kernel_id, architecture, state, patch, tier_id, offered, outcome, null::text as ping_type,
                null::text as message
            from machine_reports
            where machine_id = $1 and at <= coalesce($2, 'infinity'::timestamptz) and at < coalesce($3, 'infinity'::timestamptz)
              and at >= coalesce($4, '-infinity'::timestamptz)
            order by at desc, kernel_id, architecture, state, patch, tier_id, offered, outcome limit $5::bigint + $6::bigint)
            union all
            (select at, 1, kernel_id, architecture, state, patch, null, null, null, ping_type, message
            from pings
            where machine_id = $1 and at <= coalesce($2, 'infinity'::timestamptz) and at < coalesce($3, 'infinity'::timestamptz)
              and at >= coalesce($4, '-infinity'::timestamptz)
            order by at desc, ping_type, kernel_id, architecture, state, patch, message limit $5::bigint + $6::bigint))
        select l.at, l.kind, k.text, l.architecture, l.state, l.patch, t.name, l.offered, l.outcome, l.ping_type, l.message
        from line l left join words k on k.id = l.kernel_id left join tiers t on t.id = l.tier_id
        order by l.at desc, l.kind, l.ping_type, l.kernel_id, l.architecture, l.state, l.patch, l.tier_id, l.offered,
            l.outcome, l.message
        limit $5::bigint offset $6::bigint";
}

/// A machine with its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineRow {
    /// Identity.
    pub id: MachineId,
    /// Its tier.
    pub tier: TierName,
    /// It was moved there.
    pub moved: bool,
    /// Its tokens issued before this are refused.
    pub revoked_before: Option<Timestamp>,
    /// Name of the auth token that enabled it.
    pub auth_token: Option<String>,
    /// Database id of that token.
    pub auth_token_id: Option<i32>,
    /// The tier that stands in its row.
    pub tier_id: i32,
    /// When it was enabled.
    pub registered_at: Timestamp,
    /// When it last checked in.
    pub last_check: Option<Timestamp>,
    /// Kernel as reported.
    pub kernel: Option<String>,
    /// Architecture, where known.
    pub architecture: Option<Architecture>,
    /// State as reported.
    pub state: MachineState,
    /// Applied patch.
    pub applied: Option<PatchVersion>,
    /// Patch it was last offered.
    pub offered: Option<PatchVersion>,
    /// When that was.
    pub offered_at: Option<Timestamp>,
    /// Kind of the last answer.
    pub outcome: Option<Outcome>,
    /// What the table of supported kernels says.
    pub support: crate::domain::KernelSupport,
    /// Version of its client.
    pub client_version: Option<String>,
    /// CPU model.
    pub cpu_model: Option<String>,
    /// When it was started.
    pub boot_time: Option<Timestamp>,
    /// The day its kernel was built.
    pub build_date: Option<Date>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The state of this code; one that only a newer version knows is unknown.
pub(super) fn state(code: i16) -> MachineState {
    MachineState::from_code(code).unwrap_or(MachineState::Unknown)
}

impl MachineRow {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        let state = state(row.get(9));
        Ok(Self {
            id: MachineId(row.get::<_, Uuid>(0).into_bytes()),
            tier: row.get::<_, &str>(1).parse()?,
            moved: row.get(2),
            revoked_before: row.get(3),
            auth_token: row.get(4),
            registered_at: row.get(5),
            last_check: row.get(6),
            kernel: row.get(7),
            architecture: Architecture::from_code(row.get(8)),
            state,
            applied: PatchVersion::from_code(row.get(10)).filter(|_| state.runs_patch()),
            offered: PatchVersion::from_code(row.get(11)),
            offered_at: row.get(12),
            outcome: Outcome::from_code(row.get(13)),
            support: crate::domain::KernelSupport::from_code(row.get(14))
                .unwrap_or(crate::domain::KernelSupport::Unknown),
            client_version: row.get(15),
            cpu_model: row.get(16),
            boot_time: row.get(17),
            build_date: row.get(18),
            auth_token_id: row.get(19),
            tier_id: row.get(20),
            labels: match row.get(21) {
                Some(labels) => serde_json::from_value(labels)
                    .map_err(|e| DbError::Row(format!("labels of a machine: {e}")))?,
                None => BTreeMap::new(),
            },
        })
    }
}

/// The database id of a tier, which cannot be deleted until the transaction ends; `None` if there is none of this name.
pub async fn tier_id(run: &impl Run, name: &TierName) -> Result<Option<i32>, DbError> {
    let row = run.opt(&SELECT_TIER_FOR_USE, &[&name.as_str()]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// One machine.
pub async fn find(run: &impl Run, machine: MachineId) -> Result<Option<MachineRow>, DbError> {
    let row = run
        .opt(&SELECT_MACHINE, &[&Uuid::from_bytes(machine.0)])
        .await?;
    row.as_ref().map(MachineRow::from_row).transpose()
}

/// These machines, by id.
pub async fn all_of(run: &impl Run, ids: &[Uuid]) -> Result<Vec<MachineRow>, DbError> {
    let rows = run.rows(&SELECT_MACHINES, &[&ids]).await?;
    rows.iter().map(MachineRow::from_row).collect()
}

/// What a slice of the table holds.
#[derive(Debug)]
pub struct Slice {
    /// Rows looked at.
    pub scanned: i64,
    /// The last of them; `None` after the end of the table.
    pub last: Option<Uuid>,
    /// Those that the filter lets through, by id, as many as were asked for.
    pub hits: Vec<Uuid>,
}

/// Looks at the next `size` rows after a machine and gives at most `limit` that the filter lets through.
pub async fn slice(
    run: &impl Run,
    filter: &MachineFilter,
    after: Uuid,
    size: i64,
    limit: i64,
) -> Result<Slice, DbError> {
    let sql = filter.pick(&SELECT_MACHINE_SLICE, &SELECT_MACHINE_SLICE_LED);
    let params = filter.params_of_slice(&[&after, &size, &limit]);
    let row = run.one(sql, &params).await?;
    Ok(Slice {
        scanned: row.get(0),
        last: row.get(1),
        hits: row.get(2),
    })
}

/// At most `limit` machines after one that the filter lets through, by id, of the whole table.
pub async fn sweep(
    run: &impl Run,
    filter: &MachineFilter,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Uuid>, DbError> {
    let sql = filter.pick(&SELECT_MACHINES_SWEPT, &SELECT_MACHINES_SWEPT_LED);
    let row = run.one(sql, &filter.params(&[&after, &limit])).await?;
    Ok(row.get(0))
}

/// Locks a machine's row; `false` if there is none.
pub async fn lock(run: &impl Run, machine: MachineId) -> Result<bool, DbError> {
    let row = run
        .opt(&LOCK_MACHINE, &[&Uuid::from_bytes(machine.0)])
        .await?;
    Ok(row.is_some())
}

/// Who decides about a machine, and why.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// Administrator.
    pub actor: &'a str,
    /// Reason; may be empty.
    pub reason: &'a str,
}

/// Moves a machine to a tier, whatever its auth token says.
pub async fn move_to(
    run: &impl Run,
    machine: MachineId,
    tier_id: i32,
    by: By<'_>,
) -> Result<(), DbError> {
    let id = Uuid::from_bytes(machine.0);
    run.exec(&MOVE_MACHINE, &[&id, &tier_id]).await?;
    run.exec(&UPSERT_MOVE, &[&id, &tier_id, &by.actor, &by.reason])
        .await
        .map(|_| ())
}

/// Refuses a machine's tokens issued until now. `now` is the server's clock, which stamps tokens; the database's may
/// differ, and so may the clock that stamped the machine's own token: the latest one counts.
pub async fn revoke(
    run: &impl Run,
    machine: MachineId,
    now: Timestamp,
    by: By<'_>,
) -> Result<(), DbError> {
    let id = Uuid::from_bytes(machine.0);
    run.exec(&UPSERT_REVOKE, &[&id, &now, &by.actor, &by.reason])
        .await
        .map(|_| ())
}

/// Deletes a machine's history and pings, and what was decided about it but that it is revoked; how many lines.
pub async fn forget_history(run: &impl Run, machine: MachineId) -> Result<u64, DbError> {
    let id = Uuid::from_bytes(machine.0);
    let lines = run.exec(&DELETE_MACHINE_REPORTS, &[&id]).await?
        + run.exec(&DELETE_MACHINE_PINGS, &[&id]).await?;
    run.exec(&DELETE_OVERRIDE, &[&id]).await?;
    run.exec(&CLEAR_OVERRIDE_TIER, &[&id]).await?;
    Ok(lines)
}

/// A line of a machine's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// When.
    pub at: Timestamp,
    /// Kernel as reported.
    pub kernel: Option<String>,
    /// Architecture, where known.
    pub architecture: Option<Architecture>,
    /// State as reported.
    pub state: MachineState,
    /// The patch it is about.
    pub patch: Option<PatchVersion>,
    /// With a check-in: its tier then, unless the tier is gone.
    pub tier: Option<TierName>,
    /// With a check-in: what it was offered.
    pub offered: Option<PatchVersion>,
    /// With a check-in: kind of the answer.
    pub outcome: Option<Outcome>,
    /// With a ping: its type and message.
    pub ping: Option<(String, String)>,
}

/// Where a page of history begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct HistoryPlace {
    /// Not after this.
    pub at: Option<Timestamp>,
    /// Lines of exactly that time that were given already.
    pub skip: i64,
}

/// A machine's check-ins and pings, newest first.
pub async fn history(
    run: &impl Run,
    machine: MachineId,
    (since, until): (Option<Timestamp>, Option<Timestamp>),
    place: HistoryPlace,
    limit: i64,
) -> Result<Vec<HistoryRow>, DbError> {
    let rows = run
        .rows(
            &SELECT_HISTORY,
            &[
                &Uuid::from_bytes(machine.0),
                &place.at,
                &until,
                &since,
                &limit,
                &place.skip,
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let ping: Option<String> = row.get(9);
            let tier: Option<&str> = row.get(6);
            Ok(HistoryRow {
                at: row.get(0),
                kernel: row.get(2),
                architecture: Architecture::from_code(row.get(3)),
                state: state(row.get(4)),
                patch: PatchVersion::from_code(row.get(5)),
                tier: tier.map(str::parse).transpose()?,
                offered: row
                    .get::<_, Option<i64>>(7)
                    .and_then(PatchVersion::from_code),
                outcome: row.get::<_, Option<i16>>(8).and_then(Outcome::from_code),
                ping: ping.map(|kind| (kind, row.get::<_, Option<String>>(10).unwrap_or_default())),
            })
        })
        .collect()
}
