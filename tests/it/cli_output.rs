//! The admin API's shapes against golden files, both ways, and what livepatch-admin prints of them.

use jiff::tz::TimeZone;
use livepatch_onprem::cli::output::{Format, Show, View, render};
use livepatch_onprem::cli::upload::{UploadFailure, UploadReport};
use livepatch_onprem::cli::{Exit, login::LoggedIn};
use livepatch_onprem::wire::admin::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::fmt::Debug;
use std::path::Path;

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/admin")
        .join(name)
        .with_extension("json");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The golden file is read as this type and comes out of it unchanged.
fn both_ways<T: Serialize + DeserializeOwned>(name: &str) -> T {
    let text = golden(name);
    let value: T = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(&value).unwrap(), file, "{name}");
    value
}

/// A request: in addition, an unknown key is refused.
fn request<T: Serialize + DeserializeOwned + Debug>(name: &str) -> T {
    let value = both_ways(name);
    let mut wrong: Value = serde_json::from_str(&golden(name)).unwrap();
    wrong["surprise"] = Value::Bool(true);
    let error = serde_json::from_value::<T>(wrong).unwrap_err().to_string();
    assert!(error.contains("surprise"), "{name}: {error}");
    value
}

fn view(terminal: bool) -> View {
    View {
        terminal,
        zone: TimeZone::fixed(jiff::tz::offset(2)),
    }
}

/// An answer: its table is frozen, and JSON and YAML are the wire type exactly.
fn answer<T: Serialize + DeserializeOwned + Show>(name: &str) -> T {
    let value: T = both_ways(name);
    let file: Value = serde_json::from_str(&golden(name)).unwrap();
    let json = render(&value, Format::Json, &view(false)).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&json).unwrap(),
        file,
        "{name}"
    );
    let yaml = render(&value, Format::Yaml, &view(false)).unwrap();
    let read: Value =
        serde_saphyr::from_str(&yaml).unwrap_or_else(|e| panic!("{name}: {e}\n{yaml}"));
    assert_eq!(read, file, "{name}: YAML says something else\n{yaml}");
    let table = render(&value, Format::Table, &view(false)).unwrap();
    insta::assert_snapshot!(name, table);
    value
}

#[test]
fn requests_are_frozen_and_refuse_unknown_keys() {
    let login: LoginRequest = request("login-request");
    assert!(!format!("{login:?}").contains("s3cret"));
    let change: PasswordChange = request("password-change");
    assert!(!format!("{change:?}").contains("old"));
    let add: AdminCreate = request("admin-create");
    assert!(!format!("{add:?}").contains("s3cret"));
    request::<RoleChange>("role-change");
    request::<TierCreate>("tier-create");
    request::<TierChange>("tier-change");
    request::<PromoteRequest>("promote-request");
    request::<PromoteAllRequest>("promote-all-request");
    request::<BlockRequest>("block-request");
    request::<RefreshRequest>("refresh-request");
    request::<PruneRequest>("prune-request");
    request::<SyncConfirm>("sync-confirm");
    request::<AuthTokenCreate>("auth-token-create");
    request::<SyncTokenCreate>("sync-token-create");
    let hook: WebhookCreate = request("webhook-create");
    assert!(!format!("{hook:?}").contains("canary"));
    request::<WebhookRetry>("webhook-retry");
    request::<MachineMove>("machine-move");
    request::<MachineRevoke>("machine-revoke");
    request::<MachineLabel>("machine-label");
    request::<SelectedLabel>("selected-label");
    request::<SelectedMove>("selected-move");
    request::<CaptureStart>("capture-start");
}

