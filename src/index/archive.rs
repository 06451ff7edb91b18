//! An archive for a site without network: its manifest, signed and believed, and how its content is cut into volumes. Pure.
//!
//! Invariant: manifest, state and list of contents determine every byte of every volume. A reader therefore asks of each byte
//! whether it is the one expected, and never has to decide what to make of a strange tar file.

use super::head::{Known, Refusal, SKEW, follows, seal_as, signed_by_one, sound};
use super::{IntakeFilter, State};
use crate::domain::{PublicKey, Sha256, SigningKey};
use crate::wire::archive::{
    ArchiveManifest, FORMAT, FilterRecord, FleetStatus, Part, Since, VolumeRecord,
};
use crate::wire::sync::{Head, PayloadRecord, SignedHead};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// What manifests are signed as.
pub const ARCHIVE_CONTEXT: &str = "livepatch-onprem archive 1";
/// What a fleet's status is signed as.
pub const STATUS_CONTEXT: &str = "livepatch-onprem fleet status 1";
/// The longest signed manifest that is read, in bytes.
pub const MAX_MANIFEST: u64 = 2 << 20;
/// The most volumes that an archive has.
const MAX_VOLUMES: usize = 9_999;
/// The name of the state in the first volume.
pub const STATE_NAME: &str = "state.jsonl";
/// The name of the list of contents in the first volume.
pub const CONTENTS_NAME: &str = "contents.txt";
/// Payloads lie under this name.
const PAYLOADS: &str = "payloads/";
const BLOCK: u64 = 512;
/// The two empty blocks that end a tar file.
pub const END: u64 = 2 * BLOCK;

/// A file in a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeEntry {
    /// Its path in the tar file.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Content.
    pub sha256: Sha256,
}

/// Why a tar file cannot hold what it is to hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The name does not fit.
    #[error("{0} has a name that is too long for a tar file")]
    LongName(String),
    /// Something does not fit into a volume.
    #[error(
        "{what} does not fit: a volume with it has {needs} bytes, but may have {limit}; give --volume-size at least {needs}"
    )]
    TooBig {
        /// What.
        what: String,
        /// Bytes that a volume with it alone has.
        needs: u64,
        /// Bytes of a volume.
        limit: u64,
    },
    /// Too many volumes.
    #[error("it would have more than {MAX_VOLUMES} volumes; give a larger --volume-size")]
    TooManyVolumes,
    /// The manifest does not fit the state or the list of contents.
    #[error("{0}")]
    Misfit(String),
}

impl VolumeEntry {
    /// The name without folder.
    pub fn name(&self) -> &str {
        self.path.strip_prefix(PAYLOADS).unwrap_or(&self.path)
    }

    /// Whether it is a payload.
    pub fn is_payload(&self) -> bool {
        self.path.starts_with(PAYLOADS)
    }

    /// Its tar header. The same name and size always give the same header: no owner, no time.
    pub fn header(&self) -> Result<[u8; BLOCK as usize], LayoutError> {
        header(&self.path, self.size)
    }

    /// Bytes that follow the content, up to the next header.
    pub fn padding(&self) -> u64 {
        padding(self.size)
    }

    /// Bytes that it takes in a volume.
    pub fn span(&self) -> u64 {
        span(self.size)
    }
}

fn header(path: &str, size: u64) -> Result<[u8; BLOCK as usize], LayoutError> {
    let long = |_| LayoutError::LongName(path.to_owned());
    let mut header = tar::Header::new_ustar();
    header.set_path(path).map_err(long)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(*header.as_bytes())
}

const fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

const fn span(size: u64) -> u64 {
    BLOCK + size.next_multiple_of(BLOCK)
}

/// The header of a manifest of `size` bytes in volume `number`, from 1.
pub fn manifest_header(number: usize, size: u64) -> [u8; BLOCK as usize] {
    // The name is short and ours.
    header(&format!("manifest-{number:04}.json"), size).unwrap_or([0; BLOCK as usize])
}

/// Bytes that a manifest takes in a volume.
pub const fn manifest_span(size: u64) -> u64 {
    span(size)
}

