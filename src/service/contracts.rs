//! Machines of Ubuntu Pro: who shows a token that this server did not make is asked about at the contracts service.
//!
//! * Only registration and information ask. The machine gets a machine token of this server, so that its check-ins ask nobody and go on
//!   while the service is away.
//! * Membership: each tier that contracts name has an auth token of its own, `contracts:TIER`, made at the first need. Nobody knows its
//!   text. Machine tokens point at it, which gives tier and revocation to check-ins without a table. An administrator who revokes it
//!   cuts all machines of that tier off, and new ones too; one who makes a token of that name for another tier sends them there.
//! * A token that looks like one of this server's kind is never sent to the service.

use super::auth::fresh_token;
use super::{Core, ServiceError, clients};
use crate::config::{Config, PatchSync, SyncDriver};
use crate::db::audit::{self, Actor, Entry};
use crate::db::auth_tokens::{self as rows, NewAuthToken};
use crate::db::listen::Change;
use crate::db::{DbError, fleet, tokens};
use crate::domain::token::{AUTH_PREFIX, token_hash};
use crate::domain::{Architecture, KernelVersion, Labels, MachineId, MinimumKernel, TierName};
use crate::rollout::{AuthTokenEntry, Snapshot, TokenError};
use crate::telemetry::{ContractsMetrics, TokenKind};
use crate::upstream::contracts::{Client, ContractsError};
use crate::wire::contracts::ResourceAnswer;
use crate::wire::{Affordances, ClientReport, RegisterAnswer, Token};
use jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Semaphore};

/// Answers that are remembered.
const CACHED: u64 = 20_000;
/// Questions that may be open at the service at once.
const OPEN: usize = 64;
/// When a machine may come again while the service is away; clients retry after 30 s by themselves.
const RETRY: Duration = Duration::from_secs(30);
/// For how long a look at the service's health is believed.
const HEALTH: Duration = Duration::from_secs(10);
/// How long a look at the service's health may take.
const GLANCE: Duration = Duration::from_millis(1500);
/// The longest token that is asked about, in bytes.
const MAX_TOKEN: usize = 8 << 10;
/// How often membership is looked up while other replicas change it.
const ATTEMPTS: usize = 3;

/// What a contract grants a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    tier: TierName,
    /// `None`: all.
    architectures: Option<Vec<Architecture>>,
    series: Vec<String>,
    flavours: Vec<String>,
    minimum: Option<MinimumKernel>,
}

/// What the service said; kept as it is, so that a refusal is remembered too.
type Verdict = Result<Arc<Grant>, Arc<str>>;

/// The service and what it said lately.
#[derive(Debug)]
pub struct Contracts {
    client: Option<Client>,
    cache: moka::future::Cache<[u8; 32], Verdict>,
    open: Semaphore,
    health: Mutex<Option<(Instant, Result<(), ContractsError>)>>,
}

impl Contracts {
    /// As configured; asks nobody where `contracts.enabled` is false.
    pub fn new(config: &Config) -> Result<Self, String> {
        let contracts = &config.contracts;
        let client = if contracts.enabled {
            if contracts.url.starts_with("http:") {
                tracing::warn!(
                    url = contracts.url,
                    "contracts.url is not https: tokens of machines travel as they are"
                );
            }
            let client = Client::new(contracts, &config.patch_sync.proxy);
            Some(client.map_err(|error| error.to_string())?)
        } else {
            None
        };
        // The cache refuses lifetimes of centuries.
        let lifetime = contracts.cache.min(Duration::from_hours(24 * 365));
        Ok(Self {
            client,
            cache: moka::future::Cache::builder()
                .max_capacity(CACHED)
                .time_to_live(lifetime)
                .build(),
            open: Semaphore::new(OPEN),
            health: Mutex::new(None),
        })
    }

