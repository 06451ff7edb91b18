//! PostgreSQL killed, stopped and frozen under a running server: offers and downloads go on, writes are answered 503
//! soon, nothing acknowledged is lost, and the server recovers by itself.

use crate::support::cluster::Cluster;
use crate::support::kmod;
use crate::support::ledger::{self, Ledger, Outcome, runs};
use crate::support::process::{Answer, Died, Server, Site, until};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A write must be refused within two seconds; the rest is for a machine that is busy with other tests.
const REFUSED: Duration = Duration::from_secs(10);

/// Machines that check in all the time, and what of it was acknowledged as stored.
struct Load {
    tokens: Vec<String>,
    next: u32,
    stored: Arc<AtomicUsize>,
}

impl Load {
    async fn new(server: &Server, auth_token: &str, ledger: &mut Ledger) -> Self {
        let mut tokens = Vec::new();
        for machine in 1..=4 {
            tokens.push(server.registered(machine, auth_token).await);
            ledger.note(ledger::registered(machine));
        }
        Self {
            tokens,
            next: 1,
            stored: Arc::default(),
        }
    }

    /// Checks in until `over`. Whatever happens to the database, an answer says what is offered.
    async fn until(&mut self, server: &Server, over: &AtomicBool) -> Ledger {
        let mut noted = Ledger::default();
        while !over.load(Ordering::Relaxed) {
            let (number, version) = (self.next, format!("{}.1", self.next));
            self.next += 1;
            let checks = self
                .tokens
                .iter()
                .zip(1..)
                .map(|(token, machine)| server.check(machine, token, Some(&version)));
            let answers = futures_util::future::join_all(checks).await;
            for (answer, machine) in answers.into_iter().zip(1..) {
                if answer.unwrap().expect(200)["stored"] == true {
                    noted.note(ledger::check_in(machine, number));
                    self.stored.fetch_add(1, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        noted
    }
}

/// An answer, and how long it took.
async fn timed(asking: impl Future<Output = Result<Answer, Died>>) -> (Answer, Duration) {
    let started = Instant::now();
    (asking.await.unwrap(), started.elapsed())
}

/// What a caller meets while the database is away. Returns the longest that a write waited for its refusal.
async fn while_away(server: &Server, auth_token: &str, token: &str) -> Duration {
    let (name, bytes) = kmod::bundle_in_memory("107.2", true);
    let body = json!({ "tier": "beta" });
    let (offer, registered, promoted, uploaded) = tokio::join!(
        timed(server.check(100, token, None)),
        timed(server.register(200, auth_token)),
        timed(server.admin("POST", "patches/107.1/promote", body)),
        timed(server.upload(&name, bytes)),
    );
    let offered = offer.0.expect(200);
    assert_eq!(offered["patches"][0]["version"], "107.1");
    assert_eq!(offered["stored"], false);
    let mut longest = offer.1;
    for (answer, took) in [registered, promoted, uploaded] {
        answer.refused();
        longest = longest.max(took);
    }
    let (status, bytes) = server.download("107.1").await;
    let file = std::fs::read(kmod::real_bundle("107.1", "patched")).unwrap();
    assert_eq!(status, 200, "{:?}", bytes.err());
    assert!(bytes.unwrap() == file);
    assert_eq!(server.page("readyz").await.0, 200);
    assert_eq!(server.page("debug/status").await.0, 503);
    assert!(longest < REFUSED, "{longest:?}");
    longest
}

/// What is done to PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Killed,
    Stopped,
    Frozen,
}

/// The site of one test, and what was acknowledged there.
struct Test {
    cluster: Cluster,
    site: Site,
    server: Server,
    load: Load,
    auth_token: String,
    /// Of machine number 100, which runs no patch.
    token: String,
    acknowledged: Ledger,
}

impl Test {
    async fn new() -> Self {
        let cluster = Cluster::start().await;
        let site = Site::private(cluster.running()).await;
        let server = site.start().await;
        server.stored("106.1").await;
        server.stored("107.1").await;
        let auth_token = server.token("machines", "edge").await;
        let mut acknowledged = Ledger::default();
        let load = Load::new(&server, &auth_token, &mut acknowledged).await;
        let token = server.registered(100, &auth_token).await;
        acknowledged.note(ledger::registered(100));
        assert_eq!(server.offered(100, &token).await, "107.1");
        Self {
            cluster,
            site,
            server,
            load,
            auth_token,
            token,
            acknowledged,
        }
    }

    /// Takes PostgreSQL away, `runs` times for at least `lasts`, under load.
    async fn away(&mut self, way: Way, runs: u32, lasts: Duration) {
        let (mut slowest, mut refused) = (Duration::ZERO, Duration::ZERO);
        let (mut lost, before) = (Vec::new(), self.acknowledged.len());
        for _ in 0..runs {
            let over = AtomicBool::new(false);
            let Self {
                cluster,
                server,
                load,
                auth_token,
                token,
                ..
            } = self;
            let counted = Arc::clone(&load.stored);
            let already = counted.load(Ordering::Relaxed);
            let scenario = async {
                let busy = async || counted.load(Ordering::Relaxed) > already + 40;
                until("some load", busy).await;
                let mut frozen = None;
                match way {
                    Way::Killed => cluster.kill().await,
                    Way::Stopped => cluster.stop().await,
                    Way::Frozen => frozen = Some(cluster.freeze().await),
                }
                let began = Instant::now();
                loop {
                    refused = refused.max(while_away(server, auth_token, token).await);
                    if began.elapsed() >= lasts {
                        break;
                    }
                }
                drop(frozen);
                cluster.restart().await;
                let stored = async || {
                    let answer = server.check(100, token, None).await.unwrap();
                    answer.expect(200)["stored"] == true
                };
                let recovered = until("a stored check-in", stored).await;
                let promoted = async || {
                    let body = json!({ "tier": "beta" });
                    let answer = server.admin("POST", "patches/107.1/promote", body).await;
                    answer.unwrap().status == 200
                };
                let recovered = recovered + until("a promotion", promoted).await;
                slowest = slowest.max(recovered);
                over.store(true, Ordering::Relaxed);
            };
            let (noted, ()) = tokio::join!(load.until(server, &over), scenario);
            self.acknowledged.add(noted);
            lost.extend(self.acknowledged.lost(&self.site).await);
        }
        let words = match way {
            Way::Killed => "PostgreSQL killed with -9 and started again",
            Way::Stopped => "PostgreSQL stopped and started again",
            Way::Frozen => "PostgreSQL frozen (SIGSTOP) and woken",
        };
        println!("{words}: the slowest write was refused after {refused:?}");
        Outcome {
            scenario: format!("{words}, away for {} s", lasts.as_secs()),
            runs,
            acknowledged: self.acknowledged.len() - before,
            lost,
            slowest,
        }
        .told();
    }
}

/// How long the longest absence is: `LIVEPATCH_FAULT_PAUSE` seconds, else this.
fn pause(otherwise: u64) -> Duration {
    let given = std::env::var("LIVEPATCH_FAULT_PAUSE").ok();
    Duration::from_secs(given.map_or(otherwise, |text| text.parse().unwrap()))
}

#[tokio::test]
async fn postgresql_is_killed_stopped_and_frozen() {
    let mut test = Test::new().await;
    test.away(Way::Killed, runs(2).min(5), Duration::ZERO).await;
    test.away(Way::Stopped, 1, Duration::ZERO).await;
    test.away(Way::Frozen, 1, pause(3)).await;
    test.server.stop().await;
}
