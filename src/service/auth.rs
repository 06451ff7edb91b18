//! Who asks: sessions, passwords, and the throttle on failed logins.
//!
//! The throttle delays a pair of account and source, and a source that fails with many accounts; never an account as
//! such, so that nobody can lock its owner out from elsewhere. It is counted in the database, for all replicas.
//! Sessions that are open are not touched by it.

use super::{Core, ServiceError, identity, paging, passwords};
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::sessions::{self as rows, Backoff, NewSession, SessionRow};
use crate::db::{Db, admins};
use crate::domain::token::{SERVICE_PREFIX, SESSION_PREFIX, random_token, token_hash};
use crate::domain::{Role, Secret};
use crate::telemetry::TokenKind;
use crate::telemetry::security::{self, Deed, Event};
use crate::wire::admin::{LoginAnswer, LoginRequest, Page, PageQuery, Session, WhoAmI};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The most sessions of one administrator; the oldest end first.
const MAX_SESSIONS: i64 = 50;

/// The longest name of an administrator.
pub const MAX_NAME: usize = 64;

/// Failures of one account from one source.
const ACCOUNT: Backoff = Backoff {
    free: 5,
    longest: 300.0,
};

/// Failures of one source with any account.
const SOURCE: Backoff = Backoff {
    free: 50,
    longest: 300.0,
};

/// What a request shows to prove who sends it.
#[derive(Debug)]
pub enum Credentials {
    /// A token: of a session, of a service, or of the identity provider.
    Bearer(Secret),
    /// The token of a session and nothing else, as a browser keeps it.
    Session {
        /// The token.
        token: Secret,
        /// Whether somebody uses the session; a page that only stays current does not.
        is_used: bool,
    },
    /// Name and password with every request.
    Basic {
        /// Name.
        user: String,
        /// Password.
        password: Secret,
    },
}

/// An administrator who has shown who they are.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Name.
    pub name: String,
    /// What they may do now.
    pub role: Role,
    /// Address the request came from.
    pub source: String,
    /// Their session; `None` without one.
    pub session: Option<SessionRow>,
    /// A program, with a service token.
    pub is_program: bool,
}

impl Caller {
    /// For the audit log.
    pub fn actor(&self) -> Actor {
        Actor {
            name: self.name.clone(),
            source: self.source.clone(),
        }
    }

    /// The same for what only a person may do; refuses programs.
    pub fn person(&self) -> Result<Actor, ServiceError> {
        if self.is_program {
            return Err(ServiceError::Forbidden(format!(
                "a person must do this; {} is a service token",
                self.name
            )));
        }
        Ok(self.actor())
    }

    /// Refuses whoever has a lesser role.
    pub fn require(&self, role: Role) -> Result<(), ServiceError> {
        if self.role >= role {
            return Ok(());
        }
        Err(ServiceError::Forbidden(format!(
            "this needs the role {role}; {} has the role {}",
            self.name, self.role
        )))
    }
}

/// Whether a name is one that administrators may have.
pub fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+' | b'@'))
}

/// Finds out who asks for something in a section of the API. Reads the database once for a session or service token; a
/// password costs a hash.
pub async fn authenticate(
    core: &Core,
    credentials: &Credentials,
    section: &str,
    source: String,
) -> Result<Caller, ServiceError> {
    match credentials {
        Credentials::Bearer(token) | Credentials::Session { token, .. } => {
            let started = Instant::now();
            let shown = source.clone();
            let (kind, found) = if let Credentials::Session { is_used, .. } = credentials {
                let found = by_session(core, token, source, *is_used).await;
                (TokenKind::Session, found)
            } else if token.expose().starts_with(SERVICE_PREFIX) {
                let found = identity::by_service_token(core, token, section, source).await;
                (TokenKind::Service, found)
            } else if let Some(provider) = identity::provider_for(core, token) {
                let found = identity::by_provider(core, provider, token, source).await;
                (TokenKind::Oidc, found)
            } else {
                let found = by_session(core, token, source, true).await;
                (TokenKind::Session, found)
            };
            if let Err(ServiceError::Unauthorized(why)) = &found {
                let deed = Deed {
                    source: &shown,
                    message: why,
                    ..Deed::default()
                };
                security::emit(Event::CredentialRefused, deed);
            }
            counted(core, kind, started, found)
        }
        Credentials::Basic { user, password } => {
            let role = check_password(core, user, password, &source).await?;
            Ok(Caller {
                name: user.clone(),
                role,
                source,
                session: None,
                is_program: false,
            })
        }
    }
}

