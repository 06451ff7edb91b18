//! The admin API on a database of its own, with an administrator of each role who is logged in already.

use super::PASSWORD;
use super::db::{TestDb, settings};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use livepatch_onprem::blob::{PatchCache, Store};
use livepatch_onprem::bundle::TrustStore;
use livepatch_onprem::config::{Config, SyncDriver};
use livepatch_onprem::db::sessions::NewSession;
use livepatch_onprem::db::{admins, catalog, sessions};
use livepatch_onprem::domain::token::MachineTokenKey;
use livepatch_onprem::domain::token::{SESSION_PREFIX, random_token, token_hash};
use livepatch_onprem::domain::{Role, Secret, TierName};
use livepatch_onprem::http::admin::routes;
use livepatch_onprem::rollout::support::{DEFAULT_TABLE, SupportTable};
use livepatch_onprem::service::captures::Captures;
use livepatch_onprem::service::census::Counts;
use livepatch_onprem::service::checkin;
use livepatch_onprem::service::contracts::Contracts;
use livepatch_onprem::service::ingest::Gate;
use livepatch_onprem::service::jobs::Runner;
use livepatch_onprem::service::peer::Indexes;
use livepatch_onprem::service::rollouts::Looks;
use livepatch_onprem::service::webhooks::Webhooks;
use livepatch_onprem::service::{Core, Snapshots, passwords};
use livepatch_onprem::telemetry::Metrics;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A running admin API. Its three administrators are named after their roles.
pub struct TestAdmin {
    /// Its database.
    pub db: TestDb,
    /// Its parts.
    pub core: Arc<Core>,
    router: Router,
    tokens: [String; 3],
    folder: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body as JSON; null if it is empty, a string if it is not JSON.
    pub body: Value,
}

impl Answer {
    /// Fails unless the answer has this status.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:#}", self.body);
        self
    }

    /// The last word of the problem's type.
    pub fn problem(&self) -> &str {
        assert_eq!(
            self.headers[header::CONTENT_TYPE],
            "application/problem+json"
        );
        self.body["type"]
            .as_str()
            .unwrap()
            .rsplit(':')
            .next()
            .unwrap()
    }

    /// The problem's text.
    pub fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap()
    }
}

impl TestAdmin {
    /// With the default configuration.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a configuration that `change` adapts.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let test = TestDb::new().await;
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config {
            database: settings(test.url()),
            ..Config::default()
        };
        config.patch_storage.filesystem_path = folder.path().to_owned();
        // Nothing runs here by itself, but it can be asked for.
        config.patch_sync.enabled = true;
        config.patch_sync.driver = SyncDriver::Directory;
        config.patch_sync.directory = Some(folder.path().to_owned());
        change(&mut config);
        let store = Store::open(&config.patch_storage, &config.database)
            .await
            .unwrap();
        let mut trust = TrustStore::new();
        for certificate in &config.patch_trust.certificates {
            trust.add(&std::fs::read(certificate).unwrap()).unwrap();
        }
        let db = test.db();
        let table = SupportTable::parse(DEFAULT_TABLE).unwrap();
        let mut tokens = [const { String::new() }; 3];
        {
            let conn = db.conn().await.unwrap();
            catalog::seed(&conn, &TierName::DEFAULTS, table.rows())
                .await
                .unwrap();
            let hash = passwords::hash(&Secret::new(PASSWORD)).await.unwrap();
            for (place, role) in Role::ALL.into_iter().enumerate() {
                admins::insert(&conn, role.as_str(), &hash, role)
                    .await
                    .unwrap();
                tokens[place] = random_token(SESSION_PREFIX, [place as u8; 32]);
                let new = NewSession {
                    hash: token_hash(&tokens[place]),
                    id: uuid::Uuid::new_v4(),
                    subject: role.as_str(),
                    role,
                    source: "test",
                    lifetime: Duration::from_hours(1),
                };
                sessions::insert(&conn, &new).await.unwrap();
            }
        }
        let core = Core {
            cache: PatchCache::new(&config.patch_cache, store.clone()),
            gate: Gate::new(&config.ingest),
            jobs: Runner::new(),
            indexes: Indexes::default(),
            sync_asked: tokio::sync::Notify::new(),
            metrics: Metrics::new(),
            contracts: Contracts::new(&config).unwrap(),
            webhooks: Webhooks::new(&config).unwrap(),
            store,
            trust: Some(trust),
            config,
            captures: Captures::load(&db).await.unwrap(),
            counts: Counts::default(),
            looks: Looks::default(),
            provider: None,
            machine_key: MachineTokenKey::new(&[7; 32]).unwrap(),
            check_ins: checkin::queue(1, db.clone(), false, Metrics::new()).0,
            stopping: CancellationToken::new(),
            snapshots: Snapshots::load(db.clone(), Arc::new(|_, _| {}))
                .await
                .unwrap(),
            db,
        };
        let core = Arc::new(core);
        let router: Router<Arc<Core>> = routes().into();
        Self {
            db: test,
            router: router.with_state(Arc::clone(&core)),
            core,
            tokens,
            folder,
        }
    }

    /// The folder that the store keeps its objects in, unless the configuration said otherwise.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The session token of an administrator of this role.
    pub fn token(&self, role: Role) -> &str {
        &self.tokens[role as usize]
    }

    /// Sends a request as it is.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()))
        };
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// Sends a request from an address, with an `Authorization` header and a JSON body where given. `path` is below
    /// the admin API's base, or absolute under `/v1`.
    pub async fn ask_from(
        &self,
        from: &str,
        method: &str,
        path: &str,
        authorization: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let uri = if path.starts_with("/v1") {
            path.to_owned()
        } else {
            format!("/v1/admin{path}")
        };
        let peer = SocketAddr::new(from.parse().unwrap(), 4711);
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(uri)
            .extension(ConnectInfo(peer));
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).unwrap()).await
    }

    /// Sends a request as the administrator of this role.
    pub async fn ask(&self, role: Role, method: &str, path: &str, body: Option<Value>) -> Answer {
        let bearer = format!("Bearer {}", self.token(role));
        self.ask_from("127.0.0.1", method, path, Some(&bearer), body)
            .await
    }

    /// `GET` as viewer.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Role::Viewer, "GET", path, None).await
    }

    /// `POST` as admin.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Role::Admin, "POST", path, Some(body)).await
    }

    /// `PUT` as admin.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Role::Admin, "PUT", path, Some(body)).await
    }

    /// `DELETE` as admin.
    pub async fn delete(&self, path: &str) -> Answer {
        self.ask(Role::Admin, "DELETE", path, None).await
    }

    /// The newest audit entry: action and target.
    pub async fn last_audit(&self) -> (String, String) {
        let row = self
            .db
            .raw()
            .await
            .query_one(
                "select action, target from audit_log order by seq desc limit 1",
                &[],
            )
            .await
            .unwrap();
        (row.get(0), row.get(1))
    }
}
