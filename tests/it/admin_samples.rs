//! One good request for every operation of the admin API; `admin_things` makes what they speak of. The generic tests walk
//! this table, and fail if an operation of the OpenAPI document has no row in it.

use livepatch_onprem::domain::Role;
use serde_json::Value;

/// A machine that is in tier `stable`, enabled by the auth token `old`.
pub const MACHINE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// A machine that is there to be forgotten.
pub const DOOMED: &str = "ffffffffffffffffffffffffffffffff";
/// A session of the administrator `viewer`.
pub const SESSION: &str = "11111111-2222-4333-8444-555555555555";

/// A payload that is stored, and in quarantine as well.
pub const PAYLOAD: &str = "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2";

/// A request for one operation.
#[derive(Debug)]
pub struct Sample {
    /// `operationId` in the document.
    pub operation: &'static str,
    /// Method.
    pub method: &'static str,
    /// Path below the base, with its query.
    pub path: &'static str,
    /// JSON body.
    pub body: Option<&'static str>,
    /// The least role that may.
    pub role: Role,
    /// For a mutation: the action in the audit log.
    pub action: Option<&'static str>,
}

impl Sample {
    /// The body, parsed.
    pub fn json(&self) -> Option<Value> {
        self.body.map(|text| serde_json::from_str(text).unwrap())
    }
}

const fn read(operation: &'static str, path: &'static str) -> Sample {
    Sample {
        operation,
        method: "GET",
        path,
        body: None,
        role: Role::Viewer,
        action: None,
    }
}

const fn change(
    operation: &'static str,
    (method, path): (&'static str, &'static str),
    body: Option<&'static str>,
    role: Role,
    action: &'static str,
) -> Sample {
    Sample {
        operation,
        method,
        path,
        body,
        role,
        action: Some(action),
    }
}

