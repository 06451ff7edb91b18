//! Patches: what is known of each, what stops them, and what the fleet runs.

use super::catalog;
use super::run::{DbError, Run};
use super::statements;
use crate::domain::{Architecture, PatchVersion, Scope, TierName};
use crate::rollout::BlockKind;
use jiff::Timestamp;
use std::collections::HashMap;
use tokio_postgres::Row;

statements! {
    INSERT_PATCH = "insert into patches (version) values ($1) on conflict do nothing returning id";
    INSERT_PATCHES = "insert into patches (version) select unnest($1::bigint[]) on conflict do nothing";
    FIND_PATCHES = "select version, id from patches where version = any($1)";
    FIND_PATCH = "select id from patches where version = $1";
    // Not "for update": payloads that come in for this patch meanwhile need not wait.
    LOCK_PATCH = "select id from patches p where version = $1 and (exists (select from payloads where patch_id = p.id and staged is null)
        or not exists (select from payloads where patch_id = p.id)) for no key update";
    SELECT_UNSEEN = "select p.id, p.version from patches p where p.id = any($1)
        and not exists (select from promotions where patch_id = p.id)
        and not exists (select from payloads where patch_id = p.id and staged is null)";
    SELECT_PATCH_PAGE = "select p.id, p.version, p.created_at, y.payloads, y.kernels, y.damaged
        from (select p.id, p.version, p.created_at from patches p
              where (exists (select from payloads where patch_id = p.id and staged is null)
                  or not exists (select from payloads where patch_id = p.id))
                and ($1::bigint is null or p.version < $1) and ($2::bigint is null or p.version = $2)
              order by p.version desc limit $3) p,
            lateral (select count(*) as payloads, count(distinct kernel) as kernels, count(damaged) as damaged
                from payloads where patch_id = p.id and staged is null) y
        order by p.version desc";
    SELECT_PROMOTIONS_OF = "select r.patch_id, t.name, r.kernel, r.flavour, r.architecture, r.at, r.actor, r.reason, t.position
        from promotions r join tiers t on t.id = r.tier_id where r.patch_id = any($1) order by r.at, t.position";
    SELECT_BLOCKS_OF = "select patch_id, kind, kernel, flavour, architecture, at, actor, reason
        from blocks where patch_id = any($1) and lifted_at is null order by at, id";
    INSERT_BLOCK = "insert into blocks (patch_id, kind, kernel, flavour, architecture, actor, reason)
        values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing returning id";
    LIFT_BLOCK = "update blocks set lifted_at = now(), lifted_by = $6
        where patch_id = $1 and kind = $2 and kernel = $3 and flavour = $4 and architecture = $5 and lifted_at is null";
    SELECT_FLEET = "select g.tier_id, coalesce(w.text, ''), g.architecture, g.patch, g.n
        from (select tier_id, kernel_id, architecture, case when state in (1, 7) then patch else 0 end as patch, count(*) n
              from machines
              where ($1::int[] is null or tier_id = any($1)) and ($2::bigint is null or (patch = $2 and state in (1, 7)))
              group by 1, 2, 3, 4) g
        left join words w on w.id = g.kernel_id";
}

/// A patch as listed.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Database id.
    pub id: i32,
    /// Version.
    pub version: PatchVersion,
    /// When its first payload came in.
    pub created_at: Timestamp,
    /// Payloads.
    pub payloads: u64,
    /// Different kernels among them.
    pub kernels: u64,
    /// Payloads whose object is damaged.
    pub damaged: u64,
}

