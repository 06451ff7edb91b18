//! The audit log: hash-chained, one row for every mutation, written in the mutation's own transaction.
//!
//! The head row orders all mutations; its `seq` is also the version of the snapshot. Each entry's hash covers the
//! previous hash and all fields with their lengths, so that no entry can be altered, taken out or moved unnoticed.

use super::listen::{CHANNEL, Change};
use super::run::{DbError, Run, Tx};
use super::statements;
use jiff::Timestamp;
use tokio_postgres::Row;

statements! {
    LOCK_AUDIT_HEAD = "select seq, hash, now() from audit_head for update";
    INSERT_AUDIT = "insert into audit_log (seq, at, actor, source, action, target, details, prev_hash, hash)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    UPDATE_AUDIT_HEAD = "update audit_head set seq = $1, hash = $2";
    NOTIFY_CHANGE = "select pg_notify($1, $2)";
    SELECT_AUDIT_HEAD = "select seq, hash from audit_head";
    SELECT_AUDIT_PAGE = "select seq, at, actor, source, action, target, details, prev_hash, hash from audit_log
        where ($1::bigint is null or seq < $1)
          and ($2::text is null or actor = $2) and ($3::text is null or action = $3 or action like $3 || '.%')
          and ($4::text is null or target = $4)
          and ($5::timestamptz is null or at >= $5) and ($6::timestamptz is null or at < $6)
        order by seq desc limit $7";
    SELECT_AUDIT_FROM = "select seq, at, actor, source, action, target, details, prev_hash, hash from audit_log
        where seq > $1 order by seq limit $2";
}

/// Who did it and from where; part of every entry.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Administrator, or `system` for what the server does by itself.
    pub name: String,
    /// Address of the caller, or the part of the server.
    pub source: String,
}

/// A mutation, to be written.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Who.
    pub actor: &'a Actor,
    /// What was done, `noun.verb`, e.g. `patch.promote`.
    pub action: &'static str,
    /// On what, e.g. a patch version or a tier's name.
    pub target: &'a str,
    /// Everything else that matters, without secrets.
    pub details: serde_json::Value,
}

/// An entry as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Place in the chain, from 1.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// From where.
    pub source: String,
    /// What.
    pub action: String,
    /// On what.
    pub target: String,
    /// The rest, as the JSON text that was hashed.
    pub details: String,
    /// Hash of the entry before.
    pub prev_hash: Vec<u8>,
    /// Hash of this entry.
    pub hash: Vec<u8>,
}

impl Logged {
    fn from_row(row: &Row) -> Self {
        Self {
            seq: row.get(0),
            at: row.get(1),
            actor: row.get(2),
            source: row.get(3),
            action: row.get(4),
            target: row.get(5),
            details: row.get(6),
            prev_hash: row.get(7),
            hash: row.get(8),
        }
    }

    /// The hash this entry must have.
    pub fn expected_hash(&self) -> [u8; 32] {
        let mut hasher = openssl::sha::Sha256::new();
        hasher.update(&self.prev_hash);
        hasher.update(&self.seq.to_be_bytes());
        hasher.update(&self.at.as_microsecond().to_be_bytes());
        for field in [
            &self.actor,
            &self.source,
            &self.action,
            &self.target,
            &self.details,
        ] {
            hasher.update(&(field.len() as u64).to_be_bytes());
            hasher.update(field.as_bytes());
        }
        hasher.finish()
    }
}

/// Appends an entry and notifies every replica of `change` at commit. Call it last in the transaction: the head row
/// stays locked until the end. Returns the entry's place.
pub async fn append(tx: &Tx<'_>, entry: Entry<'_>, change: Change) -> Result<i64, DbError> {
    let head = tx.one(&LOCK_AUDIT_HEAD, &[]).await?;
    let at: Timestamp = head.get(2);
    let mut logged = Logged {
        seq: head.get::<_, i64>(0) + 1,
        at,
        actor: entry.actor.name.clone(),
        source: entry.actor.source.clone(),
        action: entry.action.to_owned(),
        target: entry.target.to_owned(),
        details: entry.details.to_string(),
        prev_hash: head.get(1),
        hash: Vec::new(),
    };
    logged.hash = logged.expected_hash().to_vec();
    tx.note(super::run::Change {
        action: entry.action,
        actor: logged.actor.clone(),
        source: logged.source.clone(),
        target: logged.target.clone(),
    });
    tx.exec(
        &INSERT_AUDIT,
        &[
            &logged.seq,
            &logged.at,
            &logged.actor,
            &logged.source,
            &logged.action,
            &logged.target,
            &logged.details,
            &logged.prev_hash,
            &logged.hash,
        ],
    )
    .await?;
    tx.exec(&UPDATE_AUDIT_HEAD, &[&logged.seq, &logged.hash])
        .await?;
    notify(tx, change, logged.seq).await?;
    Ok(logged.seq)
}

/// Notifies every replica at commit that change number `seq` touches this part; [`append`] does it for the first one.
pub async fn notify(tx: &Tx<'_>, change: Change, seq: i64) -> Result<(), DbError> {
    if change != Change::Nothing {
        let payload = format!("{} {seq}", change.as_str());
        tx.rows(&NOTIFY_CHANGE, &[&CHANNEL, &payload]).await?;
    }
    Ok(())
}

/// The head: the last entry's place and hash.
pub async fn head(run: &impl Run) -> Result<(i64, Vec<u8>), DbError> {
    let row = run.one(&SELECT_AUDIT_HEAD, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

/// What to list.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    /// Entries before this place.
    pub before: Option<i64>,
    /// By this actor.
    pub actor: Option<String>,
    /// This action, or all of a noun (`patch`).
    pub action: Option<String>,
    /// On this target.
    pub target: Option<String>,
    /// From this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

/// A page of entries, newest first.
pub async fn page(run: &impl Run, filter: &Filter, limit: i64) -> Result<Vec<Logged>, DbError> {
    let rows = run
        .rows(
            &SELECT_AUDIT_PAGE,
            &[
                &filter.before,
                &filter.actor,
                &filter.action,
                &filter.target,
                &filter.since,
                &filter.until,
                &limit,
            ],
        )
        .await?;
    Ok(rows.iter().map(Logged::from_row).collect())
}

/// Entries after a place, oldest first, for verification.
pub async fn from(run: &impl Run, after: i64, limit: i64) -> Result<Vec<Logged>, DbError> {
    let rows = run.rows(&SELECT_AUDIT_FROM, &[&after, &limit]).await?;
    Ok(rows.iter().map(Logged::from_row).collect())
}