/// Counts a proof that was looked at; what failed for another reason is not the proof's fault.
fn counted<T>(
    core: &Core,
    kind: TokenKind,
    started: Instant,
    result: Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    let auth = &core.metrics.auth;
    auth.duration.observe(kind, started.elapsed().as_secs_f64());
    match &result {
        Ok(_) => auth.authorized.inc(kind),
        Err(ServiceError::Unauthorized(_)) => auth.failures.inc(kind),
        Err(ServiceError::Throttled { .. }) => auth.throttled.inc(),
        Err(_) => {}
    }
    result
}

async fn by_session(
    core: &Core,
    token: &Secret,
    source: String,
    is_used: bool,
) -> Result<Caller, ServiceError> {
    let refused =
        || ServiceError::Unauthorized("the session is not known or has ended; log in again".into());
    if !token.expose().starts_with(SESSION_PREFIX) {
        return Err(refused());
    }
    let idle = core.config.auth.session_idle;
    let touch = (idle / 4).min(Duration::from_mins(1));
    let conn = core.db.conn().await?;
    let live = rows::find(&conn, &token_hash(token.expose()), idle, touch)
        .await?
        .ok_or_else(refused)?;
    let mut session = live.session;
    // What the configuration gives and takes counts from the next start; what the database says counts at once.
    if configured(core, &session.subject).is_some() {
        session.role = Role::Admin;
    } else if !live.in_database && !identity::is_vouched(core, &session.subject) {
        return Err(refused());
    }
    if live.stale && is_used {
        rows::touch(&conn, session.id).await?;
    }
    Ok(Caller {
        name: session.subject.clone(),
        role: session.role,
        source,
        session: Some(session),
        is_program: false,
    })
}

/// The bcrypt hash of a user of `auth.basic.users`, if those count.
pub(super) fn configured<'c>(core: &'c Core, name: &str) -> Option<&'c Secret> {
    let auth = &core.config.auth;
    auth.basic_users
        .iter()
        .find(|user| auth.basic_enabled && user.name == name)
        .map(|user| &user.hash)
}

/// The part of an address that is throttled: an IPv6 host has a whole /64 to call from.
fn throttled_source(source: &str) -> String {
    match source.parse() {
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        _ => source.to_owned(),
    }
}

/// Checks name and password and says what the administrator may do. Counts failures.
pub async fn check_password(
    core: &Core,
    name: &str,
    password: &Secret,
    source: &str,
) -> Result<Role, ServiceError> {
    let started = Instant::now();
    let checked = throttled_check(core, name, password, source).await;
    let event = match &checked {
        Err(ServiceError::Unauthorized(_)) => Some(Event::LoginFailed),
        Err(ServiceError::Throttled { .. }) => Some(Event::LoginThrottled),
        _ => None,
    };
    if let Some(event) = event {
        let deed = Deed {
            // What cannot be a name may be a password that was typed into the wrong field.
            actor: if is_name(name) { name } else { "?" },
            source,
            ..Deed::default()
        };
        security::emit(event, deed);
    }
    counted(core, TokenKind::Password, started, checked)
}

