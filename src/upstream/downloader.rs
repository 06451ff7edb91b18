//! The driver `downloader`: Canonical's `canonical-livepatch-downloader` command, by its documented interface.
//!
//! `list` says what there is, `get-files -i FILE --keep-tarball` fetches, and what it leaves on disk is removed when it was taken in.
//! One command runs at a time. What was fetched before a break is not fetched again: a tarball that lies there with the right hash
//! counts as ready. The interface takes the token of `enable` as an argument, which other accounts of the machine can see while
//! that command runs; so it is given only when the command says that it is not enabled, and masked in everything it prints.

pub use super::downloader_command::Patience;
use super::downloader_command::{MAX_LIST, Tool};
use super::downloader_list as list;
use super::{Body, Listing, Offered, Question, Upstream, UpstreamError};
use crate::bundle::BundleName;
use crate::config::PatchSync;
use crate::domain::{Secret, Sha256};
use crate::index::IntakeFilter;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tokio::sync::Mutex;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

/// Files fetched by one call.
const BATCH: usize = 50;
/// Calls of `list` for one listing; where the filters make more, flags are left out and what comes is filtered here.
const MAX_CALLS: usize = 64;
/// The driver.
#[derive(Debug)]
pub struct Downloader {
    tool: Tool,
    tarballs: PathBuf,
    tier: String,
    /// Why the last fetch did not go well; also what lets only one command run at a time.
    trouble: Mutex<Option<String>>,
}

impl Downloader {
    /// The driver as configured. `token` is for `enable`; empty: somebody enables the command by hand. `stopping` ends what runs.
    pub fn new(
        sync: &PatchSync,
        token: Secret,
        stopping: CancellationToken,
    ) -> Result<Self, UpstreamError> {
        let tarballs = match (&sync.downloader_tarballs, std::env::var_os("HOME")) {
            (Some(path), _) => path.clone(),
            (None, Some(home)) => {
                Path::new(&home).join("snap/canonical-livepatch-downloader/common/tarballs")
            }
            (None, None) => {
                return Err(UpstreamError::Local(
                    "there is no home directory in which canonical-livepatch-downloader could keep its tarballs; set HOME, or patch-sync.downloader-tarballs".to_owned(),
                ));
            }
        };
        Ok(Self {
            tool: Tool::new(sync, token, stopping),
            tarballs,
            tier: sync.downloader_tier.clone(),
            trouble: Mutex::new(None),
        })
    }

