//! The schema and its statements, against a real PostgreSQL.

use crate::support::db::TestDb;
use livepatch_onprem::db::audit::{self, Actor, Entry};
use livepatch_onprem::db::listen::{Change, Heard, listen};
use livepatch_onprem::db::machines::{CheckInRow, write_check_ins};
use livepatch_onprem::db::{all_statements, catalog, migrate};
use livepatch_onprem::domain::{MachineId, TierName};
use livepatch_onprem::rollout::support::{DEFAULT_TABLE, SupportTable};
use livepatch_onprem::service::Snapshots;
use serde_json::json;
use std::sync::Arc;

fn actor() -> Actor {
    Actor {
        name: "tester".into(),
        source: "127.0.0.1".into(),
    }
}

#[tokio::test]
async fn every_statement_fits_the_schema() {
    let db = TestDb::new().await;
    let client = db.raw().await;
    let statements = all_statements();
    assert!(statements.len() > 20);
    for sql in statements {
        client
            .prepare(sql.text)
            .await
            .unwrap_or_else(|e| panic!("{}: {e:?}", sql.name));
    }
}

#[tokio::test]
async fn migrating_twice_changes_nothing_and_several_at_once_take_turns() {
    let db = TestDb::bare().await;
    let settings = Arc::clone(db.db().settings());
    assert_eq!(migrate::current_version(&settings).await.unwrap(), 0);
    let runs = futures_util::future::join_all((0..4).map(|_| migrate::migrate(&settings))).await;
    let applied: usize = runs.iter().map(|r| r.as_ref().unwrap().applied.len()).sum();
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    assert_eq!(applied, std::fs::read_dir(files).unwrap().count());
    assert_eq!(
        migrate::current_version(&settings).await.unwrap(),
        migrate::wanted_version()
    );
    assert!(
        migrate::migrate(&settings)
            .await
            .unwrap()
            .applied
            .is_empty()
    );
}

#[tokio::test]
async fn the_audit_chain_orders_concurrent_writers_and_notifies_at_commit() {
    let test = TestDb::new().await;
    let db = test.db();
    let (send, mut heard) = tokio::sync::mpsc::channel(64);
    tokio::spawn(listen(Arc::clone(db.settings()), send));
    assert_eq!(heard.recv().await, Some(Heard::Connected));
    let writes = (0..20).map(|n| {
        let db = db.clone();
        async move {
            let mut conn = db.conn().await.unwrap();
            let tx = conn.begin().await.unwrap();
            let entry = Entry {
                actor: &actor(),
                action: "tier.create",
                target: "x",
                details: json!({ "n": n, "quote": "\"'" }),
            };
            audit::append(&tx, entry, Change::Catalog).await.unwrap();
            tx.commit().await.unwrap();
        }
    });
    futures_util::future::join_all(writes).await;
    for seq in 1..=20 {
        assert_eq!(
            heard.recv().await,
            Some(Heard::Changed(Some(Change::Catalog), seq))
        );
    }
    let conn = db.conn().await.unwrap();
    let entries = audit::from(&conn, 0, 100).await.unwrap();
    assert_eq!(entries.len(), 20);
    let mut previous = vec![0u8; 32];
    for entry in &entries {
        assert_eq!(entry.prev_hash, previous);
        assert_eq!(entry.hash, entry.expected_hash());
        previous.clone_from(&entry.hash);
    }
    assert_eq!(audit::head(&conn).await.unwrap(), (20, previous));
    assert_ne!(
        {
            let mut e = entries[3].clone();
            e.actor = "other".into();
            e.expected_hash()
        }
        .to_vec(),
        entries[3].hash
    );
}

