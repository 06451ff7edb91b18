//! The catalog: tiers, payloads and where each stands, resolved once when it is built so that a decision only looks up.
//!
//! Invariants: payloads of one kernel and architecture are in falling order of version; a payload's `reach` is an index
//! into `tiers`; scopes of promotions and blocks are already applied.

use super::support::{SupportRow, SupportTable};
use crate::domain::{Architecture, Fix, KernelVersion, PatchVersion, Scope, Sha256, TierName};
use std::collections::HashMap;
use std::sync::Arc;

/// A tier in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Database id.
    pub id: i32,
    /// Name.
    pub name: TierName,
}

/// Whether a payload may be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Free,
    /// An administrator or upstream stopped new offers; who has it keeps it.
    Held,
    /// Withdrawn; who has it may fall back to a lower version.
    Blocked,
    /// Its object was found missing or altered; fetched again before it is offered.
    Damaged,
}

/// A payload in the snapshot.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Database id.
    pub id: i64,
    /// Patch version.
    pub version: PatchVersion,
    /// Exact kernel.
    pub kernel: KernelVersion,
    /// Architecture.
    pub architecture: Architecture,
    /// Canonical's file name.
    pub filename: Arc<str>,
    /// Content.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// What it mends.
    pub fixes: Arc<[Fix]>,
    /// It carries the flag "this kernel is obsolete, upgrade it".
    pub obsolete: bool,
    /// Index of the last tier it has reached; `None`: not yet in any.
    pub reach: Option<u16>,
    /// Whether it may be offered.
    pub standing: Standing,
}

/// A row of `tiers`, in order of position.
pub type TierRow = Tier;

/// A row of `patches`.
#[derive(Debug, Clone, Copy)]
pub struct PatchRow {
    /// Database id.
    pub id: i32,
    /// Version.
    pub version: PatchVersion,
}

/// A row of `payloads`, as far as the engine needs it.
#[derive(Debug, Clone)]
pub struct PayloadRow {
    /// Database id.
    pub id: i64,
    /// Its patch.
    pub patch_id: i32,
    /// Exact kernel.
    pub kernel: KernelVersion,
    /// Architecture.
    pub architecture: Architecture,
    /// File name.
    pub filename: String,
    /// Content.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// What it mends.
    pub fixes: Arc<[Fix]>,
    /// Obsolete-kernel flag.
    pub obsolete: bool,
    /// Object missing or altered.
    pub damaged: bool,
}

/// A row of `promotions`.
#[derive(Debug, Clone)]
pub struct PromotionRow {
    /// Its patch.
    pub patch_id: i32,
    /// The tier it reached.
    pub tier_id: i32,
    /// For which kernels.
    pub scope: Scope,
}

/// Block or hold; the discriminant is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i16)]
pub enum BlockKind {
    /// Withdrawn.
    Block = 1,
    /// Not offered anew.
    Hold = 2,
}

/// A standing row of `blocks`.
#[derive(Debug, Clone)]
pub struct BlockRow {
    /// Its patch.
    pub patch_id: i32,
    /// Block or hold.
    pub kind: BlockKind,
    /// For which kernels.
    pub scope: Scope,
}

/// What a catalog is built from.
#[derive(Debug, Clone, Default)]
pub struct CatalogRows {
    /// In order of position.
    pub tiers: Vec<TierRow>,
    /// All patches.
    pub patches: Vec<PatchRow>,
    /// All payloads.
    pub payloads: Vec<PayloadRow>,
    /// All promotions.
    pub promotions: Vec<PromotionRow>,
    /// Blocks and holds that stand.
    pub blocks: Vec<BlockRow>,
    /// Supported kernels.
    pub support: Vec<SupportRow>,
}

/// Tiers, payloads and supported kernels, ready for decisions.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    tiers: Vec<Tier>,
    payloads: Vec<Payload>,
    /// Kernel text to runs of `payloads` by architecture.
    by_kernel: HashMap<Box<str>, Vec<(Architecture, std::ops::Range<u32>)>>,
    by_filename: HashMap<Arc<str>, u32>,
    support: SupportTable,
}

