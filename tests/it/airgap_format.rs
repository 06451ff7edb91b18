//! The format of archives on its own: volumes as the reference describes them, written here by another hand, and everything that can be
//! done to them on the way.

use futures_util::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use livepatch_onprem::domain::{PublicKey, Sha256, SigningKey};
use livepatch_onprem::index::{IntakeFilter, Known, Load, Plan, State, plan, seal_manifest};
use livepatch_onprem::upstream::archive::{Archive, open};
use livepatch_onprem::upstream::volume::ArchiveError;
use livepatch_onprem::upstream::{Question, Upstream as _, UpstreamError};
use livepatch_onprem::wire::archive::{FilterRecord, Since};
use livepatch_onprem::wire::sync::{Head, PayloadRecord, Record, TierRecord};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uuid::Uuid;

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32]).unwrap()
}

fn public(n: u8) -> PublicKey {
    key(n).public().unwrap()
}

fn now() -> Timestamp {
    "2026-07-01T12:00:00Z".parse().unwrap()
}

fn name(abi: u8) -> String {
    format!("livepatch-5.15.0-{abi}.117-generic-107.1-amd64.tar.bz2")
}

/// Contents of uneven lengths, so that padding matters.
fn content(abi: u8) -> Vec<u8> {
    (0..700 + 37 * usize::from(abi))
        .map(|at| (at * usize::from(abi)) as u8)
        .collect()
}

fn state(abis: &[u8]) -> State {
    let mut records: Vec<Record> = abis
        .iter()
        .map(|abi| {
            let content = content(*abi);
            Record::Payload(PayloadRecord {
                filename: name(*abi),
                sha256: Sha256::of(&content),
                size: content.len() as u64,
            })
        })
        .collect();
    records.push(Record::Tier(TierRecord {
        name: "edge".parse().unwrap(),
        position: 0,
    }));
    State::of(&records).unwrap()
}

/// An archive as it would be planned.
struct Draft {
    plan: Plan,
    state: State,
    signer: u8,
}

fn draft(version: u64, abis: &[u8], limit: Option<u64>) -> Draft {
    drafted(version, abis, limit, None)
}

fn drafted(
    version: u64,
    abis: &[u8],
    limit: Option<u64>,
    since: Option<(Since, BTreeMap<String, Sha256>)>,
) -> Draft {
    let state = state(abis);
    let load = Load {
        head: Head {
            format: 1,
            deployment: Uuid::from_u128(7),
            tier: "edge".parse().unwrap(),
            version,
            digest: state.digest(),
            bytes: state.bytes(),
            payloads: abis.len() as u64,
            issued_at: now() - SignedDuration::from_hours(1),
            expires_at: now() + SignedDuration::from_hours(24),
            keys: vec![public(1)],
        },
        state: &state,
        filter: FilterRecord::default(),
        since,
        limit,
    };
    let size = |manifest: &_| {
        let sealed = seal_manifest(manifest, &[key(1)])?;
        Ok(serde_json::to_vec(&sealed).unwrap().len() as u64)
    };
    let plan = plan(&load, size).unwrap();
    Draft {
        plan,
        state,
        signer: 1,
    }
}

impl Draft {
    fn manifest(&self) -> Vec<u8> {
        let sealed = seal_manifest(&self.plan.manifest, &[key(self.signer)]).unwrap();
        serde_json::to_vec(&sealed).unwrap()
    }

    /// The volumes' bytes, by the tar crate's own writer.
    fn volumes(&self) -> Vec<Vec<u8>> {
        let manifest = self.manifest();
        let mut volumes = Vec::new();
        for (at, entries) in self.plan.volumes.iter().enumerate() {
            let mut tar = tar::Builder::new(Vec::new());
            let mut add = |path: &str, bytes: &[u8]| {
                let mut header = tar::Header::new_ustar();
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                header.set_mtime(0);
                header.set_uid(0);
                header.set_gid(0);
                tar.append_data(&mut header, path, bytes).unwrap();
            };
            add(&format!("manifest-{:04}.json", at + 1), &manifest);
            for entry in entries {
                let bytes = match entry.name() {
                    "state.jsonl" => self.state.text().into_bytes(),
                    "contents.txt" => self.plan.contents.clone().into_bytes(),
                    name => content(abi(name)),
                };
                add(&entry.path, &bytes);
            }
            volumes.push(tar.into_inner().unwrap());
        }
        volumes
    }

