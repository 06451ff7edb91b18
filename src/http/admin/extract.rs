//! Authority as an argument: a handler that takes [`Admin<Operator>`] runs only for callers of at least that role.
//!
//! It must be a handler's first argument after the state, so that who may not ask learns nothing from the rest of the
//! request being checked.

use crate::db::audit::Actor;
use crate::domain::{Role, Secret, grant};
use crate::http::error::ApiError;
use crate::http::origin::source;
use crate::service::auth::{self, Caller, Credentials};
use crate::service::{Core, ServiceError};
use crate::telemetry::security::{self, Deed, Event};
use crate::wire::admin::BASE;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::{Engine, prelude::BASE64_STANDARD};
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;

/// A role as a type.
pub trait RequiredRole: Send + Sync + 'static {
    /// The least role that may.
    const ROLE: Role;
}

/// Sees everything but secrets.
#[derive(Debug)]
pub struct Viewer;

/// Acts on patches, tiers, machines, tokens and storage.
#[derive(Debug)]
pub struct Operator;

/// Manages administrators.
#[derive(Debug)]
pub struct Administrator;

impl RequiredRole for Viewer {
    const ROLE: Role = Role::Viewer;
}

impl RequiredRole for Operator {
    const ROLE: Role = Role::Operator;
}

impl RequiredRole for Administrator {
    const ROLE: Role = Role::Admin;
}

/// A caller who has shown who they are and has at least the role `R`.
#[derive(Debug)]
pub struct Admin<R> {
    /// Who.
    pub caller: Caller,
    role: PhantomData<R>,
}

impl<R> Admin<R> {
    /// The caller, for the audit log.
    pub fn actor(&self) -> Actor {
        self.caller.actor()
    }
}

/// Where the request comes from: the peer's address, or `unknown`.
#[derive(Debug)]
pub struct Source(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(source(&parts.extensions)))
    }
}

/// The section of the API that is asked for something. Routes are nested, and the path is then what is left of it.
fn section(parts: &Parts) -> &str {
    let path = parts.uri.path();
    let below = path.strip_prefix(BASE).unwrap_or(path);
    let segment = below.trim_start_matches('/').split('/').next();
    grant::section_of(segment.unwrap_or_default())
}

/// Reads the `Authorization` header.
fn credentials(parts: &Parts) -> Result<Credentials, ServiceError> {
    let refuse = |why: &str| ServiceError::Unauthorized(why.to_owned());
    let header = parts
        .headers
        .get(AUTHORIZATION)
        .ok_or_else(|| refuse("log in first: `livepatch-admin login`, or send `Authorization: Bearer lps_...` or `Basic`"))?
        .to_str()
        .map_err(|_| refuse("the header `Authorization` cannot be read"))?;
    let (scheme, value) = header.split_once(' ').unwrap_or((header, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Credentials::Bearer(Secret::new(value.trim())));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = BASE64_STANDARD
            .decode(value.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| {
                let (user, password) = text.split_once(':')?;
                Some((user.to_owned(), Secret::new(password)))
            });
        let (user, password) =
            decoded.ok_or_else(|| refuse("the `Basic` credentials cannot be read"))?;
        return Ok(Credentials::Basic { user, password });
    }
    Err(refuse(
        "the header `Authorization` must say `Bearer` or `Basic`",
    ))
}

impl<R: RequiredRole> FromRequestParts<Arc<Core>> for Admin<R> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, ApiError> {
        let credentials = credentials(parts)?;
        let from = source(&parts.extensions);
        let section = section(parts);
        let denied = |actor: &str, why: &ServiceError| {
            if let ServiceError::Forbidden(why) = why {
                let deed = Deed {
                    actor,
                    source: &from,
                    target: section,
                    message: why,
                };
                security::emit(Event::AccessDenied, deed);
            }
        };
        let caller = auth::authenticate(core, &credentials, section, from.clone())
            .await
            .inspect_err(|why| denied("", why))?;
        caller
            .require(R::ROLE)
            .inspect_err(|why| denied(&caller.name, why))?;
        Ok(Self {
            caller,
            role: PhantomData,
        })
    }
}
