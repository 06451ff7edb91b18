//! `machine move` and `machine label` in conversation with a server that follows a script.

use crate::cli_http::{Scene, err, fixture, json, out};

const MACHINE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// A server that answers moves and labels.
fn movers() -> Scene {
    Scene::new(|line, body| {
        let dry = String::from_utf8_lossy(body).contains(r#""dry-run":true"#);
        let name = match (line.split(' ').nth(1).unwrap(), dry) {
            ("/v1/admin/machines/move", true) => "move-outcome-dry.json",
            ("/v1/admin/machines/move", false) => "move-outcome.json",
            ("/v1/admin/machines/label", true) => "label-outcome-dry.json",
            ("/v1/admin/machines/label", false) => "label-outcome.json",
            _ => "machine.json",
        };
        json(200, fixture(name))
    })
}

#[test]
fn moving_by_selector_is_shown_and_asked_first() {
    let scene = movers();
    // Nobody can be asked here, so it ends after the preview.
    let unasked = scene.run(&["machine", "move", "-l", "rack=r1", "beta"]);
    assert_eq!(unasked.status.code(), Some(2));
    let said = err(&unasked);
    for part in [
        "Move 40 machines to tier beta",
        "edge=1 stable=39",
        "12 would",
        "--yes",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let dry = scene.run(&[
        "machine",
        "move",
        "-l",
        "rack=r1",
        "beta",
        "--dry-run",
        "--yes",
    ]);
    assert!(
        out(&dry).contains("Nothing was changed. 40 machines would"),
        "{}",
        out(&dry)
    );
    let sent = |scene: &Scene| -> Vec<serde_json::Value> {
        let seen = scene.seen.lock().unwrap();
        seen.iter()
            .map(|s| serde_json::from_slice(&s.body).unwrap())
            .collect()
    };
    assert!(sent(&scene).iter().all(|body| body["dry-run"] == true));
    let done = scene.run(&[
        "machine", "move", "-l", "rack=r1", "beta", "--yes", "-o", "json",
    ]);
    assert_eq!(done.status.code(), Some(0), "{}", err(&done));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&out(&done)).unwrap(),
        serde_json::from_str::<serde_json::Value>(&fixture("move-outcome.json")).unwrap()
    );
    let bodies = sent(&scene);
    assert_eq!(bodies.len(), 3);
    assert_eq!(
        bodies[2],
        serde_json::json!({ "selector": "rack=r1", "tier": "beta" })
    );
    let one = scene.run(&["machine", "move", MACHINE, "stable"]);
    assert!(out(&one).contains("is in tier stable now"), "{}", out(&one));
    assert_eq!(
        scene.lines()[3],
        format!("PUT /v1/admin/machines/{MACHINE}/tier")
    );
}

#[test]
fn labels_are_set_and_taken_away() {
    let scene = movers();
    let one = scene.run(&[
        "machine",
        "label",
        MACHINE,
        "rack=r1",
        "example.com/site=",
        "old-",
    ]);
    assert_eq!(
        out(&one),
        format!("Labels of machine {MACHINE} now: example.com/site=berlin rack=r1\n")
    );
    let many = scene.run(&[
        "machine",
        "label",
        "-y",
        "-l",
        "!rack, arch=x86_64",
        "rack=r1",
    ]);
    assert_eq!(out(&many), "Of 40 machines, labels of 1 machine changed.\n");
    let seen = scene.seen.lock().unwrap().clone();
    for (seen, line, body) in [
        (
            &seen[0],
            format!("PATCH /v1/admin/machines/{MACHINE}/labels"),
            r#"{"set":{"example.com/site":"","rack":"r1"},"remove":["old"]}"#,
        ),
        (
            &seen[1],
            "POST /v1/admin/machines/label".to_owned(),
            r#"{"selector":"arch=amd64,!rack","set":{"rack":"r1"}}"#,
        ),
    ] {
        assert_eq!(seen.line, line);
        assert_eq!(String::from_utf8_lossy(&seen.body), body);
    }
    for (args, says) in [
        (&["machine", "label", "rack=r1"][..], "machine id"),
        (&["machine", "label", MACHINE], "changes nothing"),
        (
            &["machine", "label", MACHINE, "rack=r1", "--dry-run"],
            "for a selector",
        ),
        (
            &["machine", "move", MACHINE, "beta", "--dry-run"],
            "for a selector",
        ),
        (&["machine", "label", MACHINE, "rack"], "KEY=VALUE"),
        (&["machine", "label", MACHINE, "rack=r1", "rack-"], "both"),
        (
            &["machine", "label", "-l", "a=b", MACHINE, "rack=r1"],
            "KEY=VALUE",
        ),
        (
            &["machine", "label", "-l", "a=b", "rack=r 1"],
            "label value",
        ),
    ] {
        let output = scene.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(err(&output).contains(says), "{args:?}: {}", err(&output));
    }
    assert_eq!(scene.lines().len(), 2);
}
