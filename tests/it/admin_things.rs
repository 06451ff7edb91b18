//! What the requests of `admin_samples` speak of, made behind the server's back.

use crate::admin_samples::{DOOMED, MACHINE, PAYLOAD, SESSION};
use crate::support::admin::TestAdmin;
use livepatch_onprem::blob::{Expect, Key};

/// Makes what the samples speak of.
pub async fn seed(test: &TestAdmin) {
    let rows = test.db.raw().await;
    rows.batch_execute(&format!(
        "insert into sessions (hash, id, subject, role, source, expires_at)
            values ('x', '{SESSION}', 'viewer', 'viewer', 'test', now() + interval '1 hour');
         insert into auth_tokens (name, tier_id, hash, created_by)
            select 'old', id, sha256('old'), 'admin' from tiers where name = 'stable';
         insert into words (kind, text) values (1, '5.15.0-107.117-generic');
         insert into machines (id, tier_id, auth_token_id, registered_at, last_check, kernel_id, architecture, state, outcome)
            select m::uuid, t.id, a.id, now(), now(), w.id, 1, 1, 4
            from unnest(array['{MACHINE}', '{DOOMED}']) m, tiers t, auth_tokens a, words w where t.name = 'stable'",
    ))
    .await
    .unwrap();
    // A payload, and the same content in quarantine twice; the content is the file's name.
    let bytes = PAYLOAD.as_bytes();
    let expect = Expect::of(bytes);
    for key in [Key::Payload(expect.sha256), Key::Quarantine(expect.sha256)] {
        let content = bytes.to_vec().into();
        test.core.store.put(&key, content, expect).await.unwrap();
    }
    test.plant_payloads(&[PAYLOAD]).await;
    rows.batch_execute(
        "update payloads set size = length(filename);
         insert into quarantine (filename, sha256, size, code, reason, source, actor)
            select n, y.sha256, y.size, 'not-tar', 'x', 'upload', 'admin'
            from payloads y, unnest(array[y.filename, 'other']) n",
    )
    .await
    .unwrap();
    // Rollouts in every state that something can be done about, each of another part of the patch.
    rows.batch_execute(
        "insert into rollouts (patch_id, tier_id, flavour, state, requested_by)
            select p.id, t.id, 'f' || n, (array[1, 2, 4, 2, 2])[n], 'somebody'
            from patches p, tiers t, generate_series(1, 5) n where t.name = 'edge' order by n",
    )
    .await
    .unwrap();
    // A webhook, and an event that did not reach it.
    rows.batch_execute(
        r#"insert into webhooks (name, url, secret, created_by) values ('hook', 'https://hooks.example/', 'whsec_QUFB', 'admin');
         insert into outbox (kind, body)
            values ('webhook.test', '{"type":"webhook.test","timestamp":"2026-01-01T00:00:00Z","data":{"webhook":"hook","actor":"admin"}}');
         insert into deliveries (event_id, webhook_id, state, attempts, last_error, tried_at, ended_at)
            select o.id, w.id, 'dead', 1, 'it answers 500', now(), now() from outbox o, webhooks w"#,
    )
    .await
    .unwrap();
    // A run that came to its end, and something that waits.
    let name = format!("directory {}", test.folder().display());
    rows.execute(
        "insert into sync_runs (upstream, cause, actor, state, started_at, finished_at)
            values ($1, 'interval', 'system', 'done', now(), now())",
        &[&name],
    )
    .await
    .unwrap();
    rows.execute(
        "insert into sync_upstreams (name, pending, pending_digest)
            values ($1, '{}', decode(repeat('00', 32), 'hex'))",
        &[&name],
    )
    .await
    .unwrap();
    test.core.snapshots.reload(None, i64::MAX).await.unwrap();
}
