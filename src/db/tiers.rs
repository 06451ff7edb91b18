//! Tiers: their order, and what stands in them. Whoever changes or relies on the order takes [`lock`] first.

use super::catalog;
use super::run::{DbError, Run, Tx};
use super::statements;
use crate::domain::{PatchVersion, Scope, TierName};
use crate::telemetry::TierLag;
use jiff::Timestamp;

statements! {
    // An advisory lock and not row locks: a row that is added while one waits for row locks would not be seen.
    LOCK_TIERS = "select pg_advisory_xact_lock(7103, 1)";
    LOCK_TIERS_SHARED = "select pg_advisory_xact_lock_shared(7103, 1)";
    SELECT_TIER_ORDER = "select id, name from tiers order by position";
    SELECT_TIER_LIST = "select t.id, t.name, t.created_at, coalesce(m.n, 0), coalesce(a.n, 0)
        from tiers t
        left join (select tier_id, count(*) n from machines group by tier_id) m on m.tier_id = t.id
        left join (select tier_id, count(*) n from auth_tokens where revoked_at is null group by tier_id) a on a.tier_id = t.id
        order by t.position";
    INSERT_TIER = "insert into tiers (name, position) values ($1, $2) returning id";
    RENAME_TIER = "update tiers set name = $2 where id = $1";
    ORDER_TIERS = "update tiers t set position = v.position - 1
        from unnest($1::int[]) with ordinality as v(id, position) where t.id = v.id and t.position <> v.position - 1";
    DELETE_TIER = "delete from tiers where id = $1";
    SELECT_TIER_USE = "select (select count(*) from machines where tier_id = $1),
        (select count(*) from machine_overrides where tier_id = $1),
        (select count(*) from auth_tokens where tier_id = $1 and revoked_at is null),
        (select count(*) from sync_tokens where tier_id = $1 and revoked_at is null)";
    MOVE_TIER_SYNC_TOKENS = "update sync_tokens set tier_id = $2 where tier_id = $1";
    MOVE_MACHINES = "update machines set tier_id = $2 where tier_id = $1";
    MOVE_OVERRIDES = "update machine_overrides set tier_id = $2 where tier_id = $1";
    MOVE_AUTH_TOKENS = "with moved as (update auth_tokens set tier_id = $2 where tier_id = $1 returning revoked_at)
        select count(*) from moved where revoked_at is null";
    SELECT_REACH = "select r.patch_id, p.version, r.tier_id, r.kernel, r.flavour, r.architecture
        from promotions r join patches p on p.id = r.patch_id
        where $1::int is null or r.patch_id = $1 order by p.version desc, r.at";
    INSERT_PROMOTION = "insert into promotions (patch_id, tier_id, kernel, flavour, architecture, actor, reason)
        values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing";
    KEEP_PROMOTIONS = "insert into promotions (patch_id, tier_id, kernel, flavour, architecture, actor, reason)
        select patch_id, $2, kernel, flavour, architecture, $3, $4 from promotions where tier_id = $1
        on conflict do nothing";
    DELETE_PROMOTIONS = "delete from promotions where tier_id = $1";
    SELECT_ONLY_IN_TIER = "select p.version from patches p
        where exists (select from promotions r where r.patch_id = p.id and r.tier_id = $1)
          and not exists (select from promotions r where r.patch_id = p.id and r.tier_id <> $1)
        order by p.version desc";
    // A patch that has reached a later tier is in this one too. What is blocked or held as a whole does not wait.
    SELECT_TIER_LAG = "select t.name, extract(epoch from reached.at - reached.entered)::float8,
            coalesce((select extract(epoch from now() - min(p.created_at)) from patches p
                where p.version > coalesce(reached.version, 0)
                    and exists (select from promotions r where r.patch_id = p.id)
                    and not exists (select from blocks b where b.patch_id = p.id and b.lifted_at is null
                        and b.kernel = '' and b.flavour = '' and b.architecture = 0)), 0)::float8
        from tiers t left join lateral (
            select p.version, p.created_at as entered, min(r.at) as at
            from promotions r join patches p on p.id = r.patch_id join tiers u on u.id = r.tier_id
            where u.position >= t.position group by p.id order by p.version desc limit 1) reached on true
        order by t.position";
}

