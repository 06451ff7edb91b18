//! Why a bundle could not be read or contradicts its name, and why a signature does not count. The second is not an
//! error of reading: it is part of what [`super::Examined`] says.

use super::manifest::ManifestError;
use super::module::ModuleError;
use std::io;

/// Why a bundle was not read to its end, or is not what its name says.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The reader that was given failed: the bundle itself is not to blame, reading may be tried again.
    #[error("the bundle could not be read from where it is kept: {0}")]
    Source(#[source] io::Error),
    /// More compressed bytes than allowed.
    #[error("the bundle is larger than {limit} bytes, the limit for a compressed bundle")]
    PackedTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The bytes are not bzip2, or are damaged, or something follows the compressed data.
    #[error(
        "the bundle is not one whole bzip2 file: {why}; it is damaged or of another kind, fetch it again"
    )]
    Compression {
        /// What the decompressor says.
        why: String,
    },
    /// The file ends too early.
    #[error("the bundle ends too early, inside {inside}; fetch it again")]
    Truncated {
        /// What was being read.
        inside: String,
    },
    /// More unpacked bytes than allowed.
    #[error("the bundle unpacks to more than {limit} bytes, the limit for one bundle")]
    UnpackedTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// Compressed so strongly that it must be a decompression bomb.
    #[error(
        "the bundle unpacks to more than {limit} times its size; it is refused as a decompression bomb"
    )]
    Ratio {
        /// The limit: unpacked bytes for each compressed one.
        limit: u64,
    },
    /// More entries than allowed.
    #[error("the archive has more than {limit} entries, the limit for one bundle")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// An entry's name is not a plain relative path.
    #[error("the archive holds an entry named {name:?}, which is refused: {why}")]
    UnsafeName {
        /// The name, shortened.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// An entry that is neither a file nor a directory.
    #[error(
        "the archive's entry {name:?} is a {kind}; a bundle may hold files and directories only"
    )]
    EntryKind {
        /// The name, shortened.
        name: String,
        /// What the entry is.
        kind: String,
    },
    /// Two entries of one name.
    #[error("the archive holds {name:?} twice; which one is meant cannot be known")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// One entry is larger than allowed for its kind.
    #[error("the archive's entry {name:?} has {size} bytes; at most {limit} are allowed")]
    EntryTooLarge {
        /// The name.
        name: String,
        /// Its size, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The tar structure is wrong.
    #[error("the archive is not a valid tar file: {why}")]
    Tar {
        /// What is wrong.
        why: String,
    },
    /// No kernel module inside.
    #[error("the archive holds no kernel module among its {files} files; a bundle has exactly one")]
    NoModule {
        /// How many files there are.
        files: usize,
    },
    /// More than one kernel module inside.
    #[error(
        "the archive holds two kernel modules, {first:?} and {second:?}; a bundle has exactly one"
    )]
    SeveralModules {
        /// The first one's name.
        first: String,
        /// The second one's name.
        second: String,
    },
    /// The module is not a kernel module that can be read.
    #[error("{name:?} in the archive is not a kernel module that can be read: {why}")]
    Module {
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        #[source]
        why: ModuleError,
    },
    /// The content contradicts the file name.
    #[error(
        "the bundle's name says {what} {named}, but {source_of} says {found}; it is another payload under a wrong name"
    )]
    Disagrees {
        /// What is compared, e.g. `kernel`.
        what: &'static str,
        /// What follows from the file name.
        named: String,
        /// Which part of the content contradicts, e.g. `the module's vermagic`.
        source_of: &'static str,
        /// What stands there, shortened.
        found: String,
    },
    /// The metadata is ours, but wrong.
    #[error("the bundle's metadata.json is wrong: {0}")]
    Manifest(#[source] ManifestError),
}

impl ReadError {
    /// Whether the bundle's bytes could not be fetched, as against being wrong: nothing is then known about the bundle.
    pub fn is_source(&self) -> bool {
        matches!(self, Self::Source(_))
    }
}

/// Why a module's signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No signature at the module's end.
    #[error("the module carries no signature")]
    Missing,
    /// A signature is there, but its structure is wrong.
    #[error("the module's signature is malformed: {why}")]
    Malformed {
        /// What is wrong.
        why: String,
    },
    /// The signature is larger than any real one.
    #[error("the module's signature claims {size} bytes; at most {limit} are read")]
    TooLarge {
        /// Its size, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: usize,
    },
    /// An algorithm that is too weak or unknown.
    #[error(
        "the module's signature uses {what}, which is not accepted; sign with SHA-256, SHA-384 or SHA-512 and RSA or ECDSA"
    )]
    Unsupported {
        /// The algorithm, as far as it is known.
        what: String,
    },
    /// The signer is none of the installed certificates.
    #[error(
        "the module is signed by {signer}, which is none of the {installed} installed certificates; if it is to be trusted, add its certificate"
    )]
    UntrustedSigner {
        /// The signer's issuer and serial number or key id, as the signature claims.
        signer: String,
        /// The digest algorithm it claims.
        digest: &'static str,
        /// How many certificates are installed.
        installed: usize,
    },
    /// The signature names an installed certificate, but is not that key's signature of this module.
    #[error(
        "the module's signature claims {signer}, but does not fit the module: one of the two was changed"
    )]
    Mismatch {
        /// The subject of the certificate it names.
        signer: String,
    },
}

impl SignatureError {
    pub(super) fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed { why: why.into() }
    }
}

/// Text from inside a bundle, fit to stand in a message: shortened, without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .take(120)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