/// Reads the header at the beginning of a volume: the number of the volume and the size of the manifest. `None` if it is not exactly
/// the header that [`manifest_header`] makes.
pub fn read_manifest_header(block: &[u8; BLOCK as usize]) -> Option<(usize, u64)> {
    let read = tar::Header::from_byte_slice(block);
    let name = read.path_bytes();
    let number = std::str::from_utf8(&name)
        .ok()?
        .strip_prefix("manifest-")?
        .strip_suffix(".json")?;
    let number: usize = number.parse().ok()?;
    let size = read.entry_size().ok()?;
    let good = (1..=MAX_VOLUMES).contains(&number)
        && (1..=MAX_MANIFEST).contains(&size)
        && manifest_header(number, size) == *block;
    good.then_some((number, size))
}

/// Signs a manifest with each of these keys. Fails only if openssl or serde does.
pub fn seal_manifest(
    manifest: &ArchiveManifest,
    keys: &[SigningKey],
) -> Result<SignedHead, String> {
    seal_as(ARCHIVE_CONTEXT, manifest, keys)
}

/// Believes a manifest or says why not. `trusted` are the keys that are good; without any, nothing is believed. `late`: also one that
/// has expired.
pub fn accept_manifest(
    sealed: &SignedHead,
    trusted: &[PublicKey],
    now: Timestamp,
    late: bool,
) -> Result<ArchiveManifest, Refusal> {
    signed_by_trusted(ARCHIVE_CONTEXT, sealed, trusted)?;
    let unreadable = |why: String| Refusal::Unreadable(why);
    let manifest: ArchiveManifest =
        serde_json::from_str(&sealed.signed).map_err(|e| unreadable(e.to_string()))?;
    if manifest.format != FORMAT {
        return Err(Refusal::Format(manifest.format));
    }
    sound(&manifest.index, now)?;
    let volumes = manifest.volumes.len();
    if !(1..=MAX_VOLUMES).contains(&volumes) {
        return Err(unreadable(format!("it names {volumes} volumes")));
    }
    if manifest.contents.bytes > super::MAX_STATE {
        return Err(Refusal::TooLong(manifest.contents.bytes));
    }
    if !late && manifest.index.expires_at <= now {
        return Err(Refusal::Expired {
            expires_at: manifest.index.expires_at,
        });
    }
    Ok(manifest)
}

/// Signs a fleet's status with each of these keys. Fails only if openssl or serde does.
pub fn seal_status(status: &FleetStatus, keys: &[SigningKey]) -> Result<SignedHead, String> {
    seal_as(STATUS_CONTEXT, status, keys)
}

/// Believes a fleet's status or says why not. Without any trusted key, nothing is believed.
pub fn accept_status(
    sealed: &SignedHead,
    trusted: &[PublicKey],
    now: Timestamp,
) -> Result<FleetStatus, Refusal> {
    signed_by_trusted(STATUS_CONTEXT, sealed, trusted)?;
    let status: FleetStatus =
        serde_json::from_str(&sealed.signed).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    if status.format != FORMAT {
        return Err(Refusal::Format(status.format));
    }
    if status.issued_at > now + SKEW {
        return Err(Refusal::FromTheFuture {
            issued_at: status.issued_at,
        });
    }
    Ok(status)
}

/// As [`signed_by_one`], but there is no first contact: without a trusted key nothing is believed.
fn signed_by_trusted(
    context: &str,
    sealed: &SignedHead,
    trusted: &[PublicKey],
) -> Result<(), Refusal> {
    if !trusted.is_empty() {
        return signed_by_one(context, sealed, trusted);
    }
    let signed_by: Vec<String> = sealed
        .signatures
        .iter()
        .take(16)
        .map(|signature| signature.key.to_string())
        .collect();
    Err(Refusal::WrongKey {
        trusted: "none".to_owned(),
        signed_by: signed_by.join(", "),
    })
}

/// Whether this archive may come after what was taken in before.
pub fn comes_after(manifest: &ArchiveManifest, known: &Known) -> Result<(), Refusal> {
    follows(&manifest.index, known)
}

/// What is to be carried.
#[derive(Debug)]
pub struct Load<'a> {
    /// Names the state.
    pub head: Head,
    /// The whole state.
    pub state: &'a State,
    /// What it was narrowed to.
    pub filter: FilterRecord,
    /// The payloads that are there already, by name.
    pub since: Option<(Since, BTreeMap<String, Sha256>)>,
    /// The most bytes of a volume.
    pub limit: Option<u64>,
}

/// A manifest and what stands in each volume behind it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// To be signed.
    pub manifest: ArchiveManifest,
    /// The list of contents.
    pub contents: String,
    /// Entries of each volume, after the manifest.
    pub volumes: Vec<Vec<VolumeEntry>>,
}

