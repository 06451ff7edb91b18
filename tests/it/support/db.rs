//! A database of its own for each test, cloned from a template that the first test migrates.

use livepatch_onprem::config;
use livepatch_onprem::db::{Db, Observer, migrate};
use livepatch_onprem::domain::Secret;
use std::sync::Arc;
use tokio_postgres::NoTls;

/// A database that is dropped with the value.
pub struct TestDb {
    name: String,
    url: String,
}

/// Connection string of the cluster that `tests/services.sh` started.
fn cluster() -> String {
    std::env::var("LIVEPATCH_TEST_DATABASE")
        .expect("LIVEPATCH_TEST_DATABASE is not set; run `make test`, or `tests/services.sh cargo nextest run ...`")
}

fn in_database(cluster: &str, name: &str) -> String {
    cluster.replace("dbname=postgres", &format!("dbname={name}"))
}

pub fn settings(url: &str) -> config::Database {
    config::Database {
        connection_string: Secret::new(url),
        pool_max: 8,
        ..config::Database::default()
    }
}

async fn admin(cluster: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(cluster, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl TestDb {
    /// A migrated and empty database.
    pub async fn new() -> Self {
        Self::create(true).await
    }

    /// A database without a schema.
    pub async fn bare() -> Self {
        Self::create(false).await
    }

    async fn create(migrated: bool) -> Self {
        let cluster = cluster();
        let client = admin(&cluster).await;
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        let template = if migrated {
            // Every test is a process of its own: the first migrates, the others wait for it.
            let template = format!("template_v{}", migrate::wanted_version());
            client
                .execute("select pg_advisory_lock(77)", &[])
                .await
                .unwrap();
            let there = client
                .query_opt("select from pg_database where datname = $1", &[&template])
                .await
                .unwrap();
            if there.is_none() {
                let raw = format!("{template}_raw");
                client
                    .batch_execute(&format!("create database {raw}"))
                    .await
                    .unwrap();
                let settings = livepatch_onprem::db::connect::Settings::new(&settings(
                    &in_database(&cluster, &raw),
                ))
                .unwrap();
                migrate::migrate(&settings).await.unwrap();
                client
                    .batch_execute(&format!("alter database {raw} rename to {template}"))
                    .await
                    .unwrap();
            }
            client
                .execute("select pg_advisory_unlock(77)", &[])
                .await
                .unwrap();
            template
        } else {
            "template0".to_owned()
        };
        client
            .batch_execute(&format!("create database {name} template {template}"))
            .await
            .unwrap();
        let url = in_database(&cluster, &name);
        Self { name, url }
    }

    /// Its connection string.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A pool on it.
    pub fn db(&self) -> Db {
        let observer: Observer = Arc::new(|_, _, _| {});
        Db::new(&settings(&self.url), observer).unwrap()
    }

    /// A plain connection, for looking behind the server's back.
    pub async fn raw(&self) -> tokio_postgres::Client {
        admin(&self.url).await
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        // Dropping must not wait for the test's own runtime.
        let (cluster, name) = (cluster(), self.name.clone());
        let dropper = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let _ = admin(&cluster)
                    .await
                    .batch_execute(&format!("drop database {name} with (force)"))
                    .await;
            });
        });
        let _ = dropper.join();
    }
}
