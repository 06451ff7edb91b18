//! Makes a bundle: signs the module, describes it, and packs both.
//!
//! Invariants: the same input gives the same bytes (no times, no owners); what is packed passes [`super::examine`].

use super::error::ReadError;
use super::manifest::{MANIFEST_NAME, Manifest};
use super::module::ModuleInfo;
use super::sign::{SignError, sign};
use super::signature::is_signed;
use super::{BundleName, Limits};
use crate::domain::Fix;
use bzip2::Compression;
use bzip2::write::BzEncoder;
use std::io::Write;

/// Where the module's signature comes from.
#[derive(Debug, Clone, Copy)]
pub enum Signing<'a> {
    /// Sign with this key.
    With {
        /// The private key, PEM, unencrypted.
        key_pem: &'a [u8],
        /// The signer's certificate, PEM or DER.
        cert_pem: &'a [u8],
    },
    /// The module was signed elsewhere, e.g. with a key in hardware: keep it as it is.
    Keep,
    /// Leave the module without a signature. Such a bundle is served only under a policy that does not require one.
    None,
}

/// What to pack.
#[derive(Debug, Clone)]
pub struct PackInput<'a> {
    /// The kernel module.
    pub ko: &'a [u8],
    /// What the bundle is to be.
    pub name: &'a BundleName,
    /// What the patch mends.
    pub fixes: Vec<Fix>,
    /// Where the signature comes from.
    pub signing: Signing<'a>,
    /// Whether this is the kernel's last patch.
    pub obsolete: bool,
    /// Written into the manifest if given; leave it out for bytes that can be reproduced.
    pub built_at: Option<jiff::Timestamp>,
}

/// Why a bundle could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The module is not fit for a bundle of that name, as a reader of the bundle would say it.
    #[error(transparent)]
    Content(#[from] ReadError),
    /// The module could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A module whose signature is to be kept has none.
    #[error(
        "the module carries no signature that could be kept; sign it first, or give key and certificate"
    )]
    Unsigned,
    /// The archive could not be written.
    #[error("the archive could not be written: {0}")]
    Write(#[from] std::io::Error),
}

/// Makes a bundle; its file name is `input.name` as text.
pub fn pack(input: &PackInput<'_>) -> Result<Vec<u8>, PackError> {
    let own_name = input.name.kernel.module_name(input.name.version.major);
    let info = ModuleInfo::read(input.ko).map_err(|why| ReadError::Module {
        name: format!("{own_name}.ko"),
        why,
    })?;
    info.agree(input.name)?;
    let entry = format!("{}.ko", info.name.as_deref().unwrap_or(&own_name));
    let signed;
    let module = match input.signing {
        Signing::With { key_pem, cert_pem } => {
            signed = sign(input.ko, key_pem, cert_pem)?;
            signed.as_slice()
        }
        Signing::Keep if !is_signed(input.ko) => return Err(PackError::Unsigned),
        Signing::Keep | Signing::None => input.ko,
    };
    let mut manifest = Manifest::new(input.name, &entry, module);
    manifest.fixes.clone_from(&input.fixes);
    manifest.obsolete = input.obsolete;
    manifest.built_at = input.built_at;
    let manifest = manifest.to_json().map_err(ReadError::Manifest)?;

    let mut archive = tar::Builder::new(BzEncoder::new(Vec::new(), Compression::best()));
    append(&mut archive, MANIFEST_NAME, &manifest)?;
    append(&mut archive, &entry, module)?;
    let bytes = archive.into_inner()?.finish()?;
    // What no reader would take must not leave the packer.
    super::examine(input.name, bytes.as_slice(), &Limits::default(), None)?;
    Ok(bytes)
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    content: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    archive.append(&header, content)
}
