//! Errors as answers: the one place that turns a [`ServiceError`], or a request that cannot be read, into problem
//! details (RFC 9457).
//!
//! A handler returns [`ApiError`]; the middleware [`problems`] completes the answer with path and request id, gives
//! errors of the framework (no such path, wrong method) the same form, and logs the cause of every failure. A 5xx body
//! carries the request id and nothing of the inside.

use crate::service::{Core, ServiceError};
use crate::wire::{Problem, ProblemItem};
use axum::body::{Body, Bytes};
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{
    FromRequest, FromRequestParts, Json, MatchedPath, OriginalUri, Path, Query, Request,
};
use axum::http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{StatusCode, Uri, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tower_http::request_id::RequestId;

/// The header that carries a request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest path and request id that an answer repeats.
const ECHO_MAX: usize = 256;

/// An error on its way to the caller.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Failure>);

/// What [`problems`] finds in the extensions of an answer.
#[derive(Debug, Clone)]
struct Failure {
    problem: Problem,
    retry_after: Option<Duration>,
    /// For the log only.
    cause: Option<String>,
}

impl ApiError {
    /// An error with the status and the last word of the problem's type.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self(Box::new(Failure {
            problem: Problem::new(status.as_u16(), code, title, detail),
            retry_after: None,
            cause: None,
        }))
    }

    fn at(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.0.problem.errors.push(ProblemItem {
            pointer: pointer.into(),
            detail: detail.into(),
        });
        self
    }

    fn retry(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    fn because(mut self, cause: String) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// The problem as it will be sent, but for path and request id.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let text = error.to_string();
        match error {
            ServiceError::Invalid(_) => Self::new(StatusCode::BAD_REQUEST, "invalid", text),
            ServiceError::Unauthorized(_) => {
                Self::new(StatusCode::UNAUTHORIZED, "unauthorized", text)
            }
            ServiceError::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, "forbidden", text),
            ServiceError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, "not-found", text),
            ServiceError::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", text),
            ServiceError::TooLarge(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", text)
            }
            ServiceError::Timeout(_) => Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", text),
            ServiceError::Throttled { retry_after, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "throttled", text).retry(retry_after)
            }
            ServiceError::Unavailable(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "something this server depends on is not available now; try again, and look for the request id in the server's log if it stays so",
            )
            .retry(Duration::from_secs(2))
            .because(text),
            // Said to administrators only: machines store no objects.
            ServiceError::Full(_) => Self::new(StatusCode::INSUFFICIENT_STORAGE, "full", text.clone())
                .retry(Duration::from_mins(1))
                .because(text),
            ServiceError::Away { retry_after, .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "away", text).retry(retry_after)
            }
            ServiceError::Internal(_) => internal(text),
        }
    }
}

fn internal(cause: String) -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "the server failed to answer; look for the request id in its log",
    )
    .because(cause)
}

/// The text of a rejection without the sentence that the framework puts first.
fn plain(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(_, rest)| rest)
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        let text = rejection.body_text();
        match &rejection {
            JsonRejection::MissingJsonContentType(_) => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "a JSON body is expected; send it with `Content-Type: application/json`",
            ),
            JsonRejection::JsonSyntaxError(_) => Self::new(
                StatusCode::BAD_REQUEST,
                "malformed",
                format!(
                    "the body is not JSON of the expected form: {}",
                    plain(&text)
                ),
            ),
            JsonRejection::JsonDataError(_) => {
                let text = plain(&text);
                // The framework writes `path.to.field: message` where it knows the place.
                let (pointer, detail) = match text.split_once(": ") {
                    Some((path, detail)) if !path.contains(' ') => (
                        format!("/{}", path.replace(['.', '['], "/").replace(']', "")),
                        detail,
                    ),
                    _ => (String::new(), text),
                };
                Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "invalid",
                    format!("the body is not as expected: {text}"),
                )
                .at(pointer, detail)
            }
            other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                "the body is larger than this operation takes",
            ),
            other if other.status().is_server_error() => internal(text),
            other => Self::new(other.status(), "malformed", text),
        }
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        let text = rejection.body_text();
        if rejection.status().is_server_error() {
            return internal(text);
        }
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid",
            format!("the path is not as expected: {}", plain(&text)),
        )
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid",
            format!("the query is not as expected: {}", plain(&text)),
        )
    }
}

/// A JSON body, bounded in time. Takes what [`Json`] takes; what is wrong with it is told as a problem.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T> JsonBody<T> {
    fn not_an_object() -> ApiError {
        ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            "the body is not as expected: a JSON object with named fields is needed",
        )
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<Core>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, core: &Arc<Core>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts.clone(), body);
        let patience = core.config.server.body_timeout;
        let bytes = tokio::time::timeout(patience, Bytes::from_request(request, core))
            .await
            .map_err(|_| {
                ServiceError::Timeout(format!(
                    "the body did not arrive within {} s",
                    patience.as_secs()
                ))
            })?
            .map_err(JsonRejection::from)?;
        // serde would read a list as a struct's fields in their order; a request always names its fields.
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if first.is_some_and(|byte| matches!(byte, b'[' | b'"')) {
            return Err(Self::not_an_object());
        }
        let request = Request::from_parts(parts, Body::from(bytes));
        let Json(value) = Json::from_request(request, core).await?;
        Ok(Self(value))
    }
}

