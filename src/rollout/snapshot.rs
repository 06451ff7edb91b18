//! The immutable picture from which requests are answered: catalog, rollouts, auth tokens and what was decided about single
//! machines. Its parts are shared, so that a change of one does not copy the others.

use super::answers::Answers;
use super::catalog::Catalog;
use super::rollouts::Rollouts;
use crate::domain::token::MachineClaims;
use crate::domain::{Labels, MachineId, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// An auth token as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthTokenEntry {
    /// Database id; stands in machine tokens.
    pub id: i32,
    /// Label given by the administrator.
    pub name: String,
    /// The tier it admits to.
    pub tier_id: i32,
    /// Labels for the machines it enables.
    pub labels: Labels,
    /// After this (unix microseconds) it enables no more machines; machines it enabled stay enabled.
    pub valid_until: Option<i64>,
    /// Revoked: it enables none, and machines it enabled are refused.
    pub revoked: bool,
}

/// A sync token of another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncTokenEntry {
    /// Database id.
    pub id: i32,
    /// Name given by the administrator.
    pub name: String,
    /// The tier it may pull from.
    pub tier_id: i32,
    /// After this (unix microseconds) it is refused.
    pub valid_until: Option<i64>,
    /// Revoked: it is refused.
    pub revoked: bool,
}

/// All auth tokens and sync tokens.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    by_id: HashMap<i32, AuthTokenEntry>,
    by_hash: HashMap<Sha256, i32>,
    sync: HashMap<Sha256, SyncTokenEntry>,
}

impl Tokens {
    /// Indexes tokens by id and by hash.
    pub fn new(entries: impl IntoIterator<Item = (Sha256, AuthTokenEntry)>) -> Self {
        let mut tokens = Self::default();
        for (hash, entry) in entries {
            tokens.by_hash.insert(hash, entry.id);
            tokens.by_id.insert(entry.id, entry);
        }
        tokens
    }

    /// The same with these sync tokens, by the hashes of their texts.
    #[must_use]
    pub fn with_sync(
        mut self,
        entries: impl IntoIterator<Item = (Sha256, SyncTokenEntry)>,
    ) -> Self {
        self.sync = entries.into_iter().collect();
        self
    }

    /// The token with this id.
    pub fn get(&self, id: i32) -> Option<&AuthTokenEntry> {
        self.by_id.get(&id)
    }

    /// The token of this name: the one that is not revoked, else one that was. Looks at each, which only registrations may.
    pub fn named(&self, name: &str) -> Option<&AuthTokenEntry> {
        let all = self.by_id.values().filter(|entry| entry.name == name);
        all.min_by_key(|entry| (entry.revoked, entry.id))
    }

    /// The token whose text has this hash.
    pub fn by_hash(&self, hash: &Sha256) -> Option<&AuthTokenEntry> {
        self.by_hash.get(hash).and_then(|id| self.by_id.get(id))
    }
}

/// What an administrator decided about one machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachineOverride {
    /// It was moved to this tier.
    pub tier_id: Option<i32>,
    /// Its tokens issued before this (unix microseconds) are refused.
    pub revoked_before: Option<i64>,
}

/// Overrides by machine.
pub type Overrides = HashMap<MachineId, MachineOverride>;

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not issued by this server.
    #[error("the token is not known")]
    Unknown,
    /// Issued to another machine.
    #[error("the token belongs to another machine")]
    OtherMachine,
    /// The auth token was revoked.
    #[error("the auth token was revoked")]
    Revoked,
    /// The machine was revoked.
    #[error("this machine's token was revoked; enable it again")]
    MachineRevoked,
    /// The auth token's time is over.
    #[error("the auth token has expired")]
    Expired,
}

/// The picture.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Sequence number of the last change it contains.
    pub version: u64,
    /// Tiers, payloads, supported kernels.
    pub catalog: Arc<Catalog>,
    /// Policies and rollouts.
    pub rollouts: Arc<Rollouts>,
    /// Answers that were rendered from catalog and rollouts.
    pub answers: Arc<Answers>,
    /// Auth tokens.
    pub tokens: Arc<Tokens>,
    /// Overrides.
    pub overrides: Arc<Overrides>,
}

impl Snapshot {
    /// Checks an auth token that is shown at registration.
    pub fn enabling_token(&self, hash: &Sha256, now: i64) -> Result<&AuthTokenEntry, TokenError> {
        let entry = self.tokens.by_hash(hash).ok_or(TokenError::Unknown)?;
        if entry.revoked {
            return Err(TokenError::Revoked);
        }
        if entry.valid_until.is_some_and(|until| now >= until) {
            return Err(TokenError::Expired);
        }
        Ok(entry)
    }

    /// Checks a sync token that another server shows.
    pub fn sync_token(&self, hash: &Sha256, now: i64) -> Result<&SyncTokenEntry, TokenError> {
        let entry = self.tokens.sync.get(hash).ok_or(TokenError::Unknown)?;
        if entry.revoked {
            return Err(TokenError::Revoked);
        }
        if entry.valid_until.is_some_and(|until| now >= until) {
            return Err(TokenError::Expired);
        }
        Ok(entry)
    }

    /// Checks the claims of a machine token whose MAC was good, and returns the machine's tier id.
    pub fn admit(&self, claims: &MachineClaims, machine: &MachineId) -> Result<i32, TokenError> {
        if claims.machine != *machine {
            return Err(TokenError::OtherMachine);
        }
        let token = self
            .tokens
            .get(claims.auth_token)
            .ok_or(TokenError::Unknown)?;
        if token.revoked {
            return Err(TokenError::Revoked);
        }
        let mine = self.overrides.get(machine).copied().unwrap_or_default();
        if mine
            .revoked_before
            .is_some_and(|before| claims.issued_at < before)
        {
            return Err(TokenError::MachineRevoked);
        }
        Ok(mine.tier_id.unwrap_or(token.tier_id))
    }

    /// The tier of a machine that registers with this auth token.
    pub fn tier_of(&self, machine: &MachineId, token: &AuthTokenEntry) -> i32 {
        self.overrides
            .get(machine)
            .and_then(|o| o.tier_id)
            .unwrap_or(token.tier_id)
    }
}
