//! Payloads: rows for verified objects, and what is known to have happened to those objects since.

use super::run::{DbError, Run};
use super::statements;
use crate::domain::{Architecture, Fix, KernelVersion, PatchVersion, Sha256};
use jiff::Timestamp;
use tokio_postgres::Row;

/// The columns of [`Listed`].
macro_rules! listed {
    ($rest:literal) => {
        concat!(
            "select y.id, y.filename, p.version, y.kernel, y.architecture, y.size, y.sha256, y.signer, y.signature,
            y.source, y.added_at, y.added_by, y.warning, y.damaged from payloads y join patches p on p.id = y.patch_id ",
            $rest
        )
    };
}

statements! {
    FIND_PAYLOAD = "select id, sha256, size, damaged, staged from payloads where filename = $1";
    FIND_PAYLOADS = "select filename, size, damaged is not null from payloads where filename = any($1) and staged is null";
    INSERT_PAYLOAD = "insert into payloads (patch_id, filename, kernel, flavour, architecture, sha256, size, module_name,
            module_sha256, vermagic, signer, signature_algorithm, signature, warning, fixes, obsolete, source, added_by, staged)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
        on conflict do nothing returning id";
    MARK_DAMAGED = "update payloads set damaged = $2 where id = $1 and damaged is null
        returning filename, sha256, null::text";
    // Whether it is a hidden row of a sync or of a pruning, the file is here now and was brought by someone.
    UNSTAGE = "update payloads set staged = null, source = $2, added_by = $3, added_at = now()
        where id = $1 and staged is not null returning patch_id";
    STAGE_AGAIN = "update payloads set staged = $2 where id = $1 and staged is not null returning id";
    PATCH_OF = "select y.patch_id, p.version from payloads y join patches p on p.id = y.patch_id
        where y.id = $1 for no key update of y";
    CLEAR_DAMAGED = "update payloads y set damaged = null from (select id, damaged from payloads where id = $1 for update) old
        where y.id = old.id and old.damaged is not null returning y.filename, y.sha256, old.damaged";
    SELECT_OBJECTS = "select id, filename, sha256, size, damaged from payloads
        where id > $1 and staged is distinct from -1 order by id limit $2";
    COUNT_PAYLOADS = "select count(*) from payloads where staged is distinct from -1";
    SELECT_PAYLOAD_PAGE = listed!("where y.staged is null and ($1::text is null or y.filename collate \"C\" > $1)
          and ($2::bigint is null or p.version = $2) and ($3::text is null or y.kernel = $3)
          and ($4::smallint is null or y.architecture = $4) and ($5::text is null or y.flavour = $5)
        order by y.filename collate \"C\" limit $6");
    SELECT_PAYLOADS_OF_PATCH = listed!("where y.staged is null and p.version = $1 order by y.kernel collate \"C\", y.architecture");
}

/// What is stored under a file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Database id.
    pub id: i64,
    /// Content.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// Why its object is not what it should be.
    pub damaged: Option<String>,
    /// It is not visible: the sync run that took it in, or [`PRUNED`].
    pub staged: Option<i64>,
}

/// What stands for the run of a payload that is being removed.
pub const PRUNED: i64 = -1;

/// A payload to be added.
#[derive(Debug, Clone)]
pub struct New<'a> {
    /// Its patch.
    pub patch_id: i32,
    /// Canonical's file name.
    pub filename: &'a str,
    /// Exact kernel.
    pub kernel: &'a KernelVersion,
    /// Architecture.
    pub architecture: Architecture,
    /// Content.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// The module's name once loaded.
    pub module_name: &'a str,
    /// The module with its signature.
    pub module_sha256: Sha256,
    /// What the module says it was built for; empty if it says nothing.
    pub vermagic: &'a str,
    /// Subject of the certificate whose key signed it.
    pub signer: Option<&'a str>,
    /// Digest algorithm of the signature.
    pub signature_algorithm: Option<&'a str>,
    /// 0 not checked, 1 good, 2 not good but let pass.
    pub signature: i16,
    /// What is not as it should be.
    pub warning: Option<&'a str>,
    /// What the patch mends.
    pub fixes: &'a [Fix],
    /// The kernel is obsolete.
    pub obsolete: bool,
    /// How it came.
    pub source: &'a str,
    /// Who brought it.
    pub added_by: &'a str,
    /// The sync run that takes it in and does not make it visible yet.
    pub staged: Option<i64>,
}