    /// With other bounds on time.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.tool.patience = patience;
        self
    }

    async fn ask(&self, filter: &IntakeFilter) -> Result<Listing, UpstreamError> {
        let _one = self.trouble.lock().await;
        let mut listing = Listing::default();
        let mut seen: BTreeMap<String, Sha256> = BTreeMap::new();
        for mut arguments in calls(filter) {
            if !self.tier.is_empty() {
                arguments.push(format!("--tier={}", self.tier).into());
            }
            let ended = self
                .tool
                .run(arguments, self.tool.patience.short, Some(MAX_LIST))
                .await?;
            let items = list::parse(&ended.output).map_err(|why| {
                UpstreamError::Nonsense(format!(
                    "`{} list` did not print a list of files: {why}; run it by hand to see what it says",
                    self.tool.command
                ))
            })?;
            for item in items {
                match seen.insert(item.filename.clone(), item.hash) {
                    Some(before) if before != item.hash => {
                        return Err(UpstreamError::Nonsense(format!(
                            "`{} list` names {:?} with two different hashes",
                            self.tool.command, item.filename
                        )));
                    }
                    Some(_) => continue,
                    None => {}
                }
                match item.filename.parse::<BundleName>() {
                    Ok(name) => listing.payloads.push(Offered {
                        name,
                        sha256: Some(item.hash),
                        size: None,
                    }),
                    Err(why) => listing.unreadable.push((item.filename, why.to_string())),
                }
            }
        }
        Ok(listing)
    }

    fn tarball(&self, name: &BundleName) -> PathBuf {
        self.tarballs.join(name.to_string())
    }

    /// The tarball, opened at its beginning, if it is there with the hash that was listed.
    async fn whole(&self, payload: &Offered) -> io::Result<Whole> {
        let path = self.tarball(&payload.name);
        let expected = payload.sha256;
        tokio::task::spawn_blocking(move || whole(&path, expected))
            .await
            .map_err(io::Error::other)?
    }

    async fn fetch(&self, batch: &[Offered]) -> Result<(), UpstreamError> {
        let mut trouble = self.trouble.lock().await;
        *trouble = None;
        let mut wanted = Vec::new();
        for payload in batch {
            match self.whole(payload).await {
                Ok(Whole::Yes(_)) => continue,
                Ok(Whole::Missing) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(self.unusable(&error));
                }
                // Half a file of a run that was broken off, a link, or something else under that name.
                Ok(Whole::Other(_)) | Err(_) => self.clear(&payload.name).await,
            }
            wanted.push(payload);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let items = self.write_items(&wanted).map_err(|e| self.unusable(&e))?;
        let arguments = vec![
            "get-files".into(),
            "-i".into(),
            items.path().as_os_str().to_owned(),
            "--keep-tarball".into(),
        ];
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        let patience = self.tool.patience.fetch + self.tool.patience.each.saturating_mul(count);
        tracing::info!(files = wanted.len(), "the downloader fetches");
        let error = match self.tool.run(arguments, patience, None).await {
            Ok(ended) => {
                tracing::info!(said = self.tool.said(&ended), "the downloader has fetched");
                return Ok(());
            }
            Err(error) => error,
        };
        // One file that cannot be had must not keep the others of its batch out for ever.
        let mut came = 0;
        for payload in &wanted {
            came += usize::from(matches!(self.whole(payload).await, Ok(Whole::Yes(_))));
        }
        if came == 0
            || self.tool.stopping.is_cancelled()
            || matches!(error, UpstreamError::Local(_))
        {
            return Err(error);
        }
        tracing::warn!(came, of = wanted.len(), %error, "the downloader fetched only a part");
        *trouble = Some(error.to_string());
        Ok(())
    }

    fn unusable(&self, error: &io::Error) -> UpstreamError {
        let why = if error.kind() == io::ErrorKind::StorageFull {
            "make room on its disk"
        } else {
            "the account of this server must be able to read and write it; patch-sync.downloader-tarballs names it"
        };
        UpstreamError::Local(format!("{}: {error}; {why}", self.tarballs.display()))
    }

    /// The items to fetch, in the form of `list`, where a confined snap can read them.
    fn write_items(&self, wanted: &[&Offered]) -> io::Result<tempfile::NamedTempFile> {
        std::fs::create_dir_all(&self.tarballs)?;
        let mut text = String::new();
        for payload in wanted {
            let _ = writeln!(text, "- filename: {}", payload.name);
            if let Some(hash) = payload.sha256 {
                let _ = writeln!(text, "  hash: {hash}");
            }
        }
        let mut file = tempfile::Builder::new()
            .prefix("livepatch-onprem-")
            .suffix(".list")
            .tempfile_in(&self.tarballs)?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
        Ok(file)
    }

    /// Removes a tarball and the folder that the command extracted beside it.
    async fn clear(&self, name: &BundleName) {
        let tarball = self.tarball(name);
        if let Err(error) = tokio::fs::remove_file(&tarball).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %tarball.display(), %error, "a tarball of the downloader could not be removed");
        }
        // Public: extracted patches lie in `patches` beside `tarballs`, each in a folder of the tarball's name.
        let text = name.to_string();
        if let (Some(beside), Some(stem)) = (self.tarballs.parent(), text.strip_suffix(".tar.bz2"))
        {
            let extracted = beside.join("patches").join(stem);
            if let Err(error) = tokio::fs::remove_dir_all(&extracted).await
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(folder = %extracted.display(), %error, "an extracted patch of the downloader could not be removed");
            }
        }
    }

    async fn give(&self, payload: &Offered) -> Result<Body, UpstreamError> {
        let name = &payload.name;
        match self.whole(payload).await.map_err(|e| self.unusable(&e))? {
            Whole::Yes(file) => {
                let file = tokio::fs::File::from_std(file);
                Ok(ReaderStream::with_capacity(file, 64 << 10).boxed())
            }
            Whole::Missing => {
                let trouble = self.trouble.lock().await.clone();
                let why = trouble.unwrap_or_else(|| {
                    format!(
                        "no such file is in {}; does patch-sync.downloader-tarballs name the folder that the command keeps tarballs in?",
                        self.tarballs.display()
                    )
                });
                Err(UpstreamError::Unreachable(format!(
                    "{name} was listed and did not come: {why}"
                )))
            }
            Whole::Other(found) => {
                self.clear(name).await;
                let listed = payload.sha256.map(|hash| hash.to_string());
                Err(UpstreamError::Nonsense(format!(
                    "{name} came with SHA-256 {found}, but the list says {}; it was removed and is fetched again at the next run",
                    listed.unwrap_or_default()
                )))
            }
        }
    }
}