/// Parameters of the path, parsed into domain values.
#[derive(Debug)]
pub struct PathParam<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathParam<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(value) = Path::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// Parameters of the query; unknown ones are refused where the type refuses them.
#[derive(Debug)]
pub struct QueryParams<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(value) = Query::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// Seconds for `Retry-After`: whole, rounded up, at least one.
fn seconds(after: Duration) -> u64 {
    let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    whole.max(1)
}

fn render(failure: &Failure) -> Response {
    let status =
        StatusCode::from_u16(failure.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(&failure.problem).unwrap_or_default();
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(Problem::CONTENT_TYPE),
    );
    if status == StatusCode::UNAUTHORIZED {
        let bearer = HeaderValue::from_static(r#"Bearer realm="livepatch""#);
        let basic = HeaderValue::from_static(r#"Basic realm="livepatch", charset="UTF-8""#);
        headers.append(WWW_AUTHENTICATE, bearer);
        headers.append(WWW_AUTHENTICATE, basic);
    }
    if let Some(after) = failure.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds(after)));
    }
    response
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = render(&self.0);
        response.extensions_mut().insert(*self.0);
        response
    }
}

/// Marks an answer whose form other software knows, so that [`problems`] leaves it alone.
#[derive(Debug, Clone, Copy)]
pub struct AsIs;

/// Answers a path that does not exist.
pub async fn not_found() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "not-found",
        "there is nothing at this path; `/v1/openapi.json` lists what there is",
    )
}

/// An error answer that no handler of ours made.
fn foreign(status: StatusCode) -> Option<Failure> {
    let error = match status {
        StatusCode::METHOD_NOT_ALLOWED => ApiError::new(
            status,
            "method-not-allowed",
            "this path does not take this method; the header `Allow` names those it takes",
        ),
        StatusCode::INTERNAL_SERVER_ERROR => {
            internal("a handler answered 500 without a cause".to_owned())
        }
        _ if status.is_client_error() || status.is_server_error() => {
            ApiError::new(status, "http", "the request could not be answered")
        }
        _ => return None,
    };
    Some(*error.0)
}

/// What an answer's problem says of its request.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// Given by an outer layer or the caller.
    id: Option<&'a HeaderValue>,
    path: &'a str,
    /// The old client API has a token in its path; logs get the route instead.
    route: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// A request that has an id, at a known route.
    pub(super) fn here(id: &'a HeaderValue, uri: &'a Uri, route: &'a str) -> Self {
        Self {
            id: Some(id),
            path: uri.path(),
            route: Some(route),
        }
    }

    /// The id of this request, or a new one.
    fn id(&self) -> String {
        self.id
            .and_then(|value| value.to_str().ok())
            .filter(|text| !text.is_empty() && text.len() <= ECHO_MAX)
            .map_or_else(|| uuid::Uuid::new_v4().to_string(), ToOwned::to_owned)
    }
}

/// Middleware: completes problems with path and request id, makes problems of bare errors, logs what failed and why.
pub async fn problems(request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let id = extensions
        .get::<RequestId>()
        .map(RequestId::header_value)
        .or_else(|| request.headers().get(REQUEST_ID))
        .cloned();
    let original = extensions.get::<OriginalUri>();
    let uri = original.map_or_else(|| request.uri(), |original| &original.0);
    let (uri, route) = (uri.clone(), extensions.get::<MatchedPath>().cloned());
    let response = next.run(request).await;
    let asked = Asked {
        id: id.as_ref(),
        path: uri.path(),
        route: route.as_ref().map(MatchedPath::as_str),
    };
    complete(response, asked)
}

/// What [`problems`] does with an answer.
pub(super) fn complete(mut response: Response, asked: Asked<'_>) -> Response {
    if response.extensions().get::<AsIs>().is_some() {
        return response;
    }
    let known = response.extensions_mut().remove::<Failure>();
    let already = response.headers().get(CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes()
            .starts_with(Problem::CONTENT_TYPE.as_bytes())
    });
    let failure = match known {
        Some(failure) => Some(failure),
        None if already => None,
        None => foreign(response.status()),
    };
    let Some(mut failure) = failure else {
        return response;
    };
    let id = asked.id();
    let path: String = asked.path.chars().take(ECHO_MAX).collect();
    let route = asked.route.unwrap_or(&path);
    if let Some(cause) = &failure.cause {
        tracing::error!(request_id = %id, %route, status = failure.problem.status, %cause, "a request failed");
    }
    failure.problem.instance = Some(path);
    failure.problem.request_id = Some(id);
    let mut answer = render(&failure);
    for (name, value) in response.headers() {
        let ours = answer.headers().contains_key(name) || *name == CONTENT_LENGTH;
        if !ours {
            answer.headers_mut().append(name, value.clone());
        }
    }
    answer
}