    fn write(&self, folder: &Path) -> Vec<PathBuf> {
        let volumes = self.volumes();
        let paths: Vec<PathBuf> = (1..=volumes.len())
            .map(|n| folder.join(format!("a.{n:03}.tar")))
            .collect();
        for (path, bytes) in paths.iter().zip(&volumes) {
            std::fs::write(path, bytes).unwrap();
        }
        paths
    }
}

fn abi(name: &str) -> u8 {
    let rest = name.strip_prefix("livepatch-5.15.0-").unwrap();
    rest.split('.').next().unwrap().parse().unwrap()
}

fn try_open(paths: &[PathBuf]) -> Result<Archive, ArchiveError> {
    open(paths, &[public(1)], now(), false, &mut |_, _| {})
}

fn code(paths: &[PathBuf]) -> &'static str {
    try_open(paths).map_or_else(|e| e.code(), |_| "good")
}

#[tokio::test]
async fn an_archive_gives_back_what_was_put_in() {
    let folder = tempfile::tempdir().unwrap();
    let draft = draft(9, &[1, 2, 3, 4, 5, 6, 7], Some(8_192));
    let paths = draft.write(folder.path());
    assert!(paths.len() > 2, "{} volumes", paths.len());
    for path in &paths {
        assert!(path.metadata().unwrap().len() <= 8_192);
    }
    let mut told = (0, 0);
    let mut read = |piece, total| told = (told.0 + piece, total);
    let archive = open(
        &[folder.path().to_owned()],
        &[public(1)],
        now(),
        false,
        &mut read,
    )
    .unwrap();
    assert!(told.0 > 0 && told.0 <= told.1, "{told:?}");
    assert_eq!(archive.carried(), 7);
    assert_eq!(archive.state(), &draft.state);
    let filter = IntakeFilter::default();
    let question = Question {
        filter: &filter,
        known: None,
        now: now(),
    };
    let listing = archive.list(question).await.unwrap();
    assert_eq!(listing.payloads.len(), 7);
    for offered in &listing.payloads {
        let body = upstream_open(&archive, offered).await;
        assert_eq!(body, content(abi(&offered.name.to_string())));
    }
    // The order in which volumes are given, and what they are called, does not matter.
    let mut renamed = Vec::new();
    for (at, path) in paths.iter().rev().enumerate() {
        let to = folder.path().join(format!("renamed {at}"));
        std::fs::rename(path, &to).unwrap();
        renamed.push(to);
    }
    assert_eq!(code(&renamed), "good");
}

async fn upstream_open(
    archive: &Archive,
    offered: &livepatch_onprem::upstream::Offered,
) -> Vec<u8> {
    let body = livepatch_onprem::upstream::Upstream::open(archive, offered).await;
    let pieces: Vec<bytes::Bytes> = body.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    let (one, two) = (draft(9, &[1, 2, 3], None), draft(9, &[3, 2, 1], None));
    assert_eq!(one.volumes(), two.volumes());
    assert_eq!(one.volumes().len(), 1);
}

#[test]
fn one_flipped_byte_anywhere_is_found_and_its_place_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let draft = draft(9, &[1, 2, 3], Some(6_144));
    let paths = draft.write(folder.path());
    let volumes = draft.volumes();
    assert!(volumes.len() > 1);
    assert_eq!(code(&paths), "good");
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, good) in paths.iter().zip(&volumes) {
        for at in (0..good.len()).step_by(23).chain((0..512).step_by(3)) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            std::fs::write(path, &bad).unwrap();
            let error = try_open(&paths).expect_err(&format!("{} {at}", path.display()));
            let text = error.to_string();
            assert!(text.contains(path.to_str().unwrap()), "{at}: {text}");
            *seen.entry(error.code()).or_default() += 1;
        }
        std::fs::write(path, good).unwrap();
    }
    assert_eq!(code(&paths), "good");
    for code in ["altered", "not-a-volume"] {
        assert!(seen.contains_key(code), "{seen:?}");
    }
    // Within the manifest it is the signature, or what cannot be read at all.
    assert!(seen.contains_key("unreadable"), "{seen:?}");
    // A payload's own name is in the message.
    let last = volumes.len();
    let mut bad = volumes[last - 1].clone();
    let inside = bad.len() - 1024 - 512;
    bad[inside] ^= 1;
    std::fs::write(&paths[last - 1], &bad).unwrap();
    let text = try_open(&paths).unwrap_err().to_string();
    let named = format!("(volume {last}) was altered: payloads/livepatch-5.15.0-3.117");
    assert!(text.contains(&named), "{text}");
}

