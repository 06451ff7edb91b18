//! `patch upload`: several files at once, each hashed first so that what the server has is not sent again.
//!
//! One file that cannot be sent does not stop the others, unless no other could be sent either (not logged in, server
//! gone). Running the same command again goes on where it was broken off.

use super::client::Client;
use super::context::Context;
use super::output::{Show, View, blocks, bytes, count, some, table, word};
use super::{CliError, Exit};
use crate::domain::Sha256;
use crate::wire::admin::{
    IngestOutcome, IngestResult, PayloadHeadQuery, REPR_DIGEST, format_repr_digest,
};
use clap::{Args, ValueHint};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method};
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::io::ReaderStream;

/// The slowest connection that an upload waits for.
const MIN_BYTES_PER_SECOND: u64 = 16 << 10;
const CHUNK: usize = 64 << 10;

const EXAMPLES: &str = "\
Files keep Canonical's names: livepatch-KERNEL-VERSION-ARCH.tar.bz2.
Each is hashed first; what the server has is not sent again, so the same command can be
repeated after a break. What fails the server's checks is put into quarantine there
(`storage quarantine list`), and the command ends with exit code 7.

Examples:
  livepatch-admin patch upload livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2
  livepatch-admin patch upload --parallel 8 ~/snap/canonical-livepatch-downloader/common/tarballs";

/// Arguments of `patch upload`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct UploadArgs {
    /// Bundles, or directories that hold bundles (*.tar.bz2)
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub files: Vec<PathBuf>,
    /// How many are sent at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub parallel: u8,
}

/// What became of all files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct UploadReport {
    /// What the server said, in the order of the files.
    pub items: Vec<IngestOutcome>,
    /// Files that could not be sent.
    pub failed: Vec<UploadFailure>,
}

/// A file that could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct UploadFailure {
    /// The file.
    pub file: String,
    /// Why not.
    pub error: String,
}

impl UploadReport {
    fn number(&self, result: IngestResult) -> u64 {
        self.items.iter().filter(|i| i.result == result).count() as u64
    }

    /// Whether all is well.
    pub fn exit(&self) -> Exit {
        if !self.failed.is_empty() {
            Exit::Failure
        } else if self.number(IngestResult::Quarantined) > 0 {
            Exit::Unsound
        } else {
            Exit::Ok
        }
    }
}

impl Show for UploadReport {
    fn show(&self, view: &View) -> String {
        let outcomes = if self.items.is_empty() {
            String::new()
        } else {
            table(
                &["file", "result", "size", "id", "remark"],
                self.items.iter().map(|item| {
                    vec![
                        item.filename.clone(),
                        word(&item.result),
                        bytes(item.size),
                        some(item.quarantine_id),
                        some(item.reason.as_ref().or(item.warning.as_ref())),
                    ]
                }),
                view,
            )
        };
        let failed: Vec<String> = self
            .failed
            .iter()
            .map(|f| format!("not sent: {}: {}", f.file, f.error))
            .collect();
        let summary = format!(
            "{} stored, {} already there, {} quarantined, {} not sent.",
            self.number(IngestResult::Stored),
            self.number(IngestResult::AlreadyThere),
            self.number(IngestResult::Quarantined),
            self.failed.len()
        );
        blocks([outcomes, failed.join("\n"), summary])
    }
}

/// Sends the files.
pub async fn run(context: &Context, args: UploadArgs) -> Result<Exit, CliError> {
    let client = context.client()?;
    let files = expand(&args.files)?;
    let bars = Bars::new(context, &files);
    let sent: Vec<(PathBuf, Result<IngestOutcome, CliError>)> = stream::iter(files)
        .map(|file| {
            let (client, bars) = (&client, &bars);
            async move {
                let result = send(client, bars, &file).await;
                match result {
                    Err(error) if error.is_general() => Err(error),
                    result => Ok((file, result)),
                }
            }
        })
        .buffered(usize::from(args.parallel))
        .try_collect()
        .await?;
    bars.finish();
    let mut report = UploadReport {
        items: Vec::new(),
        failed: Vec::new(),
    };
    for (file, result) in sent {
        match result {
            Ok(outcome) => report.items.push(outcome),
            Err(error) => report.failed.push(UploadFailure {
                file: file.display().to_string(),
                error: error.to_string(),
            }),
        }
    }
    context.show(&report)?;
    if report.number(IngestResult::Quarantined) > 0 && context.for_people() {
        context.note("See what is wrong: livepatch-admin storage quarantine show ID");
    }
    Ok(report.exit())
}

