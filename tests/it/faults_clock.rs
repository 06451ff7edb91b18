//! The server's clock stepped by 30 days either way, under a running process and between two starts. The database keeps
//! its own, right clock.

use crate::support::ledger::{self, Ledger, Outcome};
use crate::support::process::{Server, Site};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A clock that a process can be made to believe in.
struct Clock {
    file: PathBuf,
    preloaded: PathBuf,
}

impl Clock {
    fn new(folder: &Path) -> Self {
        let libraries = std::fs::read_dir("/usr/lib").unwrap();
        let library = libraries
            .map(|entry| entry.unwrap().path().join("faketime/libfaketimeMT.so.1"))
            .chain([PathBuf::from("/usr/lib/faketime/libfaketimeMT.so.1")])
            .find(|path| path.exists())
            .expect("libfaketime is missing (Debian: faketime); run `make setup`");
        let clock = Self {
            file: folder.join("clock"),
            preloaded: library,
        };
        clock.set(0);
        clock
    }

    /// Steps it so many days from the right time.
    fn set(&self, days: i32) {
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{days:+}d")).unwrap();
        std::fs::rename(&next, &self.file).unwrap();
    }

    /// Starts a server that goes by this clock.
    async fn start(&self, site: &Site) -> Server {
        let program = Command::new(env!("CARGO_BIN_EXE_livepatch-server"));
        let text = |path: &Path| path.display().to_string();
        let environment = [
            ("LD_PRELOAD", &*text(&self.preloaded)),
            ("FAKETIME_TIMESTAMP_FILE", &*text(&self.file)),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        site.start_as(program, &environment).await
    }
}

/// How many days before or after now the machine's last check-in is.
async fn last_check(site: &Site, machine: u128) -> i32 {
    let sql = "select round(extract(epoch from last_check - now()) / 86400)::int from machines where id = $1";
    let id = uuid::Uuid::from_u128(machine);
    let row = site.raw().await.query_one(sql, &[&id]).await.unwrap();
    row.get(0)
}

/// Every number on the page of metrics is one, and what only grows or is a time is not negative.
async fn metrics_are_sane(server: &Server) {
    let (status, text) = server.page("metrics").await;
    assert_eq!(status, 200);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let duration = line.contains("_seconds_sum");
        assert!(!duration || value < 86_400.0, "{line}");
    }
}

#[tokio::test]
async fn the_clock_steps_by_thirty_days() {
    let mut site = Site::new().await;
    // Long enough for what a clock that is behind writes; a server whose clock is ahead must not shorten it.
    site.set("LP_MACHINE_REPORTS_DATABASE_RETENTION_DAYS", "40");
    let clock = Clock::new(site.folder.path());
    let mut server = clock.start(&site).await;
    server.stored("107.1").await;
    let endless = server.token("endless", "edge").await;
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(240);
    let body = json!({ "name": "ten-days", "tier": "edge", "valid-until": until });
    let made = server.admin("POST", "auth-tokens", body).await.unwrap();
    let short = made.expect(201)["token"].as_str().unwrap().to_owned();
    let mut acknowledged = Ledger::default();
    let mut machines = Vec::new();
    let (mut number, mut slowest) = (0, Duration::ZERO);
    // Stepped while it runs; and at every second time it is also started anew on the stepped clock.
    for (step, days) in [0, 30, 0, -30, 0, 30, -30, 0].into_iter().enumerate() {
        clock.set(days);
        if step % 2 == 1 {
            server.stop().await;
            server = clock.start(&site).await;
            slowest = slowest.max(server.ready);
        }
        // Every machine that was ever registered, by whatever clock, is known and its check-ins are stored.
        let new = step as u128 + 1;
        machines.push((new, server.registered(new, &endless).await));
        acknowledged.note(ledger::registered(new));
        for (machine, token) in &machines {
            number += 1;
            let version = format!("{number}.1");
            server.reported(*machine, token, Some(&version)).await;
            acknowledged.note(ledger::check_in(*machine, number));
            assert_eq!(
                last_check(&site, *machine).await,
                days,
                "by the server's clock"
            );
        }
        // A token with an end ends by the clock, and is good again when the clock is right again.
        let enabled = server.register(1000, &short).await.unwrap();
        assert_eq!(enabled.status, if days > 10 { 401 } else { 200 }, "{days}");
        assert_eq!(server.download("107.1").await.0, 200);
        for path in [
            "machines",
            "reports/machines?tier=edge",
            "reports/patch-health?tier=edge&version=107.1",
            "audit",
        ] {
            server
                .admin("GET", path, Value::Null)
                .await
                .unwrap()
                .expect(200);
        }
        metrics_are_sane(&server).await;
    }
    let lost = acknowledged.lost(&site).await;
    // A machine that got its token from a clock that was ahead can be revoked, and enabled again.
    clock.set(30);
    let ahead = server.registered(2000, &endless).await;
    clock.set(0);
    let path = format!("machines/{:032x}/revoke", 2000);
    let revoked = server.admin("POST", &path, json!({})).await.unwrap();
    revoked.expect(200);
    assert_eq!(server.check(2000, &ahead, None).await.unwrap().status, 401);
    let again = server.registered(2000, &endless).await;
    server.check(2000, &again, None).await.unwrap().expect(200);
    let verdict = server.admin("GET", "audit/verify", Value::Null).await;
    assert_eq!(verdict.unwrap().expect(200)["ok"], true);
    server.stop().await;
    Outcome {
        scenario: "the server's clock stepped by 30 days, either way".to_owned(),
        runs: 7,
        acknowledged: acknowledged.len(),
        lost,
        slowest,
    }
    .told();
}