/// A payload's object, to be compared with what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectOf {
    /// Database id.
    pub id: i64,
    /// File name.
    pub filename: String,
    /// Content.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// Why it was found not to be that.
    pub damaged: Option<String>,
}

/// A payload as listed.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Database id.
    pub id: i64,
    /// File name.
    pub filename: String,
    /// Patch.
    pub version: PatchVersion,
    /// Kernel.
    pub kernel: KernelVersion,
    /// Architecture.
    pub architecture: Architecture,
    /// Bytes.
    pub size: u64,
    /// Content.
    pub sha256: Sha256,
    /// Subject of the certificate whose key signed it.
    pub signer: Option<String>,
    /// 0 not checked, 1 good, 2 not good but let pass.
    pub signature: i16,
    /// How it came.
    pub source: String,
    /// When it came.
    pub added_at: Timestamp,
    /// Who brought it.
    pub added_by: String,
    /// What is not as it should be.
    pub warning: Option<String>,
    /// Why its object is not what it should be.
    pub damaged: Option<String>,
}

/// Which payloads to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// File names after this one.
    pub after: Option<String>,
    /// Of this patch.
    pub version: Option<PatchVersion>,
    /// For this kernel.
    pub kernel: Option<KernelVersion>,
    /// For this architecture.
    pub architecture: Option<Architecture>,
    /// For kernels of this flavour.
    pub flavour: Option<String>,
}

impl Listed {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        let version: i64 = row.get(2);
        let architecture: i16 = row.get(4);
        Ok(Self {
            id: row.get(0),
            filename: row.get(1),
            version: PatchVersion::from_code(version).ok_or_else(|| {
                DbError::Row(format!("patch version code {version} is not valid"))
            })?,
            kernel: row.get::<_, &str>(3).parse()?,
            architecture: Architecture::from_code(architecture).ok_or_else(|| {
                DbError::Row(format!("architecture code {architecture} is not known"))
            })?,
            size: row.get::<_, i64>(5).unsigned_abs(),
            sha256: Sha256::try_from(row.get::<_, &[u8]>(6))?,
            signer: row.get(7),
            signature: row.get(8),
            source: row.get(9),
            added_at: row.get(10),
            added_by: row.get(11),
            warning: row.get(12),
            damaged: row.get(13),
        })
    }
}

/// What is stored under this file name.
pub async fn find(run: &impl Run, filename: &str) -> Result<Option<Known>, DbError> {
    let Some(row) = run.opt(&FIND_PAYLOAD, &[&filename]).await? else {
        return Ok(None);
    };
    Ok(Some(Known {
        id: row.get(0),
        sha256: Sha256::try_from(row.get::<_, &[u8]>(1))?,
        size: row.get::<_, i64>(2).unsigned_abs(),
        damaged: row.get(3),
        staged: row.get(4),
    }))
}

/// Of these file names the ones that are stored and visible, with size and whether the object is damaged.
pub async fn find_all(
    run: &impl Run,
    filenames: &[&str],
) -> Result<Vec<(String, u64, bool)>, DbError> {
    let rows = run.rows(&FIND_PAYLOADS, &[&filenames]).await?;
    Ok(rows
        .iter()
        .map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs(), row.get(2)))
        .collect())
}

/// Adds a payload and returns its id; `None` if one of that name is there already.
pub async fn insert(run: &impl Run, new: &New<'_>) -> Result<Option<i64>, DbError> {
    let fixes = serde_json::to_value(new.fixes)
        .map_err(|e| DbError::Row(format!("fixes cannot be written: {e}")))?;
    let row = run
        .opt(
            &INSERT_PAYLOAD,
            &[
                &new.patch_id,
                &new.filename,
                &new.kernel.to_string(),
                &new.kernel.flavour(),
                &new.architecture.code(),
                &new.sha256.0.as_slice(),
                &(new.size as i64),
                &new.module_name,
                &new.module_sha256.0.as_slice(),
                &new.vermagic,
                &new.signer,
                &new.signature_algorithm,
                &new.signature,
                &new.warning,
                &fixes,
                &new.obsolete,
                &new.source,
                &new.added_by,
                &new.staged,
            ],
        )
        .await?;
    Ok(row.map(|row| row.get(0)))
}

