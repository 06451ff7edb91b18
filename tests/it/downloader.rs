//! The driver `downloader` against a program that behaves as Canonical's is documented to, and against what can go wrong with it.

use crate::support::{intake, kmod};
use futures_util::TryStreamExt;
use livepatch_onprem::config::{PatchSync, SyncDriver};
use livepatch_onprem::db::audit::Actor;
use livepatch_onprem::db::tokens;
use livepatch_onprem::domain::{Architecture, Secret, Sha256};
use livepatch_onprem::index::IntakeFilter;
use livepatch_onprem::service::{contracts, ingest};
use livepatch_onprem::upstream::downloader::{Downloader, Patience};
use livepatch_onprem::upstream::{Listing, Offered, Question, Upstream, UpstreamError};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "C1contract-canary-token";
const NAMES: [&str; 4] = [
    "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2",
    "livepatch-5.15.0-107.117-generic-107.1-arm64.tar.bz2",
    "livepatch-6.8.0-31.31-generic-107.1-amd64.tar.bz2",
    "livepatch-6.8.0-31.31-aws-107.1-amd64.tar.bz2",
];

/// A world of the program: see the script.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// Upstream has the four files.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/canonical-downloader.sh");
        let world = Self { folder };
        std::os::unix::fs::symlink(script, world.at("canonical-livepatch-downloader")).unwrap();
        fs::create_dir(world.at("store")).unwrap();
        for name in NAMES {
            fs::write(world.at("store").join(name), format!("tarball {name}")).unwrap();
        }
        world.write("good-token", TOKEN);
        world
    }

    fn enabled() -> Self {
        let world = Self::new();
        world.write("enabled", "");
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    fn config(&self) -> PatchSync {
        PatchSync {
            downloader_command: self
                .at("canonical-livepatch-downloader")
                .to_str()
                .unwrap()
                .to_owned(),
            downloader_tarballs: Some(self.at("tarballs")),
            ..PatchSync::default()
        }
    }

    fn driver(&self) -> Downloader {
        Downloader::new(&self.config(), Secret::default(), CancellationToken::new()).unwrap()
    }

    fn with_token(&self, token: &str) -> Downloader {
        Downloader::new(&self.config(), Secret::new(token), CancellationToken::new()).unwrap()
    }

    /// A pipe on which the script tells that it hangs, and whose end is the end of all its processes.
    fn pipe(&self) -> PathBuf {
        let pipe = self.at("pipe");
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        pipe
    }
}

async fn ask(driver: &Downloader, filter: &IntakeFilter) -> Result<Listing, UpstreamError> {
    let question = Question {
        filter,
        known: None,
        now: jiff::Timestamp::now(),
    };
    driver.list(question).await
}

async fn all(driver: &Downloader) -> Vec<Offered> {
    let mut payloads = ask(driver, &IntakeFilter::default())
        .await
        .unwrap()
        .payloads;
    payloads.sort_by(|a, b| a.name.cmp(&b.name));
    payloads
}

async fn content(driver: &Downloader, payload: &Offered) -> String {
    let body = driver.open(payload).await.unwrap();
    let chunks: Vec<_> = body.try_collect().await.unwrap();
    String::from_utf8(chunks.concat()).unwrap()
}

