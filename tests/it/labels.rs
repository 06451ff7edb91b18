//! Labels of machines: given by auth tokens at registration, changed by people; and selectors, which the database must
//! read as `Selector::matches` does.

use crate::support::admin::TestAdmin;
use jiff::Timestamp;
use livepatch_onprem::db::filter::{Exactly, MachineFilter};
use livepatch_onprem::db::{fleet as rows, labels};
use livepatch_onprem::domain::selector::Traits;
use livepatch_onprem::domain::{
    Architecture, LabelChanges, LabelKey, LabelValue, Labels, MachineId, Selector,
};
use livepatch_onprem::service::clients;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const MACHINE: MachineId = MachineId([0xab; 16]);

/// Makes an auth token and enables the machine with it.
async fn enable(test: &TestAdmin, name: &str, labels: Value) {
    let body = json!({ "name": name, "tier": "stable", "labels": labels });
    let made = test.post("/auth-tokens", body).await.expect(201).body;
    let token = made["token"].as_str().unwrap();
    clients::register(&test.core, MACHINE, token, Timestamp::now())
        .await
        .unwrap();
}

/// The machine's labels, as the API shows them.
async fn shown(test: &TestAdmin) -> Value {
    let machine = test.get(&format!("/machines/{MACHINE}")).await.expect(200);
    machine.body.get("labels").cloned().unwrap_or(json!({}))
}

/// Changes the machine's labels as a person does.
async fn change(test: &TestAdmin, texts: &[&str]) {
    let changes = LabelChanges::read(texts.iter().copied()).unwrap();
    let conn = test.core.db.conn().await.unwrap();
    labels::change(&conn, MACHINE, &changes).await.unwrap();
}