/// The calls of `list` that a filter makes: one value for each flag and call, as the command wants it.
fn calls(filter: &IntakeFilter) -> Vec<Vec<OsString>> {
    let values = |flag: &str, of: Vec<String>| -> Vec<Option<String>> {
        if of.is_empty() {
            return vec![None];
        }
        of.into_iter()
            .map(|value| Some(format!("--{flag}={value}")))
            .collect()
    };
    let architectures = filter
        .architectures
        .iter()
        .map(|architecture| architecture.as_str().to_owned())
        .collect();
    let mut flags = vec![
        values("architecture", architectures),
        values("flavour", filter.flavours.clone()),
        values("kernel", filter.kernel_prefixes.clone()),
    ];
    while flags.iter().map(Vec::len).product::<usize>() > MAX_CALLS {
        if let Some(longest) = flags.iter_mut().max_by_key(|values| values.len()) {
            *longest = vec![None];
        }
    }
    let mut calls = vec![vec![OsString::from("list")]];
    for values in &flags {
        calls = calls
            .iter()
            .flat_map(|call| {
                values.iter().map(|value| {
                    let mut call = call.clone();
                    call.extend(value.as_ref().map(OsString::from));
                    call
                })
            })
            .collect();
    }
    calls
}

/// Whether a tarball is there as listed.
enum Whole {
    /// It is; opened at its beginning.
    Yes(std::fs::File),
    /// There is something else: its hash.
    Other(Sha256),
    /// There is nothing.
    Missing,
}

fn whole(path: &Path, expected: Option<Sha256>) -> io::Result<Whole> {
    // No link is followed, and nothing that is no file is waited for.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Whole::Missing),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!(
            "{} is not a file",
            path.display()
        )));
    }
    let mut hasher = openssl::sha::Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    let found = Sha256(hasher.finish());
    if expected.is_some_and(|expected| expected != found) {
        return Ok(Whole::Other(found));
    }
    file.rewind()?;
    Ok(Whole::Yes(file))
}

impl Upstream for Downloader {
    fn name(&self) -> String {
        let tier = if self.tier.is_empty() {
            String::new()
        } else {
            format!(" tier {}", self.tier)
        };
        format!("downloader {}{tier}", self.tool.command)
    }

    fn list<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<Listing, UpstreamError>> {
        Box::pin(self.ask(question.filter))
    }

    fn batch(&self) -> usize {
        BATCH
    }

    fn prepare<'a>(&'a self, batch: &'a [Offered]) -> BoxFuture<'a, Result<(), UpstreamError>> {
        Box::pin(self.fetch(batch))
    }

    fn open<'a>(&'a self, payload: &'a Offered) -> BoxFuture<'a, Result<Body, UpstreamError>> {
        Box::pin(self.give(payload))
    }

    fn done<'a>(&'a self, payload: &'a Offered) -> BoxFuture<'a, ()> {
        Box::pin(self.clear(&payload.name))
    }
}
