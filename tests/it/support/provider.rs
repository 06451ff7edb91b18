//! An identity provider on loopback: serves its keys, and signs tokens as a test asks for them.

use axum::Router;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as B64};
use livepatch_onprem::config::OAuth;
use livepatch_onprem::domain::{Role, Secret};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// Issuer of every provider here.
pub const ISSUER: &str = "https://sso.example.com";
/// Audience of every server here.
pub const AUDIENCE: &str = "livepatch";

/// A key of the provider.
#[derive(Clone)]
pub struct Key {
    pub kid: String,
    pub algorithm: &'static str,
    pub private: PKey<Private>,
}

impl Key {
    pub fn rsa(kid: &str, algorithm: &'static str) -> Self {
        Self::rsa_of(kid, algorithm, 2048)
    }

    pub fn rsa_of(kid: &str, algorithm: &'static str, bits: u32) -> Self {
        let key = PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap();
        Self {
            kid: kid.to_owned(),
            algorithm,
            private: key,
        }
    }

    pub fn elliptic(kid: &str) -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        Self {
            kid: kid.to_owned(),
            algorithm: "ES256",
            private: key,
        }
    }

    pub fn edwards(kid: &str) -> Self {
        let key = PKey::generate_ed25519().unwrap();
        Self {
            kid: kid.to_owned(),
            algorithm: "EdDSA",
            private: key,
        }
    }

    /// As the set of keys has it.
    pub fn public(&self) -> Value {
        let mut jwk = json!({ "kid": self.kid, "use": "sig", "alg": self.algorithm });
        if let Ok(rsa) = self.private.rsa() {
            jwk["kty"] = json!("RSA");
            jwk["n"] = json!(B64.encode(rsa.n().to_vec()));
            jwk["e"] = json!(B64.encode(rsa.e().to_vec()));
        } else if let Ok(key) = self.private.ec_key() {
            let mut context = openssl::bn::BigNumContext::new().unwrap();
            let point = key
                .public_key()
                .to_bytes(
                    key.group(),
                    openssl::ec::PointConversionForm::UNCOMPRESSED,
                    &mut context,
                )
                .unwrap();
            jwk["kty"] = json!("EC");
            jwk["crv"] = json!("P-256");
            jwk["x"] = json!(B64.encode(&point[1..33]));
            jwk["y"] = json!(B64.encode(&point[33..]));
        } else {
            jwk["kty"] = json!("OKP");
            jwk["crv"] = json!("Ed25519");
            jwk["x"] = json!(B64.encode(self.private.raw_public_key().unwrap()));
        }
        jwk
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": self.algorithm, "typ": "JWT", "kid": self.kid });
        let text = unsigned(&header, claims);
        let bytes = text.as_bytes();
        let signature = match self.algorithm {
            "EdDSA" => {
                let mut signer = Signer::new_without_digest(&self.private).unwrap();
                signer.sign_oneshot_to_vec(bytes).unwrap()
            }
            "ES256" => {
                let digest = hash(MessageDigest::sha256(), bytes).unwrap();
                let pair = EcdsaSig::sign(&digest, &self.private.ec_key().unwrap()).unwrap();
                let mut both = pair.r().to_vec_padded(32).unwrap();
                both.extend(pair.s().to_vec_padded(32).unwrap());
                both
            }
            name => {
                let digest = match &name[2..] {
                    "256" => MessageDigest::sha256(),
                    "384" => MessageDigest::sha384(),
                    _ => MessageDigest::sha512(),
                };
                let mut signer = Signer::new(digest, &self.private).unwrap();
                if name.starts_with("PS") {
                    signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
                    signer
                        .set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)
                        .unwrap();
                    signer.set_rsa_mgf1_md(digest).unwrap();
                }
                signer.sign_oneshot_to_vec(bytes).unwrap()
            }
        };
        format!("{text}.{}", B64.encode(signature))
    }
}

/// Header and claims, as they are signed.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!(
        "{}.{}",
        B64.encode(header.to_string()),
        B64.encode(claims.to_string())
    )
}

