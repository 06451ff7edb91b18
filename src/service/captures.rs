//! Capture mode: an operator turns it on for a machine or an address, for a bounded time and number of requests, and
//! gets the requests with their secrets masked. Off, it costs one load of a pointer per request.

use super::{Core, ServiceError, masking, paging};
use crate::db::audit::{self, Actor, Entry};
use crate::db::captures::{self as rows, CaptureRow, NewCapture};
use crate::db::listen::Change;
use crate::db::{Db, DbError};
use crate::domain::MachineId;
use crate::wire::admin::{Capture, CaptureContent, CaptureRecord, CaptureStart, Page, PageQuery};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The longest time of a capture.
const MAX_TIME: Duration = Duration::from_hours(24);
/// The most records of a capture.
const MAX_RECORDS: u32 = 500;
/// Records of a capture that does not say how many.
const RECORDS: u32 = 100;
/// The most captures that record at once.
const MAX_ACTIVE: usize = 20;
/// What a capture recorded is deleted so long after its end.
const KEPT: Duration = Duration::from_hours(7 * 24);

/// A capture that records.
#[derive(Debug)]
struct Active {
    id: i64,
    machine: Option<MachineId>,
    address: Option<IpAddr>,
    until: Timestamp,
    /// It has taken its last record, or was ended elsewhere.
    full: AtomicBool,
}

impl Active {
    fn wants(&self, machine: Option<&MachineId>, address: IpAddr) -> bool {
        let machine_fits = self.machine.is_none_or(|wanted| machine == Some(&wanted));
        let address_fits = self.address.is_none_or(|wanted| wanted == address);
        machine_fits && address_fits && !self.full.load(Ordering::Relaxed)
    }
}

/// The captures that record now, as this replica knows them. Reload after [`Change::Captures`] and on connecting.
#[derive(Debug, Default)]
pub struct Captures {
    active: ArcSwap<Vec<Active>>,
}

impl Captures {
    /// Reads the captures that record.
    pub async fn load(db: &Db) -> Result<Self, DbError> {
        let captures = Self::default();
        captures.reload(db).await?;
        Ok(captures)
    }

    /// Reads them again.
    pub async fn reload(&self, db: &Db) -> Result<(), DbError> {
        let conn = db.conn().await?;
        let active = rows::active(&conn).await?.into_iter().map(|row| Active {
            id: row.id,
            machine: row.machine,
            address: row.address.map(|address| address.to_canonical()),
            until: row.until,
            full: AtomicBool::new(false),
        });
        self.active.store(Arc::new(active.collect()));
        Ok(())
    }

    /// Reads them again after a change that is committed. A failure is logged and not told: the change stands, and the
    /// captures are read again when the database is back.
    async fn changed(&self, db: &Db) {
        if let Err(error) = self.reload(db).await {
            tracing::warn!(%error, "the captures could not be read again after a change");
        }
    }

    /// Whether nothing is captured now, from nobody.
    pub fn none(&self) -> bool {
        self.active.load().is_empty()
    }

    /// The capture that wants a request of this machine from this address, if any does. Costs next to nothing while
    /// there is no capture.
    pub fn wanted(&self, machine: Option<&MachineId>, address: IpAddr) -> Option<i64> {
        let active = self.active.load();
        if active.is_empty() {
            return None;
        }
        let (now, address) = (Timestamp::now(), address.to_canonical());
        active
            .iter()
            .find(|capture| capture.until > now && capture.wants(machine, address))
            .map(|capture| capture.id)
    }

    fn fill(&self, id: i64) {
        for capture in self.active.load().iter().filter(|capture| capture.id == id) {
            capture.full.store(true, Ordering::Relaxed);
        }
    }
}

/// A request as it came, and where known what was answered.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// Method.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Headers of the request.
    pub headers: &'a http::HeaderMap,
    /// Body of the request.
    pub body: &'a [u8],
    /// Status and body of the answer.
    pub answer: Option<(u16, &'a [u8])>,
}

impl Exchange<'_> {
    /// What is kept of it.
    fn masked(&self) -> serde_json::Value {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()));
        let mut record = json!({
            "method": self.method,
            "path": masking::path(self.path),
            "headers": masking::headers(headers),
            "body": masking::body(self.body),
        });
        if let Some((status, body)) = self.answer {
            record["answer"] = json!({ "status": status, "body": masking::body(body) });
        }
        record
    }
}