async fn throttled_check(
    core: &Core,
    name: &str,
    password: &Secret,
    source: &str,
) -> Result<Role, ServiceError> {
    let source = throttled_source(source);
    // Names that nobody can have share one count, so that they cannot fill the table.
    let possible = is_name(name) || configured(core, name).is_some();
    let account = if possible { name } else { "?" };
    let turn = passwords::turn().await?;
    // Looked at only now, so that no more tries at once slip through than there are turns.
    let (delays, found) = {
        let conn = core.db.conn().await?;
        let delays = rows::delays(&conn, account, &source).await?;
        let longest = delays.account.max(delays.source);
        if !longest.is_zero() {
            return Err(ServiceError::Throttled {
                why: "too many failed logins; wait before the next one".to_owned(),
                retry_after: longest,
            });
        }
        (delays, admins::hash(&conn, account).await?)
    };
    let configured = configured(core, account).cloned();
    let (hash, role) = found.unzip();
    let role = if configured.is_some() {
        Some(Role::Admin)
    } else {
        role
    };
    let auth = &core.config.auth;
    let decoy = auth.basic_users.first().filter(|_| auth.basic_enabled);
    let stored = passwords::Stored {
        database: hash,
        configured,
        decoy: decoy.map(|user| user.hash.clone()),
    };
    let right = passwords::verify(turn, stored, password).await?;
    let conn = core.db.conn().await?;
    if let (true, Some(role)) = (right, role) {
        if delays.counted {
            rows::clear_failures(&conn, account, &source).await?;
        }
        return Ok(role);
    }
    rows::record_failure(&conn, account, &source, ACCOUNT).await?;
    rows::record_failure(&conn, "", &source, SOURCE).await?;
    rows::purge_failures(&conn).await?;
    tracing::warn!(account, source, "a login failed");
    Err(ServiceError::Unauthorized(
        "name or password is wrong".to_owned(),
    ))
}

/// How long a token of a server or program is valid if nothing else is said.
const LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Until when a token is valid that somebody asks for.
pub(super) fn expiry(
    valid_until: Option<Timestamp>,
    no_expiry: bool,
    now: Timestamp,
) -> Result<Option<Timestamp>, ServiceError> {
    let wrong = |why: &str| Err(ServiceError::Invalid(why.to_owned()));
    match (valid_until, no_expiry) {
        (Some(_), true) => {
            wrong("valid-until and no-expiry contradict each other; give one of them")
        }
        (Some(until), false) if until <= now => {
            wrong("valid-until is in the past; give a later time")
        }
        (Some(until), false) => Ok(Some(until)),
        (None, true) => Ok(None),
        (None, false) => Ok(Some(now + LIFETIME)),
    }
}

/// A random token of 256 bits.
pub(super) fn fresh_token(prefix: &str) -> Result<String, ServiceError> {
    let mut random = [0u8; 32];
    openssl::rand::rand_bytes(&mut random)
        .map_err(|e| ServiceError::Internal(format!("no random numbers: {e}")))?;
    Ok(random_token(prefix, random))
}

/// Opens a session.
pub async fn login(
    core: &Core,
    request: &LoginRequest,
    source: String,
) -> Result<LoginAnswer, ServiceError> {
    let role = check_password(core, &request.user, &request.password, &source).await?;
    open_session(core, &request.user, role, source).await
}

/// Opens a session for somebody who has shown who they are.
pub(super) async fn open_session(
    core: &Core,
    user: &str,
    role: Role,
    source: String,
) -> Result<LoginAnswer, ServiceError> {
    let auth = &core.config.auth;
    let token = fresh_token(SESSION_PREFIX)?;
    let id = Uuid::new_v4();
    let new = NewSession {
        hash: token_hash(&token),
        id,
        subject: user,
        role,
        source: &source,
        lifetime: auth.session_lifetime,
    };
    let actor = Actor {
        name: user.to_owned(),
        source: source.clone(),
    };
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    rows::trim(&tx, user, auth.session_idle, MAX_SESSIONS - 1).await?;
    let session = rows::insert(&tx, &new).await?;
    record(
        &tx,
        &actor,
        "session.open",
        &id.to_string(),
        json!({ "role": role }),
    )
    .await?;
    tx.commit().await?;
    Ok(LoginAnswer {
        token: Secret::new(token),
        user: session.subject,
        role,
        expires_at: session.expires_at,
        idle_seconds: auth.session_idle.as_secs(),
    })
}

/// Appends an audit entry for what no snapshot holds.
pub(super) async fn record(
    tx: &crate::db::Tx<'_>,
    actor: &Actor,
    action: &'static str,
    target: &str,
    details: serde_json::Value,
) -> Result<i64, ServiceError> {
    let entry = Entry {
        actor,
        action,
        target,
        details,
    };
    Ok(audit::append(tx, entry, Change::Nothing).await?)
}

/// Ends the caller's own session.
pub async fn logout(core: &Core, caller: &Caller) -> Result<(), ServiceError> {
    let session = caller.session.as_ref().ok_or_else(|| {
        ServiceError::Conflict(
            "there is no session to end: the request carried name and password".to_owned(),
        )
    })?;
    end_session(core, caller, session.id).await
}

