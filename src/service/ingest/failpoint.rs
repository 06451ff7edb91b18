//! Places at which a test can have the process die, to see that nothing half done remains.
//!
//! They do nothing unless the environment names one, and are not compiled into release builds.

/// Every place, in the order of the work: around each object write and each commit.
pub const FAILPOINTS: &[&str] = &[
    "ingest-before-object",
    "ingest-after-object",
    "ingest-before-commit",
    "ingest-after-commit",
    "quarantine-before-object",
    "quarantine-after-object",
    "quarantine-before-commit",
    "quarantine-after-commit",
    "heal-after-object",
    "heal-before-commit",
    "promote-before-commit",
    "promote-after-commit",
    "refresh-before-removal",
];

/// Places in the work of a sync and of a pruning.
pub const SYNC_FAILPOINTS: &[&str] = &[
    "stage-before-commit",
    "stage-after-commit",
    "publish-before-commit",
    "publish-after-commit",
    "prune-after-hiding",
    "prune-after-object",
];

/// The variable that names the place.
pub const VARIABLE: &str = "LIVEPATCH_FAILPOINT";

/// Ends the process here, at once and without cleaning up, if [`VARIABLE`] names this place.
#[cfg(debug_assertions)]
pub(in crate::service) fn failpoint(name: &'static str) {
    use std::sync::LazyLock;
    static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(VARIABLE).ok());
    let listed = FAILPOINTS.contains(&name) || SYNC_FAILPOINTS.contains(&name);
    debug_assert!(listed, "{name} is not listed");
    if CHOSEN.as_deref() == Some(name) {
        tracing::error!(name, "failpoint reached");
        std::process::abort();
    }
}

/// Nothing, in release builds.
#[cfg(not(debug_assertions))]
pub(in crate::service) fn failpoint(_name: &'static str) {}