fn names(listing: &Listing) -> Vec<String> {
    let mut names: Vec<String> = listing
        .payloads
        .iter()
        .map(|p| p.name.to_string())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn lists_fetches_opens_and_leaves_nothing() {
    let world = World::enabled();
    let driver = world.driver();
    let payloads = all(&driver).await;
    assert_eq!(payloads.len(), NAMES.len());
    driver.prepare(&payloads).await.unwrap();
    for payload in &payloads {
        let expected = format!("tarball {}", payload.name);
        assert_eq!(payload.sha256, Some(Sha256::of(expected.as_bytes())));
        assert_eq!(content(&driver, payload).await, expected);
        driver.done(payload).await;
    }
    for left in ["tarballs", "patches"] {
        let left: Vec<_> = fs::read_dir(world.at(left)).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    // What is gone can be made ready again; twice is no harm.
    driver.prepare(&payloads[..1]).await.unwrap();
    driver.prepare(&payloads[..1]).await.unwrap();
    assert_eq!(world.read("fetched").lines().count(), NAMES.len() + 1);
}

#[tokio::test]
async fn one_value_for_each_flag_and_call() {
    let world = World::enabled();
    let driver = world.driver();
    let filter = IntakeFilter {
        architectures: vec![Architecture::Amd64, Architecture::Arm64],
        flavours: vec!["generic".to_owned(), "aws".to_owned()],
        kernel_prefixes: vec!["6.8".to_owned()],
        ..IntakeFilter::default()
    };
    let listing = ask(&driver, &filter).await.unwrap();
    assert_eq!(names(&listing), [NAMES[3], NAMES[2]]);
    let calls = world.read("calls");
    assert_eq!(
        calls.lines().collect::<Vec<_>>(),
        [
            "list --architecture=amd64 --flavour=generic --kernel=6.8",
            "list --architecture=amd64 --flavour=aws --kernel=6.8",
            "list --architecture=arm64 --flavour=generic --kernel=6.8",
            "list --architecture=arm64 --flavour=aws --kernel=6.8",
        ]
    );
    // Filters that would make hundreds of calls ask for more instead; it is filtered again where it is taken in.
    let filter = IntakeFilter {
        flavours: (0..300).map(|n| format!("flavour{n}")).collect(),
        ..filter
    };
    let listing = ask(&driver, &filter).await.unwrap();
    assert_eq!(names(&listing), [NAMES[3], NAMES[2]]);
    assert_eq!(world.read("calls").lines().count(), 6);
}

#[tokio::test]
async fn the_command_sees_the_proxy_and_no_secret() {
    let world = World::enabled();
    let mut config = world.config();
    config.proxy.enabled = true;
    config.proxy.https = Secret::new("http://user:canary@proxy.example:3128");
    config.proxy.no_proxy = vec!["localhost".to_owned(), "10.0.0.1".to_owned()];
    let driver = Downloader::new(&config, Secret::default(), CancellationToken::new()).unwrap();
    all(&driver).await;
    let environment = world.read("environment");
    let lines: Vec<&str> = environment.lines().collect();
    for line in [
        "https_proxy=http://user:canary@proxy.example:3128",
        "HTTPS_PROXY=http://user:canary@proxy.example:3128",
        "no_proxy=localhost,10.0.0.1",
        "NO_PROXY=localhost,10.0.0.1",
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{environment}");
    }
    // The tests themselves run with variables that a server's secrets stand for.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    for line in lines {
        assert!(
            !line.starts_with("CARGO_")
                && !line.starts_with("LIVEPATCH_")
                && !line.starts_with("http_proxy"),
            "{line}"
        );
    }
    assert!(
        !format!("{driver:?}").contains("user:canary"),
        "the proxy's password shows"
    );
}

#[tokio::test]
async fn it_is_enabled_when_it_says_so_and_a_token_is_there() {
    let world = World::new();
    let error = ask(&world.driver(), &IntakeFilter::default())
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, UpstreamError::Denied(_)), "{text}");
    assert!(
        text.contains("not enabled")
            && text.contains("enable TOKEN")
            && text.contains("patch-sync.token"),
        "{text}"
    );
    // A wrong token: said so, and not repeated, though the command repeats it.
    let wrong = world.with_token("wrong-canary");
    let text = ask(&wrong, &IntakeFilter::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("unauthorized") && text.contains("[masked]") && !text.contains("canary"),
        "{text}"
    );
    // The right one: enabled once, and never again.
    let driver = world.with_token(TOKEN);
    assert_eq!(all(&driver).await.len(), NAMES.len());
    assert_eq!(all(&driver).await.len(), NAMES.len());
    let calls = world.read("calls");
    assert_eq!(
        calls
            .lines()
            .filter(|line| *line == format!("enable {TOKEN}"))
            .count(),
        1,
        "{calls}"
    );
    assert!(!format!("{driver:?}").contains("canary"));
}

