//! kill -9 around every object write and every commit of what is acknowledged, many times over, of a real server process
//! under the load of machines that check in: nothing acknowledged is lost, nothing is half done, and the next server on
//! the same data is ready soon.

use crate::support::kmod;
use crate::support::ledger::{self, Ledger, Outcome, facts, objects_are_whole, runs};
use crate::support::process::{Died, Server, Site, comes};
use livepatch_onprem::domain::Sha256;
use livepatch_onprem::service::failpoint::{FAILPOINTS, SYNC_FAILPOINTS, VARIABLE};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Machines that check in meanwhile.
const MACHINES: u128 = 3;
/// More than are needed until a place is passed often enough.
const ENOUGH: u32 = 50;

/// The operations of one test, one after another.
struct Work {
    /// What is done; the first words of the failpoints' names.
    kind: &'static str,
    /// The number of the operation that comes next.
    next: u32,
    /// The bundle of that operation, if it needs one.
    bundle: (String, Vec<u8>),
    auth_token: String,
    patches: PathBuf,
}

impl Work {
    /// What the next operation leaves in the database.
    fn prepare(&mut self) -> String {
        let n = self.next;
        let mut file = |what, version: &str, signed| {
            self.bundle = kmod::bundle_in_memory(version, signed);
            ledger::file(what, &self.bundle.0, &self.bundle.1)
        };
        match self.kind {
            "register" => ledger::registered(1000 + u128::from(n)),
            "promote" => format!("promoted {} stable", 1000 + n),
            "block" => format!("blocked {}", 1000 + n),
            "token" => format!("token number-{n}"),
            "heal" => file("stored", "107.1", true),
            "ingest" | "refresh" => file("stored", &format!("107.{n}"), true),
            "quarantine" => file("quarantined", &format!("107.{n}"), false),
            other => panic!("no work is called {other}"),
        }
    }

    /// Where the bundle's object lies.
    fn object(&self) -> PathBuf {
        let sha256 = Sha256::of(&self.bundle.1).to_string();
        let place = format!("objects/sha256/{}/{sha256}", &sha256[..2]);
        self.patches.join(place)
    }

    /// Does the next operation; an answer must be one of success, or that the server is too busy now, on which it is done
    /// again. Doing it again after a kill must succeed as well.
    async fn operate(&self, server: &Server) -> Result<(), Died> {
        comes("an operation", async || {
            match self.operate_once(server).await {
                Ok(503) => Err("the server is too busy"),
                done => Ok(done.map(drop)),
            }
        })
        .await
    }

    /// The status of the answer.
    async fn operate_once(&self, server: &Server) -> Result<u16, Died> {
        let n = self.next;
        let post = |path: String, body| async move { server.admin("POST", &path, body).await };
        let answer = match self.kind {
            "register" => {
                let machine = 1000 + u128::from(n);
                server.register(machine, &self.auth_token).await?
            }
            "promote" => {
                let path = format!("patches/{}.1/promote", 1000 + n);
                post(path, json!({ "tier": "stable" })).await?
            }
            "block" => post(format!("patches/{}.1/block", 1000 + n), json!({})).await?,
            "token" => {
                let body = json!({ "name": format!("number-{n}"), "tier": "edge" });
                let answer = post("auth-tokens".to_owned(), body).await?;
                // It may have been made before the server died.
                if answer.status == 409 {
                    return Ok(answer.status);
                }
                answer
            }
            "heal" => {
                // Gone behind the server's back.
                let _ = std::fs::remove_file(self.object());
                server.upload(&self.bundle.0, self.bundle.1.clone()).await?
            }
            "refresh" => return self.refresh(server).await,
            _ => server.upload(&self.bundle.0, self.bundle.1.clone()).await?,
        };
        let good = (200..300).contains(&answer.status) || answer.status == 503;
        assert!(good, "{}: {answer:?}", self.kind);
        Ok(answer.status)
    }

