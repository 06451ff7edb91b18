//! Payloads that a sync has taken in and not shown yet, all payloads at a glance, what sync holds, and what is removed.

use super::catalog;
use super::patches::Block;
use super::payloads::{New, PRUNED};
use super::run::{DbError, Run};
use super::statements;
use crate::domain::{PatchVersion, Scope, Sha256};
use crate::rollout::BlockKind;
use crate::rollout::support::SupportRow;
use std::collections::HashMap;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

statements! {
    SELECT_STORED = "select id, filename, sha256, size, damaged is not null, staged from payloads";
    SELECT_QUARANTINED = "select filename, sha256, size from quarantine where filename = any($1)";
    INSERT_STAGED = "insert into payloads (patch_id, filename, kernel, flavour, architecture, sha256, size, module_name,
            module_sha256, vermagic, signer, signature_algorithm, signature, warning, fixes, obsolete, source, added_by, staged)
        select * from unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::bytea[], $7::bigint[], $8::text[],
            $9::bytea[], $10::text[], $11::text[], $12::text[], $13::smallint[], $14::text[], $15::jsonb[], $16::boolean[],
            $17::text[], $18::text[], $19::bigint[])
        on conflict do nothing returning filename";
    SELECT_LEFT_OVER = "select y.id, y.filename from payloads y join sync_runs r on r.id = y.staged
        where r.upstream = $1 and y.filename <> all($2)";
    SELECT_HIDDEN = "select id, filename, sha256, size from payloads where id = $1 and staged is not null for update";
    SELECT_PRUNED = "select id from payloads where staged = -1 order by id limit $1";
    HIDE = "update payloads set staged = -1 where id = any($1) and staged is null returning filename";
    DELETE_HIDDEN = "delete from payloads where id = $1 and staged is not null";
    COUNT_CONTENT = "select count(*) from payloads where sha256 = $1";
    SELECT_STAGED_PATCHES = "select distinct patch_id from payloads where filename = any($1) and staged > 0";
    PUBLISH = "update payloads set staged = null, added_at = now() where filename = any($1) and staged > 0 returning filename, size";
    SELECT_PATCH_IDS = "select id, version from patches";
    SELECT_SYNC_BLOCKS = "select id, patch_id, kind, kernel, flavour, architecture, at, actor, reason
        from blocks where actor = $1 and lifted_at is null";
    LIFT_BLOCK_BY_ID = "update blocks set lifted_at = now(), lifted_by = $2 where id = $1 and lifted_at is null";
    SELECT_VISIBLE = "select y.id, y.filename, p.id, p.version from payloads y join patches p on p.id = y.patch_id where y.staged is null";
    DELETE_SUPPORT = "delete from supported_kernels";
    INSERT_SUPPORT = "insert into supported_kernels (release, codename, architecture, series, kind, flavours, months, end_of_life)
        values ($1, $2, $3, $4, $5, $6, $7, $8)";
    MOVE_SYNC_TOKENS = "update sync_tokens set tier_id = $2 where tier_id = $1";
    COUNT_SYNC_TOKENS = "select count(*) from sync_tokens where tier_id = $1 and revoked_at is null";
    DELETE_PROMOTION = "delete from promotions where patch_id = $1 and tier_id = $2 and kernel = $3 and flavour = $4 and architecture = $5";
}

/// A payload at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Database id.
    pub id: i64,
    /// Content.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// Its object is not what it should be.
    pub damaged: bool,
    /// It is not visible: the run that took it in, or [`PRUNED`].
    pub staged: Option<i64>,
}

fn digest(row: &Row, at: usize) -> Result<Sha256, DbError> {
    Ok(Sha256::try_from(row.get::<_, &[u8]>(at))?)
}