impl Plan {
    /// Bytes of all payloads that are carried.
    pub fn payload_bytes(&self) -> u64 {
        self.volumes.iter().flatten().map(|e| e.size).sum()
    }

    /// Payloads that are carried.
    pub fn payloads(&self) -> u64 {
        self.manifest.volumes.iter().map(|v| v.payloads).sum()
    }
}

/// Cuts a load into volumes. `manifest_size` is asked how long a manifest will be once it is signed.
pub fn plan(
    load: &Load<'_>,
    manifest_size: impl Fn(&ArchiveManifest) -> Result<u64, String>,
) -> Result<Plan, LayoutError> {
    let there = load.since.as_ref().map(|(_, names)| names);
    let carried: BTreeMap<String, PayloadRecord> = load
        .state
        .payloads()
        .filter(|p| there.is_none_or(|there| there.get(&p.filename) != Some(&p.sha256)))
        .map(|p| (p.filename.clone(), p))
        .collect();
    let contents: String = carried.keys().flat_map(|name| [name, "\n"]).collect();
    let contents_part = Part {
        digest: Sha256::of(contents.as_bytes()),
        bytes: contents.len() as u64,
    };
    let mut entries = leading(&load.head, &contents_part);
    entries.extend(carried.values().map(payload_entry));
    for entry in &entries {
        entry.header()?;
    }
    let mut manifest = ArchiveManifest {
        format: FORMAT,
        index: load.head.clone(),
        filter: load.filter.clone(),
        since: load.since.as_ref().map(|(since, _)| since.clone()),
        contents: contents_part,
        volumes: Vec::new(),
    };
    let size = |manifest: &ArchiveManifest| {
        manifest_size(manifest)
            .map(manifest_span)
            .map_err(LayoutError::Misfit)
    };
    // How long the manifest is depends on how many volumes it names, and so the other way round: it only grows.
    let mut reserve = size(&manifest)?;
    loop {
        let room = load.limit.map(|limit| limit.saturating_sub(reserve + END));
        let volumes = cut(&entries, room, |entry, spans| LayoutError::TooBig {
            what: entry.name().to_owned(),
            needs: spans + reserve + END,
            limit: load.limit.unwrap_or(u64::MAX),
        })?;
        manifest.volumes = volumes.iter().map(|entries| record(entries)).collect();
        let needs = size(&manifest)?;
        if needs <= reserve || load.limit.is_none() {
            return Ok(Plan {
                manifest,
                contents,
                volumes,
            });
        }
        reserve = needs;
    }
}

fn record(entries: &[VolumeEntry]) -> VolumeRecord {
    VolumeRecord {
        payloads: entries.iter().filter(|e| e.is_payload()).count() as u64,
        bytes: entries.iter().map(VolumeEntry::span).sum::<u64>() + END,
    }
}

fn cut(
    entries: &[VolumeEntry],
    room: Option<u64>,
    too_big: impl Fn(&VolumeEntry, u64) -> LayoutError,
) -> Result<Vec<Vec<VolumeEntry>>, LayoutError> {
    let mut volumes = vec![Vec::new()];
    let mut used = 0;
    for (at, entry) in entries.iter().enumerate() {
        let span = entry.span();
        // State and list belong into the first volume, whatever comes behind them.
        let full = room.is_some_and(|room| used + span > room);
        if full && (used == 0 || at < 2) {
            return Err(too_big(entry, used + span));
        }
        if full {
            volumes.push(Vec::new());
            used = 0;
            if room.is_some_and(|room| span > room) {
                return Err(too_big(entry, span));
            }
        }
        if let Some(volume) = volumes.last_mut() {
            volume.push(entry.clone());
        }
        used += span;
    }
    if volumes.len() > MAX_VOLUMES {
        return Err(LayoutError::TooManyVolumes);
    }
    Ok(volumes)
}

/// State and list of contents, with which the first volume begins.
fn leading(head: &Head, contents: &Part) -> Vec<VolumeEntry> {
    let entry = |path: &str, size, sha256| VolumeEntry {
        path: path.to_owned(),
        size,
        sha256,
    };
    vec![
        entry(STATE_NAME, head.bytes, head.digest),
        entry(CONTENTS_NAME, contents.bytes, contents.digest),
    ]
}

