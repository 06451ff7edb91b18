//! What is made ahead and what is thrown away with time. Safe on several replicas at once: each run takes a lock that
//! ends with its transaction, and a run that does not get it does nothing.

use super::run::{DbError, Run};
use super::statements;
use jiff::civil::Date;

statements! {
    SELECT_TODAY = "select (now() at time zone 'utc')::date";
    TRY_RETENTION_LOCK = "select pg_try_advisory_xact_lock(7813261)";
    MAKE_REPORT_PARTITION = "select make_report_partition($1)";
    DROP_REPORT_PARTITIONS = "select drop_report_partitions($1)";
    DELETE_STRAY_REPORTS = "delete from machine_reports_default where at < $1::date";
    DELETE_OLD_PINGS = "delete from pings where at < $1::date";
    DELETE_ENDED_SESSIONS = "delete from sessions where expires_at < now()";
    DELETE_OLD_LOGIN_FAILURES = "delete from login_failures where last_failure < now() - interval '1 day'";
    DELETE_OLD_CAPTURES = "delete from captures where until < now() - interval '7 days'";
}

/// The day (UTC) by the database's clock. What is thrown away does not depend on the clock of one replica, which may be
/// wrong.
pub async fn today(run: &impl Run) -> Result<Date, DbError> {
    Ok(run.one(&SELECT_TODAY, &[]).await?.get(0))
}

/// Takes the right to run; `false`: another replica is at it.
pub async fn try_lock(run: &impl Run) -> Result<bool, DbError> {
    Ok(run.one(&TRY_RETENTION_LOCK, &[]).await?.get(0))
}

/// Makes the partition of a day; `false` if it is there.
pub async fn make_partition(run: &impl Run, day: Date) -> Result<bool, DbError> {
    Ok(run.one(&MAKE_REPORT_PARTITION, &[&day]).await?.get(0))
}

/// Drops history and pings from before a day; returns how many partitions went.
pub async fn drop_before(run: &impl Run, day: Date) -> Result<i32, DbError> {
    let dropped = run.one(&DROP_REPORT_PARTITIONS, &[&day]).await?.get(0);
    run.exec(&DELETE_STRAY_REPORTS, &[&day]).await?;
    run.exec(&DELETE_OLD_PINGS, &[&day]).await?;
    Ok(dropped)
}

/// Deletes sessions, counted failures and captures whose time is over.
pub async fn delete_ended(run: &impl Run) -> Result<(), DbError> {
    run.exec(&DELETE_ENDED_SESSIONS, &[]).await?;
    run.exec(&DELETE_OLD_LOGIN_FAILURES, &[]).await?;
    run.exec(&DELETE_OLD_CAPTURES, &[]).await?;
    Ok(())
}
