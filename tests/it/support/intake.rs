//! Bringing bundles in: uploads, bundles made to be refused, and rows for what no real bundle is needed for.

use super::admin::{Answer, TestAdmin};
use super::kmod;
use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use bzip2::Compression;
use bzip2::write::BzEncoder;
use livepatch_onprem::bundle::{BundleName, Limits, extract_module};
use livepatch_onprem::config::Config;
use livepatch_onprem::db::{patches, payloads, tiers, words};
use livepatch_onprem::domain::{Architecture, PatchVersion, Role, Scope, Sha256};
use livepatch_onprem::service::Core;
use livepatch_onprem::service::Snapshots;
use livepatch_onprem::service::captures::Captures;
use livepatch_onprem::service::census::Counts;
use livepatch_onprem::service::contracts::Contracts;
use livepatch_onprem::service::ingest::Gate;
use livepatch_onprem::service::jobs::Runner;
use livepatch_onprem::service::peer::Indexes;
use livepatch_onprem::service::rollouts::Looks;
use livepatch_onprem::service::webhooks::Webhooks;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// An admin API that trusts the tests' key.
pub async fn trusting() -> TestAdmin {
    trusting_with(|_| {}).await
}

/// As [`trusting`], with a configuration that `change` adapts.
pub async fn trusting_with(change: impl FnOnce(&mut Config)) -> TestAdmin {
    TestAdmin::with(|config| {
        config.patch_trust.certificates = vec![kmod::keys().cert];
        change(config);
    })
    .await
}

/// The same database and storage under another configuration, as after a restart.
pub async fn restarted(core: &Core, change: impl FnOnce(&mut Core)) -> Arc<Core> {
    let mut core = Core {
        config: core.config.clone(),
        db: core.db.clone(),
        snapshots: Snapshots::load(core.db.clone(), Arc::new(|_, _| {}))
            .await
            .unwrap(),
        store: core.store.clone(),
        cache: core.cache.clone(),
        trust: core.trust.clone(),
        metrics: Arc::clone(&core.metrics),
        gate: Gate::new(&core.config.ingest),
        jobs: Runner::new(),
        indexes: Indexes::default(),
        sync_asked: tokio::sync::Notify::new(),
        contracts: Contracts::new(&core.config).unwrap(),
        webhooks: Webhooks::new(&core.config).unwrap(),
        captures: Captures::default(),
        counts: Counts::default(),
        looks: Looks::default(),
        provider: None,
        machine_key: core.machine_key.clone(),
        check_ins: core.check_ins.clone(),
        stopping: CancellationToken::new(),
    };
    change(&mut core);
    Arc::new(core)
}

/// A file's name.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// A file's content.
pub fn content(path: &Path) -> Bytes {
    std::fs::read(path).unwrap().into()
}

/// Where a content lies in the storage's folder, below `objects` or `quarantine`.
pub fn object(folder: &Path, area: &str, bytes: &[u8]) -> PathBuf {
    let sha256 = Sha256::of(bytes).to_string();
    folder.join(format!("{area}/sha256/{}/{sha256}", &sha256[..2]))
}

impl TestAdmin {
    /// Uploads as operator, with these further headers.
    pub async fn upload_with(
        &self,
        filename: &str,
        body: impl Into<Body>,
        headers: &[(&str, String)],
    ) -> Answer {
        let token = self.token(Role::Operator);
        let mut request = Request::builder()
            .method("PUT")
            .uri(format!("/v1/admin/payloads/{filename}"))
            .header("authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    /// Uploads as operator.
    pub async fn upload(&self, filename: &str, body: impl Into<Body>) -> Answer {
        self.upload_with(filename, body, &[]).await
    }

    /// Uploads a file under its name and expects it to be stored.
    pub async fn stored(&self, path: &Path) -> Bytes {
        let bytes = content(path);
        self.upload(&file_name(path), bytes.clone())
            .await
            .expect(201);
        bytes
    }

    /// How many rows a table has.
    pub async fn rows(&self, table: &str) -> i64 {
        let sql = format!("select count(*) from {table}");
        self.db
            .raw()
            .await
            .query_one(&sql, &[])
            .await
            .unwrap()
            .get(0)
    }

    /// How often an action stands in the audit log.
    pub async fn audited(&self, action: &str) -> i64 {
        let sql = "select count(*) from audit_log where action = $1";
        let client = self.db.raw().await;
        client.query_one(sql, &[&action]).await.unwrap().get(0)
    }

    /// Adds payloads of these names without objects: each new patch enters the first tier. For what is not about intake.
    pub async fn plant_payloads(&self, names: &[&str]) {
        let conn = self.core.db.conn().await.unwrap();
        for filename in names {
            let name: BundleName = filename.parse().unwrap();
            let (patch_id, new) = patches::ensure(&conn, name.version).await.unwrap();
            let row = payloads::New {
                patch_id,
                filename,
                kernel: &name.kernel,
                architecture: name.architecture,
                sha256: Sha256::of(filename.as_bytes()),
                size: 1000,
                module_name: "m",
                module_sha256: Sha256::of(b"m"),
                vermagic: "",
                signer: None,
                signature_algorithm: None,
                signature: 0,
                warning: None,
                fixes: &[],
                obsolete: false,
                source: "test",
                added_by: "test",
                staged: None,
            };
            payloads::insert(&conn, &row).await.unwrap().unwrap();
            if new {
                let first = tiers::order(&conn).await.unwrap().remove(0).id;
                tiers::promote(&conn, patch_id, first, &Scope::default(), "test", "new")
                    .await
                    .unwrap();
            }
        }
        drop(conn);
        self.core.snapshots.reload(None, i64::MAX).await.unwrap();
    }

    /// Adds machines that run this kernel with this patch.
    pub async fn plant_machines(&self, n: i32, tier: &str, kernel: &str, applied: Option<&str>) {
        let conn = self.core.db.conn().await.unwrap();
        let word = (words::WordKind::Kernel, kernel.to_owned());
        let kernel_id = words::ids(&conn, &[word]).await.unwrap()[0].2;
        let applied: Option<PatchVersion> = applied.map(|v| v.parse().unwrap());
        let applied = applied.map_or(0, PatchVersion::code);
        let client = self.db.raw().await;
        client
            .execute(
                "insert into machines (id, tier_id, registered_at, kernel_id, architecture, patch, state)
                 select gen_random_uuid(), t.id, now(), $2, $3, $4::bigint, case when $4::bigint = 0 then 0 else 1 end from tiers t, generate_series(1, $5) where t.name = $1",
                &[&tier, &kernel_id, &Architecture::Amd64.code(), &applied, &n],
            )
            .await
            .unwrap();
    }
}

/// A tar entry: type, name, content.
pub fn entry(kind: tar::EntryType, name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A plain file's entry.
pub fn file(name: &str, data: &[u8]) -> Vec<u8> {
    entry(tar::EntryType::Regular, name, data)
}

/// A compressed archive of these entries, whatever they are.
pub fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut encoder = BzEncoder::new(Vec::new(), Compression::best());
    for entry in entries {
        encoder.write_all(entry).unwrap();
    }
    encoder.write_all(&[0; 1024]).unwrap();
    encoder.finish().unwrap()
}

/// The signed module of a real bundle.
pub fn signed_module(bundle: &Path) -> Vec<u8> {
    let name: BundleName = file_name(bundle).parse().unwrap();
    let reader = std::fs::File::open(bundle).unwrap();
    extract_module(&name, reader, &Limits::default(), None)
        .unwrap()
        .1
}
