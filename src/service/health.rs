//! What the server depends on, asked.

use super::Core;
use crate::db::audit;
use serde_json::{Value, json};
use std::time::Duration;

/// How long a dependency may take to say that it is well.
const PATIENCE: Duration = Duration::from_secs(2);

/// One object for each dependency, and whether all are well. The form `{"name": {"status": "OK"}}` is public; it is
/// what health checks of Canonical's server read.
pub async fn status(core: &Core) -> (bool, Value) {
    let database = tokio::time::timeout(PATIENCE, async {
        let conn = core.db.conn().await?;
        audit::head(&conn).await
    });
    let storage = tokio::time::timeout(PATIENCE, core.store.health());
    let contracts = tokio::time::timeout(PATIENCE, core.contracts.health(&core.metrics.contracts));
    let (database, storage, contracts) = tokio::join!(database, storage, contracts);
    let late = || format!("no answer within {} s", PATIENCE.as_secs());
    let database =
        database.map_or_else(|_| Err(late()), |r| r.map(drop).map_err(|e| e.to_string()));
    let storage = storage.map_or_else(|_| Err(late()), |r| r.map_err(|e| e.to_string()));
    let well = database.is_ok() && storage.is_ok();
    let say = |part: &str, result: Result<(), String>| match result {
        Ok(()) => json!({ "status": "OK" }),
        Err(error) => {
            // The text may name hosts; it belongs to the log.
            tracing::warn!(part, error, "a dependency is not well");
            json!({ "status": "ERROR" })
        }
    };
    let mut body = json!({ "database": say("database", database), "patch-storage": say("patch-storage", storage) });
    // Not counted as unwell: who is registered is served without it, and a balancer that took all replicas out would end that.
    let contracts = match contracts {
        Ok(asked) => asked.map(|result| result.map_err(|e| e.to_string())),
        Err(_) => Some(Err(late())),
    };
    if let Some(result) = contracts {
        body["contracts"] = say("contracts", result);
    }
    (well, body)
}

/// Brings gauges up to date that are counted elsewhere; called at each scrape.
pub async fn sample(core: &Core) {
    let stats = core.cache.stats().await;
    core.metrics.cache.sample(
        stats.hits,
        stats.misses,
        stats.evictions,
        stats.length,
        stats.bytes,
    );
    core.metrics
        .check_ins
        .queue_length
        .set(core.check_ins.waiting() as i64);
    core.metrics
        .snapshot
        .version
        .set(core.snapshots.get().version as i64);
}
