//! The load: open-loop, so that a server that stalls cannot slow down those who measure it.
//!
//! Request `n` is due at a time that only the rate and `n` determine. A fixed number of workers, one connection each,
//! take the numbers in order; when all are busy the next request starts late, but its latency still counts from when it
//! was due. What is due and never gets its turn is counted as `not-sent`, with the time it waited.

use super::Options;
use super::kinds::{CUT_OFF, NOT_SENT, NOT_STORED, kind};
use super::ledger::Entry;
use super::machines::{self, Runs};
use super::register::Member;
use super::summary::Tally;
use crate::domain::fault::Harm;
use crate::domain::policy::Share;
use crate::domain::{MachineId, PatchVersion, Sha256};
use crate::sim::ServerApi;
use crate::wire::PatchOffer;
use futures_util::future::join_all;
use jiff::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long after the end answers are waited for, and requests that are late still sent.
const DRAIN: Duration = Duration::from_secs(10);
/// The same after an interruption: somebody is waiting at the keyboard.
const DRAIN_INTERRUPTED: Duration = Duration::from_secs(2);
/// How often the progress is said.
const SAY: Duration = Duration::from_secs(5);

/// What happens to a request on its way.
enum Network {
    Whole,
    Loses,
    Repeats,
    Delays(Duration),
}

/// A load that runs.
pub(super) struct Load<'a> {
    options: &'a Options,
    api: &'a ServerApi,
    members: &'a [Member],
    begun: Timestamp,
    rate: f64,
    started: Instant,
    next: AtomicU64,
    /// What each member says that it runs; `None`: it went silent.
    runs: Mutex<Vec<Option<Runs>>>,
    /// What each member was acknowledged; empty unless it is asked for.
    ledger: Mutex<Vec<Entry>>,
    tally: Mutex<Tally>,
    stop: &'a CancellationToken,
    /// When the stop was first seen: what comes due later is nobody's request any more.
    stopped: OnceLock<Instant>,
    cut: CancellationToken,
}

/// What came of it.
pub(super) struct Outcome {
    /// Counts.
    pub(super) tally: Tally,
    /// What each member was acknowledged, if that was asked for.
    pub(super) ledger: Vec<Entry>,
    /// Requests that were due.
    pub(super) due: u64,
    /// From the first due time to the last answer.
    pub(super) took: Duration,
    /// Stopped before its time.
    pub(super) interrupted: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts stay counts even if somebody panicked over them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Load<'a> {
    pub(super) fn new(
        options: &'a Options,
        api: &'a ServerApi,
        members: &'a [Member],
        begun: Timestamp,
        rate: f64,
        stop: &'a CancellationToken,
    ) -> Self {
        Self {
            options,
            api,
            members,
            begun,
            rate,
            started: Instant::now(),
            next: AtomicU64::new(0),
            runs: Mutex::new(vec![Some(Runs::default()); members.len()]),
            ledger: Mutex::new(match &options.ledger {
                Some(_) => vec![Entry::default(); members.len()],
                None => Vec::new(),
            }),
            tally: Mutex::new(Tally::default()),
            stop,
            stopped: OnceLock::new(),
            cut: CancellationToken::new(),
        }
    }

    /// When the stop was first seen; to be asked only once it was.
    fn stopped_at(&self) -> Instant {
        *self.stopped.get_or_init(Instant::now)
    }

    /// Requests that will be due if nobody interrupts.
    fn total(&self) -> u64 {
        (self.options.duration.as_secs_f64() * self.rate).floor() as u64
    }

    /// When request `n` is due. Arrivals are spread by up to one interval, as those of machines are, but in order.
    fn due(&self, n: u64) -> Instant {
        let digest = Sha256::of(&[self.options.seed.to_be_bytes(), n.to_be_bytes()].concat());
        let spread = f64::from(u16::from_be_bytes([digest.0[0], digest.0[1]])) / 65536.0;
        self.started + Duration::from_secs_f64((n as f64 + spread) / self.rate)
    }

    /// Runs to the end of the duration or until it is stopped.
    pub(super) async fn run(self, say: &(impl Fn(String) + ?Sized)) -> Outcome {
        let workers = u64::from(self.options.connections).min(self.total().max(1));
        tokio::select! {
            _ = join_all((0..workers).map(|_| self.work())) => {}
            () = self.end() => {}
            () = self.progress(say) => {}
        }
        let now = Instant::now();
        let interrupted = self.stop.is_cancelled();
        let mut due = self.total();
        if interrupted {
            let stopped = self.stopped_at();
            while due > 0 && self.due(due - 1) > stopped {
                due -= 1;
            }
        }
        let mut tally = std::mem::take(&mut *lock(&self.tally));
        // Numbers are taken in order, so that what was never sent are the last that were due.
        for n in tally.sent..due {
            tally.ended(now - self.due(n), Some(NOT_SENT.to_owned()));
        }
        Outcome {
            due: due.max(tally.sent),
            tally,
            ledger: std::mem::take(&mut *lock(&self.ledger)),
            took: now - self.started,
            interrupted,
        }
    }

    /// Cuts off what still runs when nobody should wait any longer; never returns, since the workers then do.
    async fn end(&self) {
        tokio::select! {
            () = tokio::time::sleep_until(self.started + self.options.duration + DRAIN) => {}
            () = async {
                self.stop.cancelled().await;
                self.stopped_at();
                tokio::time::sleep(DRAIN_INTERRUPTED).await;
            } => {}
        }
        self.cut.cancel();
        std::future::pending::<()>().await;
    }

