//! The admin API's shapes, base path [`BASE`]: what `livepatch-admin`, the console and other programs send and get.
//!
//! Rules of this folder: keys are kebab case; requests refuse unknown keys, answers are read tolerantly; times are
//! RFC 3339; domain values stand as strings; every list is a [`Page`]. Errors are problem details (RFC 9457).
//! A request authenticates with `Authorization: Bearer lps_...` (from [`LoginRequest`]) or with `Basic`.

mod audit;
mod captures;
mod coverage;
mod jobs;
mod machines;
mod page;
mod patches;
mod payloads;
mod policies;
mod reach;
mod reports;
mod rollouts;
mod selected;
mod service_tokens;
mod sessions;
mod sync;
mod sync_tokens;
mod tiers;
mod tokens;
mod webhooks;

pub use audit::{AuditEntry, AuditQuery, AuditVerdict};
pub use captures::{Capture, CaptureContent, CaptureRecord, CaptureStart};
pub use coverage::{
    Coverage, CoverageBy, CoverageCounts, CoverageGroup, CoverageQuery, Horizon, HorizonKernel,
    HorizonQuery, KernelsImport, KernelsOutcome, SupportedKernel, SupportedKernelChange,
};
pub use jobs::{Job, JobItem, JobItemResult, JobProgress, JobState, PruneRequest, RefreshRequest};
pub use machines::{
    ExplainReason, Explanation, HistoryEntry, HistoryKind, HistoryQuery, Machine, MachineMove,
    MachineQuery, MachineRevoke, OfferedPayload,
};
pub use page::{Limit, Page, PageQuery, WireScope};
pub use patches::{
    Block, BlockKind, BlockOutcome, BlockRequest, KernelGap, Patch, PatchDetail, PromoteAllRequest,
    PromoteOutcome, PromoteRequest, PromotedPatch, Promotion,
};
pub use payloads::{
    CONTENT_SHA256, IngestOutcome, IngestResult, PayloadEntry, PayloadHeadQuery, PayloadQuery,
    QuarantineEntry, REPR_DIGEST, SignatureState, format_repr_digest, parse_repr_digest,
};
pub use policies::{
    FreezeSpec, GateSpec, LabelCapSpec, PolicyEntry, PolicyFile, PolicySpec, WindowSpec,
};
pub use reach::{Reach, ReachQuery, ReachStanding, ReachTotal, ReachedMachine};
pub use reports::{
    KernelHealth, MachinesReport, MachinesReportQuery, PatchHealth, PatchHealthQuery,
    VersionStateCount,
};
pub use rollouts::{
    ForecastQuery, PatchForecast, PhaseForecast, PolicyChange, PolicyOutcome, PolicyPlan,
    PolicySet, PolicyUnset, RolloutAct, RolloutDetail, RolloutEntry, RolloutEvent, RolloutForecast,
    RolloutGate, RolloutHealth, RolloutKernel, RolloutQuery, TierForecast,
};
pub use selected::{
    LabelOutcome, MachineLabel, MoveOutcome, SelectedLabel, SelectedMove, TierMachines,
};
pub use service_tokens::{ServiceTokenCreate, ServiceTokenCreated, ServiceTokenEntry};
pub use sessions::{
    AdminCreate, AdminEntry, AdminOrigin, LoginAnswer, LoginRequest, PasswordChange, RoleChange,
    Session, WhoAmI,
};
pub use sync::{
    FilterChange, FilterSide, PromotionGone, SyncConfirm, SyncFilter, SyncFilters,
    SyncFiltersQuery, SyncIndex, SyncItem, SyncItemResult, SyncLeader, SyncOutcome, SyncPending,
    SyncPhase, SyncProgress, SyncReport, SyncRun, SyncShrink, SyncSkipped, SyncState, SyncStatus,
    TierGone, TiersPreview,
};
pub use sync_tokens::{PeerEntry, SyncTokenCreate, SyncTokenCreated, SyncTokenEntry};
pub use tiers::{Tier, TierChange, TierCreate, TierDeleteQuery, TierDeleted};
pub use tokens::{AuthTokenCreate, AuthTokenCreated, AuthTokenEntry, TokenFormat};
pub use webhooks::{
    DeliveryState, Webhook, WebhookCreate, WebhookCreated, WebhookDelivery, WebhookDeliveryQuery,
    WebhookRetried, WebhookRetry,
};

/// Base path of the admin API.
pub const BASE: &str = "/v1/admin";

/// Serialises a secret in clear: only for fields whose purpose is to carry it.
fn expose<S: serde::Serializer>(
    secret: &crate::domain::Secret,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// The same for a secret that may be absent.
#[expect(
    clippy::ref_option,
    reason = "serde calls it with a reference to the field"
)]
fn expose_some<S: serde::Serializer>(
    secret: &Option<crate::domain::Secret>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => expose(secret, serializer),
        None => serializer.serialize_none(),
    }
}

/// Whether a flag is off, to leave it out.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_false(flag: &bool) -> bool {
    !*flag
}