/// Every operation, in an order in which all of them succeed one after the other.
pub const SAMPLES: &[Sample] = &[
    change(
        "sessions.login",
        ("POST", "/login"),
        Some(r#"{"user":"viewer","password":"correct horse battery"}"#),
        Role::Viewer,
        "session.open",
    ),
    read("sessions.who-am-i", "/session"),
    read("sessions.list", "/sessions"),
    change(
        "sessions.end",
        ("DELETE", "/sessions/11111111-2222-4333-8444-555555555555"),
        None,
        Role::Viewer,
        "session.end",
    ),
    read("admins.list", "/admins"),
    change(
        "admins.create",
        ("POST", "/admins"),
        Some(r#"{"name":"new","password":"another long password","role":"operator"}"#),
        Role::Admin,
        "admin.create",
    ),
    change(
        "admins.change-role",
        ("PUT", "/admins/new/role"),
        Some(r#"{"role":"viewer"}"#),
        Role::Admin,
        "admin.role",
    ),
    change(
        "admins.change-password",
        ("PUT", "/admins/viewer/password"),
        Some(r#"{"password":"yet another password","current":"correct horse battery"}"#),
        Role::Viewer,
        "admin.password",
    ),
    change(
        "admins.remove",
        ("DELETE", "/admins/new"),
        None,
        Role::Admin,
        "admin.remove",
    ),
    read("policies.list", "/policies"),
    change(
        "policies.set",
        ("PUT", "/tiers/candidate/policy"),
        Some(r#"{"policy":{"phases":["10% for 4h","100%"],"approval":true}}"#),
        Role::Operator,
        "policy.set",
    ),
    read("policies.show", "/tiers/candidate/policy"),
    change(
        "policies.unset",
        ("DELETE", "/tiers/candidate/policy?reason=enough"),
        None,
        Role::Operator,
        "policy.unset",
    ),
    change(
        "policies.apply",
        ("POST", "/policies/apply"),
        Some(r#"{"policies":{"candidate":{"phases":["100%"]}}}"#),
        Role::Operator,
        "policy.set",
    ),
    read("rollouts.list", "/rollouts?all=true"),
    read("rollouts.detail", "/rollouts/1"),
    read("rollouts.forecast", "/patches/107.1/forecast?tier=stable"),
    change(
        "rollouts.approve",
        ("POST", "/rollouts/1/approve"),
        Some(r#"{"reason":"a test"}"#),
        Role::Operator,
        "rollout.approve",
    ),
    change(
        "rollouts.pause",
        ("POST", "/rollouts/2/pause"),
        Some(r#"{"reason":"a test"}"#),
        Role::Operator,
        "rollout.pause",
    ),
    change(
        "rollouts.resume",
        ("POST", "/rollouts/3/resume"),
        Some(r#"{"reason":"a test"}"#),
        Role::Operator,
        "rollout.resume",
    ),
    change(
        "rollouts.abort",
        ("POST", "/rollouts/4/abort"),
        Some(r#"{"reason":"a test"}"#),
        Role::Operator,
        "rollout.abort",
    ),
    change(
        "rollouts.block",
        ("POST", "/rollouts/5/block"),
        Some(r#"{"reason":"a test"}"#),
        Role::Operator,
        "rollout.block",
    ),
    read("auth-tokens.list", "/auth-tokens"),
    change(
        "auth-tokens.create",
        ("POST", "/auth-tokens"),
        Some(
            r#"{"name":"fresh","tier":"beta","valid-until":"2999-01-01T00:00:00Z","labels":{"rack":"7"},"format":"uuid"}"#,
        ),
        Role::Operator,
        "auth-token.create",
    ),
    change(
        "auth-tokens.revoke",
        ("DELETE", "/auth-tokens/fresh"),
        None,
        Role::Operator,
        "auth-token.revoke",
    ),
    read("sync-tokens.list", "/sync-tokens"),
    change(
        "sync-tokens.create",
        ("POST", "/sync-tokens"),
        Some(r#"{"name":"berlin","tier":"beta","valid-until":"2999-01-01T00:00:00Z"}"#),
        Role::Operator,
        "sync-token.create",
    ),
    change(
        "sync-tokens.revoke",
        ("DELETE", "/sync-tokens/berlin"),
        None,
        Role::Operator,
        "sync-token.revoke",
    ),
    Sample {
        role: Role::Admin,
        ..read("service-tokens.list", "/service-tokens")
    },
    change(
        "service-tokens.create",
        ("POST", "/service-tokens"),
        Some(r#"{"name":"robot","scopes":["patches:write"],"valid-until":"2999-01-01T00:00:00Z"}"#),
        Role::Admin,
        "service-token.create",
    ),
    change(
        "service-tokens.revoke",
        ("DELETE", "/service-tokens/robot"),
        None,
        Role::Admin,
        "service-token.revoke",
    ),
    read("sync-peers.list", "/sync-peers"),
    read("machines.list", "/machines?state=applied"),
    read(
        "machines.show",
        "/machines/0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    ),
    read(
        "machines.history",
        "/machines/0f1e2d3c4b5a69788796a5b4c3d2e1f0/history?since=2020-01-01T00:00:00Z",
    ),
    read(
        "machines.explain-offer",
        "/machines/0f1e2d3c4b5a69788796a5b4c3d2e1f0/explain",
    ),
    change(
        "machines.move-to",
        ("PUT", "/machines/0f1e2d3c4b5a69788796a5b4c3d2e1f0/tier"),
        Some(r#"{"tier":"beta","reason":"a canary"}"#),
        Role::Operator,
        "machine.move",
    ),
    change(
        "machines.move-selected",
        ("POST", "/machines/move"),
        Some(r#"{"selector":"kernel=5.15*","tier":"edge","reason":"a canary rack"}"#),
        Role::Operator,
        "machine.move",
    ),
    change(
        "machines.label",
        ("PATCH", "/machines/0f1e2d3c4b5a69788796a5b4c3d2e1f0/labels"),
        Some(r#"{"set":{"rack":"r1"},"remove":["old"],"reason":"moved"}"#),
        Role::Operator,
        "machine.label",
    ),
    change(
        "machines.label-selected",
        ("POST", "/machines/label"),
        Some(r#"{"selector":"rack=r1","set":{"rack":"r2"},"reason":"renamed"}"#),
        Role::Operator,
        "machine.label",
    ),
    change(
        "machines.revoke",
        ("POST", "/machines/0f1e2d3c4b5a69788796a5b4c3d2e1f0/revoke"),
        Some(r#"{"reason":"stolen"}"#),
        Role::Operator,
        "machine.revoke",
    ),
    change(
        "machines.forget",
        ("DELETE", "/machines/ffffffffffffffffffffffffffffffff"),
        None,
        Role::Operator,
        "machine.forget",
    ),
    read("reports.machines", "/reports/machines?tier=stable"),
    read(
        "reports.patch-health",
        "/reports/patch-health?tier=stable&version=107.1",
    ),
    read("coverage.by", "/coverage?by=label&label=rack"),
    read("coverage.horizon", "/coverage/horizon"),
    read("coverage.reached", "/patches/107.1/reach?limit=10"),
    read("kernels.list", "/kernels"),
    change(
        "kernels.import",
        ("PUT", "/kernels"),
        Some(
            r#"{"csv":"release,codename,architecture,series,kind,flavours,months\n22.04,jammy,amd64,5.15,GA,generic,13\n","reason":"ours","dry-run":false}"#,
        ),
        Role::Operator,
        "kernels.import",
    ),
    read("audit.list", "/audit?action=machine"),
    read("audit.verify", "/audit/verify"),
    change(
        "captures.start",
        ("POST", "/captures"),
        Some(
            r#"{"machine-id":"0f1e2d3c4b5a69788796a5b4c3d2e1f0","address":"192.0.2.1","for":3600,"max-records":10}"#,
        ),
        Role::Operator,
        "capture.start",
    ),
    read("captures.list", "/captures"),
    read("captures.show", "/captures/1"),
    change(
        "captures.stop",
        ("DELETE", "/captures/1"),
        None,
        Role::Operator,
        "capture.stop",
    ),
    read("tiers.list", "/tiers"),
    change(
        "tiers.create",
        ("POST", "/tiers"),
        Some(r#"{"name":"lab","before":"edge"}"#),
        Role::Operator,
        "tier.create",
    ),
    change(
        "tiers.change",
        ("PATCH", "/tiers/lab"),
        Some(r#"{"name":"bench"}"#),
        Role::Operator,
        "tier.rename",
    ),
    change(
        "tiers.delete",
        ("DELETE", "/tiers/bench?move-to=edge"),
        None,
        Role::Operator,
        "tier.delete",
    ),
    read("patches.list", "/patches"),
    read("patches.show", "/patches/107.1"),
    change(
        "patches.promote",
        ("POST", "/patches/107.1/promote"),
        Some(r#"{"tier":"beta","scope":{"flavour":"generic"},"reason":"tested","dry-run":false}"#),
        Role::Operator,
        "patch.promote",
    ),
    change(
        "patches.promote-all",
        ("POST", "/promote-all"),
        Some(r#"{"from":"beta","to":"stable","reason":"tested","dry-run":false}"#),
        Role::Operator,
        "patch.promote-all",
    ),
    change(
        "patches.block",
        ("POST", "/patches/107.1/block"),
        Some(r#"{"scope":{"architecture":"amd64"},"reason":"oops"}"#),
        Role::Operator,
        "patch.block",
    ),
    change(
        "patches.unblock",
        ("POST", "/patches/107.1/unblock"),
        Some(r#"{"scope":{"architecture":"amd64"},"reason":"fine"}"#),
        Role::Operator,
        "patch.unblock",
    ),
    change(
        "patches.hold",
        ("POST", "/patches/107.1/hold"),
        Some(r#"{"scope":{},"reason":"wait"}"#),
        Role::Operator,
        "patch.hold",
    ),
    change(
        "patches.resume",
        ("POST", "/patches/107.1/resume"),
        Some(r#"{"scope":{},"reason":"go"}"#),
        Role::Operator,
        "patch.resume",
    ),
    read("payloads.list", "/payloads?version=107.1&flavour=generic"),
    Sample {
        method: "HEAD",
        ..read(
            "payloads.check",
            "/payloads/livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2?sha256=906b9186ff583184b015cd3a037f96fdeb883134a16a9787b3761266ae26f687",
        )
    },
    // The body is the bundle, here one that is set aside.
    change(
        "payloads.upload",
        (
            "PUT",
            "/payloads/livepatch-5.15.0-107.117-generic-108.1-amd64.tar.bz2",
        ),
        Some(r#"{"no":"bundle"}"#),
        Role::Operator,
        "quarantine.add",
    ),
    read("quarantine.list", "/quarantine"),
    read("quarantine.show", "/quarantine/1"),
    change(
        "quarantine.release",
        ("POST", "/quarantine/1/release"),
        None,
        Role::Operator,
        "quarantine.release",
    ),
    change(
        "quarantine.drop-file",
        ("DELETE", "/quarantine/2"),
        None,
        Role::Operator,
        "quarantine.drop",
    ),
    change(
        "storage.refresh",
        ("POST", "/storage/refresh"),
        Some(r#"{"remove-originals":false,"dry-run":true}"#),
        Role::Operator,
        "storage.refresh",
    ),
    change(
        "storage.verify",
        ("POST", "/storage/verify"),
        None,
        Role::Operator,
        "storage.verify",
    ),
    change(
        "storage.prune",
        ("POST", "/storage/prune"),
        Some(r#"{"dry-run":true}"#),
        Role::Operator,
        "storage.prune",
    ),
    change(
        "sync.trigger",
        ("POST", "/sync/trigger"),
        None,
        Role::Operator,
        "sync.trigger",
    ),
    read("sync.status", "/sync/status"),
    read("sync.reports", "/sync/reports"),
    read("sync.report", "/sync/reports/1"),
    read(
        "sync.filters",
        "/sync/filters?flavors=aws,gcp&only-our-kernels=true",
    ),
    change(
        "sync.confirm",
        ("POST", "/sync/confirm"),
        Some(
            r#"{"digest":"0000000000000000000000000000000000000000000000000000000000000000","move":{}}"#,
        ),
        Role::Operator,
        "sync.confirm",
    ),
    change(
        "sync.reset",
        ("POST", "/sync/reset"),
        None,
        Role::Operator,
        "sync.reset",
    ),
    read("webhooks.list", "/webhooks"),
    change(
        "webhooks.create",
        ("POST", "/webhooks"),
        Some(
            r#"{"name":"fresh","url":"https://hooks.example/a?b=c","events":["patch.*","sync.failed"]}"#,
        ),
        Role::Admin,
        "webhook.add",
    ),
    read(
        "webhook-deliveries.list",
        "/webhook-deliveries?webhook=hook&state=dead",
    ),
    read("webhook-deliveries.show", "/webhook-deliveries/1"),
    change(
        "webhooks.retry",
        ("POST", "/webhooks/hook/retry"),
        Some(r#"{"deliveries":[1]}"#),
        Role::Operator,
        "webhook.retry",
    ),
    change(
        "webhooks.test",
        ("POST", "/webhooks/hook/test"),
        None,
        Role::Admin,
        "webhook.test",
    ),
    change(
        "webhooks.disable",
        ("POST", "/webhooks/hook/disable"),
        None,
        Role::Admin,
        "webhook.disable",
    ),
    change(
        "webhooks.enable",
        ("POST", "/webhooks/hook/enable"),
        None,
        Role::Admin,
        "webhook.enable",
    ),
    change(
        "webhooks.remove",
        ("DELETE", "/webhooks/hook"),
        None,
        Role::Admin,
        "webhook.remove",
    ),
    read("jobs.list", "/jobs"),
    read("jobs.show", "/jobs/1"),
    // Last, because it ends the session that the others use.
    change(
        "sessions.logout",
        ("POST", "/logout"),
        None,
        Role::Viewer,
        "session.end",
    ),
];