/// Makes a hidden payload visible, as if it had come now; its patch, or `None` if it is not hidden or not there any more.
pub async fn unstage(
    run: &impl Run,
    id: i64,
    source: &str,
    added_by: &str,
) -> Result<Option<i32>, DbError> {
    let row = run.opt(&UNSTAGE, &[&id, &source, &added_by]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Makes a hidden payload one that this sync run has staged; `false` if it is not hidden or not there any more.
pub async fn stage_again(run: &impl Run, id: i64, by: i64) -> Result<bool, DbError> {
    Ok(run.opt(&STAGE_AGAIN, &[&id, &by]).await?.is_some())
}

/// The patch of a payload, which nobody else changes or removes until the transaction ends.
pub async fn patch_of(run: &impl Run, id: i64) -> Result<Option<(i32, PatchVersion)>, DbError> {
    let Some(row) = run.opt(&PATCH_OF, &[&id]).await? else {
        return Ok(None);
    };
    let code: i64 = row.get(1);
    let version = PatchVersion::from_code(code)
        .ok_or_else(|| DbError::Row(format!("patch version code {code} is not valid")))?;
    Ok(Some((row.get(0), version)))
}

/// File name, content and former damage of a payload whose standing changed.
pub type Changed = (String, Sha256, Option<String>);

fn changed(row: Option<Row>) -> Result<Option<Changed>, DbError> {
    let Some(row) = row else { return Ok(None) };
    let sha256 = Sha256::try_from(row.get::<_, &[u8]>(1))?;
    Ok(Some((row.get(0), sha256, row.get(2))))
}

/// Notes why a payload's object is not what it should be; `None` if that was noted before or there is no such payload.
pub async fn mark_damaged(run: &impl Run, id: i64, why: &str) -> Result<Option<Changed>, DbError> {
    changed(run.opt(&MARK_DAMAGED, &[&id, &why]).await?)
}

/// Notes that a payload's object is what it should be; `None` if nothing else was noted.
pub async fn clear_damaged(run: &impl Run, id: i64) -> Result<Option<Changed>, DbError> {
    changed(run.opt(&CLEAR_DAMAGED, &[&id]).await?)
}

/// Objects of the payloads after this id, by id.
pub async fn objects(run: &impl Run, after: i64, limit: i64) -> Result<Vec<ObjectOf>, DbError> {
    let rows = run.rows(&SELECT_OBJECTS, &[&after, &limit]).await?;
    let object = |row: &Row| {
        Ok(ObjectOf {
            id: row.get(0),
            filename: row.get(1),
            sha256: Sha256::try_from(row.get::<_, &[u8]>(2))?,
            size: row.get::<_, i64>(3).unsigned_abs(),
            damaged: row.get(4),
        })
    };
    rows.iter().map(object).collect()
}

/// How many payloads there are.
pub async fn count(run: &impl Run) -> Result<u64, DbError> {
    let count: i64 = run.one(&COUNT_PAYLOADS, &[]).await?.get(0);
    Ok(count.unsigned_abs())
}

/// A page of payloads, by file name.
pub async fn page(run: &impl Run, filter: &Filter, limit: i64) -> Result<Vec<Listed>, DbError> {
    let rows = run
        .rows(
            &SELECT_PAYLOAD_PAGE,
            &[
                &filter.after,
                &filter.version.map(PatchVersion::code),
                &filter.kernel.as_ref().map(ToString::to_string),
                &filter.architecture.map(Architecture::code),
                &filter.flavour,
                &limit,
            ],
        )
        .await?;
    rows.iter().map(Listed::from_row).collect()
}

/// All payloads of a patch, by kernel and architecture.
pub async fn of_patch(run: &impl Run, version: PatchVersion) -> Result<Vec<Listed>, DbError> {
    let rows = run
        .rows(&SELECT_PAYLOADS_OF_PATCH, &[&version.code()])
        .await?;
    rows.iter().map(Listed::from_row).collect()
}
