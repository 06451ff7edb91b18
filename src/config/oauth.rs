//! `auth.oauth.*`: whose tokens are believed, what they let people do, and what cannot be together.

use super::checks::Checker;
use super::error::{ConfigError, ErrorKind};
use super::load::Values;
use super::model::Config;
use super::sync::Proxy;
use crate::domain::{Role, Secret};
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

const ALGORITHMS: &str = "auth.oauth.sig-algs";
const ROLES: &str = "auth.oauth.roles";

/// `auth.oauth.*`
#[derive(Debug, Clone)]
pub struct OAuth {
    /// `auth.oauth.enabled`
    pub enabled: bool,
    /// `auth.oauth.issuer`: what a token must name as its issuer.
    pub issuer: String,
    /// `auth.oauth.audience`: what a token must name as its audience.
    pub audience: String,
    /// `auth.oauth.sig-algs`
    pub algorithms: Vec<Algorithm>,
    /// `auth.oauth.allowed-email-ids`: who may; empty: whoever has a role by `roles`.
    pub allowed_emails: Vec<String>,
    /// `auth.oauth.role-claim` (ours): the claim that `roles` speaks of, or a path to it with dots.
    pub role_claim: String,
    /// `auth.oauth.roles` (ours): values of that claim and the role that each gives.
    pub roles: Vec<(String, Role)>,
    /// `auth.oauth.default-role` (ours): of those in `allowed_emails` whom no value of the claim gives one.
    pub default_role: Option<Role>,
    /// `auth.oauth.jwks.url`
    pub jwks_url: String,
    /// `auth.oauth.jwks.refresh-interval`
    pub refresh_interval: Duration,
    /// `auth.oauth.jwks.refresh-unknown-kid`
    pub refresh_unknown: bool,
    /// `auth.oauth.jwks.refresh-unknown-kid-limit`
    pub refresh_unknown_limit: Duration,
    /// `auth.oauth.jwks.refresh-unknown-kid-max-wait`
    pub refresh_unknown_max_wait: Duration,
    /// `auth.oauth.client-id` (ours): what the provider calls this server, for signing in at the console.
    pub client_id: String,
    /// `auth.oauth.client-secret` (ours): what it proves that with; empty: a public client.
    pub client_secret: Secret,
    /// `auth.oauth.authorization-url` (ours): where people sign in.
    pub authorization_url: String,
    /// `auth.oauth.token-url` (ours): where a code is redeemed.
    pub token_url: String,
    /// `auth.oauth.ca` (ours): PEM file of the authority that signed the provider's certificate.
    pub ca: Option<PathBuf>,
    /// `auth.oauth.proxy.*`
    pub proxy: Proxy,
}

impl Default for OAuth {
    fn default() -> Self {
        Self {
            enabled: false,
            issuer: String::new(),
            audience: String::new(),
            algorithms: vec![Algorithm::RS256],
            allowed_emails: Vec::new(),
            role_claim: "groups".to_owned(),
            roles: Vec::new(),
            default_role: Some(Role::Admin),
            jwks_url: String::new(),
            refresh_interval: Duration::from_hours(1),
            refresh_unknown: true,
            refresh_unknown_limit: Duration::from_mins(10),
            refresh_unknown_max_wait: Duration::from_mins(1),
            client_id: String::new(),
            client_secret: Secret::default(),
            authorization_url: String::new(),
            token_url: String::new(),
            ca: None,
            proxy: Proxy {
                keys: "auth.oauth.proxy",
                ..Proxy::default()
            },
        }
    }
}

impl OAuth {
    /// Whether people can sign in at the provider.
    pub fn signs_in(&self) -> bool {
        self.enabled && !self.client_id.is_empty()
    }
}

/// Reads each of a list, and says of which entry what is wrong.
fn each<T>(
    values: &Values,
    errors: &mut Vec<ConfigError>,
    key: &'static str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let given = values.get(key);
    let mut found = Vec::new();
    for text in given.value.as_list() {
        match read(text) {
            Ok(value) => found.push(value),
            Err(why) => {
                let error = ConfigError::new(ErrorKind::WrongType, key, format!("{text:?}: {why}"));
                errors.push(error.at(&given.source));
            }
        }
    }
    found
}

/// `auth.oauth.sig-algs`
pub(super) fn algorithms(values: &Values, errors: &mut Vec<ConfigError>) -> Vec<Algorithm> {
    const KNOWN: &str = "expected RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";
    each(values, errors, ALGORITHMS, |text| {
        let algorithm: Algorithm = text.parse().map_err(|_| KNOWN.to_owned())?;
        // With these whoever can check a token can make one.
        if algorithm.family() == AlgorithmFamily::Hmac {
            return Err(format!("is not an algorithm with a public key; {KNOWN}"));
        }
        Ok(algorithm)
    })
}