/// Records a request for a capture that wanted it, secrets masked.
pub async fn record(
    core: &Core,
    capture: i64,
    exchange: &Exchange<'_>,
) -> Result<(), ServiceError> {
    let text = exchange.masked().to_string();
    let conn = core.db.conn().await?;
    if !rows::record(&conn, capture, &text).await? {
        core.captures.fill(capture);
    }
    Ok(())
}

impl From<CaptureRow> for Capture {
    fn from(row: CaptureRow) -> Self {
        Self {
            id: row.id,
            machine_id: row.machine,
            address: row.address,
            created_at: row.created_at,
            until: row.until,
            max_records: row.max_records.unsigned_abs(),
            records: row.recorded.unsigned_abs().into(),
            active: row.active,
            actor: row.actor,
        }
    }
}

/// Begins a capture.
pub async fn start(
    core: &Core,
    actor: &Actor,
    request: &CaptureStart,
) -> Result<Capture, ServiceError> {
    let refuse = |why: String| Err(ServiceError::Invalid(why));
    if request.machine_id.is_none() && request.address.is_none() {
        return refuse("name a machine-id, an address, or both".to_owned());
    }
    if !(1..=MAX_TIME.as_secs()).contains(&request.seconds) {
        return refuse(format!(
            "`for` must be 1 to {} seconds (24 hours)",
            MAX_TIME.as_secs()
        ));
    }
    let max_records = request.max_records.unwrap_or(RECORDS);
    if !(1..=MAX_RECORDS).contains(&max_records) {
        return refuse(format!("max-records must be 1 to {MAX_RECORDS}"));
    }
    let new = NewCapture {
        machine: request.machine_id,
        address: request.address.map(|address| address.to_canonical()),
        time: Duration::from_secs(request.seconds),
        max_records: max_records as i32,
        actor: &actor.name,
    };
    let capture = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        rows::purge(&tx, KEPT).await?;
        if rows::active(&tx).await?.len() >= MAX_ACTIVE {
            return Err(ServiceError::Conflict(format!(
                "{MAX_ACTIVE} captures record already; stop one first"
            )));
        }
        let capture = rows::insert(&tx, &new).await?;
        let entry = Entry {
            actor,
            action: "capture.start",
            target: &capture.id.to_string(),
            details: json!({
                "machine-id": request.machine_id,
                "address": request.address,
                "for": request.seconds,
                "max-records": max_records,
            }),
        };
        audit::append(&tx, entry, Change::Captures).await?;
        tx.commit().await?;
        capture
    };
    core.captures.changed(&core.db).await;
    Ok(capture.into())
}

/// Ends a capture and deletes what it recorded.
pub async fn stop(core: &Core, actor: &Actor, id: i64) -> Result<(), ServiceError> {
    {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        let capture = rows::delete(&tx, id)
            .await?
            .ok_or_else(|| ServiceError::not_found("capture", id))?;
        let entry = Entry {
            actor,
            action: "capture.stop",
            target: &id.to_string(),
            details: json!({ "records": capture.recorded }),
        };
        audit::append(&tx, entry, Change::Captures).await?;
        tx.commit().await?;
    }
    core.captures.changed(&core.db).await;
    Ok(())
}

/// Captures, newest first.
pub async fn list(core: &Core, query: &PageQuery) -> Result<Page<Capture>, ServiceError> {
    let before = paging::after("captures", query.cursor.as_deref())?;
    let limit = paging::limit(query.limit);
    let conn = core.db.conn().await?;
    let found = rows::page(&conn, before, limit as i64 + 1).await?;
    let place = |row: &CaptureRow| paging::encode("captures", &[&row.id]);
    Ok(paging::page(found, limit, place, Capture::from))
}

/// A capture with all that it recorded.
pub async fn show(core: &Core, id: i64) -> Result<CaptureContent, ServiceError> {
    let conn = core.db.conn().await?;
    let capture = rows::find(&conn, id)
        .await?
        .ok_or_else(|| ServiceError::not_found("capture", id))?;
    let records = rows::records(&conn, id).await?.into_iter();
    let records = records.map(|(at, text)| {
        let record = serde_json::from_str(&text)
            .map_err(|e| ServiceError::Internal(format!("record of capture {id}: {e}")))?;
        Ok(CaptureRecord { at, record })
    });
    Ok(CaptureContent {
        capture: capture.into(),
        records: records.collect::<Result<_, ServiceError>>()?,
    })
}