/// A tier in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Database id.
    pub id: i32,
    /// Name.
    pub name: TierName,
}

/// A tier as listed.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Database id.
    pub id: i32,
    /// Name.
    pub name: TierName,
    /// When it was made.
    pub created_at: Timestamp,
    /// Machines in it.
    pub machines: u64,
    /// Auth tokens that admit to it and are not revoked.
    pub auth_tokens: u64,
}

/// What would be homeless without a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Machines in it.
    pub machines: u64,
    /// Machines that an administrator moved into it.
    pub overrides: u64,
    /// Auth tokens that admit to it and are not revoked.
    pub auth_tokens: u64,
    /// Sync tokens that pull from it and are not revoked.
    pub sync_tokens: u64,
}

/// That a patch reached a tier, as far as its reach goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Patch.
    pub patch_id: i32,
    /// Its version.
    pub version: PatchVersion,
    /// Tier.
    pub tier_id: i32,
    /// For which kernels.
    pub scope: Scope,
}

/// Keeps others from changing or relying on the order of tiers until the transaction ends.
pub async fn lock(tx: &Tx<'_>) -> Result<(), DbError> {
    tx.rows(&LOCK_TIERS, &[]).await.map(|_| ())
}

/// Keeps others from changing the order of tiers until the transaction ends.
pub async fn lock_shared(tx: &Tx<'_>) -> Result<(), DbError> {
    tx.rows(&LOCK_TIERS_SHARED, &[]).await.map(|_| ())
}

/// Tiers, first to last.
pub async fn order(run: &impl Run) -> Result<Vec<Tier>, DbError> {
    let rows = run.rows(&SELECT_TIER_ORDER, &[]).await?;
    let tier = |row: &tokio_postgres::Row| {
        Ok(Tier {
            id: row.get(0),
            name: row.get::<_, &str>(1).parse()?,
        })
    };
    rows.iter().map(tier).collect()
}

/// Tiers with what is in them, first to last.
pub async fn list(run: &impl Run) -> Result<Vec<Listed>, DbError> {
    let rows = run.rows(&SELECT_TIER_LIST, &[]).await?;
    let listed = |row: &tokio_postgres::Row| {
        Ok(Listed {
            id: row.get(0),
            name: row.get::<_, &str>(1).parse()?,
            created_at: row.get(2),
            machines: row.get::<_, i64>(3).unsigned_abs(),
            auth_tokens: row.get::<_, i64>(4).unsigned_abs(),
        })
    };
    rows.iter().map(listed).collect()
}

/// Adds a tier at a position that is free until the end of the transaction at the latest; returns its id.
pub async fn insert(run: &impl Run, name: &TierName, position: i32) -> Result<i32, DbError> {
    Ok(run
        .one(&INSERT_TIER, &[&name.as_str(), &position])
        .await?
        .get(0))
}

/// Renames a tier.
pub async fn rename(run: &impl Run, id: i32, name: &TierName) -> Result<(), DbError> {
    run.exec(&RENAME_TIER, &[&id, &name.as_str()])
        .await
        .map(|_| ())
}

/// Gives the tiers the positions 0, 1, ... in the order of `ids`.
pub async fn set_order(run: &impl Run, ids: &[i32]) -> Result<(), DbError> {
    run.exec(&ORDER_TIERS, &[&ids]).await.map(|_| ())
}

/// Removes a tier that nothing refers to any more.
pub async fn delete(run: &impl Run, id: i32) -> Result<(), DbError> {
    run.exec(&DELETE_TIER, &[&id]).await.map(|_| ())
}