/// Every payload by file name, visible or not.
pub async fn stored(run: &impl Run) -> Result<HashMap<String, Stored>, DbError> {
    let rows = run.rows(&SELECT_STORED, &[]).await?;
    rows.iter()
        .map(|row| {
            let stored = Stored {
                id: row.get(0),
                sha256: digest(row, 2)?,
                size: row.get::<_, i64>(3).unsigned_abs(),
                damaged: row.get(4),
                staged: row.get(5),
            };
            Ok((row.get(1), stored))
        })
        .collect()
}

/// Adds payloads; the names of those that were not there yet.
pub async fn insert(run: &impl Run, rows: &[New<'_>]) -> Result<Vec<String>, DbError> {
    macro_rules! column {
        ($row:ident => $value:expr) => {
            &rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    let fixes = rows
        .iter()
        .map(|row| serde_json::to_value(row.fixes))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| DbError::Row(format!("fixes cannot be written: {e}")))?;
    let columns: [&(dyn ToSql + Sync); 19] = [
        column!(row => row.patch_id),
        column!(row => row.filename),
        column!(row => row.kernel.to_string()),
        column!(row => row.kernel.flavour()),
        column!(row => row.architecture.code()),
        column!(row => row.sha256.0.as_slice()),
        column!(row => row.size as i64),
        column!(row => row.module_name),
        column!(row => row.module_sha256.0.as_slice()),
        column!(row => row.vermagic),
        column!(row => row.signer),
        column!(row => row.signature_algorithm),
        column!(row => row.signature),
        column!(row => row.warning),
        &fixes,
        column!(row => row.obsolete),
        column!(row => row.source),
        column!(row => row.added_by),
        column!(row => row.staged),
    ];
    let rows = run.rows(&INSERT_STAGED, &columns).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What lies in quarantine under these names: name, content, bytes.
pub async fn quarantined(
    run: &impl Run,
    filenames: &[&str],
) -> Result<Vec<(String, Sha256, u64)>, DbError> {
    let rows = run.rows(&SELECT_QUARANTINED, &[&filenames]).await?;
    rows.iter()
        .map(|row| {
            let size = row.get::<_, i64>(2).unsigned_abs();
            Ok((row.get(0), digest(row, 1)?, size))
        })
        .collect()
}

/// Payloads that runs of this upstream have staged and that are not among these.
pub async fn left_over(
    run: &impl Run,
    upstream: &str,
    wanted: &[&str],
) -> Result<Vec<i64>, DbError> {
    let rows = run.rows(&SELECT_LEFT_OVER, &[&upstream, &wanted]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A hidden payload, which nobody else shows or removes until the transaction ends: name, content, bytes.
pub async fn lock_hidden(
    run: &impl Run,
    id: i64,
) -> Result<Option<(String, Sha256, u64)>, DbError> {
    let Some(row) = run.opt(&SELECT_HIDDEN, &[&id]).await? else {
        return Ok(None);
    };
    let size = row.get::<_, i64>(3).unsigned_abs();
    Ok(Some((row.get(1), digest(&row, 2)?, size)))
}

/// Removes a hidden payload.
pub async fn delete_hidden(run: &impl Run, id: i64) -> Result<(), DbError> {
    run.exec(&DELETE_HIDDEN, &[&id]).await.map(|_| ())
}

/// Payloads with this content.
pub async fn count_content(run: &impl Run, sha256: &Sha256) -> Result<i64, DbError> {
    let row = run.one(&COUNT_CONTENT, &[&sha256.0.as_slice()]).await?;
    Ok(row.get(0))
}

/// Hides payloads that are to be removed; the names of those that were visible.
pub async fn hide(run: &impl Run, ids: &[i64]) -> Result<Vec<String>, DbError> {
    let rows = run.rows(&HIDE, &[&ids]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Payloads that were hidden to be removed.
pub async fn pruned(run: &impl Run, limit: i64) -> Result<Vec<i64>, DbError> {
    debug_assert_eq!(PRUNED, -1);
    let rows = run.rows(&SELECT_PRUNED, &[&limit]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The patches of the staged ones of these payloads.
pub async fn staged_patches(run: &impl Run, filenames: &[&str]) -> Result<Vec<i32>, DbError> {
    let rows = run.rows(&SELECT_STAGED_PATCHES, &[&filenames]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Makes the staged ones of these payloads visible; their names and bytes.
pub async fn publish(run: &impl Run, filenames: &[&str]) -> Result<Vec<(String, i64)>, DbError> {
    let rows = run.rows(&PUBLISH, &[&filenames]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The ids of all patches.
pub async fn patch_ids(run: &impl Run) -> Result<HashMap<PatchVersion, i32>, DbError> {
    let rows = run.rows(&SELECT_PATCH_IDS, &[]).await?;
    Ok(rows
        .iter()
        .filter_map(|row| Some((PatchVersion::from_code(row.get(1))?, row.get(0))))
        .collect())
}

/// Visible payloads: id, name, patch id, version.
pub async fn visible(run: &impl Run) -> Result<Vec<(i64, String, i32, PatchVersion)>, DbError> {
    let rows = run.rows(&SELECT_VISIBLE, &[]).await?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            let version = PatchVersion::from_code(row.get(3))?;
            Some((row.get(0), row.get(1), row.get(2), version))
        })
        .collect())
}

/// Standing blocks and holds of this actor: id, patch id, block.
pub async fn blocks_of(run: &impl Run, actor: &str) -> Result<Vec<(i64, i32, Block)>, DbError> {
    let rows = run.rows(&SELECT_SYNC_BLOCKS, &[&actor]).await?;
    let block = |row: &Row| {
        let kind = if row.get::<_, i16>(2) == BlockKind::Block as i16 {
            BlockKind::Block
        } else {
            BlockKind::Hold
        };
        let block = Block {
            kind,
            scope: catalog::scope(row.get(3), row.get(4), row.get(5))?,
            at: row.get(6),
            actor: row.get(7),
            reason: row.get(8),
        };
        Ok((row.get(0), row.get(1), block))
    };
    rows.iter().map(block).collect()
}

/// Lifts a block or hold.
pub async fn lift(run: &impl Run, id: i64, actor: &str) -> Result<(), DbError> {
    run.exec(&LIFT_BLOCK_BY_ID, &[&id, &actor])
        .await
        .map(|_| ())
}

/// Replaces the table of supported kernels.
pub async fn replace_support(run: &impl Run, rows: &[SupportRow]) -> Result<(), DbError> {
    run.exec(&DELETE_SUPPORT, &[]).await?;
    for row in rows {
        let flavours = row.flavours.join(" ");
        let architecture = row.architecture.code();
        run.exec(
            &INSERT_SUPPORT,
            &[
                &row.release,
                &row.codename,
                &architecture,
                &row.series,
                &row.kind,
                &flavours,
                &row.months,
                &row.end_of_life,
            ],
        )
        .await?;
    }
    Ok(())
}

/// Moves sync tokens from one tier to another.
pub async fn move_sync_tokens(run: &impl Run, from: i32, to: i32) -> Result<(), DbError> {
    run.exec(&MOVE_SYNC_TOKENS, &[&from, &to]).await.map(|_| ())
}

/// Sync tokens of a tier that are not revoked.
pub async fn count_sync_tokens(run: &impl Run, tier: i32) -> Result<u64, DbError> {
    let count: i64 = run.one(&COUNT_SYNC_TOKENS, &[&tier]).await?.get(0);
    Ok(count.unsigned_abs())
}

/// Takes a promotion back.
pub async fn forget_promotion(
    run: &impl Run,
    patch: i32,
    tier: i32,
    scope: &Scope,
) -> Result<(), DbError> {
    let (kernel, flavour, architecture) = catalog::scope_columns(scope);
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&patch, &tier, &kernel, &flavour, &architecture];
    run.exec(&DELETE_PROMOTION, &params).await.map(|_| ())
}
