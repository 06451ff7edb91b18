//! Check-ins on their way to the database: a bounded queue and one writer that makes groups.
//!
//! The writer takes what has gathered, keeps the last report of each machine, writes all in one transaction and answers
//! only then: acknowledged means committed. There is no timer; the commit in flight is what lets the next group gather.
//! A full queue and a database that is away are told to the caller, never hidden.

use super::failpoint::failpoint;
use crate::db::machines::{CheckInRow, write_check_ins};
use crate::db::words::{self, WordKind};
use crate::db::{Db, DbError};
use crate::domain::MachineId;
use crate::telemetry::Metrics;
use std::collections::HashMap;
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
/// Words of each kind that are remembered. Beyond, texts are looked up in the database again.
const WORDS: usize = 50_000;
/// Longest text kept of a client version or CPU model, in bytes.
pub const WORD_LEN: usize = 128;

/// One check-in. The ids of words in `row` are filled in by the writer.
#[derive(Debug, Clone)]
pub struct CheckIn {
    /// Everything that is a number already.
    pub row: CheckInRow,
    /// Kernel as reported.
    pub kernel: Option<Box<str>>,
    /// Client version as reported.
    pub client_version: Option<Box<str>>,
    /// CPU model as reported.
    pub cpu_model: Option<Box<str>>,
}

impl CheckIn {
    fn words(&self) -> [(WordKind, Option<&str>); 3] {
        [
            (WordKind::Kernel, self.kernel.as_deref()),
            (WordKind::ClientVersion, self.client_version.as_deref()),
            (WordKind::CpuModel, self.cpu_model.as_deref()),
        ]
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
    words: HashMap<WordKind, HashMap<Box<str>, i32>>,
    failed_at: Option<Instant>,
    closing: CancellationToken,
}

/// Makes a queue for `capacity` check-ins and its writer.
pub fn queue(capacity: usize, db: Db, history: bool, metrics: Arc<Metrics>) -> (Queue, Writer) {
    let (sender, jobs) = mpsc::channel(capacity);
    let closing = CancellationToken::new();
    let queue = Queue {
        jobs: sender,
        closing: closing.clone(),
    };
    let words = HashMap::new();
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
    /// Hands a check-in over and waits until it is committed.
    pub async fn store(&self, check_in: CheckIn) -> Result<(), NotStored> {
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
            let lost = self.write(&jobs).await;
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

    async fn write(&mut self, jobs: &[Job]) -> Lost {
        if self.failed_at.is_some_and(|at| at.elapsed() < BREATHER) {
            return Lost::All;
        }
        // The last report of each machine, in order of machine.
        let mut last: HashMap<MachineId, &CheckIn> = HashMap::with_capacity(jobs.len());
        for job in jobs {
            last.insert(job.check_in.row.machine, &job.check_in);
        }
        let mut group: Vec<&CheckIn> = last.into_values().collect();
        group.sort_unstable_by_key(|check_in| check_in.row.machine);
        let started = Instant::now();
        let mut lost = Vec::new();
        let result = self.commit_what_can_be(&group, &mut lost).await;
        let metrics = &self.metrics.check_ins;
        metrics
            .flush_seconds
            .observe(started.elapsed().as_secs_f64());
        metrics.group_size.observe(group.len() as f64);
        match result {
            Ok(()) if lost.is_empty() => Lost::None,
            Ok(()) => Lost::Some(lost),
            Err(error) => {
                tracing::error!(%error, check_ins = jobs.len(), "check-ins could not be stored");
                self.failed_at = Some(Instant::now());
                Lost::All
            }
        }
    }

    /// Commits the group; if the database refuses it for what is in it, halves it until only the culprits are left
    /// out, so that one machine whose tier was just deleted does not cost the others their reports.
    async fn commit_what_can_be(
        &mut self,
        group: &[&CheckIn],
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
                        let (first, second) = more.split_at(more.len() / 2);
                        open.extend([second, first]);
                    }
                },
            }
        }
        Ok(())
    }

    async fn commit(&mut self, group: &[&CheckIn]) -> Result<(), DbError> {
        let mut conn = self.db.conn().await?;
        let work = async {
            let unknown = self.unknown_words(group);
            if !unknown.is_empty() {
                self.learn(words::ids(&conn, &unknown).await?);
            }
            let rows: Vec<CheckInRow> = group.iter().map(|check_in| self.row(check_in)).collect();
            let tx = conn.begin().await?;
            write_check_ins(&tx, &rows, self.history).await?;
            failpoint("check-in-before-commit");
            tx.commit().await?;
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

    fn unknown_words(&self, group: &[&CheckIn]) -> Vec<(WordKind, String)> {
        let mut unknown: Vec<(WordKind, String)> = group
            .iter()
            .flat_map(|check_in| check_in.words())
            .filter_map(|(kind, text)| Some((kind, text?)))
            .filter(|(kind, text)| {
                self.words
                    .get(kind)
                    .is_none_or(|known| !known.contains_key(*text))
            })
            .map(|(kind, text)| (kind, text.to_owned()))
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    fn learn(&mut self, ids: Vec<(i16, String, i32)>) {
        for (kind, text, id) in ids {
            let Some(kind) = [
                WordKind::Kernel,
                WordKind::ClientVersion,
                WordKind::CpuModel,
            ]
            .into_iter()
            .find(|k| *k as i16 == kind) else {
                continue;
            };
            let known = self.words.entry(kind).or_default();
            if known.len() >= WORDS {
                known.clear();
            }
            known.insert(text.into_boxed_str(), id);
        }
    }

    fn row(&self, check_in: &CheckIn) -> CheckInRow {
        let id = |kind, text: &Option<Box<str>>| {
            text.as_ref()
                .and_then(|text| self.words.get(&kind)?.get(text.as_ref()).copied())
        };
        CheckInRow {
            kernel_id: id(WordKind::Kernel, &check_in.kernel),
            client_version_id: id(WordKind::ClientVersion, &check_in.client_version),
            cpu_model_id: id(WordKind::CpuModel, &check_in.cpu_model),
            ..check_in.row.clone()
        }
    }
}
