//! Sessions of administrators, and the count of failed logins that all replicas share.

use super::run::{DbError, Run};
use super::statements;
use crate::domain::{Role, Sha256};
use jiff::Timestamp;
use std::time::Duration;
use tokio_postgres::Row;
use uuid::Uuid;

statements! {
    INSERT_SESSION = "insert into sessions (hash, id, subject, role, source, expires_at)
        values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
        returning id, subject, role, source, created_at, last_used, expires_at";
    SELECT_SESSION = "select s.id, s.subject, coalesce(a.role, s.role), s.source, s.created_at, s.last_used, s.expires_at,
            a.name is not null, s.last_used < now() - make_interval(secs => $3)
        from sessions s left join admins a on a.name = s.subject
        where s.hash = $1 and s.expires_at > now() and s.last_used > now() - make_interval(secs => $2)";
    TOUCH_SESSION = "update sessions set last_used = now() where id = $1";
    SELECT_SESSION_SUBJECT = "select subject from sessions where id = $1";
    DELETE_SESSION = "delete from sessions where id = $1 returning subject";
    DELETE_SESSIONS_OF = "delete from sessions where subject = $1 and ($2::uuid is null or id <> $2)";
    TRIM_SESSIONS = "delete from sessions where expires_at < now() or last_used < now() - make_interval(secs => $2)
        or id in (select id from sessions where subject = $1 order by created_at desc offset $3)";
    SET_SESSIONS_ROLE = "update sessions set role = $2 where subject = $1";
    SELECT_SESSIONS = "select id, subject, role, source, created_at, last_used, expires_at from sessions
        where ($1::text is null or subject = $1) and expires_at > now()
          and last_used > now() - make_interval(secs => $2)
          and ($3::timestamptz is null or (created_at, id) < ($3, $4::uuid))
        order by created_at desc, id desc limit $5";
    SELECT_LOGIN_DELAYS = "select account, extract(epoch from blocked_until - now())::float8 from login_failures
        where source = $2 and account in ($1, '')";
    RECORD_LOGIN_FAILURE = "insert into login_failures as f (account, source, failures, last_failure, blocked_until)
        values ($1, $2, 1, now(), now())
        on conflict (account, source) do update set
            failures = case when f.last_failure < now() - interval '15 minutes' then 1 else least(f.failures + 1, 1000000) end,
            last_failure = now(),
            blocked_until = case when f.last_failure < now() - interval '15 minutes' or f.failures + 1 <= $3::int then now()
                else now() + make_interval(secs => least($4::float8, power(2::float8, least(f.failures - $3, 20)))) end";
    CLEAR_LOGIN_FAILURES = "delete from login_failures where account = $1 and source = $2";
    PURGE_LOGIN_FAILURES = "delete from login_failures where last_failure < now() - interval '1 day'";
}

/// A session as stored; its token is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Id.
    pub id: Uuid,
    /// Whose.
    pub subject: String,
    /// What it may do.
    pub role: Role,
    /// Address it was opened from.
    pub source: String,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl SessionRow {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            id: row.get(0),
            subject: row.get(1),
            role: row.get::<_, &str>(2).parse()?,
            source: row.get(3),
            created_at: row.get(4),
            last_used: row.get(5),
            expires_at: row.get(6),
        })
    }
}

/// A session that was looked up by its token.
#[derive(Debug, Clone)]
pub struct LiveSession {
    /// The session; its role is the administrator's present one, if that is in the database.
    pub session: SessionRow,
    /// Whether its administrator is in the database now.
    pub in_database: bool,
    /// Whether `last_used` is due to be written.
    pub stale: bool,
}

/// A new session's row.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// Hash of its token.
    pub hash: Sha256,
    /// Id.
    pub id: Uuid,
    /// Whose.
    pub subject: &'a str,
    /// What it may do.
    pub role: Role,
    /// Address it is opened from.
    pub source: &'a str,
    /// How long it may live.
    pub lifetime: Duration,
}

/// Stores a session.
pub async fn insert(run: &impl Run, new: &NewSession<'_>) -> Result<SessionRow, DbError> {
    let row = run
        .one(
            &INSERT_SESSION,
            &[
                &&new.hash.0[..],
                &new.id,
                &new.subject,
                &new.role.as_str(),
                &new.source,
                &new.lifetime.as_secs_f64(),
            ],
        )
        .await?;
    SessionRow::from_row(&row)
}

