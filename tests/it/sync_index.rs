//! Sync from an upstream with an index: first contact, tiers taken over, blocks, kernels, withdrawals, and payloads that are not
//! what the index says. The transport is a folder; what it lists is as a driver gives it that has believed an index.

use crate::support::admin::TestAdmin;
use crate::support::intake::trusting_with;
use crate::support::kmod;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use livepatch_onprem::bundle::BundleName;
use livepatch_onprem::db::audit::Actor;
use livepatch_onprem::domain::{Architecture, Role, Sha256, SigningKey};
use livepatch_onprem::index::{IntakeFilter, State};
use livepatch_onprem::service::sync::{self, Cause, Ended, Fence, Run};
use livepatch_onprem::upstream::{
    Body, Directory, Listing, Offered, Question, Upstream, UpstreamError,
};
use livepatch_onprem::wire::admin::SyncState;
use livepatch_onprem::wire::sync::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;
use uuid::Uuid;

#[derive(Debug)]
struct Peer {
    name: String,
    folder: TempDir,
    version: u64,
    records: Vec<Record>,
}

impl Upstream for Peer {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn list<'a>(&'a self, _: Question<'a>) -> BoxFuture<'a, Result<Listing, UpstreamError>> {
        Box::pin(async {
            let state = State::of(&self.records).unwrap();
            let payloads = state.payloads().map(|record| Offered {
                name: record.filename.parse().unwrap(),
                sha256: Some(record.sha256),
                size: Some(record.size),
            });
            let head = Head {
                format: FORMAT,
                deployment: Uuid::from_u128(1),
                tier: "alpha".parse().unwrap(),
                version: self.version,
                digest: state.digest(),
                bytes: state.bytes(),
                payloads: 0,
                issued_at: Timestamp::now(),
                expires_at: Timestamp::now() + SignedDuration::from_hours(24),
                keys: vec![SigningKey::from_seed(&[1; 32]).unwrap().public().unwrap()],
            };
            Ok(Listing {
                payloads: payloads.collect(),
                unreadable: Vec::new(),
                index: Some((head, state)),
            })
        })
    }

    fn open<'a>(&'a self, payload: &'a Offered) -> BoxFuture<'a, Result<Body, UpstreamError>> {
        Box::pin(async {
            let folder = Directory::new(self.folder.path());
            folder.open(payload).await
        })
    }
}

impl Peer {
    /// Under the name of what the test's server is configured to follow.
    fn of(test: &TestAdmin) -> Self {
        Self {
            name: format!("directory {}", test.folder().display()),
            folder: tempfile::tempdir().unwrap(),
            version: 1,
            records: Vec::new(),
        }
    }

    /// Adds a bundle and its record.
    fn add(&mut self, bundle: PathBuf) {
        let name: BundleName = bundle
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let bytes = std::fs::read(&bundle).unwrap();
        std::fs::write(self.folder.path().join(name.to_string()), &bytes).unwrap();
        self.records.push(Record::Payload(PayloadRecord {
            filename: name.to_string(),
            sha256: Sha256::of(&bytes),
            size: bytes.len() as u64,
        }));
    }

    fn promote(&mut self, version: &str, tier: &str) {
        self.records.push(Record::Promotion(PromotionRecord {
            version: version.parse().unwrap(),
            tier: tier.parse().unwrap(),
            scope: ScopeRecord::default(),
        }));
    }

    /// Takes records away, as a new version.
    fn without(&mut self, gone: impl Fn(&Record) -> bool) {
        self.version += 1;
        self.records.retain(|record| !gone(record));
    }
}

async fn run(test: &TestAdmin, peer: &Peer, mirror: bool) -> Ended {
    let raw = test.db.raw().await;
    let queued = "select id from sync_runs where state = 'queued'";
    let queued = raw.query_opt(queued, &[]).await.unwrap();
    let run = Run {
        id: queued.map(|row| row.get(0)),
        cause: Cause::Trigger,
        actor: Actor {
            name: "tester".to_owned(),
            source: "test".to_owned(),
        },
        filter: IntakeFilter::default(),
        max_shrink: 50,
        mirror,
        confirmed: false,
        dry_run: false,
    };
    sync::run(&test.core, peer, &run, Fence::of_command())
        .await
        .unwrap()
}

