//! The schema and its statements, against a real PostgreSQL.

use crate::support::db::TestDb;
use livepatch_onprem::db::audit::{self, Actor, Entry};
use livepatch_onprem::db::listen::{Change, Heard, listen};
use livepatch_onprem::db::{all_statements, catalog, migrate};
use livepatch_onprem::domain::TierName;
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
    assert_eq!(applied, migrate::wanted_version() as usize);
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
