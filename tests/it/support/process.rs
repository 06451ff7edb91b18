//! A real server process: `livepatch-server serve`, started, spoken to over its socket, and killed by real signals.

use super::PASSWORD;
use super::db::TestDb;
use super::kmod;
use livepatch_onprem::app::postgres::PrivatePostgres;
use livepatch_onprem::db::connect::Settings;
use livepatch_onprem::db::sessions::NewSession;
use livepatch_onprem::db::{Db, admins, migrate, sessions};
use livepatch_onprem::domain::token::{SESSION_PREFIX, random_token, token_hash};
use livepatch_onprem::domain::{Role, Secret};
use livepatch_onprem::service::passwords;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest that anything here is waited for. Far beyond what it should take: a loaded machine must not fail a test.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `probe` gives something. What it gives else is why it does not yet, for whoever reads that it never did.
pub async fn comes<T, W: Display>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, W>) -> T {
    let started = Instant::now();
    loop {
        match probe().await {
            Ok(found) => return found,
            Err(why) => assert!(
                started.elapsed() < PATIENCE,
                "{what} did not come about: {why}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until `probe` holds, and says how long that took.
pub async fn until(what: &str, mut probe: impl AsyncFnMut() -> bool) -> Duration {
    let started = Instant::now();
    comes(what, async || {
        probe().await.then_some(()).ok_or("it does not hold")
    })
    .await;
    started.elapsed()
}

/// What servers stand on: a database, a folder, settings, and an administrator who is logged in.
pub struct Site {
    /// Connection string of the database.
    pub url: String,
    /// A folder for patches and whatever else the test keeps.
    pub folder: tempfile::TempDir,
    /// A client without proxies and redirects.
    pub http: reqwest::Client,
    settings: BTreeMap<String, String>,
    session: String,
    _db: Option<TestDb>,
}

/// An answer: status, whether it says when to come again, body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: bool,
    pub body: Value,
}

impl Answer {
    /// Fails unless the status is this one.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:#}", self.body);
        self.body
    }

    /// Fails unless it is 503 with `Retry-After`.
    pub fn refused(&self) {
        assert_eq!(self.status, 503, "{self:?}");
        assert!(self.retry_after, "{self:?}");
    }
}

/// The connection ended before the answer did: the server is gone.
pub type Died = reqwest::Error;

impl Site {
    /// On a database of the tests' cluster, with a folder as storage.
    pub async fn new() -> Self {
        let db = TestDb::new().await;
        let url = db.url().to_owned();
        Self::on(url, Some(db)).await
    }

    /// On a cluster of its own.
    pub async fn private(cluster: &PrivatePostgres) -> Self {
        let settings = Settings::new(&super::db::settings(cluster.url())).unwrap();
        migrate::migrate(&settings).await.unwrap();
        Self::on(cluster.url().to_owned(), None).await
    }

    async fn on(url: String, db: Option<TestDb>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let settings = [
            ("LP_SERVER_SERVER_ADDRESS", "127.0.0.1:0".to_owned()),
            ("LP_DATABASE_CONNECTION_STRING", url.clone()),
            ("LP_PATCH_STORAGE_TYPE", "filesystem".to_owned()),
            ("LP_PATCH_STORAGE_FILESYSTEM_PATH", path("patches")),
            (
                "LP_PATCH_TRUST_CERTIFICATES",
                kmod::keys().cert.display().to_string(),
            ),
            ("LP_MACHINE_REPORTS_DATABASE_ENABLED", "true".to_owned()),
            ("LP_SERVER_SHUTDOWN_GRACE", "10s".to_owned()),
        ];
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // A server that dies, or refuses a body before its end, closes the connection: the next request must not
            // find that one in a pool.
            .pool_max_idle_per_host(0)
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self {
            session: log_in(&url).await,
            settings: settings.map(|(k, v)| (k.to_owned(), v)).into(),
            url,
            folder,
            http,
            _db: db,
        }
    }

    /// Sets a key by its environment variable, for servers started from now on.
    pub fn set(&mut self, variable: &str, value: impl Into<String>) {
        self.settings.insert(variable.to_owned(), value.into());
    }

    /// Where patches are kept, unless the settings say otherwise.
    pub fn patches(&self) -> PathBuf {
        self.folder.path().join("patches")
    }

    /// A plain connection, for looking behind the server's back.
    pub async fn raw(&self) -> tokio_postgres::Client {
        let connected = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await;
        let (client, connection) = connected.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Starts a server and waits until it is ready.
    pub async fn start(&self) -> Server {
        self.start_as(Command::new(env!("CARGO_BIN_EXE_livepatch-server")), &[])
            .await
    }

    /// Starts a server by a command that ends in being the server, with these further variables.
    pub async fn start_as(&self, mut command: Command, environment: &[(&str, &str)]) -> Server {
        let started = Instant::now();
        let mut child = command
            .args(["serve", "--config", "/dev/null"])
            .envs(&self.settings)
            .envs(environment.iter().copied())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (found, address) = tokio::sync::oneshot::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            let mut found = Some(found);
            for line in lines.map_while(Result::ok) {
                let said: Value = serde_json::from_str(&line).unwrap_or_default();
                if said["message"] == "serving"
                    && let Some(found) = found.take()
                {
                    let _ = found.send(said["address"].as_str().unwrap().to_owned());
                }
                let mut kept: std::sync::MutexGuard<'_, VecDeque<String>> = kept.lock().unwrap();
                kept.push_back(line);
                if kept.len() > 50_000 {
                    kept.pop_front();
                }
            }
        });
        let mut server = Server {
            child,
            log,
            reader,
            url: String::new(),
            ready: Duration::ZERO,
            http: self.http.clone(),
            session: self.session.clone(),
        };
        let address = tokio::time::timeout(PATIENCE, address).await;
        let address = address.ok().and_then(Result::ok);
        let tls = self.settings.contains_key("LP_SERVER_TLS_CERTIFICATE");
        let scheme = if tls { "https" } else { "http" };
        server.url = format!("{scheme}://{}", address.expect("the server did not start"));
        let ready = format!("{}/readyz", server.url);
        assert_eq!(self.http.get(ready).send().await.unwrap().status(), 200);
        server.ready = started.elapsed();
        server
    }
}

/// An administrator and a session.
async fn log_in(url: &str) -> String {
    let db = Db::new(&super::db::settings(url), Arc::new(|_, _, _| {})).unwrap();
    let conn = db.conn().await.unwrap();
    let hash = passwords::hash(&Secret::new(PASSWORD)).await.unwrap();
    admins::insert(&conn, "admin", &hash, Role::Admin)
        .await
        .unwrap();
    let token = random_token(SESSION_PREFIX, [9; 32]);
    let new = NewSession {
        hash: token_hash(&token),
        id: uuid::Uuid::new_v4(),
        subject: "admin",
        role: Role::Admin,
        source: "test",
        lifetime: Duration::from_hours(1),
    };
    sessions::insert(&conn, &new).await.unwrap();
    token
}

/// A running server process; killed when it is dropped.
pub struct Server {
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
    reader: JoinHandle<()>,
    /// Where it is.
    pub url: String,
    /// How long it took from the start of the process to the first answer that says that it is ready.
    pub ready: Duration,
    http: reqwest::Client,
    session: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            for line in self.log.lock().unwrap().iter() {
                eprintln!("server: {line}");
            }
        }
    }
}

