//! Migrations: forward-only SQL files, run under an advisory lock so that several replicas may start at once.

use super::connect::Settings;
use super::run::DbError;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Key of the advisory lock; any number that nothing else in this database uses.
const LOCK: i64 = 0x6c70_6d69_6772;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Names of the migrations that were applied now.
    pub applied: Vec<String>,
    /// The schema's version afterwards.
    pub version: i32,
}

/// The schema's version that this program needs.
pub fn wanted_version() -> i32 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max()
        .unwrap_or(0)
}

/// Runs what is missing. Waits for another replica that is migrating; refuses a schema that is newer than this program.
pub async fn migrate(settings: &Settings) -> Result<Migrated, DbError> {
    let (mut client, connection) = settings.connect_alone().await?;
    let driver = tokio::spawn(connection);
    client
        .execute("select pg_advisory_lock($1)", &[&LOCK])
        .await
        .map_err(|e| DbError::of("migrate_lock", e))?;
    let result = embedded::migrations::runner().run_async(&mut client).await;
    drop(client);
    let _ = driver.await;
    let report = result.map_err(|e| {
        DbError::Row(format!(
            "migrating the schema failed: {e}; if the schema is newer than this program, run the newer program"
        ))
    })?;
    Ok(Migrated {
        applied: report
            .applied_migrations()
            .iter()
            .map(ToString::to_string)
            .collect(),
        version: wanted_version(),
    })
}

/// The schema's version now; `0` for an empty database.
pub async fn current_version(settings: &Settings) -> Result<i32, DbError> {
    let (mut client, connection) = settings.connect_alone().await?;
    let driver = tokio::spawn(connection);
    let last = embedded::migrations::runner()
        .get_last_applied_migration_async(&mut client)
        .await;
    drop(client);
    let _ = driver.await;
    // Without a history table there is no schema.
    Ok(last.ok().flatten().map_or(0, |m| m.version()))
}
