//! TLS to PostgreSQL, as a connection string and a configured authority ask for it.
//!
//! The words are libpq's: `verify-full` checks the authority and the name, `verify-ca` the authority, `require` and
//! `prefer` neither - unless an authority is given, which is then checked. An authority that is given is the only one
//! believed; the word `system` stands for those of the system. `database.ca` makes TLS a must, whatever `sslmode` says.

use crate::config::connection::Connection;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use postgres_openssl::MakeTlsConnector;
use std::path::Path;
use tokio_postgres::config::{Host, SslMode};

/// `sslrootcert` for the authorities of the system.
const SYSTEM: &str = "system";

/// What makes connections as asked, and the driver's settings without what it does not know. `key` is the configuration
/// key of the connection string, for errors.
pub(crate) fn connector(
    connection: Connection,
    ca: Option<&Path>,
    key: &str,
) -> Result<(tokio_postgres::Config, MakeTlsConnector), String> {
    let Connection {
        mut config,
        verify,
        root,
    } = connection;
    // There is none on a Unix socket.
    let remote = !config.get_hostaddrs().is_empty()
        || (config.get_hosts().iter()).any(|host| matches!(host, Host::Tcp(_)));
    if ca.is_some() && remote && config.get_ssl_mode() == SslMode::Prefer {
        config.ssl_mode(SslMode::Require);
    }
    let root = root.filter(|root| root != SYSTEM);
    let authority = match (ca, &root) {
        (Some(path), _) => Some(("database.ca".to_owned(), path)),
        (None, Some(path)) => Some((format!("{key}: sslrootcert"), Path::new(path))),
        (None, None) => None,
    };
    let setup = |error: openssl::error::ErrorStack| format!("{key}: TLS cannot be set up: {error}");
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(setup)?;
    builder
        .set_min_proto_version(Some(SslVersion::TLS1_2))
        .map_err(setup)?;
    if let Some((what, path)) = &authority {
        let mut store = X509StoreBuilder::new().map_err(setup)?;
        for certificate in authorities(path).map_err(|why| format!("{what}: {why}"))? {
            store.add_cert(certificate).map_err(setup)?;
        }
        builder.set_cert_store(store.build());
    } else if verify.is_none() {
        builder.set_verify(SslVerifyMode::NONE);
    }
    let mut tls = MakeTlsConnector::new(builder.build());
    if verify != Some("verify-full") {
        tls.set_callback(|connection, _| {
            connection.set_verify_hostname(false);
            Ok(())
        });
    }
    Ok((config, tls))
}

fn authorities(path: &Path) -> Result<Vec<X509>, String> {
    let bytes =
        std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    match X509::stack_from_pem(&bytes) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!(
            "{} holds no certificate in PEM form",
            path.display()
        )),
    }
}
