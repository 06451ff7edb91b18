//! The router of the admin API and its OpenAPI document.

use super::{
    admins, audit, captures, coverage, jobs, kernels, machines, patches, payloads, policies,
    quarantine, reports, rollouts, service_tokens, sessions, storage, sync, sync_tokens, tiers,
    tokens, webhooks,
};
use crate::http::error::{not_found, problems};
use crate::service::Core;
use crate::wire::Problem;
use crate::wire::admin::BASE;
use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::{Arc, LazyLock};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref,
    RefOr, Response, ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;

/// The most bytes of a JSON body. Uploads stream and have bounds of their own.
const MAX_BODY: usize = 256 << 10;

/// Where the document is served.
const DOCUMENT: &str = "/v1/openapi.json";

/// Every operation, below [`BASE`].
fn operations() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .merge(sessions::routes())
        .merge(tiers::routes())
        .merge(patches::routes())
        .merge(policies::routes())
        .merge(rollouts::routes())
        .merge(payloads::routes())
        .merge(quarantine::routes())
        .merge(storage::routes())
        .merge(sync::routes())
        .merge(jobs::routes())
        .merge(admins::routes())
        .merge(service_tokens::routes())
        .merge(tokens::routes())
        .merge(sync_tokens::routes())
        .merge(webhooks::routes())
        .merge(machines::routes())
        .merge(reports::routes())
        .merge(coverage::routes())
        .merge(kernels::routes())
        .merge(audit::routes())
        .merge(captures::routes())
}

/// The admin API with its errors as problems, and the document that describes it.
pub fn routes() -> OpenApiRouter<Arc<Core>> {
    let api = operations()
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::from_fn(problems));
    OpenApiRouter::default()
        .nest(BASE, api)
        .route(DOCUMENT, get(document))
}

/// The document, made once.
async fn document() -> impl IntoResponse {
    static TEXT: LazyLock<String> = LazyLock::new(|| openapi().to_json().unwrap_or_default());
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str())
}

/// The OpenAPI document of the admin API.
pub fn openapi() -> OpenApi {
    let mut document = head();
    document.merge(
        OpenApiRouter::default()
            .nest(BASE, operations())
            .into_openapi(),
    );
    for (path, item) in &mut document.paths.paths {
        for (changes, operation) in each(item) {
            complete(path, changes, operation);
        }
    }
    document
}

fn head() -> OpenApi {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("lps_...")
        .description(Some("A session's token, from `POST /v1/admin/login`; a service token (`lpv_...`); or a token of the identity provider, where one is configured."))
        .build();
    let basic = HttpBuilder::new()
        .scheme(HttpAuthScheme::Basic)
        .description(Some("Name and password of an administrator."))
        .build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("livepatch-onprem administration")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "What `livepatch-admin` and the console use. Keys are kebab case, times RFC 3339, lists come in pages with cursors, errors are problem details (RFC 9457). Requests with unknown keys are refused.",
                ))
                .license(Some(
                    LicenseBuilder::new()
                        .name("Apache-2.0")
                        .identifier(Some("Apache-2.0"))
                        .build(),
                ))
                .build(),
        )
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme("session", SecurityScheme::Http(bearer))
                .security_scheme("basic", SecurityScheme::Http(basic))
                .schema(Problem::name(), Problem::schema())
                .schemas_from_iter(problem_parts())
                .responses_from_iter(PROBLEMS.map(|(_, it)| (it.name, problem(it.text))))
                .build(),
        ))
        .security(Some([
            SecurityRequirement::new("session", Vec::<String>::new()),
            SecurityRequirement::new("basic", Vec::<String>::new()),
        ]))
        .build()
}

/// The schemas that [`Problem`]'s refers to.
fn problem_parts() -> Vec<(String, RefOr<utoipa::openapi::schema::Schema>)> {
    let mut parts = Vec::new();
    Problem::schemas(&mut parts);
    parts
}

