//! What a received bundle is, and whether it may be served: the checks between the spool and the store.

use super::spool::Spooled;
use crate::bundle::{
    self, BundleName, Examined, Limits, Policy, ReadError, SignatureError, Verdict,
};
use crate::config::{self, TrustPolicy};
use crate::service::{Core, ServiceError};

/// The rule that a bundle broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// For programs.
    pub(super) code: &'static str,
    /// For people.
    pub(super) reason: String,
}

/// A bundle that may be served.
#[derive(Debug)]
pub(super) struct Good {
    /// What it holds.
    pub(super) examined: Examined,
    /// As stored: 0 not checked, 1 good, 2 not good but let pass.
    pub(super) signature: i16,
    /// What a person should know all the same.
    pub(super) warning: Option<String>,
}

/// The code of a file that has the name of another one.
pub(super) const NAME_TAKEN: &str = "name-taken";

fn limits(config: &config::Ingest) -> Limits {
    Limits {
        max_packed_bytes: config.max_bundle_bytes,
        max_unpacked_bytes: config.max_unpacked_bytes,
        max_entries: u64::from(config.max_entries),
        ..Limits::default()
    }
}

/// Examines a bundle on a thread of its own. The inner error is the bundle's fault, the outer one ours.
pub(super) async fn judge(
    core: &Core,
    name: &BundleName,
    spooled: &Spooled,
) -> Result<Result<Good, Fault>, ServiceError> {
    let (of, reader) = (name.clone(), spooled.reader());
    let (limits, trust) = (limits(&core.config.ingest), core.trust.clone());
    let mut workspace = core.gate.workspace();
    let examined = tokio::task::spawn_blocking(move || {
        let examined = bundle::examine_in(&mut workspace, &of, reader, &limits, trust.as_ref());
        (examined, workspace)
    });
    let (examined, workspace) = examined.await.map_err(|e| {
        ServiceError::Internal(format!("examining {name} did not come to an end: {e}"))
    })?;
    core.gate.give_back(workspace);
    match examined {
        Ok(examined) => Ok(weigh(examined, core.config.patch_trust.policy)),
        Err(ReadError::Source(error)) => Err(ServiceError::Unavailable(format!(
            "{name} was received, but its spooled copy cannot be read: {error}; \
             check ingest.spool-directory and send it again"
        ))),
        Err(error) => Ok(Err(Fault {
            code: read_code(&error),
            reason: error.to_string(),
        })),
    }
}

fn weigh(examined: Examined, policy: TrustPolicy) -> Result<Good, Fault> {
    let policy = match policy {
        TrustPolicy::Require => Policy::Require,
        TrustPolicy::Warn => Policy::Warn,
        TrustPolicy::Off => Policy::Off,
    };
    let mut notes = Vec::new();
    match (examined.verdict(policy), &examined.signature) {
        (Verdict::Accepted, _) => {}
        (Verdict::AcceptedWithWarning(note), _) => notes.push(note),
        (Verdict::Refused(reason), signature) => {
            let code = signature.as_ref().err().map_or("signature", signature_code);
            return Err(Fault { code, reason });
        }
    }
    if !examined.livepatch {
        notes.push("the module does not declare itself a live patch".to_owned());
    }
    let signature = match (policy, &examined.signature) {
        (Policy::Off, _) => 0,
        (_, Ok(_)) => 1,
        (_, Err(_)) => 2,
    };
    Ok(Good {
        examined,
        signature,
        warning: (!notes.is_empty()).then(|| notes.join("; ")),
    })
}

/// Stable words: programs and operators' filters rely on them.
fn read_code(error: &ReadError) -> &'static str {
    match error {
        ReadError::Source(_) => "unreadable",
        ReadError::PackedTooLarge { .. } => "too-large",
        ReadError::Compression { .. } => "not-bzip2",
        ReadError::Truncated { .. } => "truncated",
        ReadError::UnpackedTooLarge { .. } => "unpacks-too-large",
        ReadError::Ratio { .. } => "decompression-bomb",
        ReadError::TooManyEntries { .. } => "too-many-entries",
        ReadError::UnsafeName { .. } => "unsafe-name",
        ReadError::EntryKind { .. } => "entry-kind",
        ReadError::DuplicateName { .. } => "duplicate-name",
        ReadError::EntryTooLarge { .. } => "entry-too-large",
        ReadError::Tar { .. } => "not-tar",
        ReadError::NoModule { .. } => "no-module",
        ReadError::SeveralModules { .. } => "several-modules",
        ReadError::Module { .. } => "bad-module",
        ReadError::Disagrees { .. } => "name-mismatch",
        ReadError::Manifest(_) => "bad-metadata",
    }
}

fn signature_code(error: &SignatureError) -> &'static str {
    match error {
        SignatureError::Missing => "signature-missing",
        SignatureError::Malformed { .. } => "signature-malformed",
        SignatureError::TooLarge { .. } => "signature-too-large",
        SignatureError::Unsupported { .. } => "signature-unsupported",
        SignatureError::UntrustedSigner { .. } => "signer-not-trusted",
        SignatureError::Mismatch { .. } => "signature-mismatch",
    }
}