/// The session with this token, unless it has ended or was idle for too long. `touch` is how old `last_used` may get.
pub async fn find(
    run: &impl Run,
    hash: &Sha256,
    idle: Duration,
    touch: Duration,
) -> Result<Option<LiveSession>, DbError> {
    let row = run
        .opt(
            &SELECT_SESSION,
            &[&&hash.0[..], &idle.as_secs_f64(), &touch.as_secs_f64()],
        )
        .await?;
    row.map(|row| {
        Ok(LiveSession {
            session: SessionRow::from_row(&row)?,
            in_database: row.get(7),
            stale: row.get(8),
        })
    })
    .transpose()
}

/// Notes that a session was used.
pub async fn touch(run: &impl Run, id: Uuid) -> Result<(), DbError> {
    run.exec(&TOUCH_SESSION, &[&id]).await.map(|_| ())
}

/// Whose session this is.
pub async fn subject(run: &impl Run, id: Uuid) -> Result<Option<String>, DbError> {
    let row = run.opt(&SELECT_SESSION_SUBJECT, &[&id]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Ends a session; whose it was, if there was one.
pub async fn delete(run: &impl Run, id: Uuid) -> Result<Option<String>, DbError> {
    let row = run.opt(&DELETE_SESSION, &[&id]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Ends all sessions of an administrator, but for one; how many.
pub async fn delete_of(
    run: &impl Run,
    subject: &str,
    except: Option<Uuid>,
) -> Result<u64, DbError> {
    run.exec(&DELETE_SESSIONS_OF, &[&subject, &except]).await
}

/// Removes what has ended, and the oldest sessions of one administrator beyond `keep`.
pub async fn trim(
    run: &impl Run,
    subject: &str,
    idle: Duration,
    keep: i64,
) -> Result<u64, DbError> {
    run.exec(&TRIM_SESSIONS, &[&subject, &idle.as_secs_f64(), &keep])
        .await
}

/// Gives an administrator's sessions another role.
pub async fn set_role(run: &impl Run, subject: &str, role: Role) -> Result<(), DbError> {
    run.exec(&SET_SESSIONS_ROLE, &[&subject, &role.as_str()])
        .await
        .map(|_| ())
}

/// Live sessions, newest first, of one administrator or of all.
pub async fn page(
    run: &impl Run,
    subject: Option<&str>,
    idle: Duration,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<SessionRow>, DbError> {
    let (at, id) = after.unzip();
    let rows = run
        .rows(
            &SELECT_SESSIONS,
            &[&subject, &idle.as_secs_f64(), &at, &id, &limit],
        )
        .await?;
    rows.iter().map(SessionRow::from_row).collect()
}

/// How failed logins delay the next ones: so many are free, then each doubles the delay, up to a bound in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Failures without a delay.
    pub free: i32,
    /// The longest delay, in seconds.
    pub longest: f64,
}

/// What stands against a login.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delays {
    /// For how long this account is delayed for this source.
    pub account: Duration,
    /// For how long every account is delayed for this source.
    pub source: Duration,
    /// Whether failures of this account from this source are counted.
    pub counted: bool,
}

/// Reads what stands against a login of `account` from `source`.
pub async fn delays(run: &impl Run, account: &str, source: &str) -> Result<Delays, DbError> {
    let mut delays = Delays::default();
    for row in run.rows(&SELECT_LOGIN_DELAYS, &[&account, &source]).await? {
        let left = Duration::try_from_secs_f64(row.get::<_, f64>(1)).unwrap_or_default();
        if row.get::<_, &str>(0).is_empty() {
            delays.source = left;
        } else {
            delays.account = left;
            delays.counted = true;
        }
    }
    Ok(delays)
}

/// Counts a failed login. An empty account counts for the whole source.
pub async fn record_failure(
    run: &impl Run,
    account: &str,
    source: &str,
    backoff: Backoff,
) -> Result<(), DbError> {
    run.exec(
        &RECORD_LOGIN_FAILURE,
        &[&account, &source, &backoff.free, &backoff.longest],
    )
    .await
    .map(|_| ())
}

/// Forgets the failures of an account from a source.
pub async fn clear_failures(run: &impl Run, account: &str, source: &str) -> Result<(), DbError> {
    run.exec(&CLEAR_LOGIN_FAILURES, &[&account, &source])
        .await
        .map(|_| ())
}

/// Forgets all that happened more than a day ago.
pub async fn purge_failures(run: &impl Run) -> Result<(), DbError> {
    run.exec(&PURGE_LOGIN_FAILURES, &[]).await.map(|_| ())
}
