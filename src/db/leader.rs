//! Leadership: who may do what only one replica may.
//!
//! An advisory lock on a connection of its own decides, so that leadership ends with the process however that ends. Each
//! taking counts an epoch up, and every transaction of a leader checks its epoch ([`fence`]): a leader that was stopped, lost
//! the lock and woke late can commit nothing. All times are the database's.

use super::connect::Db;
use super::run::{DbError, Run, Tx};
use super::statements;
use jiff::Timestamp;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

statements! {
    TRY_LEADER_LOCK = "select pg_try_advisory_lock(7103, 10)";
    // Transactions that checked an older epoch hold a share of the row; they are superseded, and one whose process stands
    // still would hold up the new leader for ever.
    END_OLD_FENCES = "select count(pg_terminate_backend(l.pid)) from pg_locks l join pg_database d on d.oid = l.database
        where d.datname = current_database() and l.relation = 'leader'::regclass and l.mode = 'RowShareLock'
          and l.pid <> pg_backend_pid()";
    TAKE_LEADERSHIP = "update leader set epoch = epoch + 1, holder = $1, pid = pg_backend_pid(), renewed_at = clock_timestamp()
        returning epoch";
    RENEW_LEADERSHIP = "update leader set renewed_at = clock_timestamp() where epoch = $1";
    SELECT_LEADER = "select epoch, holder, renewed_at from leader where epoch > 0";
    // Only who really holds the lock is ended: a pid is used again. One that has just got it has not renewed anything yet.
    END_EXPIRED_LEADER = "select count(pg_terminate_backend(l.pid)) from leader
        join pg_locks l on l.locktype = 'advisory' and l.classid = 7103 and l.objid = 10 and l.objsubid = 2 and l.granted
        join pg_database d on d.oid = l.database and d.datname = current_database()
        join pg_stat_activity a on a.pid = l.pid
        where case when leader.pid = l.pid then leader.renewed_at else a.state_change end
            < clock_timestamp() - make_interval(secs => $1)";
    FENCE = "select from leader where epoch = $1 for share";
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Counts up with each change.
    pub epoch: i64,
    /// The replica.
    pub holder: String,
    /// When it last renewed its lease.
    pub renewed_at: Timestamp,
}

/// A connection that wants to lead, or does.
pub struct Candidate {
    client: tokio_postgres::Client,
    _connection: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Candidate")
    }
}

impl Candidate {
    /// Connects. Dropping it gives up whatever it got.
    pub async fn connect(db: &Db) -> Result<Self, DbError> {
        let (client, connection) = db.settings().connect_alone().await?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection for leadership broke");
            }
        });
        Ok(Self {
            client,
            _connection: AbortOnDropHandle::new(connection),
        })
    }

    /// Tries to become the leader; the epoch if it did.
    pub async fn try_take(&self, name: &str) -> Result<Option<i64>, DbError> {
        let of = |sql: &'static super::Sql| move |e| DbError::of(sql.name, e);
        let row = self.client.query_one(TRY_LEADER_LOCK.text, &[]).await;
        if !row.map_err(of(&TRY_LEADER_LOCK))?.get::<_, bool>(0) {
            return Ok(None);
        }
        let ended = self.client.query_one(END_OLD_FENCES.text, &[]).await;
        ended.map_err(of(&END_OLD_FENCES))?;
        let row = self.client.query_one(TAKE_LEADERSHIP.text, &[&name]).await;
        Ok(Some(row.map_err(of(&TAKE_LEADERSHIP))?.get(0)))
    }

    /// Says that the leader of this epoch is still there; `false` if another one is.
    pub async fn renew(&self, epoch: i64) -> Result<bool, DbError> {
        let renewed = self.client.execute(RENEW_LEADERSHIP.text, &[&epoch]).await;
        renewed
            .map(|rows| rows == 1)
            .map_err(|e| DbError::of(RENEW_LEADERSHIP.name, e))
    }

    /// Ends the connection of a leader that has not renewed its lease for this long although it holds the lock: its process
    /// stands still. `true` if there was one.
    pub async fn depose(&self, lease: Duration) -> Result<bool, DbError> {
        let row = self
            .client
            .query_one(END_EXPIRED_LEADER.text, &[&lease.as_secs_f64()])
            .await;
        row.map(|row| row.get::<_, i64>(0) > 0)
            .map_err(|e| DbError::of(END_EXPIRED_LEADER.name, e))
    }
}

/// Who leads or led last.
pub async fn current(run: &impl Run) -> Result<Option<Leader>, DbError> {
    let row = run.opt(&SELECT_LEADER, &[]).await?;
    Ok(row.map(|row| Leader {
        epoch: row.get(0),
        holder: row.get(1),
        renewed_at: row.get(2),
    }))
}

/// Makes sure that the transaction commits only while this epoch lasts; `false` if it has passed.
pub async fn fence(tx: &Tx<'_>, epoch: i64) -> Result<bool, DbError> {
    Ok(tx.opt(&FENCE, &[&epoch]).await?.is_some())
}
