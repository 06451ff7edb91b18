//! Archives from one site to another, by the commands that people use, beside servers that run.

use crate::support::airgap::{Site, only};
use crate::support::kmod::real_bundle;
use crate::support::process::until;
use crate::support::server::Machine;
use serde_json::{Value, json};

/// Waits until a machine is offered this version; the server hears of changes by itself.
async fn comes_to_be_offered(machine: &Machine, site: &Site, version: &str) {
    until(version, async || {
        machine.offered(&site.server, None).await == version
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_site_has_another_gets_whole() {
    let (staging, isolated) = (Site::staging().await, Site::empty().await);
    let reason = json!({ "reason": "hangs" });
    staging
        .server
        .admin("POST", "patches/107.1/block", reason)
        .await;
    let folder = staging.export(&[]).await;

    // Nobody is believed until a person says so.
    isolated
        .import(&folder, &[])
        .await
        .refused("no key is trusted here");
    let stranger = Site::empty().await;
    isolated.trust(&stranger).await;
    isolated
        .import(&folder, &[])
        .await
        .refused("not signed with a key that is trusted here");
    assert_eq!(isolated.visible().await, 0);
    isolated.trust(&staging).await;

    // A look changes nothing.
    let looked = isolated.import(&folder, &["--dry-run"]).await;
    let text = looked.well("2 payloads are new").text;
    for part in [
        "106.1",
        "block of 107.1: hangs",
        "106.1 to stable",
        "supported kernels: ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(isolated.visible().await, 0);
    assert_eq!(isolated.number("select count(*) from sync_runs").await, 0);

    // The server that runs notices; the block came along; promotions only with --tiers.
    let edge = Machine::register(
        &isolated.server,
        1,
        &isolated.server.token("edge", "edge").await,
    )
    .await;
    let stable = Machine::register(
        &isolated.server,
        2,
        &isolated.server.token("stable", "stable").await,
    )
    .await;
    isolated
        .import(&folder, &[])
        .await
        .well("Done: 2 added, 0 withdrawn, 0 in quarantine.");
    comes_to_be_offered(&edge, &isolated, "106.1").await;
    assert_eq!(stable.offered(&isolated.server, None).await, "");
    isolated
        .import(&folder, &["--tiers"])
        .await
        .well("Everything in it is here already.");
    comes_to_be_offered(&stable, &isolated, "106.1").await;
    let audit = isolated
        .server
        .admin("GET", "audit/verify", Value::Null)
        .await;
    assert_eq!(audit["ok"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_gives_the_same_and_only_what_is_new_is_carried() {
    let (staging, isolated) = (Site::staging().await, Site::empty().await);
    isolated.trust(&staging).await;
    let first = staging.export(&[]).await;
    let bytes = std::fs::read(only(&first)).unwrap();
    // Somebody logs in, the clock goes on: none of that is content.
    staging.run(&["keys", "show"]).await;
    let again = staging.export(&[]).await;
    assert!(bytes == std::fs::read(only(&again)).unwrap());
    assert_eq!(only(&again).file_name(), only(&first).file_name());
    isolated.import(&first, &[]).await.well("Done: 2 added");

    let bundle = real_bundle("108.1", "patched");
    assert_eq!(staging.server.upload(&bundle).await["result"], "stored");
    let older = only(&first);
    let by_file = staging.export(&["--since", older.to_str().unwrap()]).await;
    let name = older.file_stem().unwrap().to_str().unwrap();
    let version = name.rsplit('-').next().unwrap();
    let by_version = staging.export(&["--since", version]).await;
    let part = std::fs::read(only(&by_file)).unwrap();
    assert!(part == std::fs::read(only(&by_version)).unwrap());
    staging
        .run(&["export", "-o", "/nonexistent/", "--since", "1"])
        .await
        .refused("give the archive itself instead");

    // A site that lacks what came before is told, and takes in nothing of it.
    let late = Site::empty().await;
    late.trust(&staging).await;
    late.import(&by_file, &[])
        .await
        .refused("2 of its payloads are neither in this archive nor here");
    assert_eq!(late.visible().await, 0);
    isolated
        .import(&by_file, &[])
        .await
        .well("Done: 1 added, 0 withdrawn");
    assert_eq!(isolated.visible().await, 3);

    // Back to the older one: refused, unless a person says why.
    isolated
        .import(&first, &[])
        .await
        .refused("this is an older archive");
    // A third of the patches is gone in it: more than goes without a person.
    let old = first.to_str().unwrap();
    let waits = isolated
        .run(&["import", old, "--accept-old", "a test"])
        .await;
    assert_eq!(waits.status.code(), Some(3), "{}", waits.text);
    let held = "select count(*) from blocks where lifted_at is null";
    assert_eq!(isolated.number(held).await, 0);
    let said = isolated.import(&first, &["--accept-old", "a test"]).await;
    said.well("1 withdrawn");
    assert_eq!(isolated.number(held).await, 1);
    let sql = "select count(*) from audit_log where action = 'archive.accept-old' and details like '%a test%'";
    assert_eq!(isolated.number(sql).await, 2);

    // A folder with all of them, as it grows on a medium.
    let all = tempfile::tempdir().unwrap();
    for folder in [&by_file, &first] {
        let file = only(folder);
        std::fs::copy(&file, all.path().join(file.file_name().unwrap())).unwrap();
    }
    let looked = late.import(all.path(), &["--dry-run"]).await;
    looked.well("import the archive of that version first");
    late.import(all.path(), &[]).await.well("Done: 1 added");
    assert_eq!(late.visible().await, 3);
    late.import(all.path(), &[])
        .await
        .well("passed over: this is an older archive");
}

#[tokio::test(flavor = "multi_thread")]
async fn tiers_filters_and_volumes_narrow_and_cut() {
    let staging = Site::staging().await;
    let stable = staging.export(&["--tier", "stable"]).await;
    let other = Site::empty().await;
    other.trust(&staging).await;
    other
        .import(&stable, &["--dry-run"])
        .await
        .well("1 payload is new");
    let none = staging.export(&["--flavour", "nothing-like-it"]).await;
    other
        .import(&none, &["--dry-run"])
        .await
        .well("It stands for 0 payloads");
    staging
        .run(&["export", "-o", "/nonexistent/", "--tier", "nowhere"])
        .await
        .refused("there is no tier \"nowhere\"");
    staging
        .run(&["export", "-o", "/nonexistent/x", "--volume-size", "4KiB"])
        .await
        .refused("give --volume-size at least");

    // Each payload needs a volume; one that is gone is written again, the others are left as they are.
    let state = staging.number("select max(size) from payloads").await + 20_000;
    let size = state.to_string();
    let folder = staging.export(&["--volume-size", &size]).await;
    let volumes = || {
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    };
    let written = volumes();
    assert_eq!(written.len(), 2, "{written:?}");
    for volume in &written {
        assert!(volume.metadata().unwrap().len() <= state.unsigned_abs());
    }
    let before = std::fs::read(&written[0]).unwrap();
    std::fs::remove_file(&written[0]).unwrap();
    other
        .import(&folder, &["--dry-run"])
        .await
        .refused("volume 1 (probably livepatch-edge-");
    let out = folder.to_str().unwrap();
    let again = staging
        .run(&["export", "-o", out, "--volume-size", &size])
        .await;
    again.well(", was there already)");
    assert_eq!(volumes(), written);
    assert!(std::fs::read(&written[0]).unwrap() == before);
    other.import(&folder, &[]).await.well("Done: 2 added");

    // What is something else is not overwritten.
    std::fs::write(&written[1], "mine").unwrap();
    staging
        .run(&["export", "-o", out, "--volume-size", &size])
        .await
        .refused("is there already and is another archive or no archive");
    assert_eq!(std::fs::read(&written[1]).unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleets_status_goes_back_out() {
    let (connected, isolated) = (Site::empty().await, Site::staging().await);
    let token = isolated.server.token("machines", "stable").await;
    let machine = Machine::register(&isolated.server, 1, &token).await;
    machine.check(&isolated.server, Some("106.1")).await;
    let file = isolated.server.folder.path().join("status.json");
    let path = file.to_str().unwrap();
    isolated
        .run(&["export", "--status", "-o", path])
        .await
        .well("1-49 machines");
    let first = std::fs::read(&file).unwrap();
    assert!(!String::from_utf8_lossy(&first).contains(&machine.id));
    connected
        .run(&["import", "--status", path])
        .await
        .refused("the status is not signed with a key that is trusted here");
    connected.trust(&isolated).await;
    let text = connected
        .run(&["import", "--status", path])
        .await
        .well("1-49 machines")
        .text;
    assert!(
        text.contains("stable") && text.contains("applied  106.1"),
        "{text}"
    );
    let listed = connected
        .server
        .admin("GET", "sync-peers", Value::Null)
        .await;
    assert_eq!(listed["items"][0]["via"], "archive", "{listed:#}");
    assert_eq!(listed["items"][0]["machine-reports"], 0);

    // Numbers and single machines only as configured, and never an id.
    isolated.configure(
        "patch-sync.machine-count-strategy: unit\npatch-sync.send-machine-reports: true\n",
    );
    isolated
        .run(&["export", "--status", "-o", path])
        .await
        .well("1 machines");
    let second = std::fs::read(&file).unwrap();
    assert!(!String::from_utf8_lossy(&second).contains(&machine.id));
    connected
        .run(&["import", "--status", path])
        .await
        .well("1 machines");
    let listed = connected
        .server
        .admin("GET", "sync-peers", Value::Null)
        .await;
    assert_eq!(listed["items"][0]["machine-reports"], 1, "{listed:#}");

    // An older one does not take its place; an altered one, or one of another kind, is not believed.
    std::fs::write(&file, &first).unwrap();
    connected
        .run(&["import", "--status", path])
        .await
        .refused("which is older");
    let altered = String::from_utf8(second).unwrap().replace("106.1", "999.1");
    std::fs::write(&file, altered).unwrap();
    connected
        .run(&["import", "--status", path])
        .await
        .refused("was altered");
    std::fs::write(&file, "{}").unwrap();
    connected
        .run(&["import", "--status", path])
        .await
        .refused("cannot be read");
    connected
        .run(&["import", "--status", "/dev/zero"])
        .await
        .refused("not a plain file");
}
