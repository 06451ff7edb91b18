//! The identity provider (OpenID Connect): its keys, fetched and kept, and tokens that are checked with them.
//!
//! A token is believed if it is signed with one of the provider's keys by a configured algorithm, names the configured issuer and
//! audience, and has not expired. Keys are fetched when first needed and anew when they are old; a key that is not known makes
//! them be fetched again, but only so often, so that a flood of made-up keys costs the provider nothing. While the provider is
//! away the keys that are known go on being used, for a day.

use super::UpstreamError;
use super::http::Http;
use super::jws;
use super::tls::TlsFiles;
use crate::config::OAuth;
use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{DecodingKey, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long fetching the keys may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a caller waits for new keys while there are old ones.
const SHORTLY: Duration = Duration::from_secs(1);
/// After a fetch that failed the next one waits so long.
const PAUSE: Duration = Duration::from_secs(5);
/// Keys are used so long beyond their interval if they cannot be fetched anew.
const GRACE: Duration = Duration::from_hours(24);
/// The largest set of keys, in bytes.
const MAX_SET: u64 = 256 << 10;
/// The most keys of a set that are looked at.
const MAX_KEYS: usize = 100;
/// The longest token, in bytes.
const MAX_TOKEN: usize = 16 << 10;
/// The most values of the claim with roles.
const MAX_GROUPS: usize = 1000;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    /// The token is no good.
    #[error("{0}")]
    Refused(String),
    /// The keys cannot be had; trying again later is right.
    #[error("{0}")]
    Away(String),
}

/// What a token that is believed says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whom it is about.
    pub subject: String,
    /// Their address, unless the provider says anything but that it was verified.
    pub email: Option<String>,
    /// The values of the claim that roles are made from.
    pub groups: Vec<String>,
}

#[derive(Debug)]
struct Keys {
    keys: Vec<Jwk>,
    fetched: Instant,
}

#[derive(Debug, Default)]
struct Tries {
    failed: Option<(Instant, String)>,
    for_unknown: Option<Instant>,
}

/// The provider.
#[derive(Debug)]
pub struct Provider {
    http: Http,
    config: OAuth,
    keys: ArcSwapOption<Keys>,
    tries: Mutex<Tries>,
}

impl Provider {
    /// As configured. Nothing is fetched yet.
    pub fn new(config: &OAuth) -> Result<Self, UpstreamError> {
        jws::install();
        let files = TlsFiles::authority("auth.oauth.ca", config.ca.as_deref());
        let http = Http::with(&files, &config.proxy, PATIENCE, |client| {
            client.redirect(reqwest::redirect::Policy::none())
        })?
        .hiding(config.client_secret.expose());
        Ok(Self {
            http,
            config: config.clone(),
            keys: ArcSwapOption::empty(),
            tries: Mutex::default(),
        })
    }

    /// Checks a token for this server and gives what it says.
    pub async fn claims(self: &Arc<Self>, token: &str) -> Result<Claims, OidcError> {
        let claims = self.check(token, &self.config.audience).await?;
        Ok(self.read(&claims))
    }

    /// Checks the token that somebody who signed in was given; it must be for this client and of this journey.
    pub(super) async fn signed_in(
        self: &Arc<Self>,
        token: &str,
        nonce: &str,
    ) -> Result<Claims, OidcError> {
        let claims = self.check(token, &self.config.client_id).await?;
        if claims.get("nonce").and_then(Value::as_str) != Some(nonce) {
            return Err(OidcError::Refused(
                "it was not made for this sign-in; begin again".to_owned(),
            ));
        }
        Ok(self.read(&claims))
    }

    pub(super) fn config(&self) -> &OAuth {
        &self.config
    }

    pub(super) fn http(&self) -> &Http {
        &self.http
    }