async fn texts(test: &TestAdmin, sql: &str) -> Vec<String> {
    let rows = test.db.raw().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

const TIERS: &str = "select name from tiers order by position";
const BLOCKS: &str =
    "select actor || ' ' || kind || ' ' || reason from blocks where lifted_at is null order by 1";
const REACHED: &str = "select (p.version >> 20) || '.' || (p.version & 1048575) || ' ' || t.name
    from promotions r join patches p on p.id = r.patch_id join tiers t on t.id = r.tier_id order by 1";

#[tokio::test]
async fn tiers_promotions_blocks_and_kernels_of_an_index_are_taken_over_after_a_preview() {
    let test = trusting_with(|config| config.patch_sync.sync_tiers = true).await;
    let mut peer = Peer::of(&test);
    peer.add(kmod::real_bundle("107.1", "patched"));
    peer.add(kmod::real_bundle("107.2", "patched"));
    for (position, name) in (0..).zip(["alpha", "edge"]) {
        let name = name.parse().unwrap();
        peer.records
            .push(Record::Tier(TierRecord { name, position }));
    }
    peer.promote("107.1", "edge");
    peer.promote("107.2", "alpha");
    peer.records.push(Record::Block(BlockRecord {
        version: "107.2".parse().unwrap(),
        kind: BlockWord::Hold,
        scope: ScopeRecord::default(),
        reason: "being watched".to_owned(),
    }));
    peer.records.push(Record::Kernel(KernelRecord {
        release: "22.04".to_owned(),
        codename: "jammy".to_owned(),
        architecture: Architecture::Amd64,
        series: "5.15".to_owned(),
        kind: "GA".to_owned(),
        flavours: vec!["generic".to_owned()],
        months: 13,
        end_of_life: None,
    }));
    test.plant_machines(2, "stable", &kmod::kernel().to_string(), None)
        .await;
    let rows = test.db.raw().await;
    rows.batch_execute(
        "insert into webhooks (name, url, secret, created_by) values ('all', 'https://hooks.example/', 'whsec_QUFB', 'admin')",
    )
    .await
    .unwrap();

    let waiting = run(&test, &peer, true).await;
    assert_eq!(waiting.state, SyncState::Waiting, "{waiting:?}");
    assert_eq!(waiting.code.as_deref(), Some("tiers"));
    let told =
        "select concat_ws(' ', kind, body::jsonb -> 'data' ->> 'version') from outbox order by 1";
    assert_eq!(texts(&test, told).await, ["sync.waiting"]);
    assert_eq!(test.audited("sync.first-contact").await, 1);
    assert_eq!(test.rows("payloads").await, 0);
    let status = test.get("/sync/status").await.expect(200).body;
    let preview = &status["pending"]["tiers"];
    assert_eq!(preview["added"], json!(["alpha"]), "{status:#}");
    assert_eq!(preview["removed"][2]["name"], "stable");
    assert_eq!(preview["removed"][2]["machines"], 2);
    assert_eq!(status["index"]["tier"], "alpha");

    // No machine loses its tier silently.
    let digest = status["pending"]["digest"].clone();
    let refused = test
        .post("/sync/confirm", json!({ "digest": digest }))
        .await
        .expect(409);
    assert!(refused.detail().contains("--move stable="), "{refused:?}");
    let body = json!({ "digest": digest, "move": { "stable": "edge" } });
    test.post("/sync/confirm", body).await.expect(200);
    let done = run(&test, &peer, true).await;
    assert_eq!(done.state, SyncState::Done, "{done:?}");
    assert!(done.outcome.tiers_changed && done.outcome.kernels_changed);
    assert_eq!(texts(&test, TIERS).await, ["alpha", "edge"]);
    assert_eq!(texts(&test, REACHED).await, ["107.1 edge", "107.2 alpha"]);
    assert_eq!(
        texts(&test, told).await,
        [
            "coverage.changed",
            "patch.arrived 107.1",
            "patch.arrived 107.2",
            "patch.held 107.2",
            "patch.promoted 107.1",
            "patch.promoted 107.2",
            "sync.completed",
            "sync.waiting"
        ]
    );
    assert_eq!(
        texts(&test, BLOCKS).await,
        ["sync/upstream 2 being watched"]
    );
    assert_eq!(test.rows("supported_kernels").await, 1);
    let moved = "machines m join tiers t on t.id = m.tier_id where t.name = 'edge'";
    assert_eq!(test.rows(moved).await, 2);
    let tiers = test.core.snapshots.get_full().catalog.tiers().len();
    assert_eq!(tiers, 2);

    // Local ones are locked.
    let tier = test.post("/tiers", json!({ "name": "mine" })).await;
    assert!(tier.expect(409).detail().contains("patch-sync.sync-tiers"));
    let promote = test
        .post("/patches/107.2/promote", json!({ "tier": "edge" }))
        .await;
    assert!(
        promote
            .expect(409)
            .detail()
            .contains("patch-sync.sync-tiers")
    );

    // Afterwards upstream's own changes come without a question.
    peer.without(|record| matches!(record, Record::Block(_)));
    peer.promote("107.2", "edge");
    let done = run(&test, &peer, true).await;
    assert_eq!(done.state, SyncState::Done, "{done:?}");
    assert_eq!(done.outcome.blocks_lifted, 1);
    assert_eq!(
        texts(&test, REACHED).await,
        ["107.1 edge", "107.2 alpha", "107.2 edge"]
    );
    let gone = kmod::bundle_name("107.2").to_string();
    peer.without(|record| matches!(record, Record::Payload(p) if p.filename == gone));
    let done = run(&test, &peer, true).await;
    assert_eq!(done.outcome.withdrawn, 1, "{done:?}");
    let blocks = texts(&test, BLOCKS).await;
    assert!(
        blocks[0].starts_with("sync/withdrawn 2 withdrawn upstream"),
        "{blocks:?}"
    );

    // A person who resumes it has the last word.
    test.post("/patches/107.2/resume", json!({}))
        .await
        .expect(200);
    peer.version += 1;
    let done = run(&test, &peer, true).await;
    assert_eq!(done.outcome.withdrawn, 0, "{done:?}");
    assert_eq!(texts(&test, BLOCKS).await.len(), 0);
    let verdict = test.ask(Role::Operator, "GET", "/audit/verify", None).await;
    assert_eq!(verdict.expect(200).body["ok"], true);
}

#[tokio::test]
async fn a_payload_that_is_not_what_the_index_says_keeps_everything_back() {
    let test = trusting_with(|_| {}).await;
    let mut peer = Peer::of(&test);
    peer.add(kmod::real_bundle("107.1", "patched"));
    peer.add(kmod::real_bundle("107.2", "patched"));
    peer.add(kmod::foreign_bundle("107.3", "patched"));
    let path = peer
        .folder
        .path()
        .join(kmod::bundle_name("107.2").to_string());
    let good = std::fs::read(&path).unwrap();
    let mut other = good.clone();
    *other.last_mut().unwrap() ^= 1;
    let long = [good.as_slice(), b"and more"].concat();
    for bad in [other.as_slice(), long.as_slice(), &good[..good.len() / 2]] {
        std::fs::write(&path, bad).unwrap();
        let failed = run(&test, &peer, false).await;
        assert_eq!(failed.state, SyncState::Failed, "{failed:?}");
        assert!(
            failed.error.as_deref().unwrap().contains("107.2"),
            "{failed:?}"
        );
        assert_eq!(test.rows("payloads where staged is null").await, 0);
        assert_eq!(test.rows("payloads where staged > 0").await, 1);
    }
    // Refused by our own checks once, and not fetched again.
    assert_eq!(test.rows("quarantine").await, 1);
    std::fs::write(&path, &good).unwrap();
    let done = run(&test, &peer, false).await;
    assert_eq!(done.state, SyncState::Done, "{done:?}");
    let outcome = &done.outcome;
    assert_eq!(
        (
            outcome.added,
            outcome.fetched,
            outcome.resumed,
            outcome.quarantined_before
        ),
        (2, 1, 1, 1),
        "{outcome:?}"
    );
    let last = test.get("/sync/reports").await.expect(200).body;
    assert_eq!(last["items"].as_array().map(Vec::len), Some(4));

    // What upstream replaced before it was seen here is fetched as it is now.
    peer.add(kmod::real_bundle("107.4", "patched"));
    let empty = kmod::bundle_name("107.5").to_string();
    std::fs::write(peer.folder.path().join(&empty), "").unwrap();
    let sha256 = Sha256::of(b"never");
    let record = PayloadRecord {
        filename: empty.clone(),
        sha256,
        size: 5,
    };
    peer.records.push(Record::Payload(record));
    assert_eq!(run(&test, &peer, false).await.state, SyncState::Failed);
    let staged: Vec<String> = texts(&test, "select filename from payloads where staged > 0").await;
    assert_eq!(staged, [kmod::bundle_name("107.4").to_string()]);
    peer.without(|record| matches!(record, Record::Payload(p) if p.filename == empty || p.filename == staged[0]));
    let done = run(&test, &peer, false).await;
    assert_eq!(done.state, SyncState::Done, "{done:?}");
    // What was staged and is not there any more is gone, object and all.
    assert_eq!(test.rows("payloads").await, 2);
    let objects = futures_util::StreamExt::count(test.core.store.list_payloads()).await;
    assert_eq!(objects, 2);

    let status: Value = test.get("/sync/status").await.expect(200).body;
    assert_eq!(status["index"]["version"], 2, "{status:#}");
    let forgotten = test.post("/sync/reset", json!(null)).await.expect(200).body;
    assert!(forgotten["index"].is_null(), "{forgotten:#}");
    assert_eq!(run(&test, &peer, false).await.state, SyncState::Done);
    assert_eq!(test.audited("sync.first-contact").await, 2);
}