/// Good claims of a person, for five minutes.
pub fn claims(email: &str, groups: &[&str]) -> Value {
    let now = jiff::Timestamp::now().as_second();
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "4711", "email": email, "email_verified": true,
        "groups": groups, "iat": now, "exp": now + 300,
    })
}

struct World {
    answer: Result<Value, u16>,
    asked: u32,
    granted: Option<Granted>,
}

/// A code that is good once, for whoever set out for it.
struct Granted {
    code: String,
    challenge: String,
    redirect: String,
    token: String,
}

/// Secret of the server as a client of the provider.
pub const SECRET: &str = "CANARY-client-secret";

/// Gives the token for a code, if whoever asks is the client and the one that set out, and asks as it is laid down.
async fn token(
    State(world): State<Arc<Mutex<World>>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let basic = format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("console:{SECRET}"))
    );
    let shown = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let challenge = B64.encode(openssl::sha::sha256(field("code_verifier").as_bytes()));
    let granted = world.lock().unwrap().granted.take().filter(|granted| {
        shown == Some(basic.as_str())
            && field("grant_type") == "authorization_code"
            && field("client_id") == "console"
            && field("code") == granted.code
            && field("redirect_uri") == granted.redirect
            && challenge == granted.challenge
    });
    match granted {
        Some(granted) => {
            axum::Json(json!({ "id_token": granted.token, "token_type": "Bearer" })).into_response()
        }
        None => (
            StatusCode::BAD_REQUEST,
            axum::Json(json!({ "error": "invalid_grant" })),
        )
            .into_response(),
    }
}

/// The provider.
pub struct Provider {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn keys(State(world): State<Arc<Mutex<World>>>) -> Response {
    let mut world = world.lock().unwrap();
    world.asked += 1;
    match &world.answer {
        Ok(set) => axum::Json(set.clone()).into_response(),
        Err(status) => StatusCode::from_u16(*status).unwrap().into_response(),
    }
}

impl Provider {
    /// With these keys.
    pub async fn start(with: &[&Key]) -> Self {
        let world = Arc::new(Mutex::new(World {
            answer: Err(503),
            asked: 0,
            granted: None,
        }));
        let app = Router::new()
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(Arc::clone(&world));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let provider = Self {
            address,
            world,
            server,
        };
        provider.have(with);
        provider
    }

    /// Has these keys from now on, and one of a kind that nobody knows.
    pub fn have(&self, keys: &[&Key]) {
        let mut set: Vec<Value> = keys.iter().map(|key| key.public()).collect();
        set.push(json!({ "kty": "unheard-of", "kid": "strange" }));
        self.world.lock().unwrap().answer = Ok(json!({ "keys": set }));
    }

    /// Answers with this from now on.
    pub fn answer(&self, answer: Result<Value, u16>) {
        self.world.lock().unwrap().answer = answer;
    }

    /// How often its keys were asked for.
    pub fn asked(&self) -> u32 {
        self.world.lock().unwrap().asked
    }

    /// From now on this code gives this token, once, to whoever asked for it with these parameters of the authorization request.
    pub fn grant(&self, asked: &HashMap<String, String>, code: &str, token: String) {
        self.world.lock().unwrap().granted = Some(Granted {
            code: code.to_owned(),
            challenge: asked["code_challenge"].clone(),
            redirect: asked["redirect_uri"].clone(),
            token,
        });
    }

    /// A configuration with which people sign in at the console through it.
    pub fn console(&self) -> OAuth {
        OAuth {
            client_id: "console".to_owned(),
            client_secret: Secret::new(SECRET),
            authorization_url: format!("http://{}/authorize?prompt=login", self.address),
            token_url: format!("http://{}/token", self.address),
            ..self.config()
        }
    }

    /// A configuration that believes it.
    pub fn config(&self) -> OAuth {
        OAuth {
            enabled: true,
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            jwks_url: format!("http://{}/keys", self.address),
            roles: vec![
                ("patchers".to_owned(), Role::Operator),
                ("lookers".to_owned(), Role::Viewer),
            ],
            ..OAuth::default()
        }
    }
}
