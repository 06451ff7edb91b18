//! Signing a head, and believing one.

use crate::domain::{PublicKey, Sha256, SigningKey, TierName};
use crate::wire::sync::{FORMAT, Head, KeySignature, SignedHead};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What heads are signed as.
pub const CONTEXT: &str = "livepatch-onprem index 1";
/// The longest signed head that is read, in bytes.
pub const MAX_HEAD: usize = 64 << 10;
/// The longest state that is read, in bytes: a million payloads.
pub const MAX_STATE: u64 = 256 << 20;
/// How far another server's clock may be ahead.
pub(super) const SKEW: SignedDuration = SignedDuration::from_mins(10);
/// The most versions an index may advance between two looks. A deployment makes one with each change by a person or a payload; a number far
/// beyond would make every later head look like a rollback.
const LEAP: u64 = 50_000_000;
/// Keys that a head may name.
const MAX_KEYS: usize = 16;

/// What was believed last of an upstream, and must agree with what comes next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Known {
    /// The deployment.
    pub deployment: Uuid,
    /// The tier.
    pub tier: TierName,
    /// The version.
    pub version: u64,
    /// The state.
    pub digest: Sha256,
    /// When its head was signed.
    pub issued_at: Timestamp,
    /// Whose signatures are good.
    pub keys: Vec<PublicKey>,
}

/// Why a head is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read.
    #[error("the index cannot be read: {0}")]
    Unreadable(String),
    /// Another version of the format.
    #[error(
        "the index has format {0}, this version reads {FORMAT}; bring both servers to the same release"
    )]
    Format(u32),
    /// No signature of a key that is trusted.
    #[error(
        "the index is not signed with a key that is trusted here ({trusted}), but with {signed_by}; if the upstream's administrator confirms a new key, trust it with `livepatch-server keys trust`"
    )]
    WrongKey {
        /// Keys that were expected.
        trusted: String,
        /// Keys it names.
        signed_by: String,
    },
    /// A signature of a trusted key that is not over this text.
    #[error("the index was altered: its signature by {0} is not of this content")]
    Altered(String),
    /// Out of date: someone keeps newer ones back, or the upstream stands still.
    #[error(
        "the index expired at {expires_at}: upstream has not renewed it, or something on the way keeps newer ones back (freeze)"
    )]
    Expired {
        /// Until when it held.
        expires_at: Timestamp,
    },
    /// From the future.
    #[error(
        "the index says that it was made at {issued_at}, which is in the future: compare the clocks of both servers"
    )]
    FromTheFuture {
        /// When it says it was made.
        issued_at: Timestamp,
    },
    /// Older than what was seen before.
    #[error(
        "the index has version {got}, but version {known} was seen before (rollback); if upstream was restored from a backup, have it forgotten with `livepatch-admin sync reset`"
    )]
    Rollback {
        /// Seen before.
        known: u64,
        /// Came now.
        got: u64,
    },
    /// The same version with other content.
    #[error(
        "the index of version {0} has other content than before (mix-and-match); a version stands for one content"
    )]
    Forked(u64),
    /// So far ahead that later ones could never be newer.
    #[error(
        "the index jumps from version {known} to {got} (fast-forward), which no deployment does by itself; if upstream explains it, have the old one forgotten with `livepatch-admin sync reset`"
    )]
    FastForward {
        /// Seen before.
        known: u64,
        /// Came now.
        got: u64,
    },
    /// Another deployment answers.
    #[error(
        "the index is of deployment {got}, but {known} was followed until now; if that is meant, have the old one forgotten with `livepatch-admin sync reset`"
    )]
    OtherDeployment {
        /// Followed until now.
        known: Uuid,
        /// Answers now.
        got: Uuid,
    },
    /// Another tier than before.
    #[error(
        "the index is of tier {got}, but {known} was followed until now: the sync token is of another tier; if that is meant, have the old one forgotten with `livepatch-admin sync reset`"
    )]
    OtherTier {
        /// Followed until now.
        known: TierName,
        /// Comes now.
        got: TierName,
    },
    /// More than is read.
    #[error(
        "the index says that it has {0} bytes, more than the {MAX_STATE} that are read (endless data)"
    )]
    TooLong(u64),
    /// The state is not the one of the head.
    #[error("the records of the index are not those that its head was signed for: {0}")]
    OtherState(String),
}

