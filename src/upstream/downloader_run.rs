//! Runs a command of the downloader: bounded in time and output, in a process group of its own that is ended as a whole when its
//! time is over, when the server stops, or when nobody waits for it any more.
//!
//! The command sees only the environment it is given: that of the server holds secrets.

use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// How long a group may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// How much of what a command says is kept, in bytes, where only the end matters.
const TAIL: usize = 64 << 10;

/// One run.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// A name on the search path, or a path.
    pub(super) command: &'a str,
    /// What follows it.
    pub(super) arguments: Vec<OsString>,
    /// All that it sees of the environment.
    pub(super) environment: &'a [(OsString, OsString)],
    /// How long it may take.
    pub(super) patience: Duration,
    /// The most it may print, in bytes; without it only the end is kept.
    pub(super) whole_output: Option<usize>,
    /// Ends it.
    pub(super) stopping: &'a CancellationToken,
}

/// A command that ended by itself.
#[derive(Debug)]
pub(super) struct Ended {
    /// How.
    pub(super) status: ExitStatus,
    /// What it printed: all of it, or the end.
    pub(super) output: Vec<u8>,
    /// The end of what it complained about.
    pub(super) complaint: Vec<u8>,
}

/// A command that did not.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be started.
    Start(io::Error),
    /// Its pipes broke.
    Pipe(io::Error),
    /// Its time was over.
    TimedOut,
    /// The server stops.
    Stopped,
    /// It printed more than it may.
    TooMuch,
}

/// A process group that is killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(
            child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(Pid::from_raw),
        )
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // A group that has ended already is no error.
            let _ = kill_process_group(group, signal);
        }
    }

    fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

async fn read_whole(mut from: impl AsyncRead + Unpin, most: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    (&mut from)
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(Failure::Pipe)?;
    if bytes.len() > most {
        return Err(Failure::TooMuch);
    }
    Ok(bytes)
}

async fn read_tail(mut from: impl AsyncRead + Unpin) -> Result<Vec<u8>, Failure> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 8 << 10];
    loop {
        let read = from.read(&mut buffer).await.map_err(Failure::Pipe)?;
        if read == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(&buffer[..read]);
        if kept.len() > 2 * TAIL {
            kept.drain(..kept.len() - TAIL);
        }
    }
}

/// Runs it to its end.
pub(super) async fn run(job: Job<'_>) -> Result<Ended, Failure> {
    let mut child = Command::new(job.command)
        .args(&job.arguments)
        .env_clear()
        .envs(job.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(Failure::Start)?;
    let mut group = Group::of(&child);
    let broken = || Failure::Pipe(io::Error::other("no pipe"));
    let (stdout, stderr) = (
        child.stdout.take().ok_or_else(broken)?,
        child.stderr.take().ok_or_else(broken)?,
    );
    let output = async {
        match job.whole_output {
            Some(most) => read_whole(stdout, most).await,
            None => read_tail(stdout).await,
        }
    };
    let ending = async {
        let (output, complaint) = tokio::try_join!(output, read_tail(stderr))?;
        let status = child.wait().await.map_err(Failure::Pipe)?;
        Ok(Ended {
            status,
            output,
            complaint,
        })
    };
    let result = tokio::select! {
        result = ending => result,
        () = tokio::time::sleep(job.patience) => Err(Failure::TimedOut),
        () = job.stopping.cancelled() => Err(Failure::Stopped),
    };
    if result.is_err() {
        // Asked first, so that it can leave no half file behind; then everything of the group that is left.
        group.signal(Signal::TERM);
        let _ = tokio::time::timeout(GRACE, child.wait()).await;
        group.signal(Signal::KILL);
        let _ = child.wait().await;
    }
    group.ended();
    result
}