    /// The token that a machine shows: the body's auth token, else its resource token, else the header's, else the machine token of a
    /// contract in the body. Those of Ubuntu Pro count only if anybody asks about them.
    pub fn shown<'a>(
        &self,
        report: &'a ClientReport<'_>,
        header: Option<&'a str>,
    ) -> Option<&'a str> {
        let theirs = |token: &'a Option<Token<'_>>| {
            self.client.as_ref()?;
            token.as_ref().map(Token::expose)
        };
        let ours = report.auth_token.as_ref().map(Token::expose);
        ours.or_else(|| theirs(&report.resource_token))
            .or(header)
            .or_else(|| theirs(&report.machine_token))
    }

    /// The service, if it is to be asked about such a token.
    fn asked_about(&self, token: &str) -> Option<&Client> {
        let of_our_kind = token.len() > 4
            && token.starts_with("lp")
            && token.as_bytes()[2].is_ascii_lowercase()
            && token.as_bytes()[3] == b'_';
        // Auth tokens of Canonical's servers and, if so asked, of this one are UUIDs.
        let uuid = token.len() == 36 && uuid::Uuid::try_parse(token).is_ok();
        let fits =
            (8..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
        self.client
            .as_ref()
            .filter(|_| fits && !of_our_kind && !uuid)
    }

    async fn ask(
        &self,
        metrics: &ContractsMetrics,
        client: &Client,
        machine: MachineId,
        token: &str,
    ) -> Result<Arc<Grant>, ServiceError> {
        let mut hasher = openssl::sha::Sha256::new();
        hasher.update(&machine.0);
        hasher.update(token.as_bytes());
        // Not waited for: machines that are registered share the bound on requests with those that wait here.
        let question = async {
            let _slot = self.open.try_acquire().map_err(|_| {
                ContractsError::Away(
                    format!("{OPEN} questions wait for {} already", client.url()),
                    None,
                )
            })?;
            let answer = client.livepatch(machine, token).await.and_then(grant);
            if let Err(error) = &answer {
                count(metrics, error);
            }
            match answer {
                Ok(grant) => Ok(Ok(Arc::new(grant))),
                Err(ContractsError::Refused(why, _)) => Ok(Err(Arc::from(why))),
                Err(error) => Err(error),
            }
        };
        let verdict = self.cache.try_get_with(hasher.finish(), question).await;
        match verdict {
            Ok(Ok(grant)) => Ok(grant),
            Ok(Err(why)) => Err(ServiceError::Unauthorized(why.to_string())),
            Err(error) => {
                tracing::warn!(%error, "the contracts service could not be asked");
                Err(ServiceError::Away {
                    why: "the contracts service cannot be asked about this token now; machines that are registered are served as before, new ones must come again".to_owned(),
                    retry_after: RETRY,
                })
            }
        }
    }

    /// Whether the service answers; `None` where it is not used. Asked at most every ten seconds, however often this is called.
    pub async fn health(&self, metrics: &ContractsMetrics) -> Option<Result<(), ContractsError>> {
        let client = self.client.as_ref()?;
        let mut last = self.health.lock().await;
        if let Some((at, result)) = &*last
            && at.elapsed() < HEALTH
        {
            return Some(result.clone());
        }
        let result = tokio::time::timeout(GLANCE, client.reachable())
            .await
            .unwrap_or_else(|_| Err(ContractsError::Away("no answer in time".to_owned(), None)));
        if let Err(error) = &result {
            count(metrics, error);
        }
        *last = Some((Instant::now(), result.clone()));
        Some(result)
    }
}

fn count(metrics: &ContractsMetrics, error: &ContractsError) {
    let refused = matches!(error, ContractsError::Refused(..));
    metrics.failed(refused, error.status());
}

/// What the service says of this token; how long that takes counts as authentication.
async fn ask(
    core: &Core,
    client: &Client,
    machine: MachineId,
    token: &str,
) -> Result<Arc<Grant>, ServiceError> {
    let started = Instant::now();
    let asked = core
        .contracts
        .ask(&core.metrics.contracts, client, machine, token)
        .await;
    let seconds = started.elapsed().as_secs_f64();
    let auth = &core.metrics.auth;
    auth.duration.observe(TokenKind::Resource, seconds);
    asked
}