/// What uses a tier.
pub async fn usage(run: &impl Run, id: i32) -> Result<Use, DbError> {
    let row = run.one(&SELECT_TIER_USE, &[&id]).await?;
    Ok(Use {
        machines: row.get::<_, i64>(0).unsigned_abs(),
        overrides: row.get::<_, i64>(1).unsigned_abs(),
        auth_tokens: row.get::<_, i64>(2).unsigned_abs(),
        sync_tokens: row.get::<_, i64>(3).unsigned_abs(),
    })
}

/// Moves everything that uses tier `from` to tier `to`; returns the machines and the auth tokens not revoked.
pub async fn move_users(run: &impl Run, from: i32, to: i32) -> Result<(u64, u64), DbError> {
    let machines = run.exec(&MOVE_MACHINES, &[&from, &to]).await?;
    run.exec(&MOVE_OVERRIDES, &[&from, &to]).await?;
    run.exec(&MOVE_TIER_SYNC_TOKENS, &[&from, &to]).await?;
    let tokens: i64 = run.one(&MOVE_AUTH_TOKENS, &[&from, &to]).await?.get(0);
    Ok((machines, tokens.unsigned_abs()))
}

/// What has reached where: of one patch, or of all.
pub async fn reached(run: &impl Run, patch_id: Option<i32>) -> Result<Vec<Reached>, DbError> {
    let rows = run.rows(&SELECT_REACH, &[&patch_id]).await?;
    let reached = |row: &tokio_postgres::Row| {
        let code: i64 = row.get(1);
        Ok(Reached {
            patch_id: row.get(0),
            version: PatchVersion::from_code(code)
                .ok_or_else(|| DbError::Row(format!("patch version code {code} is not valid")))?,
            tier_id: row.get(2),
            scope: catalog::scope(row.get(3), row.get(4), row.get(5))?,
        })
    };
    rows.iter().map(reached).collect()
}

/// Notes that a patch reached a tier; `false` if that was noted before.
pub async fn promote(
    run: &impl Run,
    patch_id: i32,
    tier_id: i32,
    scope: &Scope,
    actor: &str,
    reason: &str,
) -> Result<bool, DbError> {
    let (kernel, flavour, architecture) = catalog::scope_columns(scope);
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
        &patch_id,
        &tier_id,
        &kernel,
        &flavour,
        &architecture,
        &actor,
        &reason,
    ];
    Ok(run.exec(&INSERT_PROMOTION, &params).await? > 0)
}

/// Versions of the patches that have reached this tier and no other.
pub async fn only_here(run: &impl Run, id: i32) -> Result<Vec<PatchVersion>, DbError> {
    let rows = run.rows(&SELECT_ONLY_IN_TIER, &[&id]).await?;
    Ok(rows
        .iter()
        .filter_map(|row| PatchVersion::from_code(row.get(0)))
        .collect())
}

/// Removes a tier's promotions; what had reached it has then reached `instead`, if there is such a tier.
pub async fn forget_promotions(
    run: &impl Run,
    id: i32,
    instead: Option<i32>,
    actor: &str,
    reason: &str,
) -> Result<(), DbError> {
    if let Some(instead) = instead {
        run.exec(&KEEP_PROMOTIONS, &[&id, &instead, &actor, &reason])
            .await?;
    }
    run.exec(&DELETE_PROMOTIONS, &[&id]).await.map(|_| ())
}

/// How patches come along to each tier, for the metrics.
pub async fn lag(run: &impl Run) -> Result<Vec<TierLag>, DbError> {
    let rows = run.rows(&SELECT_TIER_LAG, &[]).await?;
    let lag = rows.iter().map(|row| TierLag {
        tier: row.get(0),
        took: row.get::<_, Option<f64>>(1).map(|took| took.max(0.0)),
        waiting: row.get::<_, f64>(2).max(0.0),
    });
    Ok(lag.collect())
}