    /// Has a file in the storage's folder taken in and its original removed.
    async fn refresh(&self, server: &Server) -> Result<u16, Died> {
        let place = self.patches.join(&self.bundle.0);
        std::fs::write(&place, &self.bundle.1).unwrap();
        let body = json!({ "remove-originals": true });
        let started = comes("a job", async || {
            let path = "storage/refresh";
            match server.admin("POST", path, body.clone()).await {
                // The lock of a server that was killed is free when PostgreSQL has seen that its connection is gone.
                Ok(answer) if answer.status == 409 => Err(answer.body),
                answer => Ok(answer),
            }
        })
        .await?;
        if started.status == 503 {
            return Ok(503);
        }
        assert!(started.status < 300, "{started:?}");
        let path = format!("jobs/{}", started.body["id"]);
        let job = comes("the end of the job", async || {
            let job = match server.admin("GET", &path, Value::Null).await {
                Ok(answer) => answer.expect(200),
                Err(died) => return Ok(Err(died)),
            };
            if job["state"] == "running" {
                Err(job)
            } else {
                Ok(Ok(job))
            }
        })
        .await?;
        assert_eq!(job["state"], "done", "{job:#}");
        assert!(!place.exists(), "the original is still there");
        Ok(started.status)
    }

    /// Does one operation after another until the server dies. Returns what was acknowledged and what was not.
    async fn until_it_dies(&mut self, server: &Server) -> (Ledger, String) {
        let mut noted = Ledger::default();
        for _ in 0..ENOUGH {
            let fact = self.prepare();
            if self.operate(server).await.is_err() {
                return (noted, fact);
            }
            noted.note(fact);
            self.next += 1;
        }
        panic!("{}: the server does not die", self.kind);
    }
}

/// A machine that goes on where it was with every new server.
struct Reporter {
    machine: u128,
    token: String,
    /// Number of its next check-in.
    next: u32,
}

impl Reporter {
    /// Checks in again and again until the server dies; returns what was acknowledged.
    async fn until_it_dies(&mut self, server: &Server, pause: Duration) -> Ledger {
        let mut noted = Ledger::default();
        for _ in 0..20_000 {
            let (number, version) = (self.next, format!("{}.1", self.next));
            self.next += 1;
            let checked = server.check(self.machine, &self.token, Some(&version));
            let Ok(answer) = checked.await else {
                return noted;
            };
            // On a machine that is very busy the database may count as away for a moment.
            if answer.expect(200)["stored"] == true {
                noted.note(ledger::check_in(self.machine, number));
            }
            tokio::time::sleep(pause).await;
        }
        panic!("the server does not die");
    }
}

/// A site with machines and patches, and what was acknowledged there.
struct Test {
    site: Site,
    work: Work,
    reporters: Vec<Reporter>,
    acknowledged: Ledger,
}

impl Test {
    async fn new(kind: &'static str) -> Self {
        let site = Site::new().await;
        let server = site.start().await;
        let mut work = Work {
            kind,
            next: 1,
            bundle: (String::new(), Vec::new()),
            auth_token: server.token("machines", "edge").await,
            patches: site.patches(),
        };
        let mut acknowledged = Ledger::default();
        let mut reporters = Vec::new();
        for machine in 1..=MACHINES {
            let token = server.registered(machine, &work.auth_token).await;
            let next = 1;
            reporters.push(Reporter {
                machine,
                token,
                next,
            });
            acknowledged.note(ledger::registered(machine));
        }
        if kind == "heal" {
            acknowledged.note(work.prepare());
            let stored = server.upload(&work.bundle.0, work.bundle.1.clone()).await;
            stored.unwrap().expect(201);
        }
        server.stop().await;
        // Patches that are only rows are enough to be promoted and blocked.
        let plant = "insert into patches (version) select (n << 20) | 1 from generate_series(1001::bigint, 3000) n;
            insert into promotions (patch_id, tier_id, actor) select p.id, t.id, 'test' from patches p, tiers t
                where t.name = 'edge' and p.version > 1000::bigint << 20";
        site.raw().await.batch_execute(plant).await.unwrap();
        Self {
            site,
            work,
            reporters,
            acknowledged,
        }
    }

    /// Kills a server at this place, `runs` times; not always the first time that the place is passed.
    async fn dies_at(&mut self, place: &'static str, runs: u32) {
        let (mut slowest, mut lost) = (Duration::ZERO, Vec::new());
        let before = self.acknowledged.len();
        for run in 0..runs {
            let alone = self.work.kind == "check-in";
            let pass = 1 + match self.work.kind {
                "check-in" => run * 7 % 40,
                "register" | "promote" | "block" | "token" => run * 7 % 20,
                _ => run % 3,
            };
            let chosen = format!("{place}:{pass}");
            let program = Command::new(env!("CARGO_BIN_EXE_livepatch-server"));
            let mut server = self.site.start_as(program, &[(VARIABLE, &chosen)]).await;
            slowest = slowest.max(server.ready);
            // What was under way when the last server died is done again first.
            let pause = Duration::from_millis(if alone { 0 } else { 10 });
            let load = self
                .reporters
                .iter_mut()
                .map(|reporter| reporter.until_it_dies(&server, pause));
            let load = futures_util::future::join_all(load);
            let open = if alone {
                for noted in load.await {
                    self.acknowledged.add(noted);
                }
                None
            } else {
                let work = self.work.until_it_dies(&server);
                let (noted, (done, open)) = tokio::join!(load, work);
                for noted in noted.into_iter().chain([done]) {
                    self.acknowledged.add(noted);
                }
                Some(open)
            };
            server.was_killed().await;
            let at = format!("{place}, run {run}");
            self.nothing_is_half_done(place, &at, open).await;
            lost.extend(self.acknowledged.lost(&self.site).await);
        }
        Outcome {
            scenario: format!("kill -9 at {place}"),
            runs,
            acknowledged: self.acknowledged.len() - before,
            lost,
            slowest,
        }
        .told();
    }