    async fn progress(&self, say: &(impl Fn(String) + ?Sized)) {
        loop {
            tokio::time::sleep(SAY).await;
            let line = {
                let tally = lock(&self.tally);
                let p99 = tally.all.quantile(0.99);
                format!(
                    "{} s: {} sent, {} stored, {} failed, p99 {:.1} ms",
                    self.started.elapsed().as_secs(),
                    tally.sent,
                    tally.ok,
                    tally.failed(),
                    p99.as_secs_f64() * 1e3
                )
            };
            say(line);
        }
    }

    async fn work(&self) {
        let total = self.total();
        // Who was busy when the stop came takes no further request; who waited still sends what was due by then.
        while !self.stop.is_cancelled() {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            if n >= total {
                return;
            }
            let due = self.due(n);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => if due > self.stopped_at() { return },
                () = self.cut.cancelled() => return,
                () = tokio::time::sleep_until(due) => {}
            }
            lock(&self.tally).sent += 1;
            tokio::select! {
                biased;
                () = self.one(n, due) => {}
                () = self.cut.cancelled() => return,
            }
        }
    }

    /// One check-in, and the download it leads to.
    async fn one(&self, n: u64, due: Instant) {
        let index = (n % self.members.len() as u64) as usize;
        let Some(member) = self.members.get(index) else {
            return;
        };
        let machine = machines::machine(self.options.seed, member.number, &self.options.spread);
        let Some(runs) = lock(&self.runs)[index] else {
            lock(&self.tally).lost += 1;
            return;
        };
        let status = machine.status(runs, self.begun);
        match self.network(n) {
            Network::Whole => {}
            Network::Loses => {
                lock(&self.tally).lost += 1;
                return;
            }
            // The same report twice; the first answer never arrives.
            Network::Repeats => drop(self.api.updates(machine.id, &member.token, &status).await),
            Network::Delays(by) => tokio::time::sleep(by).await,
        }
        // Counted as cut off if this future is dropped before the answer is there.
        let mut unanswered = Unanswered {
            load: self,
            due,
            armed: true,
        };
        let sent_at = Timestamp::now().as_microsecond();
        let answer = self.api.updates(machine.id, &member.token, &status).await;
        unanswered.armed = false;
        let failure = match &answer {
            Ok(Some(answer)) if !answer.stored => Some(NOT_STORED.to_owned()),
            Ok(_) => None,
            Err(error) => Some(kind(error)),
        };
        if failure.is_none()
            && let Some(entry) = lock(&self.ledger).get_mut(index)
        {
            entry.acknowledged(sent_at);
        }
        lock(&self.tally).ended(due.elapsed(), failure);
        let Ok(Some(answer)) = answer else { return };
        let Some(offer) = answer.patches.first() else {
            return;
        };
        lock(&self.tally).offers += 1;
        if !self.options.downloads || self.download(&member.token, offer).await {
            self.takes(index, &machine.id, offer.version);
        }
    }

    /// A member inserts a patch: it is applied, or a fault strikes.
    fn takes(&self, index: usize, machine: &MachineId, version: PatchVersion) {
        let fault = self
            .options
            .faults
            .iter()
            .find(|fault| fault.strikes(version, machine));
        let now = match fault.map(|fault| fault.harm) {
            None => Some(Runs::Applied(version)),
            Some(Harm::Reports(state)) => Some(Runs::Failed(state, version)),
            Some(Harm::Crashes) => None,
        };
        let before = std::mem::replace(&mut lock(&self.runs)[index], now);
        let mut tally = lock(&self.tally);
        match now {
            None if before.is_some() => tally.crashed += 1,
            Some(Runs::Failed(..)) if before != now => tally.failures += 1,
            _ => {}
        }
    }

    /// What the network does to request `n`: the same in every run with the same seed.
    fn network(&self, n: u64) -> Network {
        if self.options.unstable == Share::NONE {
            return Network::Whole;
        }
        let text = format!("livepatch fleet network {} {n}", self.options.seed);
        let digest = Sha256::of(text.as_bytes()).0;
        let at = u64::from(u16::from_be_bytes([digest[0], digest[1]]));
        if at >= self.options.unstable.of(1 << 16) {
            return Network::Whole;
        }
        let (kind, by) = (digest[2], digest[3]);
        match kind % 3 {
            0 => Network::Loses,
            1 => Network::Repeats,
            _ => Network::Delays(Duration::from_millis(4 * u64::from(by))),
        }
    }

    /// Fetches an offer, checks its digest and throws it away. Whether it was whole.
    async fn download(&self, token: &str, offer: &PatchOffer) -> bool {
        let started = Instant::now();
        let result = self.api.download(token, offer, tokio::io::sink()).await;
        let mut tally = lock(&self.tally);
        match &result {
            Ok(()) => {
                tally.downloads += 1;
                tally.bytes += offer.size;
                tally.download_time.record(started.elapsed());
            }
            Err(error) => *tally.download_errors.entry(kind(error)).or_default() += 1,
        }
        result.is_ok()
    }
}

/// A request on its way.
struct Unanswered<'a, 'b> {
    load: &'a Load<'b>,
    due: Instant,
    armed: bool,
}

impl Drop for Unanswered<'_, '_> {
    fn drop(&mut self) {
        if self.armed {
            lock(&self.load.tally).ended(self.due.elapsed(), Some(CUT_OFF.to_owned()));
        }
    }
}