#[test]
fn a_volume_that_ends_early_anywhere_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let draft = draft(9, &[1, 2, 3], Some(6_144));
    let paths = draft.write(folder.path());
    let good = std::fs::read(&paths[1]).unwrap();
    for length in (0..good.len()).step_by(11).chain([good.len() - 1]) {
        std::fs::write(&paths[1], &good[..length]).unwrap();
        let error = try_open(&paths).unwrap_err();
        assert!(
            matches!(error.code(), "half-copied" | "not-a-volume"),
            "{length}: {error}"
        );
        assert!(error.to_string().contains("a.002.tar"), "{error}");
    }
    // Longer is no better: endless data is not even looked at.
    let mut long = good.clone();
    long.extend_from_slice(&[0; 10_240]);
    std::fs::write(&paths[1], &long).unwrap();
    let text = try_open(&paths).unwrap_err().to_string();
    assert!(text.contains("a.002.tar is too long"), "{text}");
    let endless = std::fs::File::create(&paths[1]).unwrap();
    std::io::Write::write_all(&mut &endless, &good).unwrap();
    endless.set_len(1 << 40).unwrap();
    assert_eq!(code(&paths), "half-copied");
}

#[test]
fn missing_doubled_and_foreign_volumes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = draft(9, &[1, 2, 3, 4, 5], Some(6_144)).write(folder.path());
    assert!(paths.len() >= 3);
    let text = try_open(&[paths[0].clone(), paths[2].clone()])
        .unwrap_err()
        .to_string();
    assert!(text.contains("volume 2 (probably a.002.tar)"), "{text}");
    let twice = folder.path().join("copy");
    std::fs::copy(&paths[1], &twice).unwrap();
    let mut given = paths.clone();
    given.push(twice);
    assert_eq!(code(&given), "volume-twice");
    let other = tempfile::tempdir().unwrap();
    let others = draft(10, &[1, 2, 3, 4, 5], Some(6_144)).write(other.path());
    let mut mixed = paths.clone();
    mixed[1].clone_from(&others[1]);
    let text = try_open(&mixed).unwrap_err().to_string();
    assert!(
        text.contains("version 9") && text.contains("version 10"),
        "{text}"
    );
    assert_eq!(
        code(&[folder.path().join("nothing.tar")]),
        "unreadable-file"
    );
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(code(&[empty.path().to_owned()]), "nothing");
    assert_eq!(code(&[]), "nothing");
    assert_eq!(code(&["/dev/zero".into()]), "not-a-volume");
}

#[test]
fn only_a_trusted_key_an_age_and_a_whole_state_are_believed() {
    let folder = tempfile::tempdir().unwrap();
    let mut draft = draft(9, &[1, 2], None);
    let paths = draft.write(folder.path());
    let with = |trusted: &[PublicKey], at: Timestamp, old: bool| {
        open(&paths, trusted, at, old, &mut |_, _| {}).map_or_else(|e| e.code(), |_| "good")
    };
    assert_eq!(with(&[public(1)], now(), false), "good");
    assert_eq!(with(&[public(2), public(1)], now(), false), "good");
    assert_eq!(with(&[public(2)], now(), false), "wrong-key");
    assert_eq!(with(&[], now(), false), "wrong-key");
    let later = now() + SignedDuration::from_hours(48);
    assert_eq!(with(&[public(1)], later, false), "freeze");
    assert_eq!(with(&[public(1)], later, true), "good");
    let earlier = now() - SignedDuration::from_hours(48);
    assert_eq!(with(&[public(1)], earlier, true), "from-the-future");
    // Signed, and yet senseless.
    let good = draft.plan.manifest.clone();
    let mut tried = |change: &dyn Fn(&mut livepatch_onprem::wire::archive::ArchiveManifest)| {
        draft.plan.manifest = good.clone();
        change(&mut draft.plan.manifest);
        code(&draft.write(folder.path()))
    };
    assert_eq!(tried(&|_| {}), "good");
    assert_eq!(tried(&|m| m.format = 2), "format");
    assert_eq!(tried(&|m| m.index.payloads = 3), "other-state");
    assert_eq!(tried(&|m| m.volumes[0].payloads = 1), "other-state");
    assert_eq!(tried(&|m| m.volumes[0].payloads = u64::MAX), "other-state");
    assert_eq!(tried(&|m| m.volumes[0].bytes = u64::MAX), "half-copied");
    assert_eq!(tried(&|m| m.index.bytes = u64::MAX), "endless-data");
    assert_eq!(tried(&|m| m.index.bytes = 1 << 27), "altered");
    assert_eq!(tried(&|m| m.contents.bytes = u64::MAX), "endless-data");
    assert_eq!(tried(&|m| m.contents.digest = Sha256([0; 32])), "altered");
    assert_eq!(tried(&|m| m.index.digest = Sha256([0; 32])), "altered");
    assert_eq!(tried(&|m| m.volumes.clear()), "unreadable");
}

