//! Captures: which requests are recorded, for how long, and what was recorded.

use super::run::{DbError, Run};
use super::statements;
use crate::domain::MachineId;
use jiff::Timestamp;
use std::net::IpAddr;
use std::time::Duration;
use tokio_postgres::Row;
use uuid::Uuid;

/// A capture as [`CaptureRow::from_row`] reads it.
macro_rules! capture {
    ($head:literal, $tail:literal) => {
        concat!(
            $head,
            " id, machine_id, address, until, max_records, recorded, created_at, actor,
            until > now() and recorded < max_records ",
            $tail
        )
    };
}

statements! {
    INSERT_CAPTURE = capture!("insert into captures (machine_id, address, until, max_records, actor)
        values ($1, $2, now() + make_interval(secs => $3), $4, $5) returning", "");
    SELECT_ACTIVE_CAPTURES = capture!("select", "from captures where until > now() and recorded < max_records order by id");
    SELECT_CAPTURE = capture!("select", "from captures where id = $1");
    SELECT_CAPTURES = capture!("select", "from captures where ($1::bigint is null or id < $1) order by id desc limit $2");
    DELETE_CAPTURE = capture!("delete from captures where id = $1 returning", "");
    PURGE_CAPTURES = "delete from captures where until < now() - make_interval(secs => $1)";
    INSERT_CAPTURE_RECORD = "with room as (
            update captures set recorded = recorded + 1
            where id = $1 and recorded < max_records and until > now()
            returning id, recorded < max_records as more)
        insert into capture_records (capture_id, record) select id, $2 from room
        returning (select more from room)";
    SELECT_CAPTURE_RECORDS = "select at, record from capture_records where capture_id = $1 order by id";
}

/// A capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureRow {
    /// Id.
    pub id: i64,
    /// Requests of this machine.
    pub machine: Option<MachineId>,
    /// Requests from this address.
    pub address: Option<IpAddr>,
    /// When it ends.
    pub until: Timestamp,
    /// It ends after so many records.
    pub max_records: i32,
    /// Records so far.
    pub recorded: i32,
    /// When it began.
    pub created_at: Timestamp,
    /// Who began it.
    pub actor: String,
    /// Whether it records.
    pub active: bool,
}

impl CaptureRow {
    fn from_row(row: &Row) -> Self {
        Self {
            id: row.get(0),
            machine: row
                .get::<_, Option<Uuid>>(1)
                .map(|id| MachineId(id.into_bytes())),
            address: row.get(2),
            until: row.get(3),
            max_records: row.get(4),
            recorded: row.get(5),
            created_at: row.get(6),
            actor: row.get(7),
            active: row.get(8),
        }
    }
}

/// A new capture.
#[derive(Debug)]
pub struct NewCapture<'a> {
    /// Requests of this machine.
    pub machine: Option<MachineId>,
    /// Requests from this address.
    pub address: Option<IpAddr>,
    /// For how long.
    pub time: Duration,
    /// At most so many records.
    pub max_records: i32,
    /// Who begins it.
    pub actor: &'a str,
}

/// Begins a capture.
pub async fn insert(run: &impl Run, new: &NewCapture<'_>) -> Result<CaptureRow, DbError> {
    let row = run
        .one(
            &INSERT_CAPTURE,
            &[
                &new.machine.map(|machine| Uuid::from_bytes(machine.0)),
                &new.address,
                &new.time.as_secs_f64(),
                &new.max_records,
                &new.actor,
            ],
        )
        .await?;
    Ok(CaptureRow::from_row(&row))
}

/// Captures that record now.
pub async fn active(run: &impl Run) -> Result<Vec<CaptureRow>, DbError> {
    let rows = run.rows(&SELECT_ACTIVE_CAPTURES, &[]).await?;
    Ok(rows.iter().map(CaptureRow::from_row).collect())
}

/// One capture.
pub async fn find(run: &impl Run, id: i64) -> Result<Option<CaptureRow>, DbError> {
    let row = run.opt(&SELECT_CAPTURE, &[&id]).await?;
    Ok(row.as_ref().map(CaptureRow::from_row))
}

/// Captures, newest first.
pub async fn page(
    run: &impl Run,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<CaptureRow>, DbError> {
    let rows = run.rows(&SELECT_CAPTURES, &[&before, &limit]).await?;
    Ok(rows.iter().map(CaptureRow::from_row).collect())
}

/// Ends a capture and deletes what it recorded; the capture, if there was one.
pub async fn delete(run: &impl Run, id: i64) -> Result<Option<CaptureRow>, DbError> {
    let row = run.opt(&DELETE_CAPTURE, &[&id]).await?;
    Ok(row.as_ref().map(CaptureRow::from_row))
}

/// Deletes captures that ended so long ago; how many.
pub async fn purge(run: &impl Run, age: Duration) -> Result<u64, DbError> {
    run.exec(&PURGE_CAPTURES, &[&age.as_secs_f64()]).await
}

/// Stores a record if the capture still records; whether it will take another one.
pub async fn record(run: &impl Run, id: i64, record: &str) -> Result<bool, DbError> {
    let row = run.opt(&INSERT_CAPTURE_RECORD, &[&id, &record]).await?;
    Ok(row.is_some_and(|row| row.get::<_, Option<bool>>(0) == Some(true)))
}

/// What a capture recorded, in order.
pub async fn records(run: &impl Run, id: i64) -> Result<Vec<(Timestamp, String)>, DbError> {
    let rows = run.rows(&SELECT_CAPTURE_RECORDS, &[&id]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
