//! How many machines ran each patch over time.

use super::run::{DbError, Run, Tx};
use super::statements;
use crate::domain::PatchVersion;
use jiff::Timestamp;

statements! {
    // Only what is another number than the last one is noted, so that a fleet at rest writes nothing.
    INSERT_ADOPTION = "insert into adoption (patch_id, tier_id, machines)
        select p.id, n.tier_id, n.machines
        from unnest($1::bigint[], $2::int[], $3::bigint[]) n(version, tier_id, machines)
        join patches p on p.version = n.version
        join tiers t on t.id = n.tier_id
        left join lateral (select a.machines from adoption a where a.patch_id = p.id and a.tier_id = n.tier_id
            order by a.at desc limit 1) last on true
        where last.machines is distinct from n.machines and (last.machines is not null or n.machines > 0)
        on conflict do nothing";
    DELETE_ADOPTION = "delete from adoption where at < now() - make_interval(days => $1)";
    // Of each tier the last number in each of $2 spans of the time that it has, and the very first.
    SELECT_ADOPTION = "with noted as (select a.tier_id, a.at, a.machines,
                extract(epoch from a.at - min(a.at) over own) as since,
                extract(epoch from max(a.at) over own - min(a.at) over own) as span
            from adoption a join patches p on p.id = a.patch_id where p.version = $1
            window own as (partition by a.tier_id))
        select t.name, n.at, n.machines
        from (select distinct on (tier_id, ceil(since * $2::int4 / greatest(span, 1))) tier_id, at, machines
            from noted order by tier_id, ceil(since * $2::int4 / greatest(span, 1)), at desc) n
        join tiers t on t.id = n.tier_id order by t.position, n.at";
}

/// Machines of a tier that run a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Patch.
    pub version: PatchVersion,
    /// Tier.
    pub tier_id: i32,
    /// How many.
    pub machines: u64,
}

/// Notes these numbers where they changed.
pub async fn note(tx: &Tx<'_>, running: &[Running]) -> Result<u64, DbError> {
    let versions: Vec<i64> = running.iter().map(|one| one.version.code()).collect();
    let tiers: Vec<i32> = running.iter().map(|one| one.tier_id).collect();
    let machines: Vec<i64> = running.iter().map(|one| one.machines as i64).collect();
    tx.exec(&INSERT_ADOPTION, &[&versions, &tiers, &machines])
        .await
}

/// Forgets what is older than so many days.
pub async fn forget(tx: &Tx<'_>, days: i32) -> Result<u64, DbError> {
    tx.exec(&DELETE_ADOPTION, &[&days]).await
}

/// The numbers of a patch: by tier, oldest first, at most `most` and one of each.
pub async fn of(
    run: &impl Run,
    version: PatchVersion,
    most: i32,
) -> Result<Vec<(String, Timestamp, u64)>, DbError> {
    let rows = run
        .rows(&SELECT_ADOPTION, &[&version.code(), &most])
        .await?;
    Ok(rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get::<_, i64>(2).unsigned_abs()))
        .collect())
}
