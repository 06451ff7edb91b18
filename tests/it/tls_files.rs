//! Certificates and keys that cannot be used: each is refused at start and by `config check`, with the key that names it
//! and what to do. And SIGHUP, in a real process.

use crate::support::pki::{Authority, Pair, Request, key};
use crate::support::process::{Site, until};
use livepatch_onprem::app;
use livepatch_onprem::config::{ClientAuth, Config, Tls, check_files};
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::symm::Cipher;
use std::fmt::Write as _;
use std::path::Path;

/// What is said about a pair, by `config check` and at start, without the folder and moments of this run.
async fn refused(folder: &Path, certificate: &[u8], key: &[u8], ca: Option<&[u8]>) -> String {
    let tls = Tls {
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        client_ca: ca.map(|_| folder.join("ca.pem")),
        client_auth: match ca {
            Some(_) => ClientAuth::Required,
            None => ClientAuth::None,
        },
    };
    std::fs::write(&tls.certificate, certificate).unwrap();
    std::fs::write(&tls.key, key).unwrap();
    if let Some(ca) = ca {
        std::fs::write(folder.join("ca.pem"), ca).unwrap();
    }
    let mut config = Config::default();
    config.server.tls = Some(tls);
    config.ingest.spool_directory = None;
    let found = check_files(&config);
    assert_eq!(found.len(), 1, "{found:?}");
    let text = found[0].to_string();
    // Before any other thing is looked at: there is no database here.
    let error = app::start(config, true).await.unwrap_err();
    assert_eq!(error.to_string(), text);
    assert!(!text.contains("PRIVATE"), "{text}");
    text.replace(folder.to_str().unwrap(), "DIR")
}

fn without_moments(text: &str) -> String {
    let is_moment = |word: &&str| word.starts_with("20") && word.contains('T');
    let moment = text.split(&[' ', ';'][..]).find(is_moment);
    moment.map_or_else(|| text.to_owned(), |moment| text.replace(moment, "MOMENT"))
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new("an authority");
    let request = Request::default();
    let good = authority.issue(&request);
    let other = authority.issue(&request);
    let both = [good.pem(), authority.pem()].concat();
    let backwards = [authority.pem(), good.pem()].concat();
    let expired = authority.issue(&Request {
        days: (-30, -1),
        ..request.clone()
    });
    let early = authority.issue(&Request {
        days: (2, 30),
        ..request.clone()
    });
    let locked = good
        .key
        .private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"canary")
        .unwrap();
    let weak = PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap();
    let weak: Pair = authority.sign(&request, weak);
    let mut broken = good.pem();
    broken.splice(40..60, *b"AAAAAAAAAAAAAAAAAAAA");
    let public = key().public_key_to_pem().unwrap();
    let key = good.key_pem();
    let mut all = String::new();
    for (what, certificate, key, ca) in [
        (
            "garbage for a certificate",
            b"nonsense\n".to_vec(),
            &key,
            None,
        ),
        ("an empty certificate", Vec::new(), &key, None),
        ("a broken certificate", broken, &key, None),
        ("a key for a certificate", key.clone(), &key, None),
        (
            "garbage for a key",
            good.pem(),
            &b"nonsense\n".to_vec(),
            None,
        ),
        ("a certificate for a key", good.pem(), &good.pem(), None),
        ("a public key", good.pem(), &public, None),
        ("a key with a passphrase", good.pem(), &locked, None),
        ("the key of another", good.pem(), &other.key_pem(), None),
        ("the chain backwards", backwards, &key, None),
        ("a weak key", weak.pem(), &weak.key_pem(), None),
        ("expired", expired.pem(), &expired.key_pem(), None),
        ("not yet valid", early.pem(), &early.key_pem(), None),
        ("too large", vec![b'x'; (1 << 20) + 1], &key, None),
        (
            "garbage for authorities",
            both,
            &key,
            Some(&b"nonsense"[..]),
        ),
    ] {
        let text = refused(folder, &certificate, key, ca).await;
        let _ = writeln!(all, "{what}:\n  {}", without_moments(&text));
    }
    // Unreadable, even for root, who reads what others may not.
    for name in ["server.pem", "server.key"] {
        std::fs::write(folder.join("server.pem"), good.pem()).unwrap();
        std::fs::write(folder.join("server.key"), &key).unwrap();
        let mut config = Config::default();
        config.server.tls = Some(Tls {
            certificate: folder.join("server.pem"),
            key: folder.join("server.key"),
            ..Tls::default()
        });
        let path = folder.join(name);
        std::fs::remove_file(&path).unwrap();
        for missing in [true, false] {
            if !missing {
                std::fs::create_dir(&path).unwrap();
            }
            let text = check_files(&config)[0].to_string();
            let _ = writeln!(
                all,
                "{name} {}:\n  {}",
                if missing { "missing" } else { "a folder" },
                text.replace(folder.to_str().unwrap(), "DIR")
            );
        }
        std::fs::remove_dir(&path).unwrap();
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn a_real_process_reads_its_certificate_again_on_sighup_and_says_so() {
    let pki = crate::support::pki::Pki::new();
    let mut site = Site::new().await;
    let config = pki.config();
    site.http = pki.client(|builder| builder.pool_max_idle_per_host(0).tls_info(true));
    site.set(
        "LP_SERVER_TLS_CERTIFICATE",
        config.certificate.display().to_string(),
    );
    site.set("LP_SERVER_TLS_KEY", config.key.display().to_string());
    let server = site.start().await;
    let shown = async || {
        let answer = site.http.get(format!("{}/livez", server.url)).send().await;
        let answer = answer.unwrap();
        let info = answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
        info.peer_certificate().unwrap().to_vec()
    };
    let pair = pki.renew();
    server.signal("HUP");
    until("the new pair is shown", async || {
        shown().await == pair.certificate.to_der().unwrap()
    })
    .await;
    std::fs::write(&config.key, "nonsense").unwrap();
    server.signal("HUP");
    until("it says what is wrong", async || {
        server.said("holds no private key in PEM form") && server.said("stays in use")
    })
    .await;
    assert_eq!(shown().await, pair.certificate.to_der().unwrap());
    // A server without TLS is not ended by the signal either.
    let plain = Site::new().await.start().await;
    plain.signal("HUP");
    until("it says that there is nothing to read", async || {
        plain.said("there is no certificate to read again")
    })
    .await;
    plain.stop().await;
    server.stop().await;
}
