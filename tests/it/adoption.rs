//! How a patch spread: noted by the leader when it changes, and told as a curve of few points.

use crate::support::admin::TestAdmin;
use crate::support::process::until;
use crate::support::server::{Machine, TestServer};
use jiff::Timestamp;
use livepatch_onprem::db::leader;
use livepatch_onprem::service::adoption;

#[tokio::test]
async fn adoption_is_noted_when_it_changes() {
    let server = TestServer::with_two_patches().await;
    let token = server.token("web", "edge").await;
    let core = server.core();
    until("it leads", async || {
        leader::current(&core.db.conn().await.unwrap())
            .await
            .unwrap()
            .is_some()
    })
    .await;
    let epoch = leader::current(&core.db.conn().await.unwrap())
        .await
        .unwrap()
        .unwrap()
        .epoch;
    let version = "107.1".parse().unwrap();
    let points = async || {
        let curves = adoption::of(core, version).await.unwrap();
        let edge = curves.into_iter().find(|(tier, _)| tier.as_str() == "edge");
        edge.map_or(0, |(_, points)| points.len())
    };
    assert!(adoption::note(core, epoch).await.unwrap());
    assert_eq!(points().await, 0, "nobody runs it, and nobody did");
    for n in 0..3 {
        let machine = Machine::register(&server, n, &token).await;
        machine.check(&server, Some("107.1")).await;
        assert!(adoption::note(core, epoch).await.unwrap());
        // The same number again is not noted again.
        assert!(adoption::note(core, epoch).await.unwrap());
    }
    // Three changes, and how it stands now.
    assert_eq!(points().await, 4);
    assert!(
        !adoption::note(core, epoch + 1).await.unwrap(),
        "who does not lead notes nothing"
    );
}

/// Whatever was noted of a patch, few points of it are read; how it began and how it stands are always among them.
#[tokio::test]
async fn a_long_curve_has_few_points() {
    // What was noted, one row a minute.
    const ROWS: u64 = 15_000;
    // Nothing is noted here by itself.
    let test = TestAdmin::new().await;
    test.plant_payloads(&["livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2"])
        .await;
    let raw = test.db.raw().await;
    // The second tier has ten times as many machines.
    let noted = raw
        .execute(
            "insert into adoption (patch_id, tier_id, at, machines)
             select p.id, t.id, now() - make_interval(mins => 15001 - n), case t.name when 'edge' then n else 10 * n end
             from patches p, tiers t, generate_series(1, 15000) n where t.name in ('edge', 'beta')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(noted, 2 * ROWS);
    let ends = raw
        .query_one("select min(at), max(at) from adoption", &[])
        .await
        .unwrap();
    let (oldest, newest): (Timestamp, Timestamp) = (ends.get(0), ends.get(1));

    let version = "107.1".parse().unwrap();
    let before = Timestamp::now();
    let curves = adoption::of(&test.core, version).await.unwrap();
    let names: Vec<&str> = curves.iter().map(|(tier, _)| tier.as_str()).collect();
    assert_eq!(names, ["edge", "beta"]);
    for ((tier, points), each) in curves.iter().zip([1, 10]) {
        assert!(
            (250..=310).contains(&points.len()),
            "{tier}: {} points",
            points.len()
        );
        assert_eq!(points[0], (oldest, each), "{tier}");
        // After the last that was noted, the same number as of now.
        let [.., last, now] = points.as_slice() else {
            panic!("{tier}: {points:?}")
        };
        assert_eq!(*last, (newest, ROWS * each), "{tier}");
        assert!(now.0 >= before && now.1 == last.1, "{tier}: {now:?}");
        assert!(
            points.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1),
            "{tier}: {points:?}"
        );
    }
}