#[tokio::test]
async fn a_new_installation_has_four_tiers_and_the_support_table() {
    let test = TestDb::new().await;
    let db = test.db();
    let table = SupportTable::parse(DEFAULT_TABLE).unwrap();
    {
        let conn = db.conn().await.unwrap();
        assert!(
            catalog::seed(&conn, &TierName::DEFAULTS, table.rows())
                .await
                .unwrap()
        );
        assert!(
            !catalog::seed(&conn, &["other"], table.rows())
                .await
                .unwrap()
        );
    }
    let snapshots = Snapshots::load(db, Arc::new(|_, _| {})).await.unwrap();
    let snapshot = snapshots.get_full();
    let names: Vec<&str> = snapshot
        .catalog
        .tiers()
        .iter()
        .map(|t| t.name.as_str())
        .collect();
    assert_eq!(names, TierName::DEFAULTS);
    assert_eq!(snapshot.catalog.support().rows().len(), table.rows().len());
}

/// Two replicas meet a machine that neither knows. The first holds its row uncommitted until the second waits for it, so
/// that the second's insert is sure to find the row there and must take the way of the conflict.
#[tokio::test]
async fn two_replicas_that_insert_the_same_machine_leave_the_last_report() {
    let test = TestDb::new().await;
    let mut first = test.raw().await;
    let tier: i32 = first
        .query_one(
            "insert into tiers (name, position) values ('edge', 1) returning id",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    let machine = MachineId([5; 16]);
    let id = uuid::Uuid::from_bytes(machine.0);
    let earlier: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let later: jiff::Timestamp = "2026-01-02T03:04:06Z".parse().unwrap();
    let report = CheckInRow {
        machine,
        tier_id: tier,
        auth_token_id: None,
        at: later,
        kernel_id: Some(11),
        client_version_id: Some(12),
        cpu_model_id: None,
        boot_time: None,
        build_date: Some(jiff::civil::date(2025, 6, 7)),
        patch: 21,
        offered: 22,
        architecture: 1,
        state: 2,
        outcome: 3,
        support: 4,
    };

    let holding = first.transaction().await.unwrap();
    holding
        .execute(
            "insert into machines (id, tier_id, registered_at, last_check, kernel_id, cpu_model_id, offered, offered_at)
             values ($1, $2, $3, $3, 7, 8, 22, $3)",
            &[&id, &tier, &earlier],
        )
        .await
        .unwrap();
    let db = test.db();
    let second = tokio::spawn(async move {
        let conn = db.conn().await.unwrap();
        write_check_ins(&conn, [&report].into_iter(), true).await
    });
    let watcher = test.raw().await;
    let waits = "select count(*) from pg_locks l join pg_stat_activity a using (pid)
        where not l.granted and a.datname = current_database() and a.query like 'with v as materialized%'";
    let patience = std::time::Instant::now();
    while watcher
        .query_one(waits, &[])
        .await
        .unwrap()
        .get::<_, i64>(0)
        == 0
    {
        assert!(!second.is_finished(), "it did not wait for the other");
        assert!(patience.elapsed().as_secs() < 60, "nobody waits");
        tokio::task::yield_now().await;
    }
    holding.commit().await.unwrap();
    second.await.unwrap().unwrap();

    let row = watcher
        .query_one("select * from machines where id = $1", &[&id])
        .await
        .unwrap();
    assert_eq!(row.get::<_, jiff::Timestamp>("registered_at"), earlier);
    assert_eq!(row.get::<_, jiff::Timestamp>("last_check"), later);
    // What the second did not report stays; what both reported is the second's; the offer is as old as the first's.
    assert_eq!(row.get::<_, Option<i32>>("cpu_model_id"), Some(8));
    assert_eq!(row.get::<_, Option<i32>>("kernel_id"), Some(11));
    assert_eq!(row.get::<_, Option<i32>>("client_version_id"), Some(12));
    assert_eq!(
        row.get::<_, Option<jiff::civil::Date>>("build_date"),
        Some(jiff::civil::date(2025, 6, 7))
    );
    assert_eq!(
        row.get::<_, Option<jiff::Timestamp>>("offered_at"),
        Some(earlier)
    );
    assert_eq!(
        (row.get::<_, i64>("patch"), row.get::<_, i64>("offered")),
        (21, 22)
    );
    let codes = ["architecture", "state", "outcome", "support"].map(|name| row.get::<_, i16>(name));
    assert_eq!(codes, [1, 2, 3, 4]);
    let history: i64 = watcher
        .query_one("select count(*) from machine_reports", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(history, 1);
}
