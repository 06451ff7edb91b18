//! What machines ask: registration, information, check-ins, pings, leaving. A check-in reads no table: token, tier and
//! decision come from the snapshot, and the report goes through the queue.

use super::checkin::{NotStored, WORD_LEN};
use super::explain::reasons;
use super::failpoint::failpoint;
use super::{Core, ServiceError, contracts};
use crate::db::machines::{self, CheckInRow, PingRow};
use crate::db::words::{self, WordKind};
use crate::db::{Conn, DbError, tokens};
use crate::domain::token::{MachineClaims, token_hash};
use crate::domain::{
    Architecture, KernelParts, KernelSupport, KernelVersion, MachineId, MachineState, PatchVersion,
};
use crate::rollout::{
    Answer, AuthTokenEntry, Decision, Facts, Outcome, Payload, ReasonCode, Rendered, Snapshot,
    TokenError, decide, support,
};
use crate::telemetry::{NotStored as Label, PingLabels};
use crate::wire::{
    Affordances, ClientReport, InfoAnswer, PatchOffer, PingReport, RegisterAnswer, SupportedQuery,
    Token, UpdatesAnswer,
};
use bytes::Bytes;
use jiff::{Timestamp, civil::Date};
use std::borrow::Cow;
use std::sync::Arc;
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
    // A clock that went back since a revocation must not make tokens that the revocation refuses too.
    let revoked = snapshot
        .overrides
        .get(&machine)
        .and_then(|own| Timestamp::from_microsecond(own.revoked_before?).ok());
    let issued = revoked.map_or(now, |revoked| now.max(revoked));
    let claims = MachineClaims {
        machine,
        auth_token: entry.id,
        issued_at: issued.as_microsecond(),
    };
    let token = core.machine_key.issue(&claims);
    promptly(core, async |conn: &Conn| {
        failpoint("register-before-commit");
        let token = (entry.id, &entry.labels);
        machines::register(conn, machine, tier_id, token, issued).await?;
        failpoint("register-after-commit");
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

/// Cuts a reported text to the longest that is kept, at a character's end, and takes out NUL, which PostgreSQL cannot
/// store.
fn bounded<'a>(text: Option<&'a Cow<'_, str>>, longest: usize) -> Option<Cow<'a, str>> {
    text.map(|text| {
        let cut = &text[..text.floor_char_boundary(longest)];
        if cut.contains('\0') {
            Cow::Owned(cut.replace('\0', ""))
        } else {
            Cow::Borrowed(cut)
        }
    })
}

/// Times that a machine can have had; others, which PostgreSQL may not be able to store, count as not reported.
fn plausible(date: Date) -> bool {
    (1970..=9999).contains(&date.year())
}

/// A check-in: decides, stores the report, answers. The answer is an [`UpdatesAnswer`] in JSON; `address` makes a
/// download's address of a file name.
pub async fn check_in(
    core: &Core,
    claims: &MachineClaims,
    tier_id: i32,
    report: &ClientReport<'_>,
    address: impl FnOnce(&str) -> String,
    now: Timestamp,
) -> Result<Bytes, ServiceError> {
    let (row, answer) = decided(core, claims, tier_id, report, now)?;
    let kernel = bounded(report.kernel.as_ref(), KernelVersion::MAX_LEN);
    let client_version = bounded(report.client_version.as_ref(), WORD_LEN);
    let cpu_model = bounded(report.cpu_model.as_ref(), WORD_LEN);
    let texts = [
        kernel.as_deref().filter(|text| !text.is_empty()),
        client_version.as_deref(),
        cpu_model.as_deref(),
    ];
    let answer = match core.check_ins.store(row, texts).await {
        Ok(()) => &answer.stored,
        Err(NotStored::Full) => {
            core.metrics.check_ins.not_stored.inc(Label::QueueFull);
            return Err(ServiceError::Unavailable(NotStored::Full.to_string()));
        }
        // Offers do not depend on the database; that the report was lost is said in the answer.
        Err(NotStored::Unavailable) => {
            core.metrics.check_ins.not_stored.inc(Label::Database);
            &answer.not_stored
        }
    };
    Ok(answer.body(|filename| json_text(&address(filename))))
}

/// What is decided about a report: the row to store and the answers. Looks at the snapshot and lets go of it.
fn decided(
    core: &Core,
    claims: &MachineClaims,
    tier_id: i32,
    report: &ClientReport<'_>,
    now: Timestamp,
) -> Result<(CheckInRow, Arc<Rendered>), ServiceError> {
    let snapshot = core.snapshots.get();
    let tier = snapshot.catalog.tier_index(tier_id).ok_or_else(tier_gone)?;
    let state = report.state();
    let architecture = report
        .architecture
        .as_deref()
        .and_then(|text| text.parse::<Architecture>().ok());
    let version = report.version();
    let facts = Facts {
        tier,
        kernel: report.kernel.as_deref().unwrap_or_default(),
        architecture,
        // Only in some states is a patch really in the kernel.
        applied: version.filter(|_| state.runs_patch()),
        build_date: report.build_date,
        machine: claims.machine,
        now,
        today: today(now),
    };
    let decision = decide(&snapshot.catalog, &snapshot.rollouts, &facts).ok_or_else(tier_gone)?;
    count(core, report, &facts, &decision);
    let answer = snapshot.answers.of(&decision, || Rendered {
        stored: rendered(&decision, true, interval_minutes(core)),
        not_stored: rendered(&decision, false, interval_minutes(core)),
    });
    let row = CheckInRow {
        machine: claims.machine,
        tier_id,
        auth_token_id: Some(claims.auth_token),
        at: now,
        kernel_id: None,
        client_version_id: None,
        cpu_model_id: None,
        boot_time: report.boot_time.filter(|time| plausible(today(*time))),
        build_date: report.build_date.filter(|date| plausible(*date)),
        patch: version.map_or(0, PatchVersion::code),
        offered: decision.payload.map_or(0, |p| p.version.code()),
        architecture: architecture.map_or(0, Architecture::code),
        state: state.code(),
        outcome: decision.outcome.code(),
        support: decision.support.verdict.code(),
    };
    Ok((row, answer))
}

fn count(core: &Core, report: &ClientReport<'_>, facts: &Facts<'_>, decision: &Decision<'_>) {
    core.metrics.offers.get(decision.outcome.as_str()).inc();
    let clients = &core.metrics.clients;
    if report.build_date.is_none() {
        clients.without_build_date.inc();
    }
    // Whoever decides reads the kernel unless the architecture already says nothing.
    let unread = decision.code == ReasonCode::KernelUnknown
        && (facts.architecture.is_some() || KernelParts::read(facts.kernel).is_err());
    if unread {
        clients.unknown_kernel.inc();
    }
    if report.unknown_keys > 0 {
        clients.unknown_keys.inc_by(u64::from(report.unknown_keys));
    }
}

/// Stands where an offer's address will be. No text that is stored in PostgreSQL can hold it.
const GAP: &str = "\0";

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn offer(payload: &Payload) -> PatchOffer {
    PatchOffer {
        version: payload.version,
        kernel: payload.kernel.clone(),
        architecture: payload.architecture,
        filename: payload.filename.to_string(),
        sha256: payload.sha256,
        url: GAP.to_owned(),
        size: payload.size,
        fixes: payload.fixes.to_vec(),
    }
}

fn rendered(decision: &Decision<'_>, stored: bool, check_interval: u32) -> Answer {
    let answer = UpdatesAnswer {
        patches: decision.payload.map(offer).into_iter().collect(),
        supported: decision.support.verdict,
        upgrade_required_date: decision.support.upgrade_required,
        tier: decision.tier.clone(),
        check_interval,
        stored,
        reasons: reasons(decision),
    };
    let json = Bytes::from(serde_json::to_vec(&answer).unwrap_or_default());
    decision
        .payload
        .and_then(|payload| {
            let filename = Arc::clone(&payload.filename);
            Answer::with_gap(json.clone(), json_text(GAP).as_bytes(), filename)
        })
        .unwrap_or_else(|| Answer::whole(json))
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
            message: message.into_owned(),
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
    let question = support::Query {
        base,
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
        machine: MachineId([0; 16]),
        now,
        today: today(now),
    };
    decide(&snapshot.catalog, &snapshot.rollouts, &facts)
        .is_some_and(|decision| decision.outcome == Outcome::Unsupported)
}

fn today(now: Timestamp) -> Date {
    now.to_zoned(jiff::tz::TimeZone::UTC).date()
}
