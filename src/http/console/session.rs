//! Who looks: the session's cookie, the token of its forms, signing in and out.
//!
//! A session here is the same as one of `livepatch-admin login`. Its token stands in a cookie that scripts cannot read and that other sites'
//! forms do not send; each form carries a second proof besides, made from it.

use super::error::PageError;
use super::page::bare;
use super::{BASE, cookies, forms};
use crate::domain::{Role, Secret, Sha256};
use crate::http::origin::{scheme, source};
use crate::service::auth::{self, Caller, Credentials};
use crate::service::{Core, ServiceError};
use crate::telemetry::security::{self, Deed, Event};
use crate::wire::admin::LoginRequest;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Query, Request, State};
use axum::http::header::{ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::{Markup, html};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Name of the cookie.
const NAME: &str = "livepatch-console";
/// The header with which the script asks for the page anew.
const REFRESH: &str = "x-livepatch-refresh";
/// The longest form.
const MAX_FORM: usize = 64 << 10;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/login", get(sign_in).post(signed_in))
        .route("/console/logout", post(sign_out))
        .merge(super::oidc::routes())
}

/// Somebody who is signed in.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) caller: Caller,
    /// What was just done, to be said on the page.
    pub(super) said: Option<String>,
    proof: String,
}

impl Visitor {
    /// The field that every form needs.
    pub(super) fn token(&self) -> Markup {
        html! { input type="hidden" name="proof" value=(self.proof); }
    }

    /// Refuses whoever has a lesser role.
    pub(super) fn require(&self, role: Role) -> Result<(), PageError> {
        self.caller.require(role).map_err(|why| {
            let deed = Deed {
                actor: &self.caller.name,
                source: &self.caller.source,
                target: "console",
                message: &why.to_string(),
            };
            security::emit(Event::AccessDenied, deed);
            PageError::from(why)
        })
    }
}

fn cookie(headers: &HeaderMap) -> Option<Secret> {
    let found = cookies::find(headers, NAME).filter(|value| !value.is_empty());
    found.map(Secret::new)
}

/// What only the pages of this session know. It tells nothing of the session's token.
fn proof(token: &Secret) -> String {
    Sha256::of(format!("livepatch console form\0{}", token.expose()).as_bytes()).to_string()
}

/// Whether a page asks by itself, to stay current. That is no use of the session: one that nobody uses ends, open or not.
fn asks_by_itself(parts: &Parts) -> bool {
    parts.headers.contains_key(REFRESH) || parts.uri.path() == super::live::PATH
}

impl FromRequestParts<Arc<Core>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, Response> {
        let from = source(&parts.extensions);
        let Some(token) = cookie(&parts.headers) else {
            return Err(to_sign_in(parts));
        };
        let proof = proof(&token);
        let credentials = Credentials::Session {
            token,
            is_used: !asks_by_itself(parts),
        };
        // A session may go everywhere that its role may; sections are for service tokens.
        let caller = auth::authenticate(core, &credentials, "", from).await;
        let caller = match caller {
            Ok(caller) => caller,
            Err(ServiceError::Unauthorized(_)) => return Err(to_sign_in(parts)),
            Err(error) => return Err(PageError::from(error).into_response()),
        };
        let said = Query::<Said>::try_from_uri(&parts.uri).ok();
        Ok(Self {
            caller,
            said: said
                .and_then(|Query(said)| said.done)
                .and_then(|word| forms::said(&word)),
            proof,
        })
    }
}

/// The word for what was just done; a page says only sentences that it knows.
#[derive(Debug, Deserialize)]
struct Said {
    done: Option<String>,
}

fn to_sign_in(parts: &Parts) -> Response {
    // Who was on the way to a page is brought back to it; a form is not sent again.
    let path = parts
        .uri
        .path_and_query()
        .map_or(BASE, |path| path.as_str());
    let target = if parts.method == Method::GET && path != BASE {
        let encoded = forms::encode(path);
        format!("{BASE}/login?next={encoded}")
    } else {
        format!("{BASE}/login")
    };
    Redirect::to(&target).into_response()
}