/// `auth.oauth.roles`
pub(super) fn roles(values: &Values, errors: &mut Vec<ConfigError>) -> Vec<(String, Role)> {
    each(values, errors, ROLES, |text| {
        // Values may hold `=`, as distinguished names do; roles do not.
        let (value, role) = text
            .rsplit_once('=')
            .filter(|(value, _)| !value.is_empty())
            .ok_or("expected VALUE=ROLE, such as livepatch-admins=admin")?;
        let role = role.parse::<Role>().map_err(|error| error.to_string())?;
        Ok((value.to_owned(), role))
    })
}

/// Whether nobody on the way can change what a URL answers: it is an https one, or the way does not leave this machine.
fn is_safe(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else {
        return false;
    };
    let Some(host) = url.host().filter(|host| !host.is_empty()) else {
        return false;
    };
    let is_near = || {
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    match url.scheme_str() {
        Some("https") => true,
        Some("http") => is_near(),
        _ => false,
    }
}

/// Adds what cannot be together.
pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    let oauth = &config.auth.oauth;
    if !oauth.enabled {
        return;
    }
    for (key, value, instead) in [
        (
            "auth.oauth.issuer",
            &oauth.issuer,
            "name the issuer whose tokens are believed, e.g. https://sso.example.com",
        ),
        (
            "auth.oauth.audience",
            &oauth.audience,
            "name the audience that tokens for this server have; without one any token of the issuer would do",
        ),
        (
            "auth.oauth.jwks.url",
            &oauth.jwks_url,
            "say where the provider's keys are; the `jwks_uri` of its .well-known/openid-configuration",
        ),
    ] {
        if value.is_empty() {
            checker.wrong(
                key,
                format!("must be given while auth.oauth.enabled is true; {instead}"),
            );
        }
    }
    for (key, value) in [
        ("auth.oauth.authorization-url", &oauth.authorization_url),
        ("auth.oauth.token-url", &oauth.token_url),
    ] {
        if value.is_empty() != oauth.client_id.is_empty() {
            checker.wrong(
                key,
                "auth.oauth.client-id, authorization-url and token-url go together: people sign in at the console with all of them, or not at all",
            );
        }
    }
    for (key, url) in [
        ("auth.oauth.jwks.url", &oauth.jwks_url),
        ("auth.oauth.authorization-url", &oauth.authorization_url),
        ("auth.oauth.token-url", &oauth.token_url),
    ] {
        if !url.is_empty() && !is_safe(url) {
            checker.wrong(
                key,
                "must be an https URL: whoever could change an answer on its way could let anybody in; http is for loopback addresses only",
            );
        }
    }
    if oauth.algorithms.is_empty() {
        checker.wrong(ALGORITHMS, "must name an algorithm, e.g. RS256");
    }
    if oauth.allowed_emails.is_empty() && oauth.roles.is_empty() {
        checker.wrong(
            "auth.oauth.allowed-email-ids",
            "auth.oauth.enabled is true and nobody could log in; list who may, or give roles by auth.oauth.roles",
        );
    }
    if oauth.roles.is_empty() && oauth.default_role.is_none() {
        checker.wrong(
            "auth.oauth.default-role",
            "is none and auth.oauth.roles is empty, so that nobody has a role",
        );
    }
    if !oauth.roles.is_empty() && oauth.role_claim.is_empty() {
        checker.wrong(
            "auth.oauth.role-claim",
            "must name the claim that auth.oauth.roles speaks of",
        );
    }
    let keys = "without a bound the provider would be asked without end";
    checker.lasting(
        "auth.oauth.jwks.refresh-interval",
        oauth.refresh_interval,
        keys,
    );
    checker.lasting(
        "auth.oauth.jwks.refresh-unknown-kid-limit",
        oauth.refresh_unknown_limit,
        keys,
    );
}

#[cfg(test)]
mod tests {
    use super::is_safe;

    #[test]
    fn keys_do_not_come_in_the_clear() {
        for good in [
            "https://sso.example.com/keys",
            "http://127.0.0.1:9/keys",
            "http://[::1]:9/keys",
            "http://localhost/keys",
        ] {
            assert!(is_safe(good), "{good}");
        }
        for bad in [
            "http://sso.example.com/keys",
            "http://127.0.0.1.example.com/keys",
            "ftp://127.0.0.1/keys",
            "/keys",
            "sso.example.com",
            "https://",
        ] {
            assert!(!is_safe(bad), "{bad}");
        }
    }
}
