//! The way to another server: redirects, tokens, silence, certificates, proxies, keys, and the report that goes up.

use crate::peer_attacks::{Site, newest};
use crate::support::front::{Asked, Do, Got};
use crate::support::pki::{self, Authority};
use jiff::Timestamp;
use livepatch_onprem::config::ClientAuth;
use livepatch_onprem::domain::Secret;
use livepatch_onprem::index::IntakeFilter;
use livepatch_onprem::service::peer::keys;
use livepatch_onprem::upstream::{Peer, Question, Upstream as _};
use livepatch_onprem::wire::sync::PeerReport;
use serde_json::Value;
use std::time::{Duration, Instant};

#[tokio::test]
async fn redirects_to_others_bad_tokens_and_silence_are_refused() {
    let mut site = Site::new().await;
    let elsewhere = site.server.url.clone();
    site.refused("nonsense", "another host", move |asked| {
        let mut got = Got::new(302, "");
        got.headers
            .push(("location".to_owned(), format!("{elsewhere}{}", asked.path)));
        Do::Instead(got)
    })
    .await;
    // Within the same server it is followed, and not for ever.
    site.front.set(|asked| {
        if asked.path.contains("moved") {
            return Do::Pass;
        }
        let mut got = Got::new(307, "");
        let to = format!("{}?moved=1", asked.path);
        got.headers.push(("location".to_owned(), to));
        if asked.is_head() {
            Do::Instead(got)
        } else {
            Do::Pass
        }
    });
    site.list().await.unwrap();
    site.refused("nonsense", "too often", |asked| {
        let mut got = Got::new(302, "");
        got.headers
            .push(("location".to_owned(), asked.path.clone()));
        Do::Instead(got)
    })
    .await;

    let good = site.config.token.clone();
    site.config.token = Secret::new("lpy_wrong");
    let error = site.list().await.unwrap_err();
    assert_eq!(error.code(), "denied");
    let text = error.to_string();
    assert!(
        text.contains("not known") && text.contains("patch-sync.token"),
        "{text}"
    );
    site.config.token = good;
    site.server
        .admin("DELETE", "sync-tokens/below", Value::Null)
        .await;
    let error = site.list().await.unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");

    site.config.upstream_url = "http://127.0.0.1:1".to_owned();
    let error = site.list().await.unwrap_err();
    assert_eq!(error.code(), "unreachable");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    for wrong in ["", "ftp://x", "nonsense"] {
        site.config.upstream_url = wrong.to_owned();
        let error = Peer::new(&site.config, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("upstream-url"), "{error}");
    }
}

#[tokio::test]
async fn who_sends_a_byte_a_second_or_nothing_is_given_up() {
    let mut site = Site::new().await;
    let payload = newest(&site.follow().await);
    site.config.stall_timeout = Duration::from_millis(300);
    let began = Instant::now();
    let dripping = |asked: &Asked| {
        // Only the first answer: each further one is a try of its own.
        if asked.nth < 3 { Do::Drip } else { Do::Pass }
    };
    site.front.set(dripping);
    let error = site.list().await.unwrap_err();
    assert_eq!(error.code(), "unreachable");
    assert!(error.to_string().contains("too slow"), "{error}");
    site.front.set(|_| Do::Drip);
    let error = site.read(&payload).await.unwrap_err();
    assert!(
        error.contains("too slow") && error.contains("tries"),
        "{error}"
    );
    // Not for as long as the sender would like: a byte a second would be hours.
    assert!(began.elapsed() < Duration::from_mins(1));

    // Nobody who answers at all.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    site.config.upstream_url = format!("http://{}", silent.local_addr().unwrap());
    let error = site.list().await.unwrap_err();
    assert!(error.to_string().contains("did not begin"), "{error}");
}