/// Ends a session: one's own, or as role admin any.
pub async fn end_session(core: &Core, caller: &Caller, id: Uuid) -> Result<(), ServiceError> {
    let missing = || ServiceError::not_found("session", id);
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let subject = rows::subject(&tx, id).await?.ok_or_else(missing)?;
    if subject != caller.name {
        // Others' sessions are not shown to lesser roles either.
        caller.require(Role::Admin).map_err(|_| missing())?;
    }
    rows::delete(&tx, id).await?.ok_or_else(missing)?;
    let details = json!({ "user": subject });
    record(
        &tx,
        &caller.actor(),
        "session.end",
        &id.to_string(),
        details,
    )
    .await?;
    tx.commit().await?;
    Ok(())
}

fn wire_session(row: SessionRow, caller: &Caller) -> Session {
    Session {
        current: caller.session.as_ref().is_some_and(|own| own.id == row.id),
        id: row.id,
        user: row.subject,
        role: row.role,
        source: row.source,
        created_at: row.created_at,
        last_used: row.last_used,
        expires_at: row.expires_at,
    }
}

/// Whom the server takes the caller for.
pub fn who_am_i(caller: &Caller) -> WhoAmI {
    WhoAmI {
        user: caller.name.clone(),
        role: caller.role,
        session: caller
            .session
            .clone()
            .map(|session| wire_session(session, caller)),
    }
}

/// Live sessions, newest first: all for role admin, one's own for others.
pub async fn sessions(
    core: &Core,
    caller: &Caller,
    query: &PageQuery,
) -> Result<Page<Session>, ServiceError> {
    let after = match &query.cursor {
        Some(cursor) => {
            let [at, id] = paging::decode("sessions", cursor)?;
            Some((paging::time(&at)?, paging::part(&id)?))
        }
        None => None,
    };
    let subject = (caller.role < Role::Admin).then_some(caller.name.as_str());
    let limit = paging::limit(query.limit);
    let conn = core.db.conn().await?;
    let idle = core.config.auth.session_idle;
    let found = rows::page(&conn, subject, idle, after, limit as i64 + 1).await?;
    let place =
        |row: &SessionRow| paging::encode("sessions", &[&row.created_at.as_microsecond(), &row.id]);
    Ok(paging::page(found, limit, place, |row| {
        wire_session(row, caller)
    }))
}

/// Makes the first administrator, if there is none at all; whether it did.
pub async fn ensure_admin(db: &Db, name: &str, password: &Secret) -> Result<bool, ServiceError> {
    if !is_name(name) {
        return Err(bad_name(name));
    }
    passwords::check(name, password)?;
    {
        // Hashing takes time; on most starts there is somebody already.
        let conn = db.conn().await?;
        if !admins::page(&conn, None, 1).await?.is_empty() {
            return Ok(false);
        }
    }
    let hash = passwords::hash(password).await?;
    let actor = Actor {
        name: "system".to_owned(),
        source: "first start".to_owned(),
    };
    let mut conn = db.conn().await?;
    let tx = conn.begin().await?;
    if admins::insert_first(&tx, name, &hash, Role::Admin)
        .await?
        .is_none()
    {
        return Ok(false);
    }
    let details = json!({ "role": Role::Admin });
    record(&tx, &actor, "admin.create", name, details).await?;
    tx.commit().await?;
    Ok(true)
}

/// The refusal of a name.
pub(super) fn bad_name(name: &str) -> ServiceError {
    let given: String = name.chars().take(MAX_NAME).collect();
    ServiceError::Invalid(format!(
        "{given:?} is not a valid name of an administrator: 1 to {MAX_NAME} of letters, digits, '.', '_', '-', '+' and '@', beginning with a letter or digit"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_source() {
        assert_eq!(throttled_source("2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
        assert_eq!(throttled_source("192.0.2.1"), "192.0.2.1");
        assert_eq!(throttled_source("unknown"), "unknown");
    }

    #[test]
    fn names_are_plain() {
        assert!(is_name("a.b@example.org") && is_name("1"));
        for bad in ["", "-a", "a:b", "a b", "ü", "a/b", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