/// A form that was sent from a page of this session.
#[derive(Debug)]
pub(super) struct Posted<T> {
    pub(super) visitor: Visitor,
    pub(super) form: T,
}

/// The field that each form carries beside its own.
#[derive(Debug, Deserialize)]
struct Proof {
    proof: String,
}

/// Whether a browser says that the request comes from a page of another site.
fn is_foreign(headers: &HeaderMap) -> bool {
    let word = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = word("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    let (Some(origin), Some(host)) = (word(ORIGIN.as_str()), word("host")) else {
        return false;
    };
    origin
        .split_once("://")
        .is_none_or(|(_, from)| from != host)
}

/// Reads a form within the bounds that every body has.
async fn read(core: &Core, body: Body) -> Result<Bytes, ServiceError> {
    let read = axum::body::to_bytes(body, MAX_FORM);
    match tokio::time::timeout(core.config.server.body_timeout, read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(ServiceError::TooLarge(format!(
            "a form may have {MAX_FORM} bytes"
        ))),
        Err(_) => Err(ServiceError::Timeout(
            "the form did not come in time".to_owned(),
        )),
    }
}

fn fields<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ServiceError> {
    serde_urlencoded::from_bytes(bytes)
        .map_err(|error| ServiceError::Invalid(format!("the form cannot be read: {error}")))
}

impl<T: DeserializeOwned> FromRequest<Arc<Core>> for Posted<T> {
    type Rejection = Response;

    async fn from_request(request: Request, core: &Arc<Core>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, core).await?;
        let refuse = |error: ServiceError| PageError::from(error).into_response();
        let bytes = read(core, body).await.map_err(refuse)?;
        let shown: Option<Proof> = serde_urlencoded::from_bytes(&bytes).ok();
        let is_ours = shown.is_some_and(|shown| {
            openssl::memcmp::eq(
                Sha256::of(shown.proof.as_bytes()).0.as_slice(),
                Sha256::of(visitor.proof.as_bytes()).0.as_slice(),
            )
        });
        if !is_ours || is_foreign(&parts.headers) {
            return Err(refuse(ServiceError::Forbidden(
                "this form was not sent from a page of your session; open the page again and send it from there".to_owned(),
            )));
        }
        let form = fields(&bytes).map_err(refuse)?;
        Ok(Self { visitor, form })
    }
}

/// Where to go after signing in: a page of the console, nothing else.
fn next(given: Option<&str>) -> &str {
    given
        .filter(|path| path.starts_with("/console") && !path.contains("//") && !path.contains('\\'))
        .filter(|path| path.bytes().all(|byte| byte.is_ascii_graphic()))
        .unwrap_or(BASE)
}

#[derive(Debug, Deserialize)]
struct SignIn {
    next: Option<String>,
}

async fn sign_in(State(core): State<Arc<Core>>, Query(query): Query<SignIn>) -> Response {
    form(&core, next(query.next.as_deref()), "", None, StatusCode::OK)
}

fn form(core: &Core, next: &str, user: &str, wrong: Option<&str>, status: StatusCode) -> Response {
    let content = html! {
        h1 { "Sign in" }
        @if let Some(wrong) = wrong {
            p.problem role="alert" { (wrong) }
        }
        form.stacked method="post" action={ (BASE) "/login" } {
            input type="hidden" name="next" value=(next);
            label for="user" { "Name" }
            input #user name="user" value=(user) autocomplete="username" required autofocus;
            label for="password" { "Password" }
            input #password name="password" type="password" autocomplete="current-password" required;
            button type="submit" { "Sign in" }
        }
        @if core.config.auth.oauth.signs_in() {
            p { a.button href={ (BASE) "/oidc/login" } { "Sign in with single sign-on" } }
        }
        p.quiet { "The same name and password as with " code { "livepatch-admin login" } "." }
    };
    (status, bare("Sign in", content)).into_response()
}