#[tokio::test]
async fn the_token_gives_labels_and_a_persons_stay() {
    let test = TestAdmin::new().await;
    enable(
        &test,
        "one",
        json!({ "rack": "r1", "site": "berlin", "old": "" }),
    )
    .await;
    assert_eq!(
        shown(&test).await,
        json!({ "rack": "r1", "site": "berlin", "old": "" })
    );
    // One is a person's now, one is another's, one is new.
    change(&test, &["rack=r1", "site=paris", "owner=web"]).await;
    // Another token takes its own back with it and leaves the person's.
    enable(
        &test,
        "two",
        json!({ "rack": "r2", "site": "rome", "zone": "a" }),
    )
    .await;
    let expected = json!({ "rack": "r1", "site": "paris", "owner": "web", "zone": "a" });
    assert_eq!(shown(&test).await, expected);
    // What a person took away comes again with the next registration, since it is the token's.
    change(&test, &["zone-", "owner-", "rack-"]).await;
    assert_eq!(shown(&test).await, json!({ "site": "paris" }));
    enable(&test, "three", json!({ "rack": "r3" })).await;
    assert_eq!(shown(&test).await, json!({ "rack": "r3", "site": "paris" }));
    enable(&test, "four", json!({})).await;
    assert_eq!(shown(&test).await, json!({ "site": "paris" }));

    // A machine that leaves takes its labels with it.
    clients::deregister(&test.core, MACHINE).await.unwrap();
    let rows = test.db.raw().await;
    let left = rows.query_one("select count(*) from machine_labels", &[]);
    assert_eq!(left.await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_token_never_gives_more_than_a_machine_may_have() {
    let test = TestAdmin::new().await;
    let many = |prefix: &str, n: usize| -> serde_json::Map<String, Value> {
        (0..n)
            .map(|i| (format!("{prefix}{i:02}"), json!("v")))
            .collect()
    };
    enable(&test, "none", json!({})).await;
    let own: Vec<String> = (0..30).map(|i| format!("own{i:02}=v")).collect();
    change(&test, &own.iter().map(String::as_str).collect::<Vec<_>>()).await;
    enable(&test, "some", many("b", 4).into()).await;
    let labels = shown(&test).await;
    assert_eq!(labels.as_object().unwrap().len(), Labels::MAX);
    assert!(labels.get("b01").is_some() && labels.get("b02").is_none());
    // Those of the next token take their places, though they come before them.
    let mut next = many("a", 1);
    next.extend(many("b", 4));
    enable(&test, "more", next.into()).await;
    let labels = shown(&test).await;
    assert_eq!(labels.as_object().unwrap().len(), Labels::MAX);
    assert!(labels.get("a00").is_some() && labels.get("b00").is_some());
    assert!(labels.get("b01").is_none(), "{labels}");
}

#[tokio::test]
async fn labels_of_a_token_that_an_older_version_took_are_left_out() {
    let test = TestAdmin::new().await;
    let rows = test.db.raw().await;
    rows.batch_execute(
        r#"insert into auth_tokens (name, tier_id, hash, labels, created_by)
           select 'old', id, sha256('lpa_old'), '{"rack/row":"7 b","kernel":"x","site":"berlin"}', 'admin' from tiers
           where name = 'stable'"#,
    )
    .await
    .unwrap();
    test.core.snapshots.reload(None, i64::MAX).await.unwrap();
    clients::register(&test.core, MACHINE, "lpa_old", Timestamp::now())
        .await
        .unwrap();
    assert_eq!(shown(&test).await, json!({ "site": "berlin" }));
    // They are still listed as they are.
    let listed = test.get("/auth-tokens").await.expect(200).body;
    assert_eq!(listed["items"][0]["labels"]["rack/row"], "7 b");
}

/// What a machine of the small fleet below is.
struct Known {
    id: MachineId,
    kernel: Option<&'static str>,
    architecture: Option<Architecture>,
    labels: Labels,
}

const KERNELS: [Option<&str>; 6] = [
    None,
    Some("5.15.0-107.117-generic"),
    Some("5.15.0-1061.67-aws"),
    Some("6.8.0-1047.50-aws-fips"),
    Some("6.8.0%31_31"),
    Some(""),
];

/// 240 machines of all kinds.
async fn fleet(test: &TestAdmin) -> Vec<Known> {
    let rows = test.db.raw().await;
    let mut known = Vec::new();
    for n in 0..240_usize {
        let kernel = KERNELS[n % KERNELS.len()];
        let architecture = [None, Some(Architecture::Amd64), Some(Architecture::Arm64)][n / 7 % 3];
        let mut labels: BTreeMap<LabelKey, LabelValue> = BTreeMap::new();
        let mut label = |key: &str, value: String| {
            labels.insert(key.parse().unwrap(), value.parse().unwrap());
        };
        if n % 4 > 0 {
            label("rack", format!("r{}", n % 4));
        }
        if n % 5 > 1 {
            label("site", ["", "berlin", "paris"][n % 3].to_owned());
        }
        if n % 60 == 7 {
            label("example.com/canary", "yes".to_owned());
        }
        let id = MachineId((n as u128 + 1).to_be_bytes());
        let uuid = uuid::Uuid::from_bytes(id.0);
        rows.execute(
            "with w as (insert into words (kind, text) select 1, $2::text where $2::text is not null
                on conflict (kind, text) do update set text = excluded.text returning id)
             insert into machines (id, tier_id, registered_at, kernel_id, architecture)
             select $1, id, now(), (select id from w), $3::smallint from tiers where name = 'stable'",
            &[&uuid, &kernel, &architecture.map_or(0, Architecture::code)],
        )
        .await
        .unwrap();
        for (key, value) in &labels {
            rows.execute(
                "insert into machine_labels (machine_id, key, value) values ($1, $2, $3)",
                &[&uuid, &key.as_str(), &value.as_str()],
            )
            .await
            .unwrap();
        }
        known.push(Known {
            id,
            kernel,
            architecture,
            labels: labels.try_into().unwrap(),
        });
    }
    known
}

/// Selectors of every kind, alone and together.
const SELECTORS: &[&str] = &[
    "",
    "rack",
    "!rack",
    "rack=r1",
    "rack!=r1",
    "rack=none",
    "none",
    "!none",
    "site=",
    "site!=",
    "rack=r1,site",
    "rack=r1,!site",
    "rack=r1,site=berlin",
    "rack,site!=berlin",
    "rack=r3,site!=berlin,site!=paris",
    "rack,site,example.com/canary",
    "example.com/canary=yes,rack=r3",
    "kernel=5.15.0-107.117-generic",
    "kernel!=5.15.0-107.117-generic",
    "kernel=5.15*",
    "kernel=6.8.0_*",
    "kernel=*",
    "kernel!=*",
    "kernel=5.15*,kernel!=5.15.0-10*",
    "flavour=aws",
    "flavour!=aws",
    "flavour=fips",
    "flavour!=aws,flavour!=generic",
    "arch=amd64",
    "arch!=amd64",
    "arch!=amd64,arch!=arm64",
    "arch=s390x",
    "rack=r1,kernel=5.15*,arch=arm64",
    "site=paris,flavour=aws-fips,arch!=arm64,!example.com/canary",
];

#[tokio::test]
async fn the_database_reads_selectors_as_the_rule_says() {
    let test = TestAdmin::new().await;
    let known = fleet(&test).await;
    let conn = test.core.db.conn().await.unwrap();
    for text in SELECTORS {
        let selector: Selector = text.parse().unwrap();
        let expected: Vec<MachineId> = known
            .iter()
            .filter(|machine| {
                selector.matches(&Traits {
                    kernel: machine.kernel,
                    architecture: machine.architecture,
                    labels: &machine.labels,
                })
            })
            .map(|machine| machine.id)
            .collect();
        let filter = MachineFilter::resolve(&conn, &Exactly::default(), &selector)
            .await
            .unwrap();
        let id = |id: &uuid::Uuid| MachineId(id.into_bytes());
        let nil = uuid::Uuid::nil();
        let swept = rows::sweep(&conn, &filter, nil, 1000).await.unwrap();
        let swept: Vec<MachineId> = swept.iter().map(id).collect();
        assert_eq!(swept, expected, "{text}");
        assert!(!filter.is_empty() || expected.is_empty(), "{text}");
        // The same through the API, in pages.
        let (mut listed, mut cursor) = (Vec::<MachineId>::new(), String::new());
        loop {
            let text = text.replace('!', "%21").replace('*', "%2A");
            let path = format!("/machines?limit=17&selector={text}{cursor}");
            let page = test.get(&path).await.expect(200).body;
            for machine in page["items"].as_array().unwrap() {
                listed.push(machine["machine-id"].as_str().unwrap().parse().unwrap());
            }
            let Some(next) = page["next-cursor"].as_str() else {
                break;
            };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(listed, expected, "{text}");
    }
    let key = "example.com/canary".parse().unwrap();
    let values = labels::values_of(&conn, &key).await.unwrap();
    assert_eq!(values.len(), 4);
}

#[tokio::test]
async fn a_selector_that_is_wrong_is_named() {
    let test = TestAdmin::new().await;
    for (text, word) in [
        ("rack=r1,", "comma"),
        ("tier=beta", "meaning of its own"),
        ("rack=r1,rack=r2", "cannot both be met"),
        ("kernel=5%25", "letters"),
        ("rack=%00", "value"),
        ("%E2%80%AErack", "label"),
        ("rack='%3Bdrop%20table%20machines", "value"),
    ] {
        let path = format!("/machines?selector={text}");
        let answer = test.get(&path).await.expect(400);
        assert!(
            answer.detail().contains(word),
            "{text}: {}",
            answer.detail()
        );
    }
}
