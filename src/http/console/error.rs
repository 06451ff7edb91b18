//! What a page says when it cannot be made.

use super::BASE;
use super::page::bare;
use crate::http::error::{ApiError, AsIs};
use crate::service::ServiceError;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::html;
use std::str::FromStr;

/// A refusal or failure, on its way to a person. Worded, logged and numbered as for the API.
#[derive(Debug)]
pub(super) struct PageError(ServiceError);

impl From<ServiceError> for PageError {
    fn from(error: ServiceError) -> Self {
        Self(error)
    }
}

/// Reads what a path names, e.g. a number. What cannot be read is not found.
pub(super) fn named<T: FromStr>(what: &'static str, text: &str) -> Result<T, PageError> {
    let beginning = || text.chars().take(40).collect::<String>();
    text.parse()
        .map_err(|_| ServiceError::not_found(what, beginning()).into())
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let cause = self.0.to_string();
        let error = ApiError::from(self.0);
        let problem = error.problem();
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::error!(cause, status = status.as_u16(), "a page could not be made");
        }
        let content = html! {
            h1 { (problem.title) }
            p.problem role="alert" { (problem.detail) }
            p { a href=(BASE) { "To the patches" } }
        };
        let mut response = (status, bare(&problem.title, content)).into_response();
        response.extensions_mut().insert(AsIs);
        response
    }
}
