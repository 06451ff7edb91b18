//! A certificate authority of a test's own, and what it signs.

use livepatch_onprem::config::Tls;
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslAcceptor, SslMethod};
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Name, X509NameBuilder};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};

/// A certificate and its key.
#[derive(Clone)]
pub struct Pair {
    pub certificate: X509,
    pub key: PKey<Private>,
}

/// Who signs.
#[derive(Clone)]
pub struct Authority(pub Pair);

/// What is to be signed.
#[derive(Clone)]
pub struct Request<'a> {
    /// Host names and addresses.
    pub names: &'a [&'a str],
    /// From and until when it is valid, in days from now.
    pub days: (i64, i64),
    /// For a client instead of a server.
    pub client: bool,
}

impl Default for Request<'_> {
    fn default() -> Self {
        Self {
            names: &["127.0.0.1", "localhost"],
            days: (-1, 30),
            client: false,
        }
    }
}

/// A new key on P-256, which is made much faster than one of RSA.
pub fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn name(text: &str) -> X509Name {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", text).unwrap();
    name.build()
}

fn moment(days: i64) -> Asn1Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Asn1Time::from_unix(i64::try_from(now.as_secs()).unwrap() + days * 86_400).unwrap()
}

fn begin(subject: &X509Name, key: &PKey<Private>, days: (i64, i64)) -> openssl::x509::X509Builder {
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(120, MsbOption::MAYBE_ZERO, false).unwrap();
    let serial = serial.to_asn1_integer().unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(subject).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&moment(days.0)).unwrap();
    builder.set_not_after(&moment(days.1)).unwrap();
    builder
}

impl Authority {
    /// One that signs itself.
    pub fn new(text: &str) -> Self {
        let key = key();
        let name = name(text);
        let mut builder = begin(&name, &key, (-1, 365));
        builder.set_issuer_name(&name).unwrap();
        let ca = BasicConstraints::new().critical().ca().build().unwrap();
        builder.append_extension(ca).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        let certificate = builder.build();
        Self(Pair { certificate, key })
    }

    /// Signs a new key.
    pub fn issue(&self, request: &Request<'_>) -> Pair {
        self.sign(request, key())
    }

    /// Signs this key.
    pub fn sign(&self, request: &Request<'_>, key: PKey<Private>) -> Pair {
        let subject = name(request.names.first().unwrap_or(&"nobody"));
        let mut builder = begin(&subject, &key, request.days);
        let issuer = &self.0.certificate;
        builder.set_issuer_name(issuer.subject_name()).unwrap();
        if !request.names.is_empty() {
            let mut names = SubjectAlternativeName::new();
            for name in request.names {
                if name.parse::<std::net::IpAddr>().is_ok() {
                    names.ip(name);
                } else {
                    names.dns(name);
                }
            }
            let names = names
                .build(&builder.x509v3_context(Some(issuer), None))
                .unwrap();
            builder.append_extension(names).unwrap();
        }
        let mut usage = ExtendedKeyUsage::new();
        let usage = if request.client {
            usage.client_auth()
        } else {
            usage.server_auth()
        };
        builder.append_extension(usage.build().unwrap()).unwrap();
        builder.sign(&self.0.key, MessageDigest::sha256()).unwrap();
        let certificate = builder.build();
        Pair { certificate, key }
    }

    /// Its certificate as a file.
    pub fn file(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, self.pem()).unwrap();
        path
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> Vec<u8> {
        self.0.certificate.to_pem().unwrap()
    }
}

impl Pair {
    /// The certificate in PEM.
    pub fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }

    /// The key in PEM.
    pub fn key_pem(&self) -> Vec<u8> {
        self.key.private_key_to_pem_pkcs8().unwrap()
    }

    /// Both as files `NAME.pem` and `NAME.key`.
    pub fn files(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let paths = (
            folder.join(format!("{name}.pem")),
            folder.join(format!("{name}.key")),
        );
        std::fs::write(&paths.0, self.pem()).unwrap();
        std::fs::write(&paths.1, self.key_pem()).unwrap();
        paths
    }
}

/// An authority, and files of a server that it vouches for.
pub struct Pki {
    pub authority: Authority,
    pub folder: tempfile::TempDir,
}

impl Pki {
    /// With a good pair for this machine.
    pub fn new() -> Self {
        let pki = Self {
            authority: Authority::new("an authority"),
            folder: tempfile::tempdir().unwrap(),
        };
        pki.renew();
        pki
    }

    /// A new pair in place of the old one.
    pub fn renew(&self) -> Pair {
        let pair = self.authority.issue(&Request::default());
        pair.files(self.folder.path(), "server");
        pair
    }

    /// What the server is told.
    pub fn config(&self) -> Tls {
        Tls {
            certificate: self.folder.path().join("server.pem"),
            key: self.folder.path().join("server.key"),
            ..Tls::default()
        }
    }

    /// A client that believes the authority.
    pub fn client(
        &self,
        with: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> reqwest::Client {
        let ca = reqwest::Certificate::from_pem(&self.authority.pem()).unwrap();
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(std::time::Duration::from_secs(30))
            .tls_certs_only([ca]);
        with(builder).build().unwrap()
    }
}

/// TLS with this pair before a plain server, whatever it speaks. Ends with the test's runtime.
pub async fn terminate(pair: &Pair, plain: SocketAddr) -> SocketAddr {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_private_key(&pair.key).unwrap();
    acceptor.set_certificate(&pair.certificate).unwrap();
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let ssl = Ssl::new(acceptor.context()).unwrap();
            tokio::spawn(async move {
                let mut stream = tokio_openssl::SslStream::new(ssl, stream).unwrap();
                // A client that does not trust us goes away here.
                if Pin::new(&mut stream).accept().await.is_ok() {
                    let mut behind = TcpStream::connect(plain).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
                }
            });
        }
    });
    address
}

/// The same server behind certificates that are good, of another authority, for another name, and expired; with what is
/// said of each that is not good.
pub async fn fronts(
    authority: &Authority,
    plain: SocketAddr,
) -> [(SocketAddr, Option<&'static str>); 4] {
    let good = Request::default();
    let other_name = Request {
        names: &["db.example.com"],
        ..good.clone()
    };
    let expired = Request {
        days: (-30, -1),
        ..good.clone()
    };
    let stranger = Authority::new("a stranger");
    [
        (terminate(&authority.issue(&good), plain).await, None),
        (
            terminate(&stranger.issue(&good), plain).await,
            Some("local issuer"),
        ),
        (
            terminate(&authority.issue(&other_name), plain).await,
            Some("mismatch"),
        ),
        (
            terminate(&authority.issue(&expired), plain).await,
            Some("expired"),
        ),
    ]
}
