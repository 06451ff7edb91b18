//! A PostgreSQL of a test's own, started as `quickstart` starts its own, that can be killed, stopped and frozen.

use super::process::{comes, send_signal, until};
use livepatch_onprem::app::postgres::PrivatePostgres;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A cluster and the folder that it lies in.
pub struct Cluster {
    folder: tempfile::TempDir,
    running: Option<PrivatePostgres>,
}

impl Cluster {
    /// Makes a cluster and starts it.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // PostgreSQL runs as another account when this runs as root, and must get there.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let running = Some(PrivatePostgres::start(folder.path()).await.unwrap());
        Self { folder, running }
    }

    /// It, running.
    pub fn running(&self) -> &PrivatePostgres {
        self.running.as_ref().unwrap()
    }

    fn postmaster(&self) -> u32 {
        let file = self.folder.path().join("cluster/postmaster.pid");
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    /// Kills the postmaster; its children end because it is gone.
    pub async fn kill(&mut self) {
        let postmaster = self.postmaster();
        let orphans = children(postmaster);
        send_signal("KILL", postmaster);
        self.stop().await;
        // Until they notice, they still answer.
        wait_for(&orphans, |state| matches!(state, None | Some('Z'))).await;
    }

    /// Stops it in order, or takes note of its death.
    pub async fn stop(&mut self) {
        let _ = self.running.take().unwrap().stop().await.unwrap();
    }

    /// Starts it again on the same data.
    pub async fn restart(&mut self) {
        // Children of a killed postmaster may hold its shared memory for a moment.
        let started = comes("the cluster", async || {
            let started = PrivatePostgres::start(self.folder.path()).await;
            started.map_err(|error| format!("{error:#}"))
        });
        self.running = Some(started.await);
    }

    /// Freezes the postmaster and all its children: connections stay open, new ones are taken by the kernel, and nobody
    /// answers on them.
    pub async fn freeze(&self) -> Frozen {
        let postmaster = self.postmaster();
        send_signal("STOP", postmaster);
        // The postmaster can make no more children now.
        let mut pids = children(postmaster);
        pids.push(postmaster);
        for pid in &pids {
            send_signal("STOP", *pid);
        }
        let frozen = Frozen(pids);
        wait_for(&frozen.0, |state| state == Some('T')).await;
        frozen
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abandon();
        }
    }
}

/// Processes that stand still until this is dropped.
pub struct Frozen(Vec<u32>);

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            send_signal("CONT", *pid);
        }
    }
}

/// Waits until all processes are in such a state; none: the process is gone.
async fn wait_for(pids: &[u32], wanted: impl Fn(Option<char>) -> bool) {
    let state = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        text.rsplit(')').next()?.trim_start().chars().next()
    };
    until("the processes' state", async || {
        pids.iter().all(|pid| wanted(state(*pid)))
    })
    .await;
}

/// The processes whose parent is this one.
fn children(parent: u32) -> Vec<u32> {
    let stat = |pid: u32| std::fs::read_to_string(Path::new("/proc").join(format!("{pid}/stat")));
    let is_child = |pid: &u32| {
        // The name in parentheses may hold anything; state and parent follow it.
        let text = stat(*pid).unwrap_or_default();
        let after = text.rsplit(')').next().unwrap_or_default();
        after.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(is_child)
        .collect()
}