#[tokio::test]
async fn a_missing_command_and_an_unknown_tier_say_what_to_do() {
    let world = World::enabled();
    let mut config = world.config();
    config.downloader_command = world.at("nowhere").to_str().unwrap().to_owned();
    let driver = Downloader::new(&config, Secret::default(), CancellationToken::new()).unwrap();
    let error = ask(&driver, &IntakeFilter::default()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Local(_)), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("snap install") && text.contains("patch-sync.downloader-command"),
        "{text}"
    );
    let mut config = world.config();
    config.downloader_command = world.at("good-token").to_str().unwrap().to_owned();
    let driver = Downloader::new(&config, Secret::default(), CancellationToken::new()).unwrap();
    let text = ask(&driver, &IntakeFilter::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(text.contains("execute"), "{text}");
    let mut config = world.config();
    config.downloader_tier = "nonsense".to_owned();
    let driver = Downloader::new(&config, Secret::default(), CancellationToken::new()).unwrap();
    let error = ask(&driver, &IntakeFilter::default()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Denied(_)), "{error}");
    assert!(
        error.to_string().contains("patch-sync.downloader-tier"),
        "{error}"
    );
    config.downloader_tier = "stable".to_owned();
    let driver = Downloader::new(&config, Secret::default(), CancellationToken::new()).unwrap();
    assert_eq!(all(&driver).await.len(), NAMES.len());
}

#[tokio::test]
async fn garbage_is_not_a_list() {
    let world = World::enabled();
    for mode in ["garbage", "binary"] {
        world.write("mode", mode);
        let error = ask(&world.driver(), &IntakeFilter::default())
            .await
            .unwrap_err();
        assert!(matches!(error, UpstreamError::Nonsense(_)), "{error}");
        assert!(
            error.to_string().contains("did not print a list"),
            "{error}"
        );
    }
    // A name that is no bundle's is told and left alone.
    world.write("mode", "");
    fs::write(world.at("store/livepatch-odd.tar.bz2"), "x").unwrap();
    let listing = ask(&world.driver(), &IntakeFilter::default())
        .await
        .unwrap();
    assert_eq!(listing.payloads.len(), NAMES.len());
    assert_eq!(listing.unreadable[0].0, "livepatch-odd.tar.bz2");
}

#[tokio::test]
async fn killed_midway_keeps_what_came_and_fetches_only_the_rest() {
    let world = World::enabled();
    let driver = world.driver();
    let payloads = all(&driver).await;
    world.write("mode", "kill");
    // One whole file and a half one: the whole one can be used, the others say what happened.
    driver.prepare(&payloads).await.unwrap();
    assert_eq!(
        content(&driver, &payloads[0]).await,
        format!("tarball {}", payloads[0].name)
    );
    let Err(half) = driver.open(&payloads[1]).await else {
        panic!("half a file was given")
    };
    assert!(
        matches!(half, UpstreamError::Nonsense(_)) && half.to_string().contains("SHA-256"),
        "{half}"
    );
    let Err(missing) = driver.open(&payloads[2]).await else {
        panic!("no file was given")
    };
    assert!(
        missing.to_string().contains("did not come") && missing.to_string().contains("signal 9"),
        "{missing}"
    );
    world.write("mode", "");
    world.write("fetched", "");
    driver.prepare(&payloads).await.unwrap();
    assert_eq!(world.read("fetched").lines().count(), payloads.len() - 1);
    for payload in &payloads {
        assert_eq!(
            content(&driver, payload).await,
            format!("tarball {}", payload.name)
        );
    }
    // A half file that is left from an earlier run does not count either.
    fs::write(
        world.at("tarballs").join(payloads[3].name.to_string()),
        "tar",
    )
    .unwrap();
    driver.prepare(&payloads).await.unwrap();
    assert_eq!(
        content(&driver, &payloads[3]).await,
        format!("tarball {}", payloads[3].name)
    );
}

#[tokio::test]
async fn a_full_disk_wrong_content_and_files_that_do_not_come() {
    let world = World::enabled();
    let driver = world.driver();
    let payloads = all(&driver).await;
    world.write("mode", "full");
    let error = driver.prepare(&payloads).await.unwrap_err();
    assert!(
        matches!(error, UpstreamError::Local(_)) && error.to_string().contains("make room"),
        "{error}"
    );
    world.write("mode", "missing");
    driver.prepare(&payloads[..1]).await.unwrap();
    let Err(error) = driver.open(&payloads[0]).await else {
        panic!("no file was given")
    };
    assert!(
        error.to_string().contains("listed and did not come"),
        "{error}"
    );
    assert!(
        error.to_string().contains("patch-sync.downloader-tarballs"),
        "{error}"
    );
    world.write("mode", "corrupt");
    driver.prepare(&payloads[..1]).await.unwrap();
    let Err(error) = driver.open(&payloads[0]).await else {
        panic!("a wrong file was given")
    };
    assert!(
        matches!(error, UpstreamError::Nonsense(_)) && error.to_string().contains("list says"),
        "{error}"
    );
    assert!(
        !world
            .at("tarballs")
            .join(payloads[0].name.to_string())
            .exists()
    );
    // A link in a tarball's place is not followed.
    world.write("mode", "");
    world.write("elsewhere", &format!("tarball {}", payloads[1].name));
    std::os::unix::fs::symlink(
        world.at("elsewhere"),
        world.at("tarballs").join(payloads[1].name.to_string()),
    )
    .unwrap();
    let Err(error) = driver.open(&payloads[1]).await else {
        panic!("a link was followed")
    };
    assert!(matches!(error, UpstreamError::Local(_)), "{error}");
    // It is put away at the next run, and what it led to is left as it was.
    driver.prepare(&payloads[1..2]).await.unwrap();
    world.write("elsewhere", "another");
    let fetched = content(&driver, &payloads[1]).await;
    assert_eq!(fetched, format!("tarball {}", payloads[1].name));
}

