//! TLS of the listeners: contexts made from the configured files, exchanged while connections go on, and the handshake.
//!
//! TLS 1.2 and 1.3, the ciphers of Mozilla's intermediate list, no renegotiation. A connection keeps the context that it
//! began with; a new pair of certificate and key counts for those that come. Sessions are resumed by tickets only, whose
//! keys go with their context, so that who is no longer trusted after a change cannot come back by an old session.

use super::records::{Gather, Records};
use crate::config::certificates::Identity;
use crate::config::{self, ClientAuth, ConfigError};
use crate::telemetry::{HandshakeFailure, Metrics, TlsReload};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use openssl::error::ErrorStack;
use openssl::ssl::{
    AlpnError, SslAcceptor, SslContext, SslMethod, SslOptions, SslSessionCacheMode, SslVerifyMode,
    SslVersion, select_next_proto,
};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// What is offered to clients, in the form of the extension; the first one that both know is taken.
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";
/// How long a client may take to read why its handshake failed, and how much of what it had sent is read meanwhile.
const FAREWELL: (Duration, u64) = (Duration::from_secs(1), 64 << 10);

/// An encrypted connection.
pub(super) type Stream = Records<SslStream<Gather<TcpStream>>>;

/// The contexts of all listeners.
#[derive(Debug)]
pub struct Tls {
    config: config::Tls,
    contexts: ArcSwap<Contexts>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Contexts {
    /// Asks for certificates, if so configured.
    machines: SslContext,
    /// Never does.
    others: SslContext,
}

/// Who connects to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Machines, and whoever shares their address: `server.tls.client-auth` counts.
    Machines,
    /// Administrators or monitoring alone, who are not asked for certificates.
    Others,
}

/// TLS of one listener; cheap to clone.
#[derive(Debug, Clone)]
pub struct Acceptor {
    tls: Arc<Tls>,
    who: Who,
}

impl Tls {
    /// Reads the files for the first time.
    pub fn open(config: &config::Tls, metrics: &Arc<Metrics>) -> Result<Arc<Self>, ConfigError> {
        let (contexts, identity) = load(config)?;
        let tls = Arc::new(Self {
            config: config.clone(),
            contexts: ArcSwap::from_pointee(contexts),
            metrics: Arc::clone(metrics),
        });
        tls.tell(&identity);
        Ok(tls)
    }

    /// Reads the files again. If they cannot be used, what was read before stays in use.
    pub fn reload(&self) {
        let result = match load(&self.config) {
            Ok((contexts, identity)) => {
                self.contexts.store(Arc::new(contexts));
                self.tell(&identity);
                TlsReload::Done
            }
            Err(error) => {
                tracing::error!(%error, "the new certificate is not used; the one that was read before stays in use");
                TlsReload::Refused
            }
        };
        self.metrics.tls.reloads.inc(result);
    }

    fn tell(&self, identity: &Identity) {
        let now = Timestamp::now();
        for remark in identity.remarks(now) {
            tracing::warn!("{remark}");
        }
        self.metrics.tls.expiry.set(identity.not_after.as_second());
        tracing::info!(
            subject = identity.subject(),
            until = %identity.not_after,
            client_auth = ?self.config.client_auth,
            "TLS with the certificate of {}",
            self.config.certificate.display()
        );
    }

    /// The files that it is made from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.config.certificate, &self.config.key]
            .into_iter()
            .chain(&self.config.client_ca)
            .map(PathBuf::as_path)
    }

    /// For one listener.
    pub fn acceptor(self: &Arc<Self>, who: Who) -> Acceptor {
        Acceptor {
            tls: Arc::clone(self),
            who,
        }
    }
}

fn load(config: &config::Tls) -> Result<(Contexts, Identity), ConfigError> {
    let identity = Identity::read(config, Timestamp::now())?;
    let made = context(&identity, ClientAuth::None).and_then(|others| {
        let machines = match config.client_auth {
            ClientAuth::None => others.clone(),
            asked => context(&identity, asked)?,
        };
        Ok(Contexts { machines, others })
    });
    match made {
        Ok(contexts) => Ok((contexts, identity)),
        Err(error) => Err(ConfigError::new(
            config::ErrorKind::File,
            "server.tls.certificate",
            format!(
                "{}: OpenSSL does not take it: {error}",
                config.certificate.display()
            ),
        )),
    }
}

