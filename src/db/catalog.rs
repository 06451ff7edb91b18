//! What the snapshot's catalog is read from, and the seed of a new installation.

use super::run::{DbError, Run};
use super::statements;
use crate::domain::{Architecture, Fix, PatchVersion, Scope, Sha256};
use crate::rollout::support::SupportRow;
use crate::rollout::{
    BlockKind, BlockRow, CatalogRows, PatchRow, PayloadRow, PromotionRow, TierRow,
};
use std::collections::HashMap;
use std::sync::Arc;

statements! {
    SELECT_TIERS = "select id, name from tiers order by position";
    SELECT_PATCHES = "select id, version from patches";
    SELECT_PAYLOADS = "select id, patch_id, kernel, architecture, filename, sha256, size, fixes::text, obsolete,
        damaged is not null from payloads where staged is null";
    SELECT_PROMOTIONS = "select patch_id, tier_id, kernel, flavour, architecture from promotions";
    SELECT_BLOCKS = "select patch_id, kind, kernel, flavour, architecture from blocks where lifted_at is null";
    SELECT_SUPPORT = "select release, codename, architecture, series, kind, flavours, months, end_of_life
        from supported_kernels order by release desc, series desc, architecture";
    // Any number that nothing else in this database uses.
    LOCK_SUPPORT = "select pg_advisory_xact_lock(7103, 12)";
    SEED_TIER = "insert into tiers (name, position) select $1, $2 where not exists (select from tiers where name = $1)";
    COUNT_TIERS = "select count(*) from tiers";
    COUNT_SUPPORT = "select count(*) from supported_kernels";
    SEED_SUPPORT = "insert into supported_kernels (release, codename, architecture, series, kind, flavours, months, end_of_life)
        values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing";
}

fn architecture(code: i16) -> Result<Architecture, DbError> {
    Architecture::from_code(code)
        .ok_or_else(|| DbError::Row(format!("architecture code {code} is not known")))
}

/// Reads a scope from its three columns.
pub fn scope(kernel: &str, flavour: &str, arch: i16) -> Result<Scope, DbError> {
    let mut scope = Scope::parse(Some(kernel), Some(flavour), None)?;
    if arch != 0 {
        scope.architecture = Some(architecture(arch)?);
    }
    Ok(scope)
}

/// The three columns of a scope: kernel, flavour, architecture.
pub fn scope_columns(scope: &Scope) -> (String, String, i16) {
    (
        scope
            .kernel
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        scope.flavour.clone().unwrap_or_default(),
        scope.architecture.map_or(0, Architecture::code),
    )
}

/// The table of supported kernels.
pub async fn support(run: &impl Run) -> Result<Vec<SupportRow>, DbError> {
    let mut support = Vec::new();
    for row in run.rows(&SELECT_SUPPORT, &[]).await? {
        support.push(SupportRow {
            release: row.get(0),
            codename: row.get(1),
            architecture: architecture(row.get(2))?,
            series: row.get(3),
            kind: row.get(4),
            flavours: row
                .get::<_, &str>(5)
                .split_whitespace()
                .map(ToOwned::to_owned)
                .collect(),
            months: row.get(6),
            end_of_life: row.get(7),
        });
    }
    Ok(support)
}

/// Lets nobody else replace the table of supported kernels until the transaction ends.
pub async fn lock_support(run: &impl Run) -> Result<(), DbError> {
    run.one(&LOCK_SUPPORT, &[]).await.map(|_| ())
}

/// Reads all that a catalog is built from. Call it in one read transaction.
pub async fn load(run: &impl Run) -> Result<CatalogRows, DbError> {
    let mut rows = CatalogRows::default();
    for row in run.rows(&SELECT_TIERS, &[]).await? {
        rows.tiers.push(TierRow {
            id: row.get(0),
            name: row.get::<_, &str>(1).parse()?,
        });
    }
    for row in run.rows(&SELECT_PATCHES, &[]).await? {
        let code: i64 = row.get(1);
        let version = PatchVersion::from_code(code)
            .ok_or_else(|| DbError::Row(format!("patch version code {code} is not valid")))?;
        rows.patches.push(PatchRow {
            id: row.get(0),
            version,
        });
    }
    // Thousands of payloads share a few lists of fixes.
    let mut fixes: HashMap<String, Arc<[Fix]>> = HashMap::new();
    for row in run.rows(&SELECT_PAYLOADS, &[]).await? {
        let text: String = row.get(7);
        let shared = if let Some(known) = fixes.get(&text) {
            Arc::clone(known)
        } else {
            let list: Vec<Fix> = serde_json::from_str(&text).map_err(|e| {
                DbError::Row(format!("fixes of payload {}: {e}", row.get::<_, i64>(0)))
            })?;
            let list: Arc<[Fix]> = list.into();
            fixes.insert(text, Arc::clone(&list));
            list
        };
        rows.payloads.push(PayloadRow {
            id: row.get(0),
            patch_id: row.get(1),
            kernel: row.get::<_, &str>(2).parse()?,
            architecture: architecture(row.get(3))?,
            filename: row.get(4),
            sha256: Sha256::try_from(row.get::<_, &[u8]>(5))?,
            size: row.get::<_, i64>(6).unsigned_abs(),
            fixes: shared,
            obsolete: row.get(8),
            damaged: row.get(9),
        });
    }
    for row in run.rows(&SELECT_PROMOTIONS, &[]).await? {
        rows.promotions.push(PromotionRow {
            patch_id: row.get(0),
            tier_id: row.get(1),
            scope: scope(row.get(2), row.get(3), row.get(4))?,
        });
    }
    for row in run.rows(&SELECT_BLOCKS, &[]).await? {
        rows.blocks.push(BlockRow {
            patch_id: row.get(0),
            kind: if row.get::<_, i16>(1) == 1 {
                BlockKind::Block
            } else {
                BlockKind::Hold
            },
            scope: scope(row.get(2), row.get(3), row.get(4))?,
        });
    }
    rows.support = support(run).await?;
    Ok(rows)
}

/// Gives a new installation its default tiers and the table of supported kernels; leaves an old one alone.
/// Returns whether anything was added.
pub async fn seed(run: &impl Run, tiers: &[&str], support: &[SupportRow]) -> Result<bool, DbError> {
    let mut seeded = false;
    if run.one(&COUNT_TIERS, &[]).await?.get::<_, i64>(0) == 0 {
        for (position, name) in (0i32..).zip(tiers) {
            run.exec(&SEED_TIER, &[name, &position]).await?;
        }
        seeded = true;
    }
    if run.one(&COUNT_SUPPORT, &[]).await?.get::<_, i64>(0) == 0 {
        for row in support {
            let flavours = row.flavours.join(" ");
            run.exec(
                &SEED_SUPPORT,
                &[
                    &row.release,
                    &row.codename,
                    &row.architecture.code(),
                    &row.series,
                    &row.kind,
                    &flavours,
                    &row.months,
                    &row.end_of_life,
                ],
            )
            .await?;
        }
        seeded = true;
    }
    Ok(seeded)
}
