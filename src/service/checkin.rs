//! Check-ins on their way to the database: a bounded queue and one writer that makes groups.
//!
//! The writer takes what has gathered, keeps the last report of each machine, writes all in one transaction and answers
//! only then: acknowledged means committed. There is no timer; the commit in flight is what lets the next group gather.
//! A full queue and a database that is away are told to the caller, never hidden.

use super::failpoint::failpoint;
use super::words::{Words, kinds};
use crate::db::machines::{CheckInRow, write_check_ins};
use crate::db::words::{self, WordKind};
use crate::db::{Conn, Db, DbError};
use crate::domain::MachineId;
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// The most check-ins written in one transaction.
const GROUP: usize = 1000;
/// How long one group may take; a database that needs longer counts as away.
const PATIENCE: Duration = Duration::from_millis(1500);
/// After a failure, check-ins are refused at once for this long instead of each waiting for the next.
const BREATHER: Duration = Duration::from_millis(500);
/// Longest text kept of a client version or CPU model, in bytes.
pub const WORD_LEN: usize = 128;

/// One check-in.
#[derive(Debug)]
struct CheckIn {
    row: CheckInRow,
    /// Its texts, if the id of one was not known when it came: [`Writer`] fills them in.
    texts: Option<Box<[Option<Box<str>>; 3]>>,
}

impl CheckIn {
    fn texts(&self) -> [Option<&str>; 3] {
        self.texts.as_ref().map_or([None; 3], |texts| {
            texts.each_ref().map(|text| text.as_deref())
        })
    }

    /// Takes over ids; returns whether every text has one.
    fn name(&mut self, ids: [Option<i32>; 3], texts: [Option<&str>; 3]) -> bool {
        let row = &mut self.row;
        [row.kernel_id, row.client_version_id, row.cpu_model_id] = ids;
        ids.iter()
            .zip(texts)
            .all(|(id, text)| id.is_some() || text.is_none())
    }
}

/// Why a check-in was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    /// More wait than may wait.
    #[error("too many check-ins are waiting")]
    Full,
    /// The database is away or failed.
    #[error("the database is not reachable")]
    Unavailable,
}

struct Job {
    check_in: CheckIn,
    done: oneshot::Sender<Result<(), NotStored>>,
}

/// The sending side; cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    jobs: mpsc::Sender<Job>,
    words: Arc<Words>,
    closing: CancellationToken,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Job")
            .field(&self.check_in.row.machine)
            .finish()
    }
}

/// The receiving side, to be given to [`Writer::run`].
#[derive(Debug)]
pub struct Writer {
    jobs: mpsc::Receiver<Job>,
    db: Db,
    history: bool,
    metrics: Arc<Metrics>,
    words: Arc<Words>,
    failed_at: Option<Instant>,
    closing: CancellationToken,
}

/// Makes a queue for `capacity` check-ins and its writer.
pub fn queue(capacity: usize, db: Db, history: bool, metrics: Arc<Metrics>) -> (Queue, Writer) {
    let (sender, jobs) = mpsc::channel(capacity);
    let closing = CancellationToken::new();
    let words = Arc::new(Words::default());
    let queue = Queue {
        jobs: sender,
        words: Arc::clone(&words),
        closing: closing.clone(),
    };
    (
        queue,
        Writer {
            jobs,
            db,
            history,
            metrics,
            words,
            failed_at: None,
            closing,
        },
    )
}

/// Whose check-ins of a group were not stored.
enum Lost {
    None,
    Some(Vec<MachineId>),
    All,
}

impl Lost {
    fn covers(&self, machine: MachineId) -> bool {
        match self {
            Self::None => false,
            Self::Some(machines) => machines.contains(&machine),
            Self::All => true,
        }
    }
}

impl Queue {
    /// Hands a check-in over and waits until it is committed. `texts` are kernel, client version and CPU model; their
    /// ids in `row` are filled in here or by the writer.
    pub async fn store(&self, row: CheckInRow, texts: [Option<&str>; 3]) -> Result<(), NotStored> {
        let mut check_in = CheckIn { row, texts: None };
        if !check_in.name(self.words.ids(texts), texts) {
            check_in.texts = Some(Box::new(texts.map(|text| text.map(Box::from))));
        }
        let (done, stored) = oneshot::channel();
        self.jobs
            .try_send(Job { check_in, done })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => NotStored::Full,
                mpsc::error::TrySendError::Closed(_) => NotStored::Unavailable,
            })?;
        stored.await.unwrap_or(Err(NotStored::Unavailable))
    }

    /// Takes no more; what waits is still written.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Check-ins that wait now.
    pub fn waiting(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity()
    }
}

