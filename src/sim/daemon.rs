//! The loop of a client that runs by itself: check, wait, check again, until a signal ends it.

use super::check::{How, Outcome, Session};
use super::error::Error;
use super::facts::Given;
use super::state::StateDir;
use crate::wire::PingType;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The wait after the first failed check; it doubles with each further one (public: 30 s, 1 min and so on).
const FIRST_RETRY: Duration = Duration::from_secs(30);
/// What the interval may be, whatever a server says.
const INTERVAL_MINUTES: std::ops::RangeInclusive<u32> = 1..=7 * 24 * 60;
/// The pings that follow an insertion.
const LATER_PINGS: [(u64, PingType); 3] = [
    (60, PingType::After1Minute),
    (5 * 60, PingType::After5Minutes),
    (15 * 60, PingType::After15Minutes),
];

/// The wait after `failures` failed checks in a row: up to the interval, unless the server asks for more.
pub fn retry_delay(failures: u32, interval: Duration, asked: Option<Duration>) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled
        .min(interval)
        .max(asked.unwrap_or_default().min(interval.max(FIRST_RETRY)))
}

/// Spreads a wait over 90% to 110% of itself, so that machines started together do not ask together.
pub fn jitter(wait: Duration, random: u16) -> Duration {
    wait.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u16::MAX))
}

fn random() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness the machine only loses its spread.
    let _ = openssl::rand::rand_bytes(&mut bytes);
    u16::from_be_bytes(bytes)
}

/// Runs until `stop`. `say` gets one line for each thing worth telling.
///
/// # Errors
/// Only when the machine is not or no longer enabled; everything else is told and tried again.
pub async fn run(
    dir: &StateDir,
    given: &Given,
    how: &How,
    stop: &CancellationToken,
    mut say: impl FnMut(String),
) -> Result<(), Error> {
    dir.load_enabled()?;
    let mut failures = 0;
    while !stop.is_cancelled() {
        let started = Instant::now();
        let (result, mut session) = match round(dir, given, how, stop, &mut say).await {
            Ok((outcome, session)) => (Ok(outcome), Some(session)),
            Err(e) => (Err(e), None),
        };
        // Someone may have run `disable` meanwhile.
        let state = dir.load_enabled()?;
        let minutes = state
            .check_interval
            .clamp(*INTERVAL_MINUTES.start(), *INTERVAL_MINUTES.end());
        let interval = Duration::from_secs(u64::from(minutes) * 60);
        let wait = match &result {
            Ok(_) => {
                failures = 0;
                interval
            }
            Err(Error::Interrupted) => return Ok(()),
            Err(e) => {
                failures += 1;
                retry_delay(failures, interval, e.retry_after())
            }
        };
        let wait = jitter(wait, random());
        match &result {
            Ok(outcome) => say(format!(
                "{}; next check in {} s",
                describe(outcome),
                wait.as_secs()
            )),
            Err(e) => say(format!("{e}; next try in {} s", wait.as_secs())),
        }
        let mut pings: &[(u64, PingType)] = match result {
            Ok(Outcome::Applied(_)) => &LATER_PINGS,
            _ => &[],
        };
        let next = started + wait;
        loop {
            let ping = pings
                .first()
                .map(|(after, kind)| (started + Duration::from_secs(*after), *kind));
            let due = ping.map_or(next, |(at, _)| at.min(next));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(due) => {}
            }
            let (Some((at, kind)), Some(session)) = (ping, &mut session) else {
                break;
            };
            if at > due {
                break;
            }
            pings = &pings[1..];
            session.ping(kind, None).await;
            session.warnings.drain(..).for_each(&mut say);
        }
    }
    Ok(())
}

async fn round(
    dir: &StateDir,
    given: &Given,
    how: &How,
    stop: &CancellationToken,
    say: &mut impl FnMut(String),
) -> Result<(Outcome, Session), Error> {
    let _lock = dir.lock()?;
    let mut session = Session::open(dir.clone(), given)?;
    let result = session.check(how, stop).await;
    session.warnings.drain(..).for_each(say);
    Ok((result?, session))
}

/// An outcome in words.
pub fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::NothingToSay => "the server has nothing to say".to_owned(),
        Outcome::NoPatch => "no patch is offered to this machine".to_owned(),
        Outcome::Unchanged(version, state) => format!("nothing new: patch {version} is {state}"),
        Outcome::Kept(version) => {
            format!("patch {version} was verified and kept; it is not applied")
        }
        Outcome::Assumed(version) => {
            format!(
                "patch {version} was verified and kept, and is reported as applied; nothing was inserted"
            )
        }
        Outcome::Applied(version) => format!("patch {version} is applied"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_checks_are_tried_again_ever_more_slowly() {
        let interval = Duration::from_hours(1);
        let waits: Vec<u64> = (1..=9)
            .map(|n| retry_delay(n, interval, None).as_secs())
            .collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(retry_delay(u32::MAX, interval, None), interval);
        assert_eq!(
            retry_delay(1, interval, Some(Duration::from_secs(90))).as_secs(),
            90
        );
        assert_eq!(
            retry_delay(1, interval, Some(Duration::from_secs(1_000_000))),
            interval
        );
    }

    #[test]
    fn waits_are_spread_by_a_tenth() {
        let wait = Duration::from_secs(100);
        assert_eq!(jitter(wait, 0).as_secs(), 90);
        assert_eq!(jitter(wait, u16::MAX).as_secs(), 110);
    }
}
