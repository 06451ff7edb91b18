//! What machines ask: registration, information, check-ins, pings, leaving. A check-in reads no table: token, tier and
//! decision come from the snapshot, and the report goes through the queue.

use super::checkin::{CheckIn, NotStored, WORD_LEN};
use super::explain::reasons;
use super::{Core, ServiceError, contracts};
use crate::db::machines::{self, CheckInRow, PingRow};
use crate::db::words::{self, WordKind};
use crate::db::{Conn, DbError, tokens};
use crate::domain::token::{MachineClaims, token_hash};
use crate::domain::{
    Architecture, KernelSupport, KernelVersion, MachineId, MachineState, PatchVersion,
};
use crate::rollout::{
    AuthTokenEntry, Decision, Facts, Outcome, Payload, Snapshot, TokenError, decide, support,
};
use crate::telemetry::{NotStored as Label, PingLabels};
use crate::wire::{
    Affordances, ClientReport, InfoAnswer, PatchOffer, PingReport, RegisterAnswer, SupportedQuery,
    Token, UpdatesAnswer,
};
use jiff::{Timestamp, civil::Date};
use std::borrow::Cow;
use std::time::Duration;

/// How long a statement for a machine may take before it is answered 503.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs database work within a machine's patience.
async fn promptly<T>(
    core: &Core,
    work: impl AsyncFnOnce(&Conn) -> Result<T, DbError>,
) -> Result<T, ServiceError> {
    let conn = core.db.conn().await?;
    if let Ok(result) = tokio::time::timeout(PATIENCE, work(&conn)).await {
        return Ok(result?);
    }
    conn.discard();
    Err(ServiceError::Unavailable(
        "the database did not answer in time; try again".to_owned(),
    ))
}

fn refused(error: TokenError) -> ServiceError {
    ServiceError::Unauthorized(error.to_string())
}

/// How often machines are told to check in, in minutes, as the wire has it.
fn interval_minutes(core: &Core) -> u32 {
    (core.config.check_in.interval.as_secs() / 60).max(1) as u32
}

/// Registers a machine that shows an auth token, and gives it its machine token.
pub async fn register(
    core: &Core,
    machine: MachineId,
    auth_token: &str,
    now: Timestamp,
) -> Result<RegisterAnswer, ServiceError> {
    let snapshot = core.snapshots.get_full();
    let entry = snapshot
        .enabling_token(&token_hash(auth_token), now.as_microsecond())
        .map_err(refused)?;
    enable(core, machine, entry, now).await
}

/// Registers a machine that an auth token admits, and gives it its machine token.
pub(super) async fn enable(
    core: &Core,
    machine: MachineId,
    entry: &AuthTokenEntry,
    now: Timestamp,
) -> Result<RegisterAnswer, ServiceError> {
    let snapshot = core.snapshots.get_full();
    let tier_id = snapshot.tier_of(&machine, entry);
    let claims = MachineClaims {
        machine,
        auth_token: entry.id,
        issued_at: now.as_microsecond(),
    };
    let token = core.machine_key.issue(&claims).ok_or_else(|| {
        ServiceError::Internal("openssl could not make a machine token".to_owned())
    })?;
    promptly(core, async |conn: &Conn| {
        machines::register(conn, machine, tier_id, entry.id, now).await?;
        tokens::touch(conn, entry.id).await
    })
    .await?;
    Ok(RegisterAnswer {
        machine_token: Token::new(token),
        tier: tier_name(&snapshot, tier_id)?,
        check_interval: interval_minutes(core),
    })
}

fn tier_name(snapshot: &Snapshot, tier_id: i32) -> Result<crate::domain::TierName, ServiceError> {
    let index = snapshot.catalog.tier_index(tier_id).ok_or_else(tier_gone)?;
    snapshot
        .catalog
        .tiers()
        .get(usize::from(index))
        .map(|tier| tier.name.clone())
        .ok_or_else(tier_gone)
}

fn tier_gone() -> ServiceError {
    ServiceError::Unavailable("the machine's tier was deleted a moment ago; try again".to_owned())
}

/// Checks a machine token for this machine; returns its claims and tier id.
pub fn authenticate(
    core: &Core,
    machine: &MachineId,
    token: &str,
) -> Result<(MachineClaims, i32), ServiceError> {
    let claims = core
        .machine_key
        .verify(token)
        .ok_or_else(|| refused(TokenError::Unknown))?;
    let tier_id = core
        .snapshots
        .get()
        .admit(&claims, machine)
        .map_err(refused)?;
    Ok((claims, tier_id))
}

