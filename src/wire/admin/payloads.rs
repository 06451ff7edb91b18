//! Payloads and quarantine.
//!
//! `GET payloads`, `HEAD|PUT payloads/{filename}`, `GET quarantine`, `GET|DELETE quarantine/{id}`,
//! `POST quarantine/{id}/release`. An upload names its digest in [`REPR_DIGEST`] (RFC 9530) or [`CONTENT_SHA256`].

use super::Limit;
use crate::domain::{Architecture, KernelVersion, ParseError, PatchVersion, Sha256, TierName};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Header with the digest of the whole file, RFC 9530: `sha-256=:<base64>:`.
pub const REPR_DIGEST: &str = "repr-digest";
/// The same for tools that only have the hexadecimal digest.
pub const CONTENT_SHA256: &str = "x-content-sha256";

/// The value of [`REPR_DIGEST`] for this digest.
pub fn format_repr_digest(sha256: &Sha256) -> String {
    format!("sha-256=:{}:", BASE64_STANDARD.encode(sha256.0))
}

/// Reads the SHA-256 from a value of [`REPR_DIGEST`]; other algorithms in the list are passed over.
/// `None`: there is no SHA-256 in it.
pub fn parse_repr_digest(value: &str) -> Result<Option<Sha256>, ParseError> {
    let err = |why: &str| ParseError::new("Repr-Digest", value, why);
    for member in value.split(',') {
        let Some((name, digest)) = member.trim().split_once('=') else {
            return Err(err("sha-256=:<base64>: expected"));
        };
        if !name.eq_ignore_ascii_case("sha-256") {
            continue;
        }
        let bytes = digest
            .strip_prefix(':')
            .and_then(|d| d.strip_suffix(':'))
            .and_then(|d| BASE64_STANDARD.decode(d).ok())
            .ok_or_else(|| err("the digest must be base64 between colons"))?;
        return Sha256::try_from(bytes.as_slice()).map(Some);
    }
    Ok(None)
}

/// What is known of a payload's module signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureState {
    /// Made with the key of a trusted certificate.
    Good,
    /// Not good, but served: `patch-trust.policy` is `warn`.
    NotGood,
    /// Not looked at: `patch-trust.policy` is `off`.
    NotChecked,
}

/// A payload as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PayloadEntry {
    /// Canonical's file name.
    pub filename: String,
    /// Patch version.
    #[schema(value_type = String)]
    pub version: PatchVersion,
    /// Exact kernel.
    #[schema(value_type = String)]
    pub kernel: KernelVersion,
    /// Architecture.
    #[schema(value_type = String)]
    pub architecture: Architecture,
    /// Bytes.
    pub size: u64,
    /// Content.
    #[schema(value_type = String)]
    pub sha256: Sha256,
    /// Subject of the certificate whose key signed the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// What is known of the signature.
    pub signature: SignatureState,
    /// The last tier it has reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tier: Option<TierName>,
    /// How it came: `upload`, `refresh`, `sync`, `import`.
    pub source: String,
    /// When it came.
    #[schema(value_type = String, format = DateTime)]
    pub added_at: Timestamp,
    /// Who brought it.
    #[serde(default)]
    pub added_by: String,
    /// What was noted while it was taken in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Why it is not offered: its object was found missing or altered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// Query of `GET payloads`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PayloadQuery {
    /// Only of this patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub version: Option<PatchVersion>,
    /// Only for this kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub kernel: Option<KernelVersion>,
    /// Only for this architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub architecture: Option<Architecture>,
    /// Only for kernels of this flavour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavour: Option<String>,
    /// `next-cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Items per page, 1 to 1000; 100 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<Limit>,
}

/// Query of `HEAD payloads/{filename}`: 204 if exactly this content is stored, else 404.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PayloadHeadQuery {
    /// Content.
    #[param(value_type = String)]
    pub sha256: Sha256,
}

/// What became of a file at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IngestResult {
    /// Verified and stored.
    Stored,
    /// The same content was stored before.
    AlreadyThere,
    /// Refused, kept apart with the reason.
    Quarantined,
}

/// Answer to `PUT payloads/{filename}` and to a release from quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct IngestOutcome {
    /// File name as given.
    pub filename: String,
    /// Content as received.
    #[schema(value_type = String)]
    pub sha256: Sha256,
    /// Bytes received.
    pub size: u64,
    /// What became of it.
    pub result: IngestResult,
    /// With `quarantined`: the rule that was broken, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// With `quarantined`: what was wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// With `quarantined`: where it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine_id: Option<i64>,
    /// With `stored`: what is not as it should be but was let pass by policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A file in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct QuarantineEntry {
    /// Id.
    pub id: i64,
    /// File name as given.
    pub filename: String,
    /// Content.
    #[schema(value_type = String)]
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// The rule that was broken, for programs.
    pub code: String,
    /// What was wrong, for people.
    pub reason: String,
    /// How it came: `upload`, `refresh`, `sync`, `import`.
    pub source: String,
    /// Who brought it.
    pub actor: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_go_through_the_header() {
        let digest = Sha256::of(b"x");
        let value = format_repr_digest(&digest);
        assert_eq!(parse_repr_digest(&value), Ok(Some(digest)));
        assert_eq!(
            parse_repr_digest(&format!("sha-512=:AA==:, {value}")),
            Ok(Some(digest))
        );
        assert_eq!(parse_repr_digest("sha-512=:AA==:"), Ok(None));
        for bad in [
            "",
            "sha-256",
            "sha-256=AA==",
            "sha-256=:AA==:",
            "sha-256=:%%:",
        ] {
            assert!(parse_repr_digest(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
