//! Places at which a test can have the process killed, to see that nothing half done remains.
//!
//! They do nothing unless the environment names one, and are not compiled into release builds.

/// Every place, in the order of the work: around each object write and each commit of what is acknowledged.
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
    "refresh-before-removal",
    "promote-before-commit",
    "promote-after-commit",
    "block-before-commit",
    "block-after-commit",
    "token-before-commit",
    "token-after-commit",
    "register-before-commit",
    "register-after-commit",
    "check-in-before-commit",
    "check-in-after-commit",
];

/// Places in the leader's look at the rollouts.
pub const ROLLOUT_FAILPOINTS: &[&str] = &["rollout-before-commit", "rollout-after-commit"];

/// Places in the work of a sync and of a pruning.
pub const SYNC_FAILPOINTS: &[&str] = &[
    "stage-before-commit",
    "stage-after-commit",
    "publish-before-commit",
    "publish-after-commit",
    "prune-after-hiding",
    "prune-after-object",
];

/// The variable that names the place: `name`, or `name:n` for the n-th time that it is passed.
pub const VARIABLE: &str = "LIVEPATCH_FAILPOINT";

/// Kills the process here, by a real SIGKILL, if [`VARIABLE`] names this place and it was passed often enough.
#[cfg(debug_assertions)]
pub(super) fn failpoint(name: &'static str) {
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static CHOSEN: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, passes) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), passes.parse().unwrap_or(1)))
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let listed = [FAILPOINTS, SYNC_FAILPOINTS, ROLLOUT_FAILPOINTS]
        .iter()
        .any(|all| all.contains(&name));
    debug_assert!(listed, "{name} is not listed");
    let Some((chosen, passes)) = CHOSEN.as_ref() else {
        return;
    };
    if chosen == name && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *passes {
        let _ = kill_process(getpid(), Signal::KILL);
        // The signal ends all threads, this one too; nothing of the work after this place may happen before it does.
        loop {
            std::thread::park();
        }
    }
}

/// Nothing, in release builds.
#[cfg(not(debug_assertions))]
pub(super) fn failpoint(_name: &'static str) {}