/// What the server knows of a machine. Answers a machine that is registered, and one that shows a valid auth token or one that the
/// contracts service knows.
pub async fn info(
    core: &Core,
    machine: MachineId,
    token: &str,
    now: Timestamp,
) -> Result<InfoAnswer, ServiceError> {
    let snapshot = core.snapshots.get_full();
    let mut affordances = Affordances::default();
    let tier_id = if let Some(claims) = core.machine_key.verify(token) {
        snapshot.admit(&claims, &machine).map_err(refused)?
    } else {
        match snapshot.enabling_token(&token_hash(token), now.as_microsecond()) {
            Ok(entry) => snapshot.tier_of(&machine, entry),
            Err(error @ TokenError::Unknown) => {
                let asked = contracts::preview(core, machine, token, now).await;
                let tier_id;
                (tier_id, affordances) = asked.unwrap_or_else(|| Err(refused(error)))?;
                tier_id
            }
            Err(error) => return Err(refused(error)),
        }
    };
    let known = promptly(core, async |conn: &Conn| {
        machines::info(conn, machine).await
    })
    .await?;
    let tier = tier_name(&snapshot, tier_id)?;
    Ok(InfoAnswer {
        machine_id: machine,
        affordances: Affordances {
            tier: Some(tier.clone()),
            ..affordances
        },
        tier,
        enabled_at: known.map(|(enabled, _)| enabled),
        last_check: known.and_then(|(_, last)| last),
    })
}

/// Forgets a machine at its own wish.
pub async fn deregister(core: &Core, machine: MachineId) -> Result<(), ServiceError> {
    promptly(core, async |conn: &Conn| {
        machines::delete(conn, machine).await
    })
    .await
    .map(|_| ())
}

/// The version that counts as applied: only states in which a patch really is in the kernel.
fn applied(report: &ClientReport<'_>, state: MachineState) -> Option<PatchVersion> {
    report.version().filter(|_| state.runs_patch())
}

/// Cuts a reported text to the longest that is kept, at a character's end, and takes out NUL, which PostgreSQL cannot
/// store.
fn bounded(text: Option<&Cow<'_, str>>, longest: usize) -> Option<Box<str>> {
    text.map(|text| {
        let cut = &text[..text.floor_char_boundary(longest)];
        if cut.contains('\0') {
            cut.replace('\0', "").into()
        } else {
            cut.into()
        }
    })
}

/// Times that a machine can have had; others, which PostgreSQL may not be able to store, count as not reported.
fn plausible(date: Date) -> bool {
    (1970..=9999).contains(&date.year())
}

/// A check-in: decides, stores the report, answers. `base` makes a download's address of a file name.
pub async fn check_in(
    core: &Core,
    claims: &MachineClaims,
    tier_id: i32,
    report: &ClientReport<'_>,
    base: &(dyn Fn(&str) -> String + Send + Sync),
    now: Timestamp,
) -> Result<UpdatesAnswer, ServiceError> {
    let snapshot = core.snapshots.get_full();
    let tier = snapshot.catalog.tier_index(tier_id).ok_or_else(tier_gone)?;
    let state = report.state();
    let architecture = report
        .architecture
        .as_deref()
        .and_then(|text| text.parse::<Architecture>().ok());
    let kernel = report.kernel.as_deref().unwrap_or_default();
    count(core, report, kernel);
    let facts = Facts {
        tier,
        kernel,
        architecture,
        applied: applied(report, state),
        build_date: report.build_date,
        today: today(now),
    };
    let decision = decide(&snapshot.catalog, &facts).ok_or_else(tier_gone)?;
    core.metrics.offers.get(decision.outcome.as_str()).inc();
    let check_in = CheckIn {
        row: CheckInRow {
            machine: claims.machine,
            tier_id,
            auth_token_id: Some(claims.auth_token),
            at: now,
            kernel_id: None,
            client_version_id: None,
            cpu_model_id: None,
            boot_time: report.boot_time.filter(|time| plausible(today(*time))),
            build_date: report.build_date.filter(|date| plausible(*date)),
            patch: report.version().map_or(0, PatchVersion::code),
            offered: decision.payload.map_or(0, |p| p.version.code()),
            architecture: architecture.map_or(0, Architecture::code),
            state: state.code(),
            outcome: decision.outcome.code(),
            support: decision.support.verdict.code(),
        },
        kernel: bounded(report.kernel.as_ref(), KernelVersion::MAX_LEN)
            .filter(|text| !text.is_empty()),
        client_version: bounded(report.client_version.as_ref(), WORD_LEN),
        cpu_model: bounded(report.cpu_model.as_ref(), WORD_LEN),
    };
    let stored = match core.check_ins.store(check_in).await {
        Ok(()) => true,
        Err(NotStored::Full) => {
            core.metrics.check_ins.not_stored.inc(Label::QueueFull);
            return Err(ServiceError::Unavailable(NotStored::Full.to_string()));
        }
        // Offers do not depend on the database; that the report was lost is said in the answer.
        Err(NotStored::Unavailable) => {
            core.metrics.check_ins.not_stored.inc(Label::Database);
            false
        }
    };
    Ok(answer(&decision, stored, interval_minutes(core), base))
}

fn count(core: &Core, report: &ClientReport<'_>, kernel: &str) {
    if report.build_date.is_none() {
        core.metrics.clients.without_build_date.inc();
    }
    if kernel.parse::<KernelVersion>().is_err() {
        core.metrics.clients.unknown_kernel.inc();
    }
    if report.unknown_keys > 0 {
        core.metrics
            .clients
            .unknown_keys
            .inc_by(u64::from(report.unknown_keys));
    }
}