impl Refusal {
    /// A word for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::Format(_) => "format",
            Self::WrongKey { .. } => "wrong-key",
            Self::Altered(_) => "altered",
            Self::Expired { .. } => "freeze",
            Self::FromTheFuture { .. } => "from-the-future",
            Self::Rollback { .. } => "rollback",
            Self::Forked(_) => "mix-and-match",
            Self::FastForward { .. } => "fast-forward",
            Self::OtherDeployment { .. } => "other-deployment",
            Self::OtherTier { .. } => "other-tier",
            Self::TooLong(_) => "endless-data",
            Self::OtherState(_) => "other-state",
        }
    }
}

/// Signs a head with each of these keys. Fails only if openssl or serde does.
pub fn seal(head: &Head, keys: &[SigningKey]) -> Result<SignedHead, String> {
    seal_as(CONTEXT, head, keys)
}

/// Signs a document in a context of its own.
pub(super) fn seal_as(
    context: &str,
    document: &impl Serialize,
    keys: &[SigningKey],
) -> Result<SignedHead, String> {
    let signed = serde_json::to_string(document).map_err(|e| e.to_string())?;
    let signatures = keys
        .iter()
        .map(|key| {
            Ok(KeySignature {
                key: key.public()?,
                signature: key.sign(context, signed.as_bytes())?,
            })
        })
        .collect::<Result<_, String>>()?;
    Ok(SignedHead { signed, signatures })
}

/// Believes a head or says why not. `trusted` are the keys that are good; none means the first contact, at which every key that
/// signed is taken. `known` is what was believed before.
pub fn accept(
    sealed: &SignedHead,
    trusted: &[PublicKey],
    known: Option<&Known>,
    now: Timestamp,
) -> Result<Head, Refusal> {
    signed_by_one(CONTEXT, sealed, trusted)?;
    let head: Head =
        serde_json::from_str(&sealed.signed).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    sound(&head, now)?;
    if head.expires_at <= now {
        return Err(Refusal::Expired {
            expires_at: head.expires_at,
        });
    }
    match known {
        Some(known) => follows(&head, known)?,
        None if head.version > LEAP * 1000 => {
            return Err(Refusal::FastForward {
                known: 0,
                got: head.version,
            });
        }
        None => {}
    }
    Ok(head)
}

/// What must hold of every head, whatever came before and however late it is read.
pub(super) fn sound(head: &Head, now: Timestamp) -> Result<(), Refusal> {
    if head.format != FORMAT {
        return Err(Refusal::Format(head.format));
    }
    if head.keys.is_empty() || head.keys.len() > MAX_KEYS {
        let why = format!("it names {} keys", head.keys.len());
        return Err(Refusal::Unreadable(why));
    }
    if head.bytes > MAX_STATE {
        return Err(Refusal::TooLong(head.bytes));
    }
    if head.issued_at > now + SKEW {
        return Err(Refusal::FromTheFuture {
            issued_at: head.issued_at,
        });
    }
    Ok(())
}

/// Whether one of the trusted keys signed this in this context; without any, whether one of the keys it names did.
pub(super) fn signed_by_one(
    context: &str,
    sealed: &SignedHead,
    trusted: &[PublicKey],
) -> Result<(), Refusal> {
    let mut altered = None;
    for KeySignature { key, signature } in sealed.signatures.iter().take(MAX_KEYS) {
        if !trusted.is_empty() && !trusted.contains(key) {
            continue;
        }
        if key.verifies(context, sealed.signed.as_bytes(), signature) {
            return Ok(());
        }
        altered = Some(*key);
    }
    if let Some(key) = altered {
        return Err(Refusal::Altered(key.to_string()));
    }
    let list = |keys: Vec<String>| match keys.as_slice() {
        [] => "none".to_owned(),
        keys => keys.join(", "),
    };
    Err(Refusal::WrongKey {
        trusted: list(trusted.iter().map(ToString::to_string).collect()),
        signed_by: list(
            sealed
                .signatures
                .iter()
                .take(MAX_KEYS)
                .map(|s| s.key.to_string())
                .collect(),
        ),
    })
}

