//! Patch bundles: names, bounded reading, manifests, module signatures. Pure: bytes in, values out.
//!
//! [`examine`] is the one way in: it reads a bundle within [`Limits`], holds its content against its [`BundleName`]
//! and says in [`Examined`] what is inside and whether the module's signature verifies. What follows from the
//! signature is the caller's [`Policy`]. [`pack`] is the way out.

mod archive;
mod bunzip;
mod cms;
mod der;
mod error;
mod manifest;
mod module;
mod name;
mod pack;
mod pax;
mod sign;
mod signature;
mod stream;
mod trust;
mod verify;

#[cfg(test)]
mod forged;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod mismatched;
#[cfg(test)]
mod samples;

pub use archive::{Entry, Limits};
pub use error::{ReadError, SignatureError};
pub use manifest::{MANIFEST_NAME, Manifest, ManifestError};
pub use module::{ModuleError, ModuleInfo};
pub use name::BundleName;
pub use pack::{PackError, PackInput, Signing, pack};
pub use sign::{SignError, sign};
pub use signature::{MAX_SIGNATURE_BYTES, Signature, verify};
pub use stream::Workspace;
pub use trust::{CANONICAL_KEY_IDS, CertificateInfo, TrustError, TrustStore};
pub use verify::{Examined, Policy, Verdict, examine, examine_in, extract_module};