/// Files as given, and the bundles in the directories among them.
fn expand(given: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|e| CliError::file("read", path, e))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| CliError::file("read", path, e))?;
            if entry.file_name().to_string_lossy().ends_with(".tar.bz2") {
                found.push(entry.path());
            }
        }
        if found.is_empty() {
            return Err(CliError::file(
                "upload",
                path,
                "there is no *.tar.bz2 in this directory",
            ));
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

/// Digest and length of a file, read in pieces.
fn digest(path: &Path) -> Result<(Sha256, u64), CliError> {
    let failed = |e: std::io::Error| CliError::file("read", path, e);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hasher = openssl::sha::Sha256::new();
    let mut piece = vec![0; CHUNK];
    let mut length = 0;
    loop {
        let read = file.read(&mut piece).map_err(failed)?;
        if read == 0 {
            return Ok((Sha256(hasher.finish()), length));
        }
        hasher.update(&piece[..read]);
        length += read as u64;
    }
}

async fn send(client: &Client, bars: &Bars, path: &Path) -> Result<IngestOutcome, CliError> {
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .ok_or_else(|| CliError::file("upload", path, "its name is not text"))?;
    let owned = path.to_owned();
    let (sha256, size) = tokio::task::spawn_blocking(move || digest(&owned))
        .await
        .map_err(|e| CliError::file("read", path, e))??;
    let head = client
        .request(Method::HEAD, &["payloads", name])?
        .query(&PayloadHeadQuery { sha256 });
    if client.exists(head).await? {
        bars.all.inc(size);
        return Ok(IngestOutcome {
            filename: name.to_owned(),
            sha256,
            size,
            result: IngestResult::AlreadyThere,
            code: None,
            reason: None,
            quarantine_id: None,
            warning: None,
        });
    }
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|e| CliError::file("read", path, e))?;
    let bar = bars.one(name, size);
    let (one, all) = (bar.clone(), bars.all.clone());
    let pieces = ReaderStream::with_capacity(file, CHUNK).inspect_ok(move |piece| {
        one.inc(piece.len() as u64);
        all.inc(piece.len() as u64);
    });
    let request = client
        .request(Method::PUT, &["payloads", name])?
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_LENGTH, size)
        .header(REPR_DIGEST, format_repr_digest(&sha256))
        .timeout(client.timeout() + Duration::from_secs(size / MIN_BYTES_PER_SECOND))
        .body(Body::wrap_stream(pieces));
    let outcome = client.read(request).await;
    bars.drop(&bar);
    outcome
}

/// One bar for all bytes, and one for each file on its way.
struct Bars {
    multi: MultiProgress,
    all: ProgressBar,
}

impl Bars {
    fn new(context: &Context, files: &[PathBuf]) -> Self {
        let multi = MultiProgress::with_draw_target(if context.progress() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        // What cannot be read is told of when its turn comes.
        let total = files
            .iter()
            .filter_map(|f| f.metadata().ok())
            .map(|m| m.len())
            .sum();
        let all = multi.add(ProgressBar::new(total));
        all.set_style(style(
            "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ));
        all.set_message(count(files.len() as u64, "file", "files"));
        Self { multi, all }
    }

    fn one(&self, name: &str, size: u64) -> ProgressBar {
        let bar = self.multi.add(ProgressBar::new(size));
        bar.set_style(style("  {msg} {percent}%"));
        bar.set_message(name.to_owned());
        bar
    }

    fn drop(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.multi.remove(bar);
    }

    fn finish(&self) {
        self.all.finish_and_clear();
    }
}

/// A bar's style; the templates are constants of this program.
pub(super) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_hashed_in_pieces_and_directories_expanded() {
        let dir = tempfile::tempdir().unwrap();
        let content = vec![7u8; CHUNK * 2 + 5];
        for name in ["b.tar.bz2", "a.tar.bz2", "readme"] {
            std::fs::write(dir.path().join(name), &content).unwrap();
        }
        let files = expand(&[dir.path().to_owned(), "given".into()]).unwrap();
        let names: Vec<_> = files.iter().map(|f| f.file_name().unwrap()).collect();
        assert_eq!(names, ["a.tar.bz2", "b.tar.bz2", "given"]);
        let (sha256, size) = digest(&files[0]).unwrap();
        assert_eq!((sha256, size), (Sha256::of(&content), content.len() as u64));
        assert!(digest(Path::new("given")).is_err());
        let empty = tempfile::tempdir().unwrap();
        assert!(expand(&[empty.path().to_owned()]).is_err());
    }
}
