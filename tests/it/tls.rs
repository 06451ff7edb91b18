//! TLS by the server itself: versions and protocols, the main job over it, renewal without a dropped connection,
//! client certificates, and surfaces on their own addresses.

use crate::support::pki::{Authority, Pki, Request};
use crate::support::process::until;
use crate::support::server::{Machine, TestServer};
use livepatch_onprem::config::ClientAuth;
use livepatch_onprem::telemetry::{HandshakeFailure, TlsReload};
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use reqwest::Version;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// A client that speaks only this version: what was agreed upon, or why nothing was.
fn handshake(
    address: SocketAddr,
    version: SslVersion,
    protocols: &[u8],
) -> Result<(SslVersion, Option<Vec<u8>>, X509), String> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_security_level(0);
    builder.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
    builder.set_min_proto_version(Some(version)).unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
    if !protocols.is_empty() {
        builder.set_alpn_protos(protocols).unwrap();
    }
    let mut config = builder.build().configure().unwrap();
    config.set_verify_hostname(false);
    let stream = TcpStream::connect(address).unwrap();
    let stream = config.connect("localhost", stream);
    let stream = stream.map_err(|e| e.to_string())?;
    let agreed = stream.ssl().selected_alpn_protocol().map(<[u8]>::to_vec);
    let certificate = stream.ssl().peer_certificate().unwrap();
    Ok((stream.ssl().version2().unwrap(), agreed, certificate))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_and_protocols_are_agreed_upon_and_old_ones_refused() {
    let pki = Pki::new();
    let server = TestServer::with_tls(&pki, |_| {}).await;
    let address = server.address();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for (offered, agreed) in [
            (&b"\x02h2\x08http/1.1"[..], Some(&b"h2"[..])),
            (b"\x08http/1.1\x02h2", Some(b"h2")),
            (b"\x08http/1.1", Some(b"http/1.1")),
            (b"\x06spdy/3", None),
            (b"", None),
        ] {
            let (got, protocol, _) = handshake(address, version, offered).unwrap();
            assert_eq!(got, version);
            assert_eq!(protocol.as_deref(), agreed, "{offered:?}");
        }
    }
    let failures = &server.core().metrics.tls.failures;
    assert_eq!(failures.get(HandshakeFailure::OldVersion), 0);
    for version in [SslVersion::TLS1, SslVersion::TLS1_1] {
        let error = handshake(address, version, b"").unwrap_err();
        assert!(error.contains("protocol version"), "{error}");
    }
    until("the failures are counted", async || {
        failures.get(HandshakeFailure::OldVersion) == 2
    })
    .await;
    // One that speaks plain HTTP is told what is wrong.
    let mut stream = TcpStream::connect(address).unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("use https://"), "{answer}");
    assert_eq!(failures.get(HandshakeFailure::PlainHttp), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_main_job_over_both_protocols() {
    let pki = Pki::new();
    let mut server = TestServer::with_tls(&pki, |_| {}).await;
    let bundle = crate::support::kmod::real_bundle("107.1", "patched");
    server.upload(&bundle).await;
    let token = server.token("test", "edge").await;
    let expected = std::fs::read(&bundle).unwrap();
    let clients = [
        (
            pki.client(reqwest::ClientBuilder::http1_only),
            Version::HTTP_11,
        ),
        (pki.client(|builder| builder), Version::HTTP_2),
    ];
    for (n, (client, version)) in clients.into_iter().enumerate() {
        server.http = client;
        let machine = Machine::register(&server, u32::try_from(n).unwrap(), &token).await;
        let answer = machine.check(&server, None).await;
        // As it reached us, so it shall fetch the patch.
        let url = answer["patches"][0]["url"].as_str().unwrap();
        assert!(url.starts_with(&server.url), "{url}");
        for range in [None, Some("bytes=100-20099")] {
            let mut request = server.http.get(url);
            if let Some(range) = range {
                request = request.header("range", range);
            }
            let got = request.send().await.unwrap();
            assert_eq!(got.version(), version);
            let got = got.bytes().await.unwrap();
            let part = range.map_or(&expected[..], |_| &expected[100..20100]);
            assert!(got == part, "{version:?} {range:?}: {} bytes", got.len());
        }
    }
    // Many at once on one connection.
    let url = format!(
        "{}/v1/patches/{}",
        server.url,
        crate::support::kmod::bundle_name("107.1")
    );
    let all = (0..50).map(|_| async {
        let got = server.http.get(&url).send().await.unwrap();
        got.bytes().await.unwrap() == expected
    });
    assert!(
        futures_util::future::join_all(all)
            .await
            .iter()
            .all(|same| *same)
    );
    let open = server.core().metrics.connections.open.get();
    assert!(open <= 3, "{open} connections");
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_used_without_dropping_a_connection_and_a_bad_one_is_not() {
    let pki = Pki::new();
    let server = TestServer::with_tls(&pki, |_| {}).await;
    let address = server.address();
    let reloads = &server.core().metrics.tls.reloads;
    let shown = || handshake(address, SslVersion::TLS1_3, b"").unwrap().2;
    let get = async |client: &reqwest::Client| {
        let answer = client.get(format!("{}/livez", server.url)).send().await;
        answer.unwrap().text().await.unwrap()
    };
    // One connection of each protocol that stays open throughout.
    let kept = [
        pki.client(reqwest::ClientBuilder::http1_only),
        pki.client(|builder| builder),
    ];
    for client in &kept {
        assert_eq!(get(client).await, "ok\n");
    }
    let accepted = async || {
        for client in &kept {
            assert_eq!(get(client).await, "ok\n");
        }
        server.core().metrics.connections.open.get()
    };
    let open = accepted().await;
    let first = shown();

    let second = pki.renew();
    until("the new pair is used", async || {
        reloads.get(TlsReload::Done) == 1
    })
    .await;
    let second = second.certificate;
    assert!(shown() == second && second != first);

    // A certificate without its key, then garbage: neither is used.
    let stranger = pki.authority.issue(&Request::default());
    let config = pki.config();
    for bad in [stranger.pem(), b"nonsense".to_vec()] {
        let before = reloads.get(TlsReload::Refused);
        std::fs::write(&config.certificate, bad).unwrap();
        until("it is refused", async || {
            reloads.get(TlsReload::Refused) > before
        })
        .await;
        assert!(shown() == second);
    }
    // The key to the certificate: now they belong together.
    std::fs::write(&config.certificate, stranger.pem()).unwrap();
    std::fs::write(&config.key, stranger.key_pem()).unwrap();
    until("the third pair is used", async || {
        reloads.get(TlsReload::Done) == 2 && shown() == stranger.certificate
    })
    .await;
    until("the others are gone", async || accepted().await == open).await;
    let expiry = server.core().metrics.tls.expiry.get();
    let in_days = (expiry - jiff::Timestamp::now().as_second()) / 86_400;
    assert!((28..=30).contains(&in_days), "{in_days}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_without_a_good_certificate_are_refused_at_the_handshake() {
    let pki = Pki::new();
    let machines = Authority::new("machines");
    let ca = machines.file(pki.folder.path(), "machines.pem");
    let client = |pair: Option<crate::support::pki::Pair>| {
        pki.client(|builder| match pair {
            Some(pair) => {
                let identity = reqwest::Identity::from_pkcs8_pem(&pair.pem(), &pair.key_pem());
                builder.identity(identity.unwrap())
            }
            None => builder,
        })
    };
    let issue = |authority: &Authority, days| {
        Some(authority.issue(&Request {
            names: &["machine-1"],
            days,
            client: true,
        }))
    };
    let good = client(issue(&machines, (-1, 1)));
    let none = client(None);
    let stranger = client(issue(&Authority::new("strangers"), (-1, 1)));
    let expired = client(issue(&machines, (-3, -1)));
    // A certificate of a server is none of a client, whoever signed it.
    let server_pair = client(Some(machines.issue(&Request::default())));
    let ok = async |url: &str, client: &reqwest::Client| {
        let answer = client.get(url).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    };
    for (auth, without) in [(ClientAuth::Required, false), (ClientAuth::Optional, true)] {
        let server = TestServer::with_tls(&pki, |config| {
            let tls = config.server.tls.as_mut().unwrap();
            tls.client_ca = Some(ca.clone());
            tls.client_auth = auth;
            config.server.admin_address = Some(([127, 0, 0, 2], 0).into());
        })
        .await;
        let url = format!("{}/livez", server.url);
        assert!(ok(&url, &good).await);
        // A session that is resumed is as good.
        let again = client(issue(&machines, (-1, 1)));
        for _ in 0..2 {
            assert!(ok(&url, &again).await);
        }
        assert_eq!(ok(&url, &none).await, without, "{auth:?}");
        for bad in [&stranger, &expired, &server_pair] {
            assert!(!ok(&url, bad).await, "{auth:?}");
        }
        let failures = &server.core().metrics.tls.failures;
        until("all are counted", async || {
            let count = |why| failures.get(why);
            count(HandshakeFailure::BadCertificate) >= 3
                && (count(HandshakeFailure::NoCertificate) > 0) != without
        })
        .await;
        // Administrators with an address of their own are not asked.
        let url = format!(
            "https://localhost:{}/v1/openapi.json",
            server.addresses().admin.port()
        );
        let local = pki.client(|builder| builder.resolve("localhost", server.addresses().admin));
        assert!(ok(&url, &local).await);
    }
}

#[tokio::test]
async fn surfaces_have_their_own_addresses_and_are_nowhere_else() {
    const OPS: [&str; 5] = [
        "/metrics",
        "/livez",
        "/readyz",
        "/debug/info",
        "/debug/status",
    ];
    const ADMIN: [&str; 3] = ["/v1/admin/tiers", "/v1/openapi.json", "/v1/admin/admins"];
    const MACHINES: [&str; 2] = ["/v1/client/x/info", "/v1/api/kernels/supported"];
    let server = TestServer::with(|config| {
        config.server.admin_address = Some(([127, 0, 0, 2], 0).into());
        config.server.ops_address = Some(([127, 0, 0, 3], 0).into());
    })
    .await;
    let at = server.addresses();
    assert_eq!(at.machines, server.address());
    let status = async |address: SocketAddr, path: &str| {
        let url = format!("http://{address}{path}");
        let answer = server.http.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for (address, paths) in [
        (at.machines, &MACHINES[..]),
        (at.admin, &ADMIN),
        (at.ops, &OPS),
    ] {
        for path in MACHINES.iter().chain(&ADMIN).chain(&OPS) {
            let (status, text) = status(address, path).await;
            let here = paths.contains(path);
            assert_eq!(status != 404, here, "{address}{path}: {status} {text}");
        }
        // Who looks whether something is there finds the sentence everywhere.
        assert_eq!(status(address, "/").await.0, 200);
    }
    // Together on a third address is possible too.
    let server = TestServer::with(|config| {
        let both = Some(([127, 0, 0, 2], 0).into());
        config.server.admin_address = both;
        config.server.ops_address = both;
    })
    .await;
    assert_eq!(server.addresses().admin, server.addresses().ops);
    let address = server.addresses().ops;
    for path in ["/livez", "/v1/openapi.json"] {
        let url = format!("http://{address}{path}");
        assert_eq!(server.http.get(url).send().await.unwrap().status(), 200);
    }
}
