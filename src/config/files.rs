//! Looks at the files a configuration names, for `config check`. What uses them reports on them again at start.

use super::certificates::{self, Identity};
use super::error::ConfigError;
use super::model::{Config, StorageKind};
use jiff::Timestamp;
use std::path::Path;

/// Every file or folder that is named and cannot be used.
pub fn check_files(config: &Config) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let mut note = |key: &str, path: &Path, problem: Option<String>| {
        if let Some(problem) = problem {
            errors.push(ConfigError::file(key, path, problem));
        }
    };
    for path in &config.patch_trust.certificates {
        note("patch-trust.certificates", path, certificates(path));
    }
    if let Some(path) = &config.database.ca {
        note("database.ca", path, certificates(path));
    }
    if let Some(path) = &config.patch_storage.s3.ca {
        note("patch-storage.s3-ca", path, certificates(path));
    }
    if let Some(path) = &config.patch_sync.upstream_ca {
        note("patch-sync.upstream-ca", path, certificates(path));
    }
    if let Some(path) = &config.patch_sync.upstream_tls_certificate {
        note(
            "patch-sync.upstream-tls-certificate",
            path,
            certificates(path),
        );
    }
    if let Some(path) = &config.contracts.ca {
        note("contracts.ca", path, certificates(path));
    }
    if let Some(path) = &config.auth.oauth.ca {
        note("auth.oauth.ca", path, certificates(path));
    }
    if let Some(path) = &config.tracing.ca {
        note("tracing.ca", path, certificates(path));
    }
    if let Some(path) = &config.webhooks.ca {
        note("webhooks.ca", path, certificates(path));
    }
    if let Some(path) = &config.ingest.spool_directory {
        note("ingest.spool-directory", path, folder(path));
    }
    if config.patch_storage.kind == StorageKind::Filesystem {
        let path = &config.patch_storage.filesystem_path;
        // The server makes the folder itself; something else in its place is in the way.
        if path.exists() {
            note("patch-storage.filesystem-path", path, folder(path));
        }
    }
    if let Some(tls) = &config.server.tls {
        errors.extend(Identity::read(tls, Timestamp::now()).err());
    }
    errors
}

fn folder(path: &Path) -> Option<String> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => None,
        Ok(_) => Some("is not a folder".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

fn certificates(path: &Path) -> Option<String> {
    let bytes = match certificates::read(path) {
        Ok(bytes) => bytes,
        Err(why) => return Some(why),
    };
    let pem = openssl::x509::X509::stack_from_pem(&bytes).is_ok_and(|found| !found.is_empty());
    if pem || openssl::x509::X509::from_der(&bytes).is_ok() {
        None
    } else {
        Some("holds no certificate in PEM or DER form".to_owned())
    }
}