    async fn check(
        self: &Arc<Self>,
        token: &str,
        audience: &str,
    ) -> Result<Map<String, Value>, OidcError> {
        let refused = |why: String| OidcError::Refused(why);
        if token.len() > MAX_TOKEN {
            return Err(refused(format!("it is longer than {MAX_TOKEN} bytes")));
        }
        let header =
            decode_header(token).map_err(|error| refused(format!("its header: {error}")))?;
        if !self.config.algorithms.contains(&header.alg) {
            return Err(refused(format!(
                "it is signed by {:?}, which is not among auth.oauth.sig-algs",
                header.alg
            )));
        }
        let key = self.key(&header).await?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        let data = decode::<Map<String, Value>>(token, &key, &validation)
            .map_err(|error| refused(told(&error)))?;
        Ok(data.claims)
    }

    fn read(&self, claims: &Map<String, Value>) -> Claims {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        // Some providers send it as text.
        let is_verified = match claims.get("email_verified") {
            None | Some(Value::Bool(true)) => true,
            Some(said) => said.as_str() == Some("true"),
        };
        let mut at = claims.get(&self.config.role_claim);
        if at.is_none() {
            // A path such as realm_access.roles.
            let mut steps = self.config.role_claim.split('.');
            let first = steps.next().and_then(|step| claims.get(step));
            at = steps.fold(first, |at, step| at.and_then(|value| value.get(step)));
        }
        let groups = match at {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(several)) => several
                .iter()
                .filter_map(Value::as_str)
                .take(MAX_GROUPS)
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        };
        Claims {
            subject: text("sub").unwrap_or_default(),
            email: text("email").filter(|_| is_verified),
            groups,
        }
    }

    /// The key that a token's header names.
    async fn key(self: &Arc<Self>, header: &Header) -> Result<DecodingKey, OidcError> {
        let keys = self.current().await?;
        if let Some(found) = find(&keys, header)? {
            return Ok(found);
        }
        let keys = self.look_again(&keys).await?;
        find(&keys, header)?.ok_or_else(|| {
            OidcError::Refused(
                "it is signed with a key that the identity provider does not have".to_owned(),
            )
        })
    }

    /// The keys, fetched if they are old or not there. Who has old ones that still count does not wait long for new ones.
    async fn current(self: &Arc<Self>) -> Result<Arc<Keys>, OidcError> {
        let interval = self.config.refresh_interval;
        let kept = self.keys.load_full();
        let Some(keys) = kept.filter(|keys| keys.fetched.elapsed() < interval + GRACE) else {
            return self.renewed().await;
        };
        if keys.fetched.elapsed() < interval {
            return Ok(keys);
        }
        let this = Arc::clone(self);
        // A task of its own, which goes on when nobody waits for it any more.
        let work = tokio::spawn(async move { this.renewed().await });
        match tokio::time::timeout(SHORTLY, work).await {
            Ok(Ok(renewed)) => renewed,
            _ => Ok(keys),
        }
    }

    /// The keys, fetched now if they are old.
    async fn renewed(&self) -> Result<Arc<Keys>, OidcError> {
        let interval = self.config.refresh_interval;
        let mut tries = self.tries.lock().await;
        // Who waited for another finds what that one fetched.
        let kept = self.keys.load_full();
        if let Some(keys) = kept
            .as_ref()
            .filter(|keys| keys.fetched.elapsed() < interval)
        {
            return Ok(Arc::clone(keys));
        }
        match self.fetch(&mut tries).await {
            Ok(keys) => Ok(keys),
            Err(why) => kept
                .filter(|keys| keys.fetched.elapsed() < interval + GRACE)
                .ok_or(OidcError::Away(why)),
        }
    }

    /// Fetches the keys again because one is not among `known`, if that may be done now.
    async fn look_again(&self, known: &Arc<Keys>) -> Result<Arc<Keys>, OidcError> {
        if !self.config.refresh_unknown {
            return Ok(Arc::clone(known));
        }
        let wait = self.config.refresh_unknown_max_wait;
        let work = async {
            let mut tries = self.tries.lock().await;
            let kept = self.keys.load_full();
            if let Some(newer) = kept.filter(|keys| keys.fetched > known.fetched) {
                return newer;
            }
            let limit = self.config.refresh_unknown_limit;
            if tries.for_unknown.is_some_and(|last| last.elapsed() < limit) {
                return Arc::clone(known);
            }
            tries.for_unknown = Some(Instant::now());
            self.fetch(&mut tries)
                .await
                .unwrap_or_else(|_| Arc::clone(known))
        };
        tokio::time::timeout(wait, work)
            .await
            .map_err(|_| OidcError::Away("they did not come in time".to_owned()))
    }

    async fn fetch(&self, tries: &mut Tries) -> Result<Arc<Keys>, String> {
        if let Some((_, why)) = tries.failed.as_ref().filter(|(at, _)| at.elapsed() < PAUSE) {
            return Err(why.clone());
        }
        match tokio::time::timeout(PATIENCE, self.ask()).await {
            Ok(Ok(keys)) => {
                let keys = Arc::new(Keys {
                    keys,
                    fetched: Instant::now(),
                });
                self.keys.store(Some(Arc::clone(&keys)));
                tries.failed = None;
                Ok(keys)
            }
            failed => {
                let why = match failed {
                    Ok(Err(why)) => why,
                    _ => "they did not come in time".to_owned(),
                };
                tracing::warn!(
                    why,
                    "the keys of the identity provider could not be fetched"
                );
                tries.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    async fn ask(&self) -> Result<Vec<Jwk>, String> {
        let request = self.http.client().get(&self.config.jwks_url);
        let response = self.http.send(request).await.map_err(|e| e.to_string())?;
        if !response.status().is_success() {
            return Err(format!("auth.oauth.jwks.url answers {}", response.status()));
        }
        let body = self.http.read(response, MAX_SET).await;
        let body =
            body.map_err(|_| "auth.oauth.jwks.url sends too much, or broke off".to_owned())?;
        let nonsense = || "auth.oauth.jwks.url does not give a set of keys".to_owned();
        let set: Value = serde_json::from_slice(&body).map_err(|_| nonsense())?;
        let keys = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or_else(nonsense)?;
        // A kind of key that is not known here is no reason to refuse the others.
        let keys = keys.iter().take(MAX_KEYS);
        Ok(keys
            .filter_map(|key| serde_json::from_value(key.clone()).ok())
            .collect())
    }
}

/// The key of a header. One without a key's name is taken to mean the only key there is.
fn find(keys: &Keys, header: &Header) -> Result<Option<DecodingKey>, OidcError> {
    let found = match &header.kid {
        Some(kid) => keys
            .keys
            .iter()
            .find(|key| key.common.key_id.as_ref() == Some(kid)),
        None => match keys.keys.as_slice() {
            [only] => Some(only),
            _ => {
                return Err(OidcError::Refused(
                    "it does not say which of the identity provider's keys it is signed with"
                        .to_owned(),
                ));
            }
        },
    };
    let Some(key) = found else { return Ok(None) };
    let wrong = |why: &str| Err(OidcError::Refused(format!("the key that it names {why}")));
    let common = &key.common;
    if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return wrong("is not for signatures");
    }
    if common
        .key_algorithm
        .is_some_and(|named| named != KeyAlgorithm::from(header.alg))
    {
        return wrong("is for another algorithm");
    }
    match DecodingKey::from_jwk(key) {
        Ok(key) if key.family() == header.alg.family() => Ok(Some(key)),
        Ok(_) => wrong("is of another kind than its algorithm"),
        Err(_) => wrong("cannot be used"),
    }
}

/// Why a token is refused, for people.
fn told(error: &jsonwebtoken::errors::Error) -> String {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "it has expired".to_owned(),
        ErrorKind::ImmatureSignature => "it is not valid yet".to_owned(),
        ErrorKind::InvalidIssuer => "it is of another issuer than auth.oauth.issuer".to_owned(),
        ErrorKind::InvalidAudience => {
            "it is for another audience than auth.oauth.audience".to_owned()
        }
        ErrorKind::InvalidSignature => "its signature is wrong".to_owned(),
        ErrorKind::MissingRequiredClaim(name) => format!("it has no claim {name}"),
        _ => format!("{error}"),
    }
}