#[tokio::test]
async fn certificates_are_checked_and_a_custom_authority_is_taken() {
    let mut site = Site::new().await;
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("an authority");
    let ca = authority.file(folder.path(), "ca.pem");
    let behind = site.server.address();
    for (front, refused) in pki::fronts(&authority, behind).await {
        site.config.upstream_url = format!("https://{front}");
        site.config.upstream_ca = Some(ca.clone());
        let listed = site.list().await;
        match refused {
            None => {
                listed.unwrap();
                // Without its authority it is a stranger too.
                site.config.upstream_ca = None;
                let error = site.list().await.unwrap_err();
                assert_eq!(error.code(), "unreachable");
                assert!(error.to_string().contains("certificate"), "{error}");
            }
            Some(why) => {
                let error = listed.unwrap_err();
                assert_eq!(error.code(), "unreachable");
                assert!(error.to_string().contains(why), "{why}: {error}");
            }
        }
    }
    site.config.upstream_ca = Some(folder.path().join("missing.pem"));
    let error = Peer::new(&site.config, Vec::new()).unwrap_err();
    assert!(
        error.to_string().contains("patch-sync.upstream-ca"),
        "{error}"
    );
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_certificate_is_shown_one() {
    let mut site = Site::new().await;
    let pki = pki::Pki::new();
    let folder = pki.folder.path();
    let servers = Authority::new("servers");
    let ca = servers.file(folder, "servers.pem");
    let asking = site
        .server
        .beside(|config| {
            let mut tls = pki.config();
            tls.client_ca = Some(ca);
            tls.client_auth = ClientAuth::Required;
            config.server.tls = Some(tls);
        })
        .await;
    site.config.upstream_url = asking.url.clone();
    site.config.upstream_ca = Some(pki.authority.file(folder, "ca.pem"));
    let error = site.list().await.unwrap_err();
    assert_eq!(error.code(), "unreachable");
    let request = pki::Request {
        client: true,
        ..pki::Request::default()
    };
    let (certificate, key) = servers.issue(&request).files(folder, "below");
    site.config.upstream_tls_certificate = Some(certificate.clone());
    site.config.upstream_tls_key = Some(key);
    site.list().await.unwrap();
    site.config.upstream_tls_key = Some(certificate);
    let error = Peer::new(&site.config, Vec::new()).unwrap_err();
    assert!(
        error.to_string().contains("patch-sync.upstream-tls-key"),
        "{error}"
    );
}

#[tokio::test]
async fn a_proxy_is_used_and_its_password_never_told() {
    let mut site = Site::new().await;
    // The front is the proxy; the server is asked for by a name that only the proxy could resolve.
    let proxy = site.front.url.replace("http://", "http://user:hunter2@");
    site.config.upstream_url = "http://upstream.invalid".to_owned();
    site.config.proxy.enabled = true;
    site.config.proxy.http = Secret::new(&proxy);
    site.front.set(|_| Do::Pass);
    site.list().await.unwrap();
    let asked = site.front.asked();
    let head = asked[0].head.to_lowercase();
    assert!(
        head.contains("get http://upstream.invalid/v1/sync/head"),
        "{head}"
    );
    assert!(head.contains("proxy-authorization: basic "), "{head}");
    for config in [proxy, "http://user:hunter2@127.0.0.1:1".to_owned()] {
        site.config.proxy.http = Secret::new(config);
        site.front.set(|_| Do::Instead(Got::new(407, "")));
        let error = site.list().await.unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
    // What is in no-proxy is asked directly; what the environment says about proxies does not count at all.
    site.config.upstream_url = site.server.url.clone();
    site.config.proxy.no_proxy = vec!["127.0.0.1".to_owned()];
    site.list().await.unwrap();
}

#[tokio::test]
async fn the_first_key_is_kept_and_a_rotation_is_followed() {
    let mut site = Site::new().await;
    let db = site.server.core().db.clone();
    let actor = livepatch_onprem::db::audit::Actor {
        name: "system".to_owned(),
        source: "test".to_owned(),
    };
    let (first, _) = keys::generate(&db, &actor).await.unwrap();
    // A key that was configured must have signed.
    site.config.upstream_key = format!("ed25519:{}", "0a".repeat(32));
    assert_eq!(site.list().await.unwrap_err().code(), "wrong-key");
    site.config.upstream_key = first.to_string();
    site.follow().await;
    site.config.upstream_key = String::new();
    let (_, second) = keys::rotate(&db, &actor, false).await.unwrap();
    site.follow().await;
    let known = &site.known.as_ref().unwrap().0.keys;
    assert_eq!(*known, [second, first]);
    // The new one has been learnt by now; without its like nothing is believed, until a person says so.
    let (_, third) = keys::rotate(&db, &actor, true).await.unwrap();
    assert_eq!(site.list().await.unwrap_err().code(), "wrong-key");
    let trusting = Peer::new(&site.config, vec![third]).unwrap();
    let question = Question {
        filter: &IntakeFilter::default(),
        known: site.known.as_ref().map(|(known, state)| (known, state)),
        now: Timestamp::now(),
    };
    assert!(trusting.list(question).await.is_ok());
}

#[tokio::test]
async fn a_report_goes_up() {
    let site = Site::new().await;
    let report = PeerReport {
        deployment: "below".to_owned(),
        machines: "1-49".to_owned(),
        machine_reports: Vec::new(),
    };
    site.driver().report(&report).await.unwrap();
    let peers = site.server.admin("GET", "sync-peers", Value::Null).await;
    assert_eq!(peers["items"][0]["machines"], "1-49");
    site.front
        .set(|_| Do::Instead(Got::new(403, "no reports here")));
    let error = site.driver().report(&report).await.unwrap_err();
    assert_eq!(error.code(), "denied");
    assert!(error.to_string().contains("no reports here"), "{error}");
}