/// That a patch reached a tier.
#[derive(Debug, Clone)]
pub struct Promotion {
    /// The tier.
    pub tier: TierName,
    /// The tier's place.
    pub position: i32,
    /// For which kernels.
    pub scope: Scope,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A block or hold that stands.
#[derive(Debug, Clone)]
pub struct Block {
    /// Which of the two.
    pub kind: BlockKind,
    /// For which kernels.
    pub scope: Scope,
    /// Since when.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// Machines that have the same tier, kernel, architecture and patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Tier.
    pub tier_id: i32,
    /// Kernel as reported; empty if it was not.
    pub kernel: String,
    /// Architecture, where it was reported and is known.
    pub architecture: Option<Architecture>,
    /// The patch they say is applied.
    pub applied: Option<PatchVersion>,
    /// How many they are.
    pub machines: u64,
}

impl Group {
    pub(super) fn from_row(row: &Row) -> Self {
        Self {
            tier_id: row.get(0),
            kernel: row.get(1),
            architecture: Architecture::from_code(row.get(2)),
            applied: PatchVersion::from_code(row.get(3)),
            machines: row.get::<_, i64>(4).unsigned_abs(),
        }
    }
}

/// Adds a patch if it is not there. Returns its id and whether it is new.
pub async fn ensure(run: &impl Run, version: PatchVersion) -> Result<(i32, bool), DbError> {
    if let Some(row) = run.opt(&INSERT_PATCH, &[&version.code()]).await? {
        return Ok((row.get(0), true));
    }
    Ok((
        run.one(&FIND_PATCH, &[&version.code()]).await?.get(0),
        false,
    ))
}

/// Adds those of these patches that are not there. Returns their ids; each version must be given once.
pub async fn ensure_all(
    run: &impl Run,
    versions: &[PatchVersion],
) -> Result<HashMap<PatchVersion, i32>, DbError> {
    let codes: Vec<i64> = versions.iter().map(|version| version.code()).collect();
    run.exec(&INSERT_PATCHES, &[&codes]).await?;
    let rows = run.rows(&FIND_PATCHES, &[&codes]).await?;
    rows.iter()
        .map(|row| Ok((version(row.get(0))?, row.get(1))))
        .collect()
}

/// Of these patches the ones that nobody has seen yet: without a visible payload, and never in a tier.
pub async fn unseen(run: &impl Run, ids: &[i32]) -> Result<Vec<(i32, PatchVersion)>, DbError> {
    let rows = run.rows(&SELECT_UNSEEN, &[&ids]).await?;
    rows.iter()
        .map(|row| Ok((row.get(0), version(row.get(1))?)))
        .collect()
}

/// The id of a patch that is visible, and nobody else promotes, blocks or frees it until the transaction ends.
pub async fn lock(run: &impl Run, version: PatchVersion) -> Result<Option<i32>, DbError> {
    let row = run.opt(&LOCK_PATCH, &[&version.code()]).await?;
    Ok(row.map(|row| row.get(0)))
}

fn version(code: i64) -> Result<PatchVersion, DbError> {
    PatchVersion::from_code(code)
        .ok_or_else(|| DbError::Row(format!("patch version code {code} is not valid")))
}

/// A page of patches below this version, highest first; or the one patch `only`.
pub async fn page(
    run: &impl Run,
    below: Option<PatchVersion>,
    only: Option<PatchVersion>,
    limit: i64,
) -> Result<Vec<Listed>, DbError> {
    let (below, only) = (below.map(PatchVersion::code), only.map(PatchVersion::code));
    let rows = run
        .rows(&SELECT_PATCH_PAGE, &[&below, &only, &limit])
        .await?;
    let listed = |row: &Row| {
        Ok(Listed {
            id: row.get(0),
            version: version(row.get(1))?,
            created_at: row.get(2),
            payloads: row.get::<_, i64>(3).unsigned_abs(),
            kernels: row.get::<_, i64>(4).unsigned_abs(),
            damaged: row.get::<_, i64>(5).unsigned_abs(),
        })
    };
    rows.iter().map(listed).collect()
}

/// Promotions by patch, oldest first.
pub async fn promotions(
    run: &impl Run,
    patches: &[i32],
) -> Result<HashMap<i32, Vec<Promotion>>, DbError> {
    let mut by_patch: HashMap<i32, Vec<Promotion>> = HashMap::new();
    for row in run.rows(&SELECT_PROMOTIONS_OF, &[&patches]).await? {
        by_patch.entry(row.get(0)).or_default().push(Promotion {
            tier: row.get::<_, &str>(1).parse()?,
            position: row.get(8),
            scope: catalog::scope(row.get(2), row.get(3), row.get(4))?,
            at: row.get(5),
            actor: row.get(6),
            reason: row.get(7),
        });
    }
    Ok(by_patch)
}

/// Standing blocks and holds by patch, oldest first.
pub async fn blocks(run: &impl Run, patches: &[i32]) -> Result<HashMap<i32, Vec<Block>>, DbError> {
    let mut by_patch: HashMap<i32, Vec<Block>> = HashMap::new();
    for row in run.rows(&SELECT_BLOCKS_OF, &[&patches]).await? {
        let kind = if row.get::<_, i16>(1) == BlockKind::Block as i16 {
            BlockKind::Block
        } else {
            BlockKind::Hold
        };
        by_patch.entry(row.get(0)).or_default().push(Block {
            kind,
            scope: catalog::scope(row.get(2), row.get(3), row.get(4))?,
            at: row.get(5),
            actor: row.get(6),
            reason: row.get(7),
        });
    }
    Ok(by_patch)
}

/// Stops a patch; `false` if it stood so already.
pub async fn block(
    run: &impl Run,
    patch_id: i32,
    kind: BlockKind,
    scope: &Scope,
    actor: &str,
    reason: &str,
) -> Result<bool, DbError> {
    let (kernel, flavour, architecture) = catalog::scope_columns(scope);
    let row = run
        .opt(
            &INSERT_BLOCK,
            &[
                &patch_id,
                &(kind as i16),
                &kernel,
                &flavour,
                &architecture,
                &actor,
                &reason,
            ],
        )
        .await?;
    Ok(row.is_some())
}

/// Lifts exactly the block or hold of this scope; `false` if there is none.
pub async fn lift(
    run: &impl Run,
    patch_id: i32,
    kind: BlockKind,
    scope: &Scope,
    actor: &str,
) -> Result<bool, DbError> {
    let (kernel, flavour, architecture) = catalog::scope_columns(scope);
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] = [
        &patch_id,
        &(kind as i16),
        &kernel,
        &flavour,
        &architecture,
        &actor,
    ];
    Ok(run.exec(&LIFT_BLOCK, &params).await? > 0)
}

/// What machines run: in these tiers (`None`: in all), with this patch applied (`None`: with any or none).
pub async fn fleet(
    run: &impl Run,
    tiers: Option<&[i32]>,
    applied: Option<PatchVersion>,
) -> Result<Vec<Group>, DbError> {
    let rows = run
        .rows(&SELECT_FLEET, &[&tiers, &applied.map(PatchVersion::code)])
        .await?;
    Ok(rows.iter().map(Group::from_row).collect())
}
