//! A whole server in this process: its own database, a folder as storage, a real socket.

use super::db::{TestDb, settings};
use super::kmod;
use livepatch_onprem::app::{self, Running};
use livepatch_onprem::config::Config;
use livepatch_onprem::db::audit::Actor;
use livepatch_onprem::service::Core;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// A running server with what it stands on.
pub struct TestServer {
    running: Option<Running>,
    /// Its database.
    pub db: TestDb,
    /// Its storage.
    pub folder: Arc<TempDir>,
    /// A client without proxies and redirects.
    pub http: reqwest::Client,
    /// Where it is.
    pub url: String,
}

/// The configuration of a test server, before a test changes it.
pub fn config(db: &TestDb, folder: &TempDir) -> Config {
    let mut config = Config {
        database: settings(db.url()),
        ..Config::default()
    };
    config.server.address = ([127, 0, 0, 1], 0).into();
    config.server.shutdown_grace = Duration::from_secs(5);
    config.patch_storage.filesystem_path = folder.path().join("patches");
    config.patch_trust.certificates = vec![kmod::keys().cert.clone()];
    config.machine_reports.enabled = true;
    config
}

impl TestServer {
    /// With the defaults.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With a changed configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let db = TestDb::new().await;
        Self::on(db, Arc::new(tempfile::tempdir().unwrap()), change).await
    }

    /// On a given database and folder: a second replica, or a restart.
    pub async fn on(db: TestDb, folder: Arc<TempDir>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&db, &folder);
        change(&mut config);
        let running = app::start(config, true).await.unwrap();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        let url = format!("http://{}", running.address);
        Self {
            running: Some(running),
            db,
            folder,
            http,
            url,
        }
    }

    /// Its parts.
    pub fn core(&self) -> &Arc<Core> {
        &self.running.as_ref().unwrap().core
    }

    /// Host and port.
    pub fn address(&self) -> std::net::SocketAddr {
        self.running.as_ref().unwrap().address
    }

    /// Stops it in order; whether all requests could end.
    pub async fn stop(&mut self) -> bool {
        self.running.take().unwrap().stop().await
    }
}

/// Who acts in tests.
pub fn actor() -> Actor {
    Actor {
        name: "tester".to_owned(),
        source: "127.0.0.1".to_owned(),
    }
}