    /// What was under way is there if, and only if, it was committed; every row has its object.
    async fn nothing_is_half_done(&self, place: &str, at: &str, open: Option<String>) {
        objects_are_whole(&self.site, at).await;
        // A healed payload was there before; a removed original is no fact.
        if let Some(open) = open.filter(|_| !matches!(self.work.kind, "heal" | "refresh")) {
            let there = facts(&self.site).await.contains(&open);
            assert_eq!(there, place.ends_with("after-commit"), "{at}: {open}");
        }
    }
}

/// Kills at every place of this kind of work, then looks whether all is well with the server that comes after.
async fn survives(kind: &'static str) {
    let places: Vec<&'static str> = FAILPOINTS
        .iter()
        .filter(|place| place.starts_with(&format!("{kind}-")))
        .copied()
        .collect();
    assert!(!places.is_empty(), "{kind}");
    let mut test = Test::new(kind).await;
    for place in places {
        test.dies_at(place, runs(5)).await;
    }
    let server = test.site.start().await;
    if kind != "check-in" {
        let fact = test.work.prepare();
        if kind == "heal" {
            assert!(test.work.object().exists(), "put back before it died");
        }
        test.work.operate(&server).await.unwrap();
        test.acknowledged.note(fact);
    }
    let verdict = server.admin("GET", "audit/verify", Value::Null).await;
    assert_eq!(verdict.unwrap().expect(200)["ok"], true);
    objects_are_whole(&test.site, "at the end").await;
    assert_eq!(test.acknowledged.lost(&test.site).await, [""; 0]);
    server.stop().await;
}

#[tokio::test]
async fn killed_around_the_intake_of_a_payload() {
    survives("ingest").await;
}

#[tokio::test]
async fn killed_around_the_quarantine_of_a_file() {
    survives("quarantine").await;
}

#[tokio::test]
async fn killed_while_a_damaged_payload_is_healed() {
    survives("heal").await;
}

#[tokio::test]
async fn killed_while_found_files_are_taken_in() {
    survives("refresh").await;
}

#[tokio::test]
async fn killed_around_a_promotion() {
    survives("promote").await;
}

#[tokio::test]
async fn killed_around_a_block() {
    survives("block").await;
}

#[tokio::test]
async fn killed_around_the_making_of_a_token() {
    survives("token").await;
}

#[tokio::test]
async fn killed_around_a_registration() {
    survives("register").await;
}

#[tokio::test]
async fn killed_around_the_commit_of_check_ins() {
    survives("check-in").await;
}

#[test]
fn every_failpoint_is_in_the_code_once_and_killed_at() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    for folder in ["src/service", "src/service/ingest", "src/service/sync"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let tests = std::fs::read_to_string(root.join(file!())).unwrap();
    for name in FAILPOINTS {
        let call = format!("failpoint(\"{name}\")");
        assert_eq!(text.matches(&call).count(), 1, "{name}");
        let killed = |kind: &str| tests.contains(&format!("survives(\"{kind}\")"));
        let kinds = name.match_indices('-').map(|(at, _)| &name[..at]);
        assert!(kinds.into_iter().any(killed), "{name}");
    }
    // Those of sync and pruning are killed at in `sync_faults.rs` and `prune_crash.rs`.
    for name in SYNC_FAILPOINTS {
        let call = format!("failpoint(\"{name}\")");
        assert_eq!(text.matches(&call).count(), 1, "{name}");
    }
    let calls = text.matches("failpoint(\"").count();
    let listed = FAILPOINTS.len() + SYNC_FAILPOINTS.len();
    assert_eq!(calls, listed, "a failpoint is not listed");
}