/// What an answer grants.
fn grant(answer: ResourceAnswer) -> Result<Grant, ContractsError> {
    let refused = |why: &str| Err(ContractsError::Refused(format!("the contract {why}"), None));
    let Some(entitlement) = answer.entitlement else {
        return Err(ContractsError::Nonsense(
            "the contracts service answered without an entitlement".to_owned(),
            None,
        ));
    };
    if entitlement.entitled != Some(true) {
        return refused("does not include Livepatch");
    }
    let affordances = entitlement.affordances.unwrap_or_default();
    let Some(tier) = affordances.tier.filter(|tier| !tier.is_empty()) else {
        return refused("names no tier");
    };
    let Ok(tier) = tier.parse::<TierName>() else {
        return refused("names a tier that cannot be one here");
    };
    let minimum = affordances
        .min_kernel_version
        .filter(|text| !text.is_empty());
    let minimum = minimum.and_then(|text| {
        let parsed = text.parse::<MinimumKernel>();
        if parsed.is_err() {
            tracing::warn!(
                text,
                "a contract's minKernelVersion is not understood and not enforced"
            );
        }
        parsed.ok()
    });
    // A list of names that are all unknown is still a limit.
    let architectures = affordances.architectures.filter(|names| !names.is_empty());
    Ok(Grant {
        tier,
        architectures: architectures
            .map(|names| names.iter().filter_map(|name| name.parse().ok()).collect()),
        series: affordances.series.unwrap_or_default(),
        flavours: affordances.kernel_flavors.unwrap_or_default(),
        minimum,
    })
}

impl Grant {
    /// Whether the contract covers what the machine says it runs. What it does not say is not held against it.
    fn covers(&self, report: &ClientReport<'_>) -> Result<(), ServiceError> {
        // Other software searches refusals for these two words (public).
        let refuse = |what: &str, has: &str| {
            Err(ServiceError::Forbidden(format!(
                "unsupported kernel: the machine's Ubuntu Pro contract does not cover {what} {has}"
            )))
        };
        let architecture: Option<Architecture> = report
            .architecture
            .as_deref()
            .and_then(|text| text.parse().ok());
        if let (Some(allowed), Some(architecture)) = (&self.architectures, architecture)
            && !allowed.contains(&architecture)
        {
            return refuse("architecture", architecture.as_str());
        }
        let kernel = report
            .kernel
            .as_deref()
            .and_then(|text| text.parse::<KernelVersion>().ok());
        let Some(kernel) = kernel else {
            return Ok(());
        };
        let flavour = kernel.flavour();
        if !self.flavours.is_empty() && !self.flavours.iter().any(|allowed| allowed == flavour) {
            return refuse("kernel flavour", flavour);
        }
        if self.minimum.is_some_and(|minimum| !minimum.admits(&kernel)) {
            return refuse("kernel", &kernel.to_string());
        }
        Ok(())
    }
}

/// The name of the auth token that stands for a tier of contracts.
pub fn membership_name(tier: &TierName) -> String {
    format!("contracts:{tier}")
}

/// The auth token that stands for a tier of contracts, if there is one that lives.
fn standing<'s>(
    snapshot: &'s Snapshot,
    tier: &TierName,
    now: Timestamp,
) -> Result<Option<&'s AuthTokenEntry>, ServiceError> {
    let name = membership_name(tier);
    match snapshot.tokens.named(&name) {
        Some(entry) if entry.revoked => Err(ServiceError::Forbidden(format!(
            "machines of Ubuntu Pro's tier {tier} were cut off: the auth token {name} is revoked; an administrator who makes a new one of that name lets them in again"
        ))),
        Some(entry)
            if entry
                .valid_until
                .is_some_and(|until| now.as_microsecond() >= until) =>
        {
            Err(ServiceError::Forbidden(format!(
                "the auth token {name} has expired; an administrator who revokes it and makes a new one of that name lets machines of Ubuntu Pro's tier {tier} in again"
            )))
        }
        found => Ok(found),
    }
}

fn tier_id(snapshot: &Snapshot, tier: &TierName) -> Result<i32, ServiceError> {
    let mut tiers = snapshot.catalog.tiers().iter();
    let found = tiers
        .find(|known| known.name == *tier)
        .map(|known| known.id);
    found.ok_or_else(|| {
        ServiceError::Forbidden(format!(
            "the machine's Ubuntu Pro contract puts it into tier {tier}, which does not exist here; an administrator can make that tier, or an auth token named {} for another one",
            membership_name(tier)
        ))
    })
}

