//! Signing in at the identity provider: the authorization code flow with PKCE (RFC 7636), for the console.

use super::http::ReadError;
use super::oidc::{Claims, OidcError, Provider};
use crate::domain::Secret;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use openssl::sha::sha256;
use reqwest::Url;
use serde::Deserialize;
use std::sync::Arc;

/// The longest answer to a code, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// What a browser keeps on its way to the provider and back. Each part is random.
#[derive(Debug, Clone)]
pub struct Journey {
    /// Comes back with the code.
    pub state: String,
    /// Proves that whoever redeems the code asked for it.
    pub verifier: Secret,
    /// Stands in the token.
    pub nonce: String,
}

impl Journey {
    /// From three times 256 random bits.
    pub fn new(random: [[u8; 32]; 3]) -> Self {
        let [state, verifier, nonce] = random.map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes));
        Self {
            state,
            verifier: Secret::new(verifier),
            nonce,
        }
    }

    /// As one text, for a cookie.
    pub fn text(&self) -> String {
        format!("{}.{}.{}", self.state, self.verifier.expose(), self.nonce)
    }

    /// From that text.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (state, verifier, nonce) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = [state, verifier, nonce].iter().all(|part| part.len() == 43);
        (whole && parts.next().is_none()).then(|| Self {
            state: state.to_owned(),
            verifier: Secret::new(verifier),
            nonce: nonce.to_owned(),
        })
    }
}

#[derive(Deserialize)]
struct Answer {
    id_token: Option<String>,
}

impl Provider {
    /// Where a browser goes to sign in, to come back to `redirect`. `None` if that is not configured.
    pub fn sign_in_url(&self, redirect: &str, journey: &Journey) -> Option<String> {
        let config = self.config();
        if !config.signs_in() {
            return None;
        }
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(sha256(journey.verifier.expose().as_bytes()));
        let mut url: Url = config.authorization_url.parse().ok()?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &config.client_id)
            .append_pair("redirect_uri", redirect)
            .append_pair("scope", "openid email profile")
            .append_pair("state", &journey.state)
            .append_pair("nonce", &journey.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Some(url.into())
    }

    /// Redeems the code that a browser came back with.
    pub async fn redeem(
        self: &Arc<Self>,
        code: &str,
        redirect: &str,
        journey: &Journey,
    ) -> Result<Claims, OidcError> {
        let config = self.config();
        let refused = |why: &str| OidcError::Refused(why.to_owned());
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("client_id", &config.client_id),
            ("code_verifier", journey.verifier.expose()),
        ];
        let body =
            serde_urlencoded::to_string(form).map_err(|e| OidcError::Refused(e.to_string()))?;
        let mut request = self
            .http()
            .client()
            .post(&config.token_url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(body);
        if !config.client_secret.is_empty() {
            // Both are encoded as in a form first (RFC 6749, 2.3.1).
            let secret = encoded(config.client_secret.expose());
            request = request.basic_auth(encoded(&config.client_id), Some(secret));
        }
        let away = |why: String| OidcError::Away(why);
        let response = self
            .http()
            .send(request)
            .await
            .map_err(|e| away(e.to_string()))?;
        let status = response.status();
        if status.is_server_error() {
            return Err(away(format!("auth.oauth.token-url answers {status}")));
        }
        if !status.is_success() {
            tracing::warn!(
                status = status.as_u16(),
                "auth.oauth.token-url does not take a code; if this is so for everybody, look at auth.oauth.client-id and client-secret"
            );
            return Err(refused(
                "the identity provider does not take the code; sign in again",
            ));
        }
        let body = self
            .http()
            .read(response, MAX_ANSWER)
            .await
            .map_err(|error| {
                away(match error {
                    ReadError::TooLong => "auth.oauth.token-url answers too much".to_owned(),
                    ReadError::Broke(why) => why.to_string(),
                })
            })?;
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| refused("the identity provider's answer cannot be read"))?;
        let token = answer.id_token.ok_or_else(|| {
            refused("the identity provider gives no id_token; is the scope openid allowed?")
        })?;
        self.signed_in(&token, &journey.nonce).await
    }
}

/// A text as it stands in a form.
fn encoded(text: &str) -> String {
    let pair = serde_urlencoded::to_string([("", text)]).unwrap_or_default();
    pair.trim_start_matches('=').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_encoded_as_in_a_form() {
        assert_eq!(encoded("=a b%c+d/:é"), "%3Da+b%25c%2Bd%2F%3A%C3%A9");
    }

    #[test]
    fn a_journey_is_kept_whole() {
        let journey = Journey::new([[1; 32], [2; 32], [3; 32]]);
        let back = Journey::read(&journey.text()).unwrap();
        assert_eq!(
            (back.state, back.nonce),
            (journey.state.clone(), journey.nonce.clone())
        );
        for bad in [
            "",
            "a.b.c",
            &journey.text()[1..],
            &format!("{}.x", journey.text()),
        ] {
            assert!(Journey::read(bad).is_none(), "{bad}");
        }
    }
}