impl Server {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, e.g. `KILL`.
    pub fn signal(&self, name: &str) {
        send_signal(name, self.pid());
    }

    /// How it ended; waits for that.
    pub async fn ended(&mut self) -> ExitStatus {
        comes("the end of the server", async || {
            self.child.try_wait().unwrap().ok_or("it runs")
        })
        .await
    }

    /// Fails unless it was killed by SIGKILL, which is waited for.
    pub async fn was_killed(&mut self) {
        let status = self.ended().await;
        assert_eq!(status.signal(), Some(9), "{status}");
    }

    /// Stops it in order, and fails unless it ends well and never panicked.
    pub async fn stop(mut self) {
        self.end().await;
    }

    /// The same, and gives what is kept of its log, down to the last line.
    pub async fn stop_and_tell(mut self) -> String {
        self.end().await;
        until("the end of its log", async || self.reader.is_finished()).await;
        self.log()
    }

    async fn end(&mut self) {
        self.signal("TERM");
        let status = self.ended().await;
        assert!(status.success(), "{status}");
        assert!(!self.said("panicked"), "a handler panicked");
    }

    /// Whether its log holds these words.
    pub fn said(&self, words: &str) -> bool {
        self.log
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains(words))
    }

    /// How many lines of its log hold these words.
    pub fn count(&self, words: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line.contains(words)).count()
    }

    /// What is kept of its log.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap();
        log.iter().flat_map(|line| [line, "\n"]).collect()
    }

    async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, Died> {
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().contains_key("retry-after");
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    }

    /// A request of the administrator, below `/v1/admin`.
    pub async fn admin(&self, method: &str, path: &str, body: Value) -> Result<Answer, Died> {
        let url = format!("{}/v1/admin/{path}", self.url);
        let mut request = self
            .http
            .request(method.parse().unwrap(), url)
            .bearer_auth(&self.session);
        if !body.is_null() {
            request = request.json(&body);
        }
        Self::answer(request).await
    }

    /// Uploads a bundle.
    pub async fn upload(&self, name: &str, bytes: Vec<u8>) -> Result<Answer, Died> {
        let url = format!("{}/v1/admin/payloads/{name}", self.url);
        let request = self.http.put(url).bearer_auth(&self.session).body(bytes);
        Self::answer(request).await
    }

    /// Uploads the real bundle of a patch version, which must be stored.
    pub async fn stored(&self, version: &str) {
        let path = kmod::real_bundle(version, "patched");
        let name = path.file_name().unwrap().to_str().unwrap();
        let answer = self.upload(name, std::fs::read(&path).unwrap()).await;
        answer.unwrap().expect(201);
    }

    /// Makes an auth token for a tier.
    pub async fn token(&self, name: &str, tier: &str) -> String {
        let made = self
            .admin("POST", "auth-tokens", json!({ "name": name, "tier": tier }))
            .await
            .unwrap();
        made.expect(201)["token"].as_str().unwrap().to_owned()
    }

    /// Registers a machine.
    pub async fn register(&self, machine: u128, auth_token: &str) -> Result<Answer, Died> {
        let url = format!("{}/v1/client/{machine:032x}", self.url);
        let request = self
            .http
            .post(url)
            .json(&json!({ "auth-token": auth_token }));
        Self::answer(request).await
    }

    /// Registers a machine, which must succeed; returns its token.
    pub async fn registered(&self, machine: u128, auth_token: &str) -> String {
        let answer = self.register(machine, auth_token).await.unwrap();
        let body = answer.expect(200);
        body["machine-token"].as_str().unwrap().to_owned()
    }

    /// A machine checks in and reports the version that it runs, if any.
    pub async fn check(
        &self,
        machine: u128,
        token: &str,
        applied: Option<&str>,
    ) -> Result<Answer, Died> {
        let state = if applied.is_some() {
            "applied"
        } else {
            "unapplied"
        };
        self.report(machine, token, state, applied).await
    }

    /// A machine checks in and reports that the patch could not be inserted, until it is told that that was stored.
    pub async fn failed(&self, machine: u128, token: &str) {
        until("a report of a failure is stored", async || {
            let answer = self.report(machine, token, "apply-failed", None).await;
            answer.unwrap().expect(200)["stored"] == true
        })
        .await;
    }

    async fn report(
        &self,
        machine: u128,
        token: &str,
        state: &str,
        applied: Option<&str>,
    ) -> Result<Answer, Died> {
        let report = json!({
            "Client-Version": "v10.8.3", "Architecture": "amd64", "CPU-Model": "test",
            "Status": [{ "Kernel": kmod::kernel().to_string(), "Running": true, "Livepatch": {
                "CheckState": "checked", "State": state, "Version": applied.unwrap_or_default() } }],
        });
        let url = format!("{}/v1/client/{machine:032x}/updates", self.url);
        Self::answer(self.http.post(url).bearer_auth(token).json(&report)).await
    }

    /// A machine checks in until it is told that its report was stored. On a machine that is very busy the database may
    /// count as away for a moment.
    pub async fn reported(&self, machine: u128, token: &str, applied: Option<&str>) -> Value {
        comes("a report that is stored", async || {
            let answer = self.check(machine, token, applied).await.unwrap();
            let answer = answer.expect(200);
            if answer["stored"] == true {
                Ok(answer)
            } else {
                Err(answer)
            }
        })
        .await
    }

    /// The version offered to a machine that runs none; empty if none.
    pub async fn offered(&self, machine: u128, token: &str) -> String {
        let answer = self.check(machine, token, None).await.unwrap().expect(200);
        let version = &answer["patches"][0]["version"];
        version.as_str().unwrap_or_default().to_owned()
    }

    /// Downloads the file of a patch version: status, and the bytes if they arrived as announced.
    pub async fn download(&self, version: &str) -> (u16, Result<Vec<u8>, Died>) {
        let name = kmod::bundle_name(version);
        let url = format!("{}/v1/patches/{name}", self.url);
        match self.http.get(url).send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                (status, answer.bytes().await.map(Vec::from))
            }
            Err(error) => (0, Err(error)),
        }
    }

    /// The text of a page of operations.
    pub async fn page(&self, path: &str) -> (u16, String) {
        let url = format!("{}/{path}", self.url);
        let answer = self.http.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

/// Sends a process a signal.
pub fn send_signal(name: &str, pid: u32) {
    let signal = match name {
        "TERM" => Signal::TERM,
        "KILL" => Signal::KILL,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        "INT" => Signal::INT,
        "HUP" => Signal::HUP,
        other => panic!("no signal {other}"),
    };
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}