fn payload_entry(payload: &PayloadRecord) -> VolumeEntry {
    VolumeEntry {
        path: format!("{PAYLOADS}{}", payload.filename),
        size: payload.size,
        sha256: payload.sha256,
    }
}

/// State and list of contents as a manifest names them: what the first volume begins with.
pub fn leading_entries(manifest: &ArchiveManifest) -> Vec<VolumeEntry> {
    leading(&manifest.index, &manifest.contents)
}

/// What stands in each volume, by manifest, state and list of contents. Fails if they do not fit each other.
pub fn entries(
    manifest: &ArchiveManifest,
    state: &State,
    contents: &str,
) -> Result<Vec<Vec<VolumeEntry>>, LayoutError> {
    let misfit = |why: String| Err(LayoutError::Misfit(why));
    let payloads: BTreeMap<String, PayloadRecord> = state
        .payloads()
        .map(|payload| (payload.filename.clone(), payload))
        .collect();
    if payloads.len() as u64 != manifest.index.payloads {
        return misfit(format!(
            "the manifest speaks of {} payloads, the state names {}",
            manifest.index.payloads,
            payloads.len()
        ));
    }
    let mut carried = Vec::new();
    let mut last = "";
    for name in contents.lines() {
        if name <= last && !carried.is_empty() {
            return misfit(format!(
                "{name} is not in its place in the list of contents"
            ));
        }
        let Some(payload) = payloads.get(name) else {
            return misfit(format!("{name} is carried, but not in the state"));
        };
        carried.push(payload_entry(payload));
        last = name;
    }
    let mut rest = carried.into_iter();
    let mut volumes = Vec::new();
    for (at, volume) in manifest.volumes.iter().enumerate() {
        let mut entries = if at == 0 {
            leading_entries(manifest)
        } else {
            Vec::new()
        };
        entries.extend(rest.by_ref().take(volume.payloads as usize));
        for entry in &entries {
            entry.header()?;
        }
        let got = record(&entries);
        if got != *volume {
            return misfit(format!(
                "volume {} should hold {} payloads in {} bytes, but by the list they are {} in {}",
                at + 1,
                volume.payloads,
                volume.bytes,
                got.payloads,
                got.bytes
            ));
        }
        volumes.push(entries);
    }
    match rest.next() {
        Some(entry) => misfit(format!("{} is in no volume", entry.name())),
        None => Ok(volumes),
    }
}

impl From<&IntakeFilter> for FilterRecord {
    /// What only a deployment's own machines decide is not part of it.
    fn from(filter: &IntakeFilter) -> Self {
        Self {
            architectures: filter.architectures.clone(),
            flavours: filter.flavours.clone(),
            minimum_kernel: filter.minimum_kernel.map(|kernel| kernel.to_string()),
            kernel_prefixes: filter.kernel_prefixes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_exact_header_begins_a_volume() {
        let good = manifest_header(12, 1_234);
        assert_eq!(read_manifest_header(&good), Some((12, 1_234)));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good;
                bad[at] ^= 1 << bit;
                // Another number is another volume, but its checksum would have to agree.
                assert_eq!(read_manifest_header(&bad), None, "{at} {bit}");
            }
        }
        for (number, size) in [
            (0, 10),
            (MAX_VOLUMES + 1, 10),
            (1, 0),
            (1, MAX_MANIFEST + 1),
        ] {
            assert_eq!(read_manifest_header(&manifest_header(number, size)), None);
        }
        assert_eq!(read_manifest_header(&[0; 512]), None);
    }

    #[test]
    fn a_name_that_no_header_holds_is_refused() {
        let entry = VolumeEntry {
            path: format!("payloads/{}", "x".repeat(300)),
            size: 1,
            sha256: Sha256([0; 32]),
        };
        assert!(matches!(entry.header(), Err(LayoutError::LongName(_))));
    }

    proptest! {
        #[test]
        fn no_block_panics(bytes in proptest::collection::vec(any::<u8>(), 512), name in "manifest-[0-9+-]{0,30}\\.json", size in "[0-9]{0,12}") {
            let mut block: [u8; 512] = bytes.try_into().unwrap_or([0; 512]);
            prop_assert_eq!(read_manifest_header(&block), None);
            block[..name.len()].copy_from_slice(name.as_bytes());
            block[124..124 + size.len()].copy_from_slice(size.as_bytes());
            let _ = read_manifest_header(&block);
        }
    }
}