#[derive(Debug, Deserialize)]
struct SignedIn {
    user: String,
    password: String,
    next: Option<String>,
}

/// The cookie with a session, or without one so that it ends.
pub(super) fn set_cookie(core: &Core, headers: &HeaderMap, value: &str) -> HeaderValue {
    let ends = value.is_empty().then_some(0);
    cookies::made(NAME, value, BASE, ends, scheme(core, headers))
}

async fn signed_in(State(core): State<Arc<Core>>, request: Request) -> Result<Response, PageError> {
    let (parts, body) = request.into_parts();
    let from = source(&parts.extensions);
    if is_foreign(&parts.headers) {
        return Err(
            ServiceError::Forbidden("sign in from the console's own page".to_owned()).into(),
        );
    }
    let given: SignedIn = fields(&read(&core, body).await?)?;
    let login = LoginRequest {
        user: given.user.clone(),
        password: Secret::new(given.password),
    };
    let target = next(given.next.as_deref());
    match auth::login(&core, &login, from).await {
        Ok(answer) => {
            let cookie = set_cookie(&core, &parts.headers, answer.token.expose());
            Ok(([(SET_COOKIE, cookie)], Redirect::to(target)).into_response())
        }
        Err(ServiceError::Unauthorized(why)) => Ok(form(
            &core,
            target,
            &given.user,
            Some(&why),
            StatusCode::UNAUTHORIZED,
        )),
        Err(ServiceError::Throttled { why, retry_after }) => {
            let why = format!("{why}: {} s", retry_after.as_secs().max(1));
            Ok(form(
                &core,
                target,
                &given.user,
                Some(&why),
                StatusCode::TOO_MANY_REQUESTS,
            ))
        }
        Err(error) => Err(error.into()),
    }
}

/// A form that says nothing but who sends it.
#[derive(Debug, Deserialize)]
pub(super) struct Nothing {}

async fn sign_out(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    Posted { visitor, .. }: Posted<Nothing>,
) -> Result<Response, PageError> {
    auth::logout(&core, &visitor.caller).await?;
    let cookie = set_cookie(&core, &headers, "");
    let target = format!("{BASE}/login");
    Ok(([(SET_COOKIE, cookie)], Redirect::to(&target)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header::COOKIE;

    #[test]
    fn nobody_is_led_elsewhere() {
        assert_eq!(
            next(Some("/console/patches/107.1?x=1")),
            "/console/patches/107.1?x=1"
        );
        for bad in [
            "https://evil.example",
            "//evil.example",
            "/console//evil.example",
            "/consolé",
            "/v1/admin",
            "/console\\evil",
            "/console\r\nx: y",
            "",
        ] {
            assert_eq!(next(Some(bad)), BASE, "{bad}");
        }
        assert_eq!(next(None), BASE);
    }

    #[test]
    fn forms_of_other_sites_are_known() {
        let foreign = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            is_foreign(&headers)
        };
        assert!(!foreign(&[("sec-fetch-site", "same-origin")]));
        assert!(foreign(&[("sec-fetch-site", "cross-site")]));
        assert!(foreign(&[("sec-fetch-site", "same-site")]));
        assert!(!foreign(&[("origin", "http://h:1"), ("host", "h:1")]));
        assert!(foreign(&[("origin", "http://evil"), ("host", "h:1")]));
        assert!(foreign(&[("origin", "null"), ("host", "h:1")]));
        assert!(!foreign(&[]));
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(
            COOKIE,
            HeaderValue::from_static("a=b; livepatch-console=lps_x; c=d"),
        );
        assert_eq!(cookie(&headers).unwrap().expose(), "lps_x");
        headers.clear();
        headers.append(COOKIE, HeaderValue::from_static("livepatch-console="));
        assert!(cookie(&headers).is_none());
    }
}