#[test]
fn a_list_of_contents_that_lies_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (contents, why) in [
        (format!("{}\n{}\n", name(2), name(1)), "not in its place"),
        (format!("{}\n{}\n", name(1), name(1)), "not in its place"),
        (format!("{}\n{}\n", name(1), name(9)), "not in the state"),
        (format!("{}\n../../etc/passwd\n", name(1)), "not in"),
        (format!("{}\n", name(1)), "should hold 2 payloads"),
        (
            format!("{}\n{}\n{}\n", name(1), name(2), name(3)),
            "is in no volume",
        ),
    ] {
        let mut draft = draft(9, &[1, 2, 3], None);
        draft.plan.contents.clone_from(&contents);
        let manifest = &mut draft.plan.manifest;
        manifest.contents.digest = Sha256::of(contents.as_bytes());
        manifest.contents.bytes = contents.len() as u64;
        let listing = &mut draft.plan.volumes[0];
        listing[1].size = contents.len() as u64;
        listing.truncate(4);
        manifest.volumes[0].payloads = 2;
        let span = livepatch_onprem::index::VolumeEntry::span;
        manifest.volumes[0].bytes = draft.plan.volumes[0].iter().map(span).sum::<u64>() + 1024;
        let error = try_open(&draft.write(folder.path())).unwrap_err();
        assert!(error.to_string().contains(why), "{contents}: {error}");
    }
}

#[tokio::test]
async fn an_older_archive_is_refused_and_a_part_says_that_it_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let old = state(&[1, 2]);
    let since = Since {
        version: 8,
        digest: old.digest(),
    };
    let there = old.payloads().map(|p| (p.filename, p.sha256)).collect();
    let draft = drafted(9, &[1, 2, 3], None, Some((since, there)));
    assert_eq!(draft.plan.contents, format!("{}\n", name(3)));
    let archive = try_open(&draft.write(folder.path())).unwrap();
    assert_eq!(archive.state().payloads().count(), 3);
    assert!(archive.carries(&name(3)) && !archive.carries(&name(1)));
    let known = |version| Known {
        deployment: Uuid::from_u128(7),
        tier: "edge".parse().unwrap(),
        version,
        digest: archive.head().digest,
        issued_at: now(),
        keys: vec![public(1)],
    };
    let filter = IntakeFilter::default();
    for (version, good) in [(8, true), (9, true), (10, false)] {
        let known = known(version);
        let question = Question {
            filter: &filter,
            known: Some((&known, &old)),
            now: now(),
        };
        let listed = archive.list(question).await;
        assert_eq!(listed.is_ok(), good, "{version}");
        if let Err(error) = listed {
            assert_eq!(error.code(), "rollback");
        } else if let Ok(listing) = listed {
            let missing = &listing.payloads[0];
            let opened = livepatch_onprem::upstream::Upstream::open(&archive, missing).await;
            assert!(matches!(opened, Err(UpstreamError::Denied(_))));
        }
    }
}

#[test]
fn volumes_are_never_larger_than_asked_and_too_small_ones_are_refused() {
    let names: Vec<u8> = (1..=60).collect();
    for limit in [24_000, 30_000, 50_000, 1_000_000] {
        let draft = draft(9, &names, Some(limit));
        for volume in draft.volumes() {
            assert!(volume.len() as u64 <= limit, "{} {limit}", volume.len());
        }
    }
    let state = state(&names);
    let load = |limit| Load {
        head: draft(9, &names, None).plan.manifest.index,
        state: &state,
        filter: FilterRecord::default(),
        since: None,
        limit: Some(limit),
    };
    for limit in [1, 512, 4_000] {
        let error = plan(&load(limit), |_| Ok(1_500)).unwrap_err().to_string();
        assert!(error.contains("give --volume-size at least"), "{error}");
    }
}
