//! The simulated fleet against a real server: what it counts is what the database holds, and nothing that goes wrong is
//! hidden.

use crate::support::kmod;
use crate::support::server::TestServer;
use livepatch_onprem::domain::MachineId;
use livepatch_onprem::domain::policy::Share;
use livepatch_onprem::sim::error::Error;
use livepatch_onprem::sim::fleet::{self, Options, Spread, Summary};
use livepatch_onprem::sim::tls::Tls;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A fleet whose machines all run the kernel that the test bundles are for.
fn options(server: &TestServer, token: &str, machines: u32) -> Options {
    Options {
        server: server.url.clone(),
        tls: Tls::default(),
        token: token.to_owned(),
        machines,
        seed: 1,
        rate: Some(400.0),
        duration: Duration::from_millis(500),
        spread: Spread::parse(&format!("{} amd64 1", kmod::kernel())).unwrap(),
        connections: 16,
        downloads: false,
        tokens: None,
        ledger: None,
        faults: Vec::new(),
        unstable: Share::NONE,
    }
}

async fn run(options: &Options) -> Result<Summary, Error> {
    fleet::run(options, &CancellationToken::new(), |_| {}).await
}

async fn count(server: &TestServer, sql: &str) -> i64 {
    server
        .db
        .raw()
        .await
        .query_one(sql, &[])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_add_up_with_the_database() {
    let server = TestServer::with_two_patches().await;
    let token = server.token("fleet", "edge").await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        downloads: true,
        tokens: Some(folder.path().join("tokens")),
        ledger: Some(folder.path().join("ledger")),
        ..options(&server, &token, 40)
    };
    let first = run(&options).await.unwrap();
    assert_eq!((first.enabled, first.registered), (40, 40), "{first:?}");
    assert_eq!((first.due, first.sent, first.ok), (200, 200, 200));
    assert!(first.errors.is_empty(), "{first:?}");
    // Five check-ins each: the first is answered with the newest patch, after which there is nothing left to offer,
    // unless the next one was under way already.
    assert!((40..200).contains(&first.offers), "{first:?}");
    assert_eq!(first.downloads.ok, first.offers, "{first:?}");
    assert!(first.downloads.bytes > 0);
    let ms = first.latency_ms;
    assert!(0.0 < ms.p50 && ms.p50 <= ms.p99 && ms.p99 <= ms.max);

    let ids = server.db.raw().await;
    let rows = ids
        .query("select id::text from machines", &[])
        .await
        .unwrap();
    let ids: BTreeSet<MachineId> = rows
        .iter()
        .map(|row| row.get::<_, String>(0).parse().unwrap())
        .collect();
    let expected: BTreeSet<MachineId> = (0..40).map(|n| fleet::id(1, n)).collect();
    assert_eq!(ids, expected);
    let code = "107.1"
        .parse::<livepatch_onprem::domain::PatchVersion>()
        .unwrap()
        .code();
    let applied = format!("select count(*) from machines where patch = {code}");
    assert_eq!(count(&server, &applied).await, 40);

    // The ledger says the same as the summary, and the database has what it says was acknowledged.
    let ledger = fleet::ledger::read(&folder.path().join("ledger")).unwrap();
    assert_eq!(ledger.len(), 40);
    let acknowledged: u64 = ledger.iter().map(|(_, entry)| entry.count).sum();
    assert_eq!(acknowledged, first.ok);
    let raw = server.db.raw().await;
    for (id, entry) in &ledger {
        let row = raw
            .query_one(
                "select (extract(epoch from last_check) * 1000000)::bigint from machines where id = $1",
                &[&uuid::Uuid::from_bytes(id.0)],
            )
            .await
            .unwrap();
        assert!(row.get::<_, i64>(0) >= entry.sent_at, "{id} {entry:?}");
    }

    // The same machines again, with the tokens they have: nobody registers, nobody is new.
    let second = run(&options).await.unwrap();
    assert_eq!((second.enabled, second.registered), (40, 0));
    assert_eq!((second.ok, second.due), (200, 200), "{second:?}");
    assert_eq!(count(&server, "select count(*) from machines").await, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stalled_server_does_to_whom_is_counted_by_kind() {
    let server = TestServer::with(|config| {
        config.server.concurrency_limit = 1;
        config.server.burst_limit = 1;
    })
    .await;
    let token = server.token("fleet", "edge").await;
    let folder = tempfile::tempdir().unwrap();
    let calm = Options {
        connections: 1,
        rate: Some(100.0),
        duration: Duration::from_millis(50),
        tokens: Some(folder.path().join("tokens")),
        ..options(&server, &token, 20)
    };
    let first = run(&calm).await.unwrap();
    assert_eq!(
        (first.enabled, first.ok, first.due),
        (20, 5, 5),
        "{first:?}"
    );

    // The table is locked: one check-in holds the only place, one waits, the others are turned away.
    let mut blocker = server.db.raw().await;
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("lock table machines in access exclusive mode")
        .await
        .unwrap();
    let busy = Options {
        connections: 8,
        rate: Some(200.0),
        duration: Duration::from_millis(500),
        ..calm
    };
    let summary = run(&busy).await.unwrap();
    assert_eq!(summary.registered, 0);
    assert_eq!((summary.due, summary.sent), (100, 100), "{summary:?}");
    let turned_away = summary.errors["status-429"];
    assert!(turned_away >= 50, "{summary:?}");
    assert!(summary.errors["not-stored"] >= 1, "{summary:?}");
    let failed: u64 = summary.errors.values().sum();
    assert_eq!(summary.ok + failed, summary.due, "{summary:?}");
    // The first one waited for the server's patience with the database, and that is what the longest says.
    assert!(summary.latency_ms.max >= 1000.0, "{summary:?}");
    lock.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_got_its_turn_is_counted() {
    let server = TestServer::start().await;
    let token = server.token("fleet", "edge").await;
    let stop = CancellationToken::new();
    let mut blocker = server.db.raw().await;
    let options = Options {
        connections: 1,
        rate: Some(1000.0),
        duration: Duration::from_hours(1),
        ..options(&server, &token, 5)
    };
    // The load begins when its second line is said; then the table is locked, and the one connection with it.
    let (said, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let running = {
        let stop = stop.clone();
        tokio::spawn(async move {
            let say = move |line: String| drop(said.send(line));
            fleet::run(&options, &stop, say).await
        })
    };
    lines.recv().await.unwrap();
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("lock table machines in access exclusive mode")
        .await
        .unwrap();
    // The progress line comes after five seconds, in which some 5,000 were due.
    lines.recv().await.unwrap();
    stop.cancel();
    let summary = running.await.unwrap().unwrap();
    lock.rollback().await.unwrap();
    assert!(summary.interrupted);
    assert!(summary.due >= 4000, "{summary:?}");
    let unsent = summary.errors["not-sent"];
    assert!(
        unsent > 0 && unsent == summary.due - summary.sent,
        "{summary:?}"
    );
    let failed: u64 = summary.errors.values().sum();
    assert_eq!(summary.ok + failed, summary.due, "{summary:?}");
}

#[tokio::test]
async fn a_wrong_token_and_a_server_that_is_not_there_are_said() {
    let mut server = TestServer::start().await;
    let error = run(&options(&server, "lpa_wrong", 3)).await.unwrap_err();
    assert!(
        matches!(error, Error::Refused { status: 401, .. }),
        "{error}"
    );

    let token = server.token("fleet", "edge").await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        rate: Some(100.0),
        duration: Duration::from_millis(100),
        tokens: Some(folder.path().join("tokens")),
        ..options(&server, &token, 3)
    };
    assert_eq!(run(&options).await.unwrap().ok, 10);
    server.stop().await;
    let gone = run(&options).await.unwrap();
    assert_eq!((gone.ok, gone.due), (0, 10));
    assert_eq!(gone.errors["connection-refused"], 10, "{gone:?}");

    let elsewhere = Options {
        server: "http://127.0.0.1:9".to_owned(),
        ..options
    };
    let error = run(&elsewhere).await.unwrap_err();
    assert!(error.to_string().contains("are for http://"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_prints_what_came_of_it_so_far() {
    let server = TestServer::start().await;
    let token = server.token("fleet", "edge").await;
    let summary = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_livepatch-client"))
            .args([
                "fleet",
                "--machines",
                "6",
                "--rate",
                "50",
                "--duration",
                "1h",
            ])
            .args([
                "--output",
                "json",
                "--server",
                &server.url,
                "--token",
                &token,
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("6 machines enabled"), "{line}");
        // The first progress line: the load runs.
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("stored"), "{line}");
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    })
    .await
    .unwrap();
    assert_eq!(summary["interrupted"], true, "{summary}");
    assert_eq!(summary["registered"], 6, "{summary}");
    assert!(summary["ok"].as_u64().unwrap() > 50, "{summary}");
    assert_eq!(summary["errors"], serde_json::json!({}), "{summary}");
    assert!(summary["latency-ms"]["p99.9"].as_f64().unwrap() > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_strike_a_share_of_the_machines() {
    let server = TestServer::with_two_patches().await;
    let token = server.token("fleet", "edge").await;
    let faulty = Options {
        faults: vec![
            "patch=107.1,rate=20%,state=apply-failed".parse().unwrap(),
            "patch=107.1,rate=50%,state=crash".parse().unwrap(),
        ],
        unstable: Share::percent(10),
        ..options(&server, &token, 40)
    };
    let summary = run(&faulty).await.unwrap();
    let version = "107.1".parse().unwrap();
    let struck = |fault: usize| {
        (0..40)
            .filter(|n| faulty.faults[fault].strikes(version, &fleet::id(1, *n)))
            .count() as u64
    };
    // A machine that both would strike fails, and does not go silent.
    assert!((1..=struck(0)).contains(&summary.failures), "{summary:?}");
    assert!((1..=struck(1)).contains(&summary.crashed), "{summary:?}");
    assert!(summary.lost > 0 && summary.errors.is_empty(), "{summary:?}");
    let failed = count(&server, "select count(*) from machines where state = 2").await;
    assert!(
        failed > 0 && failed.unsigned_abs() <= summary.failures,
        "{failed}"
    );
}
