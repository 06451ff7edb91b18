//! A whole server in this process: its own database, a folder as storage, a real socket.

use super::PASSWORD;
use super::db::{TestDb, settings};
use super::kmod;
use super::pki::Pki;
use livepatch_onprem::app::{self, Running};
use livepatch_onprem::config::Config;
use livepatch_onprem::db::admins;
use livepatch_onprem::domain::{Role, Secret};
use livepatch_onprem::service::{Core, auth, passwords};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// A running server with what it stands on.
pub struct TestServer {
    running: Option<Running>,
    /// Its database; shared with replicas.
    pub db: Arc<TestDb>,
    /// Its storage; shared with replicas.
    pub folder: Arc<TempDir>,
    /// A client without proxies and redirects.
    pub http: reqwest::Client,
    /// Where it is.
    pub url: String,
}

/// The administrator of every test server.
const ADMIN: &str = "admin";

/// The configuration of a test server, before a test changes it.
pub fn config(db: &TestDb, folder: &TempDir) -> Config {
    let mut config = Config {
        database: settings(db.url()),
        ..Config::default()
    };
    config.server.address = ([127, 0, 0, 1], 0).into();
    config.server.shutdown_grace = Duration::from_secs(5);
    config.patch_storage.filesystem_path = folder.path().join("patches");
    config.patch_trust.certificates = vec![kmod::keys().cert];
    config.machine_reports.enabled = true;
    config
}

impl TestServer {
    /// With the defaults.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With the defaults and two real patches, 106.1 and 107.1, in its first tier.
    pub async fn with_two_patches() -> Self {
        let server = Self::start().await;
        for version in ["106.1", "107.1"] {
            let outcome = server.upload(&kmod::real_bundle(version, "patched")).await;
            assert_eq!(outcome["result"], "stored", "{outcome}");
        }
        server
    }

    /// With a changed configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let db = Arc::new(TestDb::new().await);
        Self::on(db, Arc::new(tempfile::tempdir().unwrap()), change).await
    }

    /// Another replica, or this server again after it stopped.
    pub async fn beside(&self, change: impl FnOnce(&mut Config)) -> Self {
        Self::on(Arc::clone(&self.db), Arc::clone(&self.folder), change).await
    }

    /// On a database and a storage that are there already.
    pub async fn beside_of(
        db: Arc<TestDb>,
        folder: Arc<TempDir>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        Self::on(db, folder, change).await
    }

    /// With TLS, by a certificate for this machine; the client believes its authority.
    pub async fn with_tls(pki: &Pki, change: impl FnOnce(&mut Config)) -> Self {
        let mut server = Self::with(|config| {
            config.server.tls = Some(pki.config());
            change(config);
        })
        .await;
        server.http = pki.client(|builder| builder);
        server
    }

    async fn on(db: Arc<TestDb>, folder: Arc<TempDir>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&db, &folder);
        change(&mut config);
        let running = app::start(config, true).await.unwrap();
        auth::ensure_admin(&running.core.db, ADMIN, &Secret::new(PASSWORD))
            .await
            .unwrap();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        let scheme = match running.core.config.server.tls {
            Some(_) => "https",
            None => "http",
        };
        let url = format!("{scheme}://{}", running.address);
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
    pub fn address(&self) -> SocketAddr {
        self.running.as_ref().unwrap().address
    }

    /// Where each surface is.
    pub fn addresses(&self) -> app::Addresses {
        self.running.as_ref().unwrap().addresses
    }

    /// Stops it in order; whether all requests could end.
    pub async fn stop(&mut self) -> bool {
        self.running.take().unwrap().stop().await
    }

    /// Adds an administrator of a role beside the one who is always there.
    pub async fn add_admin(&self, name: &str, role: Role) {
        let hash = passwords::hash(&Secret::new(PASSWORD)).await.unwrap();
        let conn = self.core().db.conn().await.unwrap();
        admins::insert(&conn, name, &hash, role).await.unwrap();
    }

    /// A request of the administrator, below `/v1/admin`; panics unless it is answered well.
    pub async fn admin(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("{}/v1/admin/{path}", self.url);
        let mut request = self
            .http
            .request(method.parse().unwrap(), &url)
            .basic_auth(ADMIN, Some(PASSWORD));
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// What `livepatch-admin` says of these arguments, as the administrator.
    pub async fn command(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_livepatch-admin"));
        command
            .args(args)
            .env("LIVEPATCH_URL", &self.url)
            .env("LIVEPATCH_ADMIN_AUTH", format!("{ADMIN}:{PASSWORD}"))
            .env("XDG_STATE_HOME", self.folder.path());
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// The same as text, with its exit code.
    pub async fn said(&self, args: &[&str]) -> (i32, String) {
        let output = self.command(args).await;
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(said).unwrap(),
        )
    }

    /// Takes a real bundle in through the admin API.
    pub async fn upload(&self, bundle: &Path) -> Value {
        let name = bundle.file_name().unwrap().to_str().unwrap();
        let url = format!("{}/v1/admin/payloads/{name}", self.url);
        let request = self
            .http
            .put(url)
            .basic_auth(ADMIN, Some(PASSWORD))
            .body(std::fs::read(bundle).unwrap());
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{name}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A new auth token for a tier.
    pub async fn token(&self, name: &str, tier: &str) -> String {
        let made = self
            .admin("POST", "auth-tokens", json!({ "name": name, "tier": tier }))
            .await;
        made["token"].as_str().unwrap().to_owned()
    }
}

/// A machine that speaks the client API by hand.
pub struct Machine {
    /// Its id.
    pub id: String,
    /// Its machine token.
    pub token: String,
    kernel: String,
}

impl Machine {
    /// Registers machine number `n`, of the kernel that the test bundles are for.
    pub async fn register(server: &TestServer, n: u32, auth_token: &str) -> Self {
        let id = format!("{:032x}", u128::from(n) + 1);
        let answer = server
            .http
            .post(format!("{}/v1/client/{id}", server.url))
            .json(&json!({ "auth-token": auth_token }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.unwrap();
        let token = answer["machine-token"].as_str().unwrap().to_owned();
        let kernel = kmod::kernel().to_string();
        Self { id, token, kernel }
    }

    /// What it reports: the patch it runs, if any.
    pub fn report(&self, applied: Option<&str>) -> Value {
        let state = if applied.is_some() {
            "applied"
        } else {
            "unapplied"
        };
        json!({
            "Client-Version": "v10.8.3", "Machine-Id": self.id, "Architecture": "amd64", "CPU-Model": "test",
            "Status": [{ "Kernel": self.kernel, "Running": true,
                "Livepatch": { "CheckState": "checked", "State": state, "Version": applied.unwrap_or_default() } }],
        })
    }

    /// Checks in with this report, whatever the answer.
    pub async fn send(&self, server: &TestServer, report: &Value) -> reqwest::Response {
        server
            .http
            .post(format!("{}/v1/client/{}/updates", server.url, self.id))
            .bearer_auth(&self.token)
            .json(report)
            .send()
            .await
            .unwrap()
    }

    /// Checks in, whatever the answer.
    pub async fn try_check(&self, server: &TestServer, applied: Option<&str>) -> reqwest::Response {
        self.send(server, &self.report(applied)).await
    }

    /// Checks in and returns the answer.
    pub async fn check(&self, server: &TestServer, applied: Option<&str>) -> Value {
        let answer = self.try_check(server, applied).await;
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// The version offered at a check-in; empty if none.
    pub async fn offered(&self, server: &TestServer, applied: Option<&str>) -> String {
        let answer = self.check(server, applied).await;
        answer["patches"][0]["version"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}