impl Writer {
    /// Writes until the queue is closed and empty: nothing that was taken in is left behind.
    pub async fn run(mut self) {
        let mut jobs = Vec::with_capacity(GROUP);
        loop {
            let taken = tokio::select! {
                taken = self.jobs.recv_many(&mut jobs, GROUP) => taken,
                () = self.closing.cancelled(), if !self.jobs.is_closed() => {
                    self.jobs.close();
                    continue;
                }
            };
            if taken == 0 {
                return;
            }
            self.metrics
                .check_ins
                .queue_length
                .set(self.jobs.len() as i64);
            let lost = self.write(&mut jobs).await;
            for job in jobs.drain(..) {
                let machine = job.check_in.row.machine;
                let result = if lost.covers(machine) {
                    Err(NotStored::Unavailable)
                } else {
                    Ok(())
                };
                // A caller that has gone away no longer wants to know.
                let _ = job.done.send(result);
            }
        }
    }

    async fn write(&mut self, jobs: &mut [Job]) -> Lost {
        if self.failed_at.is_some_and(|at| at.elapsed() < BREATHER) {
            return Lost::All;
        }
        // In order of machine. The order is stable: of the reports of one machine, the last to come stays.
        let waiting = jobs.len();
        let mut group: Vec<&mut CheckIn> = jobs.iter_mut().map(|job| &mut job.check_in).collect();
        group.sort_by_key(|check_in| check_in.row.machine);
        group.dedup_by(|next, kept| {
            let same = next.row.machine == kept.row.machine;
            if same {
                std::mem::swap(next, kept);
            }
            same
        });
        let started = Instant::now();
        let mut lost = Vec::new();
        let result = self.commit_what_can_be(&mut group, &mut lost).await;
        let metrics = &self.metrics.check_ins;
        metrics
            .flush_seconds
            .observe(started.elapsed().as_secs_f64());
        metrics.group_size.observe(group.len() as f64);
        match result {
            Ok(()) if lost.is_empty() => Lost::None,
            Ok(()) => Lost::Some(lost),
            Err(error) => {
                tracing::error!(%error, check_ins = waiting, "check-ins could not be stored");
                self.failed_at = Some(Instant::now());
                Lost::All
            }
        }
    }

    /// Commits the group; if the database refuses it for what is in it, halves it until only the culprits are left
    /// out, so that one machine whose tier was just deleted does not cost the others their reports.
    async fn commit_what_can_be(
        &mut self,
        group: &mut [&mut CheckIn],
        lost: &mut Vec<MachineId>,
    ) -> Result<(), DbError> {
        let mut open = vec![group];
        while let Some(part) = open.pop() {
            match self.commit(part).await {
                Ok(()) => self.failed_at = None,
                Err(error @ (DbError::Unavailable(_) | DbError::Retry(_))) => return Err(error),
                Err(error) => match part {
                    [] => {}
                    [one] => {
                        tracing::warn!(%error, machine = %one.row.machine, "a check-in could not be stored");
                        lost.push(one.row.machine);
                    }
                    more => {
                        let half = more.len() / 2;
                        let (first, second) = more.split_at_mut(half);
                        open.extend([second, first]);
                    }
                },
            }
        }
        Ok(())
    }

    async fn commit(&mut self, group: &mut [&mut CheckIn]) -> Result<(), DbError> {
        let conn = self.db.conn().await?;
        let work = async {
            self.name(&conn, group).await?;
            let rows = group.iter().map(|check_in| &check_in.row);
            failpoint("check-in-before-commit");
            write_check_ins(&conn, rows, self.history).await?;
            failpoint("check-in-after-commit");
            Ok(())
        };
        if let Ok(result) = tokio::time::timeout(PATIENCE, work).await {
            return result;
        }
        // The connection still waits for the answer; nobody else may get it.
        conn.discard();
        Err(DbError::Unavailable(format!(
            "no answer within {} ms",
            PATIENCE.as_millis()
        )))
    }

    /// Fills in the ids of texts that were not known when the check-in came.
    async fn name(&self, conn: &Conn, group: &mut [&mut CheckIn]) -> Result<(), DbError> {
        let mut unknown = Vec::new();
        for check_in in group.iter().filter(|check_in| check_in.texts.is_some()) {
            let texts = check_in.texts();
            let ids = self.words.ids(texts);
            for ((kind, text), id) in kinds().into_iter().zip(texts).zip(ids) {
                if let (Some(text), None) = (text, id) {
                    unknown.push((kind, text.to_owned()));
                }
            }
        }
        if !unknown.is_empty() {
            unknown.sort_unstable();
            unknown.dedup();
            let named = words::ids(conn, &unknown).await.inspect_err(|_| {
                let kernels = unknown.iter().filter(|(kind, _)| *kind == WordKind::Kernel);
                let errors = &self.metrics.clients.logging_kernels_errors;
                errors.inc_by(kernels.count() as u64);
            });
            self.words.learn(named?);
        }
        for check_in in group.iter_mut() {
            if let Some(texts) = check_in.texts.take() {
                let texts_of = texts.each_ref().map(|text| text.as_deref());
                let _ = check_in.name(self.words.ids(texts_of), texts_of);
            }
        }
        Ok(())
    }
}
