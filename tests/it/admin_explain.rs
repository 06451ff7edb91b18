//! `explain`: the decision a machine would get now, with every reason, in order.

use crate::support::admin::TestAdmin;
use livepatch_onprem::db::listen::Change;
use serde_json::{Value, json};

const KERNEL: &str = "5.15.0-107.117-generic";

fn id(n: u32) -> String {
    format!("{n:032x}")
}

/// Payloads 104.1 to 107.1 for [`KERNEL`]: 107.1 has reached `beta`, the others `stable`; 105.1 is blocked, 106.1 held.
/// Machines, all in `stable` by the token `old`: 1 runs nothing, 2 runs 104.1, 3 runs 105.1, 4 has another kernel,
/// 5 never reported.
async fn seed(test: &TestAdmin) {
    let rows = test.db.raw().await;
    rows.batch_execute(&format!(
        "insert into patches (version) select (n::bigint << 20) + 1 from generate_series(104, 107) n;
         insert into payloads (patch_id, filename, kernel, flavour, architecture, sha256, size, module_name, module_sha256,
            vermagic, signature, source, added_by)
            select id, 'f' || id, '{KERNEL}', 'generic', 1, sha256(id::text::bytea), 300000, 'm', '', '', 1, 'test', 'test'
            from patches;
         insert into promotions (patch_id, tier_id, actor)
            select p.id, t.id, 'test' from patches p, tiers t
            where t.name = case p.version >> 20 when 107 then 'beta' else 'stable' end;
         insert into blocks (patch_id, kind, actor)
            select id, case version >> 20 when 105 then 1 else 2 end, 'test' from patches where version >> 20 in (105, 106);
         insert into auth_tokens (name, tier_id, hash, created_by)
            select 'old', id, sha256('old'), 'admin' from tiers where name = 'stable';
         insert into words (kind, text) values (1, '{KERNEL}'), (1, '5.15.0-1-nonsense');
         insert into machines (id, tier_id, auth_token_id, registered_at, last_check, kernel_id, architecture, state, patch)
            select lpad(to_hex(n), 32, '0')::uuid, t.id, a.id, now() - interval '1 day', now(), k.id, 1,
                case when n in (2, 3) then 1 else 0 end,
                case n when 2 then (104::bigint << 20) + 1 when 3 then (105::bigint << 20) + 1 else 0 end
            from generate_series(1, 4) n, tiers t, auth_tokens a, words k
            where t.name = 'stable' and k.text = case n when 4 then '5.15.0-1-nonsense' else '{KERNEL}' end;
         insert into machines (id, tier_id, auth_token_id, registered_at, state)
            select lpad('5', 32, '0')::uuid, t.id, a.id, now(), 4 from tiers t, auth_tokens a where t.name = 'stable'"
    ))
    .await
    .unwrap();
    test.core.snapshots.reload(None, i64::MAX).await.unwrap();
}

async fn explain(test: &TestAdmin, n: u32) -> Value {
    test.get(&format!("/machines/{}/explain", id(n)))
        .await
        .expect(200)
        .body
}

fn reasons(explanation: &Value) -> Vec<(&str, &str)> {
    let reasons = explanation["reasons"].as_array().unwrap().iter();
    reasons
        .map(|r| {
            (
                r["code"].as_str().unwrap(),
                r["version"].as_str().unwrap_or("-"),
            )
        })
        .collect()
}

#[tokio::test]
async fn versions_passed_over_come_first_and_the_outcome_last() {
    let test = TestAdmin::new().await;
    seed(&test).await;
    let one = explain(&test, 1).await;
    assert_eq!(
        reasons(&one),
        [
            ("not-in-tier", "107.1"),
            ("held", "106.1"),
            ("blocked", "105.1"),
            ("offered", "104.1")
        ]
    );
    assert_eq!(one["outcome"], "offer");
    assert_eq!(one["offered"]["version"], "104.1");
    assert_eq!(one["offered"]["size"], 300_000);
    assert_eq!(
        (
            &one["tier"],
            &one["auth-token"],
            &one["kernel"],
            &one["architecture"]
        ),
        (
            &json!("stable"),
            &json!("old"),
            &json!(KERNEL),
            &json!("amd64")
        )
    );
    assert!(one.get("refused").is_none());
    let first = one["reasons"][0]["text"].as_str().unwrap();
    assert!(
        first.contains("beta") && first.contains("stable"),
        "{first}"
    );

    let two = explain(&test, 2).await;
    assert_eq!(two["outcome"], "up-to-date");
    assert_eq!(reasons(&two).last(), Some(&("up-to-date", "104.1")));
    assert!(two.get("offered").is_none());
    // What it runs was blocked: it falls back.
    let three = explain(&test, 3).await;
    assert_eq!(reasons(&three).last(), Some(&("offered", "104.1")));
    let four = explain(&test, 4).await;
    assert_eq!(
        (reasons(&four), &four["outcome"]),
        (vec![("kernel-unknown", "-")], &json!("unknown"))
    );
    let five = explain(&test, 5).await;
    assert_eq!(
        (reasons(&five), &five["state"]),
        (vec![("kernel-unknown", "-")], &json!("needs-check"))
    );
    test.get(&format!("/machines/{}/explain", id(99)))
        .await
        .expect(404);
}

#[tokio::test]
async fn it_follows_what_administrators_decide() {
    let test = TestAdmin::new().await;
    seed(&test).await;
    let path = format!("/machines/{}", id(1));
    test.put(&format!("{path}/tier"), json!({ "tier": "beta" }))
        .await
        .expect(200);
    let moved = explain(&test, 1).await;
    assert_eq!(
        (&moved["tier"], &moved["moved"]),
        (&json!("beta"), &json!(true))
    );
    assert_eq!(reasons(&moved), [("offered", "107.1")]);

    test.post(&format!("{path}/revoke"), json!({}))
        .await
        .expect(200);
    let revoked = explain(&test, 1).await;
    assert!(revoked["refused"].as_str().unwrap().contains("revoked"));
    // Enabled again, it is answered again.
    let rows = test.db.raw().await;
    rows.execute(
        "update machines set registered_at = now() + interval '1 minute'",
        &[],
    )
    .await
    .unwrap();
    assert!(explain(&test, 1).await.get("refused").is_none());

    test.delete("/auth-tokens/old").await.expect(204);
    let refused = explain(&test, 2).await;
    assert_eq!(refused["refused"], "the auth token was revoked");
    // The token's tier counts, not what the row remembers.
    rows.execute(
        "update auth_tokens set tier_id = (select id from tiers where name = 'beta')",
        &[],
    )
    .await
    .unwrap();
    test.core
        .snapshots
        .reload(Some(Change::Tokens), i64::MAX)
        .await
        .unwrap();
    assert_eq!(explain(&test, 2).await["tier"], "beta");
}
