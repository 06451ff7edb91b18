//! Machines as their check-ins leave them: registration, the grouped write of check-ins, history and pings.
//! The administrator's views of machines are in `fleet`.

use super::run::{Conn, DbError, Run};
use super::statements;
use crate::domain::{Labels, MachineId};
use jiff::{Timestamp, civil::Date};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// What a check-in changes of a machine `m`: what is not reported this time stays as it was, and the time of an offer is
/// that of the first check-in at which it was made. `tried` is the highest offer, which stays when the
/// machine has taken it, and when it is offered a lower one because that one was stopped.
macro_rules! reported {
    ($new:literal) => {
        concat!(
            "tier_id = ",
            $new,
            ".tier_id, auth_token_id = ",
            $new,
            ".auth_token_id, last_check = ",
            $new,
            ".last_check,
            kernel_id = coalesce(",
            $new,
            ".kernel_id, m.kernel_id),
            client_version_id = coalesce(",
            $new,
            ".client_version_id, m.client_version_id),
            cpu_model_id = coalesce(",
            $new,
            ".cpu_model_id, m.cpu_model_id),
            boot_time = coalesce(",
            $new,
            ".boot_time, m.boot_time),
            build_date = coalesce(",
            $new,
            ".build_date, m.build_date), patch = ",
            $new,
            ".patch,
            offered_at = case when ",
            $new,
            ".offered = 0 then null
                when ",
            $new,
            ".offered = m.offered then m.offered_at else ",
            $new,
            ".last_check end,
            tried_at = case when ",
            $new,
            ".offered > m.tried then ",
            $new,
            ".last_check else m.tried_at end,
            tried = greatest(m.tried, ",
            $new,
            ".offered),
            offered = ",
            $new,
            ".offered, architecture = ",
            $new,
            ".architecture, state = ",
            $new,
            ".state,
            outcome = ",
            $new,
            ".outcome, support = ",
            $new,
            ".support"
        )
    };
}

/// The check-ins of a group as rows, one array for each column.
macro_rules! given {
    () => {
        "unnest($1::uuid[], $2::int[], $3::int[], $4::timestamptz[], $5::int[], $6::int[], $7::int[],
                $8::timestamptz[], $9::date[], $10::bigint[], $11::bigint[], $12::smallint[], $13::smallint[],
                $14::smallint[], $15::smallint[])
            as v(id, tier_id, auth_token_id, last_check, kernel_id, client_version_id, cpu_model_id, boot_time, build_date,
                patch, offered, architecture, state, outcome, support)"
    };
}

statements! {
    // One statement and so one transaction. The token's labels take the place of those of the token before; what a person set
    // stays and counts first where they would be too many together ($7).
    REGISTER_MACHINE = "with mine as materialized (
            select key from machine_labels where machine_id = $1 and not from_token for update),
        given as materialized (
            select t.key, t.value from unnest($5::text[], $6::text[]) t(key, value)
            where t.key not in (select mine.key from mine)
            order by t.key limit greatest(0, $7::bigint - (select count(*) from mine))),
        outdated as (
            delete from machine_labels
            where machine_id = $1 and from_token and key not in (select given.key from given)),
        written as (
            insert into machine_labels (machine_id, key, value, from_token)
            select $1, given.key, given.value, true from given
            on conflict (machine_id, key) do update set value = excluded.value
                where machine_labels.from_token and machine_labels.value <> excluded.value)
        insert into machines (id, tier_id, auth_token_id, registered_at, state)
        values ($1, $2, $3, $4, 4)
        on conflict (id) do update set tier_id = excluded.tier_id, auth_token_id = excluded.auth_token_id,
            registered_at = excluded.registered_at";
    DELETE_MACHINE = "delete from machines where id = $1";
    SELECT_MACHINE_INFO = "select registered_at, last_check from machines where id = $1";
    // Nearly always every machine is known: then this is all, one statement and so one transaction, one way there and back and one
    // commit.
    UPDATE_CHECK_INS = concat!("update machines m set ", reported!("v"), " from ", given!(), " where m.id = v.id");
    // As well one statement: what is known is updated, what is not is inserted, and if another replica inserts the same machine in
    // this moment, that row is updated as well.
    WRITE_CHECK_INS = concat!("with v as materialized (select * from ", given!(), "),
        hit as (update machines m set ", reported!("v"), " from v where m.id = v.id returning m.id),
        history as (
            insert into machine_reports (at, machine_id, tier_id, kernel_id, patch, offered, architecture, state, outcome)
            select v.last_check, v.id, v.tier_id, v.kernel_id, v.patch, v.offered, v.architecture, v.state, v.outcome
            from v where $16::bool)
        insert into machines as m (id, tier_id, auth_token_id, registered_at, last_check, kernel_id,
            client_version_id, cpu_model_id, boot_time, build_date, patch, offered, offered_at, tried, tried_at, architecture, state,
            outcome, support)
        select v.id, v.tier_id, v.auth_token_id, v.last_check, v.last_check, v.kernel_id, v.client_version_id,
            v.cpu_model_id, v.boot_time, v.build_date, v.patch, v.offered,
            case when v.offered = 0 then null else v.last_check end, v.offered,
            case when v.offered = 0 then null else v.last_check end, v.architecture, v.state, v.outcome, v.support
        from v where v.id not in (select hit.id from hit)
        on conflict (id) do update set ", reported!("excluded"));
    INSERT_PING = "insert into pings (machine_id, ping_type, kernel_id, patch, architecture, state, message)
        values ($1, $2, $3, $4, $5, $6, $7)";
}

/// One check-in, ready to be written. Versions are codes (`0`: none); texts are ids of words.
#[derive(Debug, Clone)]
pub struct CheckInRow {
    /// Machine.
    pub machine: MachineId,
    /// Its tier now.
    pub tier_id: i32,
    /// Auth token it registered with.
    pub auth_token_id: Option<i32>,
    /// When the server received it.
    pub at: Timestamp,
    /// Kernel.
    pub kernel_id: Option<i32>,
    /// Client version.
    pub client_version_id: Option<i32>,
    /// CPU model.
    pub cpu_model_id: Option<i32>,
    /// Boot time, as reported.
    pub boot_time: Option<Timestamp>,
    /// Kernel's build date, as reported.
    pub build_date: Option<Date>,
    /// Applied patch.
    pub patch: i64,
    /// Offered patch.
    pub offered: i64,
    /// Architecture's code.
    pub architecture: i16,
    /// State's code.
    pub state: i16,
    /// Outcome's code.
    pub outcome: i16,
    /// Kernel support's code.
    pub support: i16,
}

/// Registers a machine, or registers it anew, with the labels of its auth token.
pub async fn register(
    run: &impl Run,
    machine: MachineId,
    tier_id: i32,
    (auth_token, labels): (i32, &Labels),
    at: Timestamp,
) -> Result<(), DbError> {
    let (keys, values) = super::labels::columns(labels);
    run.exec(
        &REGISTER_MACHINE,
        &[
            &Uuid::from_bytes(machine.0),
            &tier_id,
            &Some(auth_token),
            &at,
            &keys,
            &values,
            &(Labels::MAX as i64),
        ],
    )
    .await
    .map(|_| ())
}

/// Removes a machine's row; `false` if there was none.
pub async fn delete(run: &impl Run, machine: MachineId) -> Result<bool, DbError> {
    Ok(run
        .exec(&DELETE_MACHINE, &[&Uuid::from_bytes(machine.0)])
        .await?
        > 0)
}

/// When a machine registered and last checked in; `None` if it is not known.
pub async fn info(
    run: &impl Run,
    machine: MachineId,
) -> Result<Option<(Timestamp, Option<Timestamp>)>, DbError> {
    let row = run
        .opt(&SELECT_MACHINE_INFO, &[&Uuid::from_bytes(machine.0)])
        .await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Writes a group of check-ins, which are committed when this returns.
/// `rows` must hold each machine once and be sorted by machine, so that two replicas cannot deadlock.
/// With `history` each is also appended to `machine_reports`.
pub async fn write_check_ins<'a>(
    conn: &Conn,
    rows: impl Iterator<Item = &'a CheckInRow> + Clone,
    history: bool,
) -> Result<(), DbError> {
    macro_rules! column {
        ($field:ident) => {
            &rows.clone().map(|r| r.$field).collect::<Vec<_>>()
        };
    }
    let ids: Vec<Uuid> = rows
        .clone()
        .map(|r| Uuid::from_bytes(r.machine.0))
        .collect();
    let columns: [&(dyn ToSql + Sync); 16] = [
        &ids,
        column!(tier_id),
        column!(auth_token_id),
        column!(at),
        column!(kernel_id),
        column!(client_version_id),
        column!(cpu_model_id),
        column!(boot_time),
        column!(build_date),
        column!(patch),
        column!(offered),
        column!(architecture),
        column!(state),
        column!(outcome),
        column!(support),
        &history,
    ];
    if !history {
        let known = conn.exec(&UPDATE_CHECK_INS, &columns[..15]).await?;
        if known == ids.len() as u64 {
            return Ok(());
        }
    }
    conn.exec(&WRITE_CHECK_INS, &columns).await.map(|_| ())
}

/// A ping, ready to be written.
#[derive(Debug, Clone)]
pub struct PingRow {
    /// Machine.
    pub machine: MachineId,
    /// Type, from the closed list.
    pub ping_type: &'static str,
    /// Kernel.
    pub kernel_id: Option<i32>,
    /// Patch's code.
    pub patch: i64,
    /// Architecture's code.
    pub architecture: i16,
    /// State's code.
    pub state: i16,
    /// What the client says, cut to a bound.
    pub message: String,
}

/// Stores a ping.
pub async fn insert_ping(run: &impl Run, ping: &PingRow) -> Result<(), DbError> {
    run.exec(
        &INSERT_PING,
        &[
            &Uuid::from_bytes(ping.machine.0),
            &ping.ping_type,
            &ping.kernel_id,
            &ping.patch,
            &ping.architecture,
            &ping.state,
            &ping.message,
        ],
    )
    .await
    .map(|_| ())
}