/// The auth token that stands for a tier of contracts; made if there is none.
async fn membership(
    core: &Core,
    tier: &TierName,
    now: Timestamp,
) -> Result<AuthTokenEntry, ServiceError> {
    for _ in 0..ATTEMPTS {
        let snapshot = core.snapshots.get_full();
        if let Some(entry) = standing(&snapshot, tier, now)? {
            return Ok(entry.clone());
        }
        tier_id(&snapshot, tier)?;
        match make(core, tier).await {
            Ok(Some(seq)) => core.changed(Some(Change::Tokens), seq).await,
            // Another replica was faster, or the snapshot is older than a revocation.
            Ok(None) | Err(ServiceError::Conflict(_)) => {
                core.snapshots
                    .reload(Some(Change::Tokens), i64::MAX)
                    .await?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(ServiceError::Unavailable(format!(
        "the auth token {} is being changed; try again",
        membership_name(tier)
    )))
}

/// Makes the auth token; `None` if there is, or was, one already.
async fn make(core: &Core, tier: &TierName) -> Result<Option<i64>, ServiceError> {
    let name = membership_name(tier);
    // Of a text that is forgotten at once.
    let hash = token_hash(&fresh_token(AUTH_PREFIX)?);
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if rows::was_made(&tx, &name).await? {
        return Ok(None);
    }
    let tier_id = fleet::tier_id(&tx, tier)
        .await?
        .ok_or_else(|| ServiceError::Conflict("the tier was deleted".to_owned()))?;
    let actor = Actor {
        name: "system".to_owned(),
        source: "contracts".to_owned(),
    };
    let new = NewAuthToken {
        name: &name,
        tier_id,
        hash,
        labels: &Labels::default(),
        created_by: &actor.name,
        valid_until: None,
    };
    rows::insert(&tx, &new).await?;
    let entry = Entry {
        actor: &actor,
        action: "auth-token.create",
        target: &name,
        details: json!({ "tier": tier, "why": "a machine with an Ubuntu Pro contract for this tier registered" }),
    };
    let seq = audit::append(&tx, entry, Change::Tokens).await?;
    match tx.commit().await {
        Ok(()) => Ok(Some(seq)),
        Err(DbError::Exists(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Registers a machine with the token it shows: an auth token of this server, or else one that the contracts service knows. Also says
/// which kind of token it was taken for.
pub async fn register(
    core: &Core,
    machine: MachineId,
    token: &str,
    report: &ClientReport<'_>,
    now: Timestamp,
) -> (TokenKind, Result<RegisterAnswer, ServiceError>) {
    let unknown = {
        let started = Instant::now();
        let snapshot = core.snapshots.get();
        let found = snapshot.enabling_token(&token_hash(token), now.as_microsecond());
        let seconds = started.elapsed().as_secs_f64();
        let auth = &core.metrics.auth;
        auth.duration.observe(TokenKind::Auth, seconds);
        found.err() == Some(TokenError::Unknown)
    };
    match core.contracts.asked_about(token).filter(|_| unknown) {
        None => (
            TokenKind::Auth,
            clients::register(core, machine, token, now).await,
        ),
        Some(client) => {
            let result = async {
                let grant = ask(core, client, machine, token).await?;
                grant.covers(report)?;
                let entry = membership(core, &grant.tier, now).await?;
                clients::enable(core, machine, &entry, now).await
            };
            (TokenKind::Resource, result.await)
        }
    }
}

/// The tier that a machine of Ubuntu Pro would enter with this token, and what its contract affords; `None` for a token that the
/// contracts service is not asked about.
pub async fn preview(
    core: &Core,
    machine: MachineId,
    token: &str,
    now: Timestamp,
) -> Option<Result<(i32, Affordances), ServiceError>> {
    let client = core.contracts.asked_about(token)?;
    let result = async {
        let grant = ask(core, client, machine, token).await?;
        let snapshot = core.snapshots.get_full();
        let tier = match standing(&snapshot, &grant.tier, now)? {
            Some(entry) => snapshot.tier_of(&machine, entry),
            None => tier_id(&snapshot, &grant.tier)?,
        };
        let affordances = Affordances {
            architectures: grant.architectures.clone().unwrap_or_default(),
            series: grant.series.clone(),
            kernel_flavors: grant.flavours.clone(),
            min_kernel_version: grant.minimum.map(|minimum| minimum.to_string()),
            tier: None,
        };
        Ok((tier, affordances))
    };
    Some(result.await)
}

/// The configuration of sync, with the stored resource token where the downloader is used and none is configured.
pub async fn patch_sync(core: &Core) -> Result<PatchSync, ServiceError> {
    let mut sync = core.config.patch_sync.clone();
    if sync.driver == SyncDriver::Downloader && sync.token.is_empty() {
        let conn = core.db.conn().await?;
        sync.token = tokens::resource_token(&conn).await?.unwrap_or_default();
    }
    Ok(sync)
}