#[tokio::test]
async fn time_is_bounded() {
    let world = World::enabled();
    world.pipe();
    world.write("mode", "hang");
    let brief = Duration::from_millis(300);
    let driver = world.driver().with_patience(Patience {
        short: brief,
        fetch: brief,
        each: Duration::ZERO,
    });
    let error = ask(&driver, &IntakeFilter::default()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error}");
    assert!(
        error.to_string().contains("did not end within 300ms"),
        "{error}"
    );
}

/// Starts a fetch that hangs, ends it in some way, and waits until all processes of the command are gone.
async fn ends_all(
    end: impl AsyncFnOnce(CancellationToken, tokio::task::JoinHandle<Result<(), UpstreamError>>),
) {
    let world = World::enabled();
    let stopping = CancellationToken::new();
    let driver = Downloader::new(&world.config(), Secret::default(), stopping.clone()).unwrap();
    let payloads = all(&driver).await;
    let pipe = world.pipe();
    world.write("mode", "hang");
    let fetch = tokio::spawn(async move { driver.prepare(&payloads).await });
    let mut reader = tokio::task::spawn_blocking(move || {
        let mut reader = BufReader::new(fs::File::open(pipe).unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "hanging\n");
        reader
    })
    .await
    .unwrap();
    end(stopping, fetch).await;
    // The end of the pipe: nobody of the group is left who could write.
    let gone = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()).unwrap());
    tokio::time::timeout(Duration::from_mins(1), gone)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_stop_ends_the_whole_process_group() {
    ends_all(async |stopping, fetch| {
        stopping.cancel();
        let error = fetch.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("the server stops"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn so_does_a_caller_who_goes_away() {
    ends_all(async |_, fetch| {
        fetch.abort();
        assert!(fetch.await.unwrap_err().is_cancelled());
    })
    .await;
}

#[tokio::test]
async fn a_signed_bundle_comes_through_the_command_into_the_catalog() {
    let test = intake::trusting_with(|config| {
        config.patch_sync.driver = SyncDriver::Downloader;
    })
    .await;
    let bundle = kmod::real_bundle("107.1", "patched");
    let world = World::new();
    fs::remove_dir_all(world.at("store")).unwrap();
    fs::create_dir(world.at("store")).unwrap();
    let filename = intake::file_name(&bundle);
    fs::copy(&bundle, world.at("store").join(&filename)).unwrap();
    // No token is configured: the one that `get-resource-token` stored is taken.
    let stored = Secret::new(TOKEN);
    {
        let conn = test.core.db.conn().await.unwrap();
        tokens::store_resource_token(&conn, &stored).await.unwrap();
    }
    let config = contracts::patch_sync(&test.core).await.unwrap();
    assert_eq!(config.token, stored);
    let driver = world.with_token(config.token.expose());
    let payloads = all(&driver).await;
    driver.prepare(&payloads).await.unwrap();
    let body = driver.open(&payloads[0]).await.unwrap();
    let actor = Actor {
        name: "system".to_owned(),
        source: "sync".to_owned(),
    };
    let declared = payloads[0].sha256;
    let outcome = ingest::bundle(&test.core, &actor, "downloader", &filename, declared, body)
        .await
        .unwrap();
    driver.done(&payloads[0]).await;
    let sha256 = declared.unwrap();
    assert!(
        ingest::has(&test.core, &filename, sha256).await.unwrap(),
        "{outcome:?}"
    );
    assert!(!world.at("tarballs").join(&filename).exists());
}