/// Whether a head may come after what was believed before.
pub(super) fn follows(head: &Head, known: &Known) -> Result<(), Refusal> {
    let got = head.version;
    if head.deployment != known.deployment {
        return Err(Refusal::OtherDeployment {
            known: known.deployment,
            got: head.deployment,
        });
    }
    if head.tier != known.tier {
        return Err(Refusal::OtherTier {
            known: known.tier.clone(),
            got: head.tier.clone(),
        });
    }
    let known = (known.version, known.digest);
    if got < known.0 {
        return Err(Refusal::Rollback {
            known: known.0,
            got,
        });
    }
    if got == known.0 && head.digest != known.1 {
        return Err(Refusal::Forked(got));
    }
    if got - known.0 > LEAP {
        return Err(Refusal::FastForward {
            known: known.0,
            got,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed(&[n; 32]).unwrap()
    }

    fn at(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000 + hours)
    }

    fn head(version: u64) -> Head {
        Head {
            format: FORMAT,
            deployment: Uuid::from_u128(1),
            tier: "stable".parse().unwrap(),
            version,
            digest: Sha256([1; 32]),
            bytes: 1000,
            payloads: 3,
            issued_at: at(0),
            expires_at: at(24),
            keys: vec![key(1).public().unwrap()],
        }
    }

    fn known(version: u64) -> Known {
        Known {
            deployment: Uuid::from_u128(1),
            tier: "stable".parse().unwrap(),
            version,
            digest: Sha256([1; 32]),
            issued_at: at(-1),
            keys: vec![key(1).public().unwrap()],
        }
    }

    fn code(head: &Head, known: Option<&Known>, now: Timestamp) -> &'static str {
        let sealed = seal(head, &[key(1)]).unwrap();
        let trusted = [key(1).public().unwrap()];
        accept(&sealed, &trusted, known, now).map_or_else(|e| e.code(), |_| "good")
    }

    #[test]
    fn every_attack_has_its_answer() {
        let known = known(10);
        let with = |change: &dyn Fn(&mut Head)| {
            let mut head = head(10);
            change(&mut head);
            code(&head, Some(&known), at(1))
        };
        assert_eq!(with(&|_| {}), "good");
        assert_eq!(with(&|h| h.version = 11), "good");
        assert_eq!(with(&|h| h.version = 9), "rollback");
        assert_eq!(with(&|h| h.digest = Sha256([2; 32])), "mix-and-match");
        assert_eq!(with(&|h| h.version = 11 + LEAP), "fast-forward");
        assert_eq!(with(&|h| h.version = u64::MAX), "fast-forward");
        assert_eq!(
            with(&|h| h.deployment = Uuid::from_u128(2)),
            "other-deployment"
        );
        assert_eq!(with(&|h| h.tier = "edge".parse().unwrap()), "other-tier");
        assert_eq!(with(&|h| h.bytes = MAX_STATE + 1), "endless-data");
        assert_eq!(with(&|h| h.format = 2), "format");
        assert_eq!(with(&|h| h.keys.clear()), "unreadable");
        assert_eq!(with(&|h| h.expires_at = at(1)), "freeze");
        assert_eq!(with(&|h| h.issued_at = at(2)), "from-the-future");
        assert_eq!(code(&head(u64::MAX), None, at(1)), "fast-forward");
        assert_eq!(code(&head(1), None, at(1)), "good");
    }

    #[test]
    fn only_trusted_keys_and_whole_texts_count() {
        let sealed = seal(&head(1), &[key(1)]).unwrap();
        let (ours, theirs) = (key(1).public().unwrap(), key(2).public().unwrap());
        let code = |sealed: &SignedHead, trusted: &[PublicKey]| {
            accept(sealed, trusted, None, at(1)).map_or_else(|e| e.code(), |_| "good")
        };
        assert_eq!(code(&sealed, &[ours]), "good");
        assert_eq!(code(&sealed, &[]), "good");
        assert_eq!(code(&sealed, &[theirs]), "wrong-key");
        // A key that is being replaced still vouches for the next.
        let both = seal(&head(1), &[key(2), key(1)]).unwrap();
        assert_eq!(code(&both, &[ours]), "good");
        let mut altered = sealed.clone();
        altered.signed = altered.signed.replace("\"payloads\":3", "\"payloads\":4");
        assert_eq!(code(&altered, &[ours]), "altered");
        let mut claimed = seal(&head(1), &[key(2)]).unwrap();
        claimed.signatures[0].key = ours;
        assert_eq!(code(&claimed, &[ours]), "altered");
        let mut bare = sealed;
        bare.signatures.clear();
        assert_eq!(code(&bare, &[ours]), "wrong-key");
        assert_eq!(code(&bare, &[]), "wrong-key");
    }
}