#[test]
fn queries_refuse_unknown_keys() {
    assert!(serde_json::from_str::<PageQuery>(r#"{"limit":5}"#).is_ok());
    for (what, refused) in [
        (
            "page",
            serde_json::from_str::<PageQuery>(r#"{"x":"1"}"#).is_err(),
        ),
        (
            "payloads",
            serde_json::from_str::<PayloadQuery>(r#"{"x":"1"}"#).is_err(),
        ),
        (
            "machines",
            serde_json::from_str::<MachineQuery>(r#"{"x":"1"}"#).is_err(),
        ),
        (
            "history",
            serde_json::from_str::<HistoryQuery>(r#"{"x":"1"}"#).is_err(),
        ),
        (
            "audit",
            serde_json::from_str::<AuditQuery>(r#"{"x":"1"}"#).is_err(),
        ),
        (
            "deliveries",
            serde_json::from_str::<WebhookDeliveryQuery>(r#"{"x":"1"}"#).is_err(),
        ),
        (
            "tier delete",
            serde_json::from_str::<TierDeleteQuery>(r#"{"x":"1"}"#).is_err(),
        ),
    ] {
        assert!(refused, "{what}");
    }
}

#[test]
fn sessions_and_administrators() {
    let login: LoginAnswer = both_ways("login-answer");
    assert!(!format!("{login:?}").contains("lps_abc"));
    let shown = LoggedIn {
        url: "https://h".into(),
        user: login.user,
        role: login.role,
        expires_at: login.expires_at,
        idle_seconds: login.idle_seconds,
    };
    let json = render(&shown, Format::Json, &view(false)).unwrap();
    assert!(
        !json.contains("lps_abc") && json.contains("\"idle-seconds\": 3600"),
        "{json}"
    );
    answer::<WhoAmI>("who-am-i");
    answer::<Page<Session>>("sessions");
    answer::<Page<AdminEntry>>("admins");
}

#[test]
fn tiers_and_patches() {
    answer::<Page<Tier>>("tiers");
    answer::<TierDeleted>("tier-deleted");
    answer::<Page<Patch>>("patches");
    answer::<PatchDetail>("patch-detail");
    let mut outcome: PromoteOutcome = answer("promote-outcome");
    outcome.dry_run = false;
    outcome.kernels_without_payload.clear();
    insta::assert_snapshot!("promote-outcome-done", outcome.show(&view(false)));
    outcome.patches.clear();
    assert_eq!(
        outcome.show(&view(false)),
        "Nothing to promote: all is there already."
    );
    answer::<BlockOutcome>("block-outcome");
}

#[test]
fn storage_and_jobs() {
    answer::<Page<PayloadEntry>>("payloads");
    answer::<IngestOutcome>("ingest-outcome");
    answer::<Page<QuarantineEntry>>("quarantine");
    answer::<Job>("job");
    answer::<Page<Job>>("jobs");
}

#[test]
fn what_comes_from_upstream() {
    answer::<SyncStatus>("sync-status");
    answer::<Page<SyncRun>>("sync-runs");
    answer::<SyncReport>("sync-report");
    answer::<SyncFilters>("sync-filters");
    let created: SyncTokenCreated = answer("sync-token-created");
    assert_eq!(created.show(&view(true)), "lpy_abc");
    assert!(!format!("{created:?}").contains("lpy_abc"));
    answer::<Page<SyncTokenEntry>>("sync-tokens");
    answer::<Page<PeerEntry>>("sync-peers");
}

#[test]
fn webhooks_and_deliveries() {
    answer::<Page<Webhook>>("webhooks");
    let created: WebhookCreated = answer("webhook-created");
    assert_eq!(created.show(&view(true)), "whsec_abc");
    assert!(!format!("{created:?}").contains("whsec_abc"));
    answer::<WebhookDelivery>("webhook-delivery");
    answer::<Page<WebhookDelivery>>("webhook-deliveries");
    answer::<WebhookRetried>("webhook-retried");
}

#[test]
fn tokens_and_machines() {
    let created: AuthTokenCreated = answer("auth-token-created");
    assert_eq!(created.show(&view(true)), "lpa_abc");
    assert!(!format!("{created:?}").contains("lpa_abc"));
    answer::<Page<AuthTokenEntry>>("auth-tokens");
    answer::<Machine>("machine");
    answer::<LabelOutcome>("label-outcome");
    answer::<LabelOutcome>("label-outcome-dry");
    answer::<MoveOutcome>("move-outcome");
    answer::<MoveOutcome>("move-outcome-dry");
    answer::<MoveOutcome>("move-outcome-none");
    let machines: Page<Machine> = answer("machines");
    insta::assert_snapshot!("machines-on-a-terminal", machines.show(&view(true)));
    answer::<Page<HistoryEntry>>("history");
    answer::<Explanation>("explanation");
    answer::<Explanation>("explanation-refused");
}

#[test]
fn reports_audit_and_captures() {
    answer::<MachinesReport>("machines-report");
    answer::<PatchHealth>("patch-health");
    answer::<Page<AuditEntry>>("audit");
    answer::<AuditVerdict>("audit-verdict");
    answer::<Page<Capture>>("captures");
    answer::<CaptureContent>("capture-content");
}

#[test]
fn an_upload_is_summed_up_and_decides_the_exit_code() {
    let outcome: IngestOutcome = both_ways("ingest-outcome");
    let mut report = UploadReport {
        items: vec![IngestOutcome {
            result: IngestResult::Stored,
            reason: None,
            quarantine_id: None,
            ..outcome.clone()
        }],
        failed: Vec::new(),
    };
    assert_eq!(report.exit(), Exit::Ok);
    report.items.push(outcome);
    assert_eq!(report.exit(), Exit::Unsound);
    report.failed.push(UploadFailure {
        file: "x.tar.bz2".into(),
        error: "cannot read x.tar.bz2: No such file or directory".into(),
    });
    assert_eq!(report.exit(), Exit::Failure);
    insta::assert_snapshot!("upload-report", report.show(&view(false)));
}

#[test]
fn what_a_machine_says_cannot_steer_the_terminal() {
    let mut history: Page<HistoryEntry> = both_ways("history");
    history.items[1].message = Some("\u{1b}]0;owned\u{7}\u{9b}2J\rx".into());
    let table = render(&history, Format::Table, &view(true)).unwrap();
    assert!(table.contains("owned"), "{table}");
    assert!(
        !table.chars().any(|c| c.is_control() && c != '\n'),
        "{table:?}"
    );
}

#[test]
fn an_empty_list_says_what_to_do() {
    let none: Page<Patch> = Page::whole(Vec::new());
    assert!(
        none.show(&view(true))
            .contains("livepatch-admin patch upload")
    );
    let json = render(&none, Format::Json, &view(true)).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&json).unwrap(),
        serde_json::json!({"items": []})
    );
}

#[test]
fn every_shape_is_in_the_openapi_vocabulary() {
    use utoipa::{PartialSchema, ToSchema};
    let text = serde_json::to_string(&Page::<Machine>::schema()).unwrap();
    assert!(text.contains("next-cursor"), "{text}");
    let scope = serde_json::to_string(&WireScope::schema()).unwrap();
    assert!(scope.contains("flavour"), "{scope}");
    let mut schemas = Vec::new();
    PatchDetail::schemas(&mut schemas);
    let names: Vec<_> = schemas.iter().map(|(name, _)| name.as_str()).collect();
    assert!(
        names.contains(&"PayloadEntry") && names.contains(&"Scope"),
        "{names:?}"
    );
}