/// Each operation, and whether it changes something.
fn each(item: &mut PathItem) -> impl Iterator<Item = (bool, &mut Operation)> {
    [
        (false, &mut item.get),
        (true, &mut item.put),
        (true, &mut item.post),
        (true, &mut item.delete),
        (false, &mut item.head),
        (true, &mut item.patch),
    ]
    .into_iter()
    .filter_map(|(changes, operation)| Some((changes, operation.as_mut()?)))
}

/// Gives an operation an id of its own and its problems.
fn complete(path: &str, changes: bool, operation: &mut Operation) {
    let noun = operation
        .tags
        .as_ref()
        .and_then(|tags| tags.first())
        .map_or(path, String::as_str);
    let verb = operation.operation_id.take().unwrap_or_default();
    operation.operation_id = Some(format!("{noun}.{verb}").replace('_', "-"));
    let open = operation.security.as_ref().is_some_and(|needs| {
        needs
            .iter()
            .all(|need| *need == SecurityRequirement::default())
    });
    let body = operation.request_body.as_ref();
    let takes_json =
        matches!(body, Some(RefOr::T(body)) if body.content.contains_key("application/json"));
    let takes_body = body.is_some();
    let takes_input = takes_body || operation.parameters.is_some();
    for (status, problem) in PROBLEMS {
        let applies = match problem.when {
            When::Always => true,
            When::NotOpen => !open,
            When::Input => takes_input,
            When::Change => changes,
            When::Body => takes_body,
            When::Json => takes_json,
        };
        if applies {
            let reference = Ref::from_response_name(problem.name);
            let responses = &mut operation.responses.responses;
            responses
                .entry(status.to_owned())
                .or_insert(RefOr::Ref(reference));
        }
    }
}

/// A way to fail that operations share.
struct SharedProblem {
    name: &'static str,
    when: When,
    text: &'static str,
}

/// Which operations can fail so.
enum When {
    /// All.
    Always,
    /// Those that ask who calls.
    NotOpen,
    /// Those that take anything from the caller.
    Input,
    /// Those that change something.
    Change,
    /// Those that take a body.
    Body,
    /// Those that take a JSON body.
    Json,
}

const fn shared(name: &'static str, when: When, text: &'static str) -> SharedProblem {
    SharedProblem { name, when, text }
}

/// By status.
const PROBLEMS: [(&str, SharedProblem); 12] = [
    (
        "400",
        shared(
            "Invalid",
            When::Input,
            "The request is wrong; says what is expected",
        ),
    ),
    (
        "401",
        shared("Unauthorized", When::Always, "No valid proof of who asks"),
    ),
    (
        "403",
        shared(
            "Forbidden",
            When::NotOpen,
            "The caller's role does not suffice",
        ),
    ),
    (
        "404",
        shared(
            "NotFound",
            When::Input,
            "Something that the request names does not exist",
        ),
    ),
    (
        "408",
        shared(
            "Timeout",
            When::Body,
            "The body did not come within `server.body-timeout`",
        ),
    ),
    (
        "409",
        shared(
            "Conflict",
            When::Change,
            "It cannot be done as things stand; says what stands against it",
        ),
    ),
    (
        "413",
        shared(
            "TooLarge",
            When::Body,
            "The body is larger than this operation takes",
        ),
    ),
    (
        "415",
        shared(
            "UnsupportedMediaType",
            When::Json,
            "The body is not declared as `application/json`",
        ),
    ),
    (
        "422",
        shared(
            "Unprocessable",
            When::Json,
            "The body is JSON of another form; `errors` says where",
        ),
    ),
    (
        "429",
        shared(
            "Throttled",
            When::Always,
            "Too many failed logins; `Retry-After` says when to try again",
        ),
    ),
    (
        "503",
        shared(
            "Unavailable",
            When::Always,
            "Something the server depends on is not available; `Retry-After` says when to try again",
        ),
    ),
    (
        "default",
        shared("Other", When::Always, "Any other problem"),
    ),
];

fn problem(text: &str) -> Response {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Problem::name())))
        .build();
    ResponseBuilder::new()
        .description(text)
        .content(Problem::CONTENT_TYPE, content)
        .build()
}
