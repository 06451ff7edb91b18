//! The one way to look into a bundle: read it within bounds, hold it against its name, check its signature.
//!
//! Invariant: [`Examined`] exists only for a bundle whose content agrees with its name; whether it may be served is
//! said by [`Examined::verdict`] alone.

use super::archive::{self, Entry, Limits};
use super::error::{ReadError, SignatureError};
use super::manifest::{MANIFEST_NAME, Manifest};
use super::module::ModuleInfo;
use super::signature::{self, Signature};
use super::stream::Workspace;
use super::{BundleName, TrustStore};
use crate::domain::Fix;
use crate::domain::Sha256;
use std::io::Read;

/// How a signature that does not verify is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Refuse the bundle.
    Require,
    /// Accept it and say so.
    Warn,
    /// Do not look.
    Off,
}

/// Whether a bundle may be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Accepted,
    /// Yes, but a person should know this.
    AcceptedWithWarning(String),
    /// No, for this reason.
    Refused(String),
}

/// What a bundle holds, and whether its module's signature verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The module's name once loaded.
    pub module_name: String,
    /// The kernel release and build options the module says it was built for.
    pub vermagic: Option<String>,
    /// Whether the module declares itself a live patch.
    pub livepatch: bool,
    /// Digest of the module with its signature.
    pub module_sha256: Sha256,
    /// Size of the module with its signature, in bytes.
    pub module_size: u64,
    /// What the patch mends, as far as our manifest says it.
    pub fixes: Vec<Fix>,
    /// Whether our manifest marks the kernel as obsolete.
    pub obsolete: bool,
    /// Every file in the archive.
    pub entries: Vec<Entry>,
    /// The names of those that are neither the module nor our manifest.
    pub other_files: Vec<String>,
    /// The signature that verified, or why none did.
    pub signature: Result<Signature, SignatureError>,
}

impl Examined {
    /// What follows from the signature under a policy.
    pub fn verdict(&self, policy: Policy) -> Verdict {
        match (&self.signature, policy) {
            (Ok(_), _) | (Err(_), Policy::Off) => Verdict::Accepted,
            (Err(e), Policy::Warn) => Verdict::AcceptedWithWarning(e.to_string()),
            (Err(e), Policy::Require) => Verdict::Refused(e.to_string()),
        }
    }
}

/// Reads a whole bundle and checks everything that can be checked. Without `trust` no signer is known, so the
/// signature counts as [`SignatureError::UntrustedSigner`] at best.
///
/// # Errors
/// [`ReadError::Source`] if `reader` failed; any other means that the bundle must not be used.
pub fn examine(
    name: &BundleName,
    reader: impl Read,
    limits: &Limits,
    trust: Option<&TrustStore>,
) -> Result<Examined, ReadError> {
    examine_in(&mut Workspace::default(), name, reader, limits, trust)
}

/// As [`examine`], in memory that can be used again.
pub fn examine_in(
    workspace: &mut Workspace,
    name: &BundleName,
    reader: impl Read,
    limits: &Limits,
    trust: Option<&TrustStore>,
) -> Result<Examined, ReadError> {
    extract(workspace, name, reader, limits, trust).map(|(examined, _)| examined)
}

/// As [`examine`], and gives the module's bytes with their signature. They are not to be used before
/// [`Examined::verdict`] accepts them.
pub fn extract_module(
    name: &BundleName,
    reader: impl Read,
    limits: &Limits,
    trust: Option<&TrustStore>,
) -> Result<(Examined, Vec<u8>), ReadError> {
    extract(&mut Workspace::default(), name, reader, limits, trust)
}

fn extract(
    workspace: &mut Workspace,
    name: &BundleName,
    reader: impl Read,
    limits: &Limits,
    trust: Option<&TrustStore>,
) -> Result<(Examined, Vec<u8>), ReadError> {
    let archive = archive::read(reader, limits, workspace)?;
    let info = ModuleInfo::read(&archive.module).map_err(|why| ReadError::Module {
        name: archive.module_entry.clone(),
        why,
    })?;
    info.agree(name)?;
    let module_sha256 = Sha256::of(&archive.module);
    let manifest = match &archive.metadata {
        Some(bytes) => Manifest::read(bytes).map_err(ReadError::Manifest)?,
        None => None,
    };
    if let Some(manifest) = &manifest {
        manifest.agree(name, &archive.module_entry, module_sha256)?;
    }
    let ours = manifest.is_some();
    let other_files = archive
        .entries
        .iter()
        .map(|entry| &entry.name)
        .filter(|name| **name != archive.module_entry && !(ours && *name == MANIFEST_NAME))
        .cloned()
        .collect();
    let (fixes, obsolete) = manifest.map_or((Vec::new(), false), |m| (m.fixes, m.obsolete));
    let empty = TrustStore::new();
    let examined = Examined {
        module_name: info
            .name
            .unwrap_or_else(|| loaded_name(&archive.module_entry)),
        vermagic: info.vermagic,
        livepatch: info.livepatch,
        module_sha256,
        module_size: archive.module.len() as u64,
        fixes,
        obsolete,
        entries: archive.entries,
        other_files,
        signature: signature::verify(&archive.module, trust.unwrap_or(&empty)),
    };
    Ok((examined, archive.module))
}

/// The name the kernel gives a module that does not name itself: that of its file, with `_` for `-`.
fn loaded_name(entry: &str) -> String {
    let file = entry.rsplit('/').next().unwrap_or(entry);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    stem.replace('-', "_")
}
