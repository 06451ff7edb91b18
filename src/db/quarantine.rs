//! Quarantine: files that were refused at the door, with the reason. Their objects lie under their content's name, so
//! two rows may share one; whoever adds a row or removes an object takes [`lock`] on that content first.

use super::run::{DbError, Run, Tx};
use super::statements;
use crate::domain::Sha256;
use jiff::Timestamp;
use tokio_postgres::Row;

statements! {
    LOCK_QUARANTINED = "select pg_advisory_xact_lock(hashtextextended('quarantine:' || $1, 0))";
    FIND_QUARANTINED = "select id, filename, sha256, size, code, reason, source, actor, at from quarantine
        where filename = $1 and sha256 = $2";
    SELECT_QUARANTINED = "select id, filename, sha256, size, code, reason, source, actor, at from quarantine where id = $1";
    SELECT_QUARANTINE_PAGE = "select id, filename, sha256, size, code, reason, source, actor, at from quarantine
        where $1::bigint is null or id < $1 order by id desc limit $2";
    UPSERT_QUARANTINED = "insert into quarantine (filename, sha256, size, code, reason, source, actor)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (filename, sha256) do update set code = excluded.code, reason = excluded.reason,
            source = excluded.source, actor = excluded.actor, at = now()
        returning id";
    DELETE_QUARANTINED = "delete from quarantine where id = $1 returning id, filename, sha256, size, code, reason, source, actor, at";
    DELETE_QUARANTINED_FILE = "delete from quarantine where filename = $1 and sha256 = $2 returning id";
    COUNT_QUARANTINED = "select count(*) from quarantine";
    COUNT_QUARANTINED_CONTENT = "select count(*) from quarantine where sha256 = $1";
}

/// A file in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Database id.
    pub id: i64,
    /// File name as given.
    pub filename: String,
    /// Content.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// The rule that was broken.
    pub code: String,
    /// What was wrong.
    pub reason: String,
    /// How it came.
    pub source: String,
    /// Who brought it.
    pub actor: String,
    /// When.
    pub at: Timestamp,
}

/// A file to be put there.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// File name as given.
    pub filename: &'a str,
    /// Content.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// The rule that was broken.
    pub code: &'a str,
    /// What was wrong.
    pub reason: &'a str,
    /// How it came.
    pub source: &'a str,
    /// Who brought it.
    pub actor: &'a str,
}

impl Held {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            id: row.get(0),
            filename: row.get(1),
            sha256: Sha256::try_from(row.get::<_, &[u8]>(2))?,
            size: row.get::<_, i64>(3).unsigned_abs(),
            code: row.get(4),
            reason: row.get(5),
            source: row.get(6),
            actor: row.get(7),
            at: row.get(8),
        })
    }
}

/// Keeps others from adding a row of this content, or removing its object, until the transaction ends.
pub async fn lock(tx: &Tx<'_>, sha256: &Sha256) -> Result<(), DbError> {
    tx.rows(&LOCK_QUARANTINED, &[&sha256.to_string()])
        .await
        .map(|_| ())
}

/// The row of this file name and content.
pub async fn find(
    run: &impl Run,
    filename: &str,
    sha256: &Sha256,
) -> Result<Option<Held>, DbError> {
    let row = run
        .opt(&FIND_QUARANTINED, &[&filename, &sha256.0.as_slice()])
        .await?;
    row.as_ref().map(Held::from_row).transpose()
}

/// The row of this id.
pub async fn get(run: &impl Run, id: i64) -> Result<Option<Held>, DbError> {
    let row = run.opt(&SELECT_QUARANTINED, &[&id]).await?;
    row.as_ref().map(Held::from_row).transpose()
}

/// A page of rows before this id, newest first.
pub async fn page(run: &impl Run, before: Option<i64>, limit: i64) -> Result<Vec<Held>, DbError> {
    let rows = run
        .rows(&SELECT_QUARANTINE_PAGE, &[&before, &limit])
        .await?;
    rows.iter().map(Held::from_row).collect()
}

/// Adds a row, or renews the one of this file name and content; returns its id.
pub async fn add(run: &impl Run, new: &New<'_>) -> Result<i64, DbError> {
    let row = run
        .one(
            &UPSERT_QUARANTINED,
            &[
                &new.filename,
                &new.sha256.0.as_slice(),
                &(new.size as i64),
                &new.code,
                &new.reason,
                &new.source,
                &new.actor,
            ],
        )
        .await?;
    Ok(row.get(0))
}

/// Removes a row and returns what it was.
pub async fn delete(run: &impl Run, id: i64) -> Result<Option<Held>, DbError> {
    let row = run.opt(&DELETE_QUARANTINED, &[&id]).await?;
    row.as_ref().map(Held::from_row).transpose()
}

/// Removes the row of this file name and content; returns its id.
pub async fn delete_file(
    run: &impl Run,
    filename: &str,
    sha256: &Sha256,
) -> Result<Option<i64>, DbError> {
    let row = run
        .opt(&DELETE_QUARANTINED_FILE, &[&filename, &sha256.0.as_slice()])
        .await?;
    Ok(row.map(|row| row.get(0)))
}

/// How many rows have this content.
pub async fn count_content(run: &impl Run, sha256: &Sha256) -> Result<u64, DbError> {
    let row = run
        .one(&COUNT_QUARANTINED_CONTENT, &[&sha256.0.as_slice()])
        .await?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

/// How many files are in quarantine.
pub async fn count(run: &impl Run) -> Result<i64, DbError> {
    Ok(run.one(&COUNT_QUARANTINED, &[]).await?.get(0))
}
