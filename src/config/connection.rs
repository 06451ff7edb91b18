//! Reads PostgreSQL connection strings as far as configuration must: to refuse broken ones early and to show them
//! without their password. The driver does not know libpq's `verify-ca`, `verify-full` and `sslrootcert`; they are split off.

use tokio_postgres::config::{Host, SslMode};

/// A connection string that can be read.
#[derive(Debug)]
pub(crate) struct Connection {
    /// What the driver understands of it; asks for TLS where `verify` is set.
    pub(crate) config: tokio_postgres::Config,
    /// libpq's word, where the driver does not know it: `verify-ca` or `verify-full`.
    pub(crate) verify: Option<&'static str>,
    /// `sslrootcert`, where given.
    pub(crate) root: Option<String>,
}

/// Reads one; `None` when it is broken. The parser's own words are left out: they may hold parts of a password.
pub(crate) fn parse(text: &str) -> Option<Connection> {
    let (head, options, separator) = match (text.contains("://"), text.split_once('?')) {
        (true, Some((head, query))) => (Some(head), query, '&'),
        (true, None) => (Some(text), "", '&'),
        (false, _) => (None, text, ' '),
    };
    let (mut verify, mut root, mut kept) = (None, None, Vec::new());
    for option in options.split(separator) {
        match option.split_once('=') {
            Some(("sslmode", "verify-ca")) => verify = Some("verify-ca"),
            Some(("sslmode", "verify-full")) => verify = Some("verify-full"),
            Some(("sslrootcert", path)) => root = Some(path.to_owned()),
            _ => kept.push(option),
        }
    }
    let kept = kept.join(&separator.to_string());
    let text = match head {
        Some(head) if kept.is_empty() => head.to_owned(),
        Some(head) => format!("{head}?{kept}"),
        None => kept,
    };
    let mut config: tokio_postgres::Config = text.parse().ok()?;
    if verify.is_some() {
        config.ssl_mode(SslMode::Require);
    }
    Some(Connection {
        config,
        verify,
        root,
    })
}

impl Connection {
    /// Whether it says where the database is.
    pub(crate) fn names_a_host(&self) -> bool {
        !self.config.get_hosts().is_empty() || !self.config.get_hostaddrs().is_empty()
    }

    /// Whether it asks for no TLS at all.
    pub(crate) fn without_tls(&self) -> bool {
        self.verify.is_none() && self.config.get_ssl_mode() == SslMode::Disable
    }

    /// What it says of where it leads, built anew from its parts so that nothing else can slip through.
    pub(crate) fn masked(&self) -> String {
        let config = &self.config;
        let host = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        let hosts: Vec<String> = config.get_hosts().iter().map(host).collect();
        let addresses: Vec<String> = config
            .get_hostaddrs()
            .iter()
            .map(ToString::to_string)
            .collect();
        let ports: Vec<String> = config.get_ports().iter().map(ToString::to_string).collect();
        let mut parts = Vec::new();
        for (name, values) in [("host", hosts), ("hostaddr", addresses), ("port", ports)] {
            if !values.is_empty() {
                parts.push(format!("{name}={}", values.join(",")));
            }
        }
        parts.extend(config.get_user().map(|user| format!("user={user}")));
        parts.extend(config.get_password().map(|_| "password=***".to_owned()));
        parts.extend(config.get_dbname().map(|name| format!("dbname={name}")));
        let mode = format!("{:?}", config.get_ssl_mode()).to_ascii_lowercase();
        parts.push(format!("sslmode={}", self.verify.unwrap_or(&mode)));
        parts.extend(self.root.as_ref().map(|path| format!("sslrootcert={path}")));
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libpq_words_are_taken_out_and_mean_tls() {
        let given =
            "postgresql://u:p@h/db?sslmode=verify-full&sslrootcert=/ca.pem&application_name=x";
        let read = parse(given).unwrap();
        assert_eq!(read.verify, Some("verify-full"));
        assert_eq!(read.root.as_deref(), Some("/ca.pem"));
        assert_eq!(read.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(read.config.get_application_name(), Some("x"));
        assert_eq!(
            parse("host=h user=u sslmode=verify-ca").unwrap().verify,
            Some("verify-ca")
        );
        assert_eq!(
            parse("postgresql://u@h/db").unwrap().config.get_ssl_mode(),
            SslMode::Prefer
        );
    }

    #[test]
    fn shows_where_it_leads_and_no_password() {
        for (given, shown) in [
            (
                "postgresql://u:can/ary@h:5/db?sslmode=verify-full&sslrootcert=/ca.pem",
                "host=h port=5 user=u password=*** dbname=db sslmode=verify-full sslrootcert=/ca.pem",
            ),
            (
                "host=h password='canary canary' sslmode=verify-ca",
                "host=h password=*** sslmode=verify-ca",
            ),
            (
                "host=/run/postgresql user = u password = canary",
                "host=/run/postgresql user=u password=*** sslmode=prefer",
            ),
            (
                "postgresql://u@h?password=canary&options=canary",
                "host=h port=5432 user=u password=*** sslmode=prefer",
            ),
        ] {
            assert_eq!(parse(given).expect(given).masked(), shown);
        }
        assert!(parse("host=h password='canary").is_none());
        assert!(parse("host=h sslmode=maybe").is_none());
        assert!(
            parse("host=h sslmode=disable").is_some_and(|c| c.without_tls() && c.names_a_host())
        );
    }
}