fn offer(payload: &Payload, base: &(dyn Fn(&str) -> String + Send + Sync)) -> PatchOffer {
    PatchOffer {
        version: payload.version,
        kernel: payload.kernel.clone(),
        architecture: payload.architecture,
        filename: payload.filename.to_string(),
        sha256: payload.sha256,
        url: base(&payload.filename),
        size: payload.size,
        fixes: payload.fixes.to_vec(),
    }
}

fn answer(
    decision: &Decision<'_>,
    stored: bool,
    check_interval: u32,
    base: &(dyn Fn(&str) -> String + Send + Sync),
) -> UpdatesAnswer {
    UpdatesAnswer {
        patches: decision
            .payload
            .map(|payload| offer(payload, base))
            .into_iter()
            .collect(),
        supported: decision.support.verdict,
        upgrade_required_date: decision.support.upgrade_required,
        tier: decision.tier.clone(),
        check_interval,
        stored,
        reasons: reasons(decision),
    }
}

/// Stores a ping and counts it.
pub async fn ping(
    core: &Core,
    machine: MachineId,
    tier_id: i32,
    ping: &PingReport<'_>,
) -> Result<(), ServiceError> {
    let version = ping
        .patch_version
        .as_deref()
        .and_then(|text| text.parse::<PatchVersion>().ok());
    let architecture = ping
        .architecture
        .as_deref()
        .and_then(|text| text.parse::<Architecture>().ok());
    let kernel =
        bounded(ping.kernel.as_ref(), KernelVersion::MAX_LEN).filter(|text| !text.is_empty());
    let message = bounded(ping.message.as_ref(), 4096).unwrap_or_default();
    let state = ping.patch_state.as_deref().map(MachineState::read);
    promptly(core, async |conn: &Conn| {
        let kernel_id = match &kernel {
            Some(text) => {
                let ids = words::ids(conn, &[(WordKind::Kernel, text.to_string())]).await?;
                ids.first().map(|(_, _, id)| *id)
            }
            None => None,
        };
        let row = PingRow {
            machine,
            ping_type: ping.ping_type.as_str(),
            kernel_id,
            patch: version.map_or(0, PatchVersion::code),
            architecture: architecture.map_or(0, Architecture::code),
            state: state.unwrap_or(MachineState::Unknown).code(),
            message: message.into(),
        };
        machines::insert_ping(conn, &row).await
    })
    .await?;
    let snapshot = core.snapshots.get();
    let catalog = &snapshot.catalog;
    let known = |kernel: &str| {
        architecture.is_some_and(|arch| !catalog.for_kernel(kernel, arch).is_empty())
    };
    let tier = catalog
        .tier_index(tier_id)
        .and_then(|index| catalog.tiers().get(usize::from(index)));
    core.metrics.pings.inc(PingLabels {
        ping_type: ping.ping_type.as_str(),
        kernel: kernel.as_deref().filter(|kernel| known(kernel)),
        patch_version: ping
            .patch_version
            .as_deref()
            .filter(|_| version.is_some_and(|v| catalog.payloads().iter().any(|p| p.version == v))),
        tier: tier.map(|tier| tier.name.as_str()),
        patch_state: state,
        architecture,
    });
    Ok(())
}

/// What the table of supported kernels says of a kernel that a client, or `pro`, asks about.
pub fn kernel_support(
    core: &Core,
    query: &SupportedQuery<'_>,
    now: Timestamp,
) -> Result<KernelSupport, ServiceError> {
    let base = query.base().ok_or_else(|| {
        ServiceError::Invalid(
            "the parameter kernel-version is missing, e.g. kernel-version=5.15".to_owned(),
        )
    })??;
    let series = base.series();
    let question = support::Query {
        series: &series,
        flavour: query.flavour.as_deref().unwrap_or_default(),
        architecture: query
            .architecture
            .as_deref()
            .and_then(|text| text.parse().ok()),
        codename: query.codename.as_deref(),
        build_date: query.build_day(),
    };
    Ok(core
        .snapshots
        .get()
        .catalog
        .support()
        .evaluate(&question, today(now))
        .verdict)
}

/// Whether a machine that wants to be enabled says that it runs a kernel for which there is nothing and never will be.
pub fn is_unsupported(core: &Core, report: &ClientReport<'_>, now: Timestamp) -> bool {
    let (Some(kernel), Some(architecture)) =
        (report.kernel.as_deref(), report.architecture.as_deref())
    else {
        return false;
    };
    let snapshot = core.snapshots.get();
    let facts = Facts {
        tier: 0,
        kernel,
        architecture: architecture.parse().ok(),
        applied: None,
        build_date: report.build_date,
        today: today(now),
    };
    decide(&snapshot.catalog, &facts)
        .is_some_and(|decision| decision.outcome == Outcome::Unsupported)
}

fn today(now: Timestamp) -> Date {
    now.to_zoned(jiff::tz::TimeZone::UTC).date()
}