impl Catalog {
    /// Resolves scopes and sorts. Rows that point at unknown patches or tiers are passed over; the database's
    /// foreign keys exclude them.
    pub fn build(rows: CatalogRows) -> Self {
        let tier_index: HashMap<i32, u16> = rows
            .tiers
            .iter()
            .enumerate()
            .map(|(index, tier)| (tier.id, index as u16))
            .collect();
        let versions: HashMap<i32, PatchVersion> =
            rows.patches.iter().map(|p| (p.id, p.version)).collect();
        let mut promotions: HashMap<i32, Vec<(u16, Scope)>> = HashMap::new();
        for row in rows.promotions {
            if let Some(index) = tier_index.get(&row.tier_id) {
                promotions
                    .entry(row.patch_id)
                    .or_default()
                    .push((*index, row.scope));
            }
        }
        let mut blocks: HashMap<i32, Vec<(BlockKind, Scope)>> = HashMap::new();
        for row in rows.blocks {
            blocks
                .entry(row.patch_id)
                .or_default()
                .push((row.kind, row.scope));
        }
        let mut payloads: Vec<Payload> = rows
            .payloads
            .into_iter()
            .filter_map(|row| {
                let version = *versions.get(&row.patch_id)?;
                let reach = promotions
                    .get(&row.patch_id)
                    .into_iter()
                    .flatten()
                    .filter(|(_, scope)| scope.covers(&row.kernel, row.architecture))
                    .map(|(index, _)| *index)
                    .max();
                let stop = blocks
                    .get(&row.patch_id)
                    .into_iter()
                    .flatten()
                    .filter(|(_, scope)| scope.covers(&row.kernel, row.architecture))
                    .map(|(kind, _)| *kind)
                    .min();
                let standing = match stop {
                    Some(BlockKind::Block) => Standing::Blocked,
                    _ if row.damaged => Standing::Damaged,
                    Some(BlockKind::Hold) => Standing::Held,
                    None => Standing::Free,
                };
                Some(Payload {
                    id: row.id,
                    version,
                    kernel: row.kernel,
                    architecture: row.architecture,
                    filename: row.filename.into(),
                    sha256: row.sha256,
                    size: row.size,
                    fixes: row.fixes,
                    obsolete: row.obsolete,
                    reach,
                    standing,
                })
            })
            .collect();
        payloads.sort_unstable_by(|a, b| {
            (&a.kernel, a.architecture, b.version).cmp(&(&b.kernel, b.architecture, a.version))
        });
        let mut by_kernel: HashMap<Box<str>, Vec<(Architecture, std::ops::Range<u32>)>> =
            HashMap::new();
        let mut start = 0;
        for run in
            payloads.chunk_by(|a, b| a.kernel == b.kernel && a.architecture == b.architecture)
        {
            let end = start + run.len() as u32;
            by_kernel
                .entry(run[0].kernel.to_string().into_boxed_str())
                .or_default()
                .push((run[0].architecture, start..end));
            start = end;
        }
        let by_filename = payloads
            .iter()
            .enumerate()
            .map(|(index, p)| (Arc::clone(&p.filename), index as u32))
            .collect();
        Self {
            tiers: rows.tiers,
            payloads,
            by_kernel,
            by_filename,
            support: SupportTable::new(rows.support),
        }
    }

    /// Tiers, first to last.
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// The place of a tier by its database id.
    pub fn tier_index(&self, id: i32) -> Option<u16> {
        self.tiers
            .iter()
            .position(|tier| tier.id == id)
            .map(|index| index as u16)
    }

    /// The place of a tier by name.
    pub fn tier_named(&self, name: &TierName) -> Option<u16> {
        self.tiers
            .iter()
            .position(|tier| tier.name == *name)
            .map(|index| index as u16)
    }

    /// All payloads, by kernel and architecture, highest version first.
    pub fn payloads(&self) -> &[Payload] {
        &self.payloads
    }

    /// Payloads for exactly this kernel and architecture, highest version first.
    pub fn for_kernel(&self, kernel: &str, architecture: Architecture) -> &[Payload] {
        self.by_kernel
            .get(kernel)
            .and_then(|runs| runs.iter().find(|(arch, _)| *arch == architecture))
            .map_or(&[], |(_, range)| {
                &self.payloads[range.start as usize..range.end as usize]
            })
    }

    /// The payload of this file name.
    pub fn by_filename(&self, filename: &str) -> Option<&Payload> {
        self.by_filename
            .get(filename)
            .map(|index| &self.payloads[*index as usize])
    }

    /// The table of supported kernels.
    pub fn support(&self) -> &SupportTable {
        &self.support
    }
}