fn context(identity: &Identity, clients: ClientAuth) -> Result<SslContext, ErrorStack> {
    let mut context = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    context.set_options(SslOptions::NO_RENEGOTIATION);
    context.set_certificate(&identity.certificate)?;
    for certificate in &identity.chain {
        context.add_extra_chain_cert(certificate.clone())?;
    }
    context.set_private_key(&identity.key)?;
    context.check_private_key()?;
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context.set_session_id_context(b"livepatch")?;
    // Who knows neither gets HTTP/1.1, as one does who does not ask.
    context.set_alpn_select_callback(|_, offered| {
        select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::NOACK)
    });
    if clients != ClientAuth::None {
        let mut store = X509StoreBuilder::new()?;
        let mut names = Stack::new()?;
        for authority in &identity.clients {
            store.add_cert(authority.clone())?;
            names.push(authority.subject_name().to_owned()?)?;
        }
        context.set_verify_cert_store(store.build())?;
        context.set_client_ca_list(names);
        let needed = match clients {
            ClientAuth::Required => SslVerifyMode::FAIL_IF_NO_PEER_CERT,
            _ => SslVerifyMode::empty(),
        };
        context.set_verify(SslVerifyMode::PEER | needed);
    }
    Ok(context.build().into_context())
}

impl Acceptor {
    /// Does the handshake. Whether HTTP/2 was agreed upon comes with the stream.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<(Stream, bool), Failed> {
        let ssl = {
            let contexts = self.tls.contexts.load();
            let context = match self.who {
                Who::Machines => &contexts.machines,
                Who::Others => &contexts.others,
            };
            openssl::ssl::Ssl::new(context)
        };
        let stream = ssl.and_then(|ssl| SslStream::new(ssl, Gather::new(stream)));
        let mut stream = stream.map_err(|error| Failed(HandshakeFailure::Other, error.into()))?;
        match Pin::new(&mut stream).accept().await {
            Ok(()) => {
                let h2 = stream.ssl().selected_alpn_protocol() == Some(b"h2");
                Ok((Records(stream), h2))
            }
            Err(error) => {
                let why = reason(&error);
                self.tls.metrics.tls.failures.inc(why);
                farewell(stream.get_mut().io(), why).await;
                Err(Failed(why, io::Error::other(error)))
            }
        }
    }
}

/// Why a handshake failed.
#[derive(Debug)]
pub(super) struct Failed(pub(super) HandshakeFailure, pub(super) io::Error);

/// OpenSSL's numbers of reasons, which its library has had since 1.0 (`sslerr.h`).
mod reasons {
    pub(super) const CERTIFICATE_VERIFY_FAILED: i32 = 134;
    pub(super) const HTTPS_PROXY_REQUEST: i32 = 155;
    pub(super) const HTTP_REQUEST: i32 = 156;
    pub(super) const PEER_DID_NOT_RETURN_A_CERTIFICATE: i32 = 199;
    pub(super) const UNSUPPORTED_PROTOCOL: i32 = 258;
}

fn reason(error: &openssl::ssl::Error) -> HandshakeFailure {
    let Some(stack) = error.ssl_error() else {
        return HandshakeFailure::Gone;
    };
    stack
        .errors()
        .iter()
        .find_map(|error| match error.reason_code() {
            reasons::CERTIFICATE_VERIFY_FAILED => Some(HandshakeFailure::BadCertificate),
            reasons::PEER_DID_NOT_RETURN_A_CERTIFICATE => Some(HandshakeFailure::NoCertificate),
            reasons::HTTP_REQUEST | reasons::HTTPS_PROXY_REQUEST => {
                Some(HandshakeFailure::PlainHttp)
            }
            reasons::UNSUPPORTED_PROTOCOL => Some(HandshakeFailure::OldVersion),
            _ => None,
        })
        .unwrap_or(HandshakeFailure::Other)
}

/// Lets a client read what it was told: a connection that is closed with unread data in it is reset, and the alert lost.
async fn farewell(stream: &mut TcpStream, why: HandshakeFailure) {
    const PLAIN: &[u8] =
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n\
        this address speaks TLS only; use https:// in place of http://\n";
    if why == HandshakeFailure::Gone {
        return;
    }
    let (patience, most) = FAREWELL;
    let leaving = async {
        if why == HandshakeFailure::PlainHttp {
            stream.write_all(PLAIN).await?;
        }
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(most), &mut tokio::io::sink()).await
    };
    // It may be gone already; then there is nobody to tell.
    let _ = tokio::time::timeout(patience, leaving).await;
}
