//! The contracts service of Ubuntu Pro: the calls that are public, bounded in time and size, following no redirect.
//!
//! The token that is asked about goes as `Authorization: Bearer`. Credentials of `contracts.user` and `contracts.password` are for a
//! proxy in front of the service and go as `Proxy-Authorization: Basic`, since one header cannot hold both (ours). Outbound calls use
//! `patch-sync.proxy.*`. No error repeats a token or an answer.

use super::http::{Http, ReadError};
use super::tls::TlsFiles;
use crate::config::{self, Proxy};
use crate::domain::{MachineId, Secret};
use crate::wire::contracts::{MachineTokenAnswer, MachineTokenRequest, ON_PREM, ResourceAnswer};
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::header::{HeaderMap, HeaderValue, PROXY_AUTHORIZATION};
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// The largest answer, in bytes; `directives.caCerts` may hold a chain of certificates.
const MAX_ANSWER: u64 = 1 << 20;

/// Why the service did not give what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractsError {
    /// It cannot be reached, is too slow or has trouble; trying again later is right. With the status of its answer, if it gave one.
    #[error("{0}")]
    Away(String, Option<u16>),
    /// It says no; with the status, unless what it says is only read so.
    #[error("{0}")]
    Refused(String, Option<u16>),
    /// It says something that makes no sense; with the status, if that does not.
    #[error("{0}")]
    Nonsense(String, Option<u16>),
    /// The configuration cannot be used.
    #[error("{0}")]
    Setup(String),
}

impl ContractsError {
    /// The status of the answer, where it was that of an error.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Away(_, status) | Self::Refused(_, status) | Self::Nonsense(_, status) => *status,
            Self::Setup(_) => None,
        }
    }
}

/// A client of the service; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
    base: String,
}

impl Client {
    /// A client as configured. Nothing is sent yet.
    pub fn new(contracts: &config::Contracts, proxy: &Proxy) -> Result<Self, ContractsError> {
        let setup = ContractsError::Setup;
        let mut headers = HeaderMap::new();
        if !contracts.user.is_empty() {
            let pair = format!("{}:{}", contracts.user, contracts.password.expose());
            let basic = format!("Basic {}", BASE64_STANDARD.encode(pair));
            let mut value = HeaderValue::from_str(&basic)
                .map_err(|_| setup("contracts.user: cannot be sent".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(PROXY_AUTHORIZATION, value);
        }
        let files = TlsFiles::authority("contracts.ca", contracts.ca.as_deref());
        let http = Http::with(&files, proxy, PATIENCE, |client| {
            client
                .redirect(Policy::none())
                .connect_timeout(CONNECT)
                .timeout(PATIENCE)
                .default_headers(headers)
        });
        let http = http.map_err(|error| setup(error.to_string()))?;
        Ok(Self {
            http,
            base: contracts.url.clone(),
        })
    }

    /// Where the service is.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// What the contract behind `token` says of Livepatch on this machine.
    pub async fn livepatch(
        &self,
        machine: MachineId,
        token: &str,
    ) -> Result<ResourceAnswer, ContractsError> {
        let path = format!("/v1/resources/livepatch/context/machines/{machine}");
        self.call(self.http.client().get(self.at(&path)).bearer_auth(token))
            .await
    }

    /// The machine token of a contract, for this server.
    pub async fn machine_token(
        &self,
        contract_token: &Secret,
        request: &MachineTokenRequest,
    ) -> Result<Secret, ContractsError> {
        let call = self
            .http
            .client()
            .post(self.at("/v1/context/machines/token"))
            .bearer_auth(contract_token.expose())
            .json(request);
        let answer: MachineTokenAnswer = self.call(call).await?;
        self.token(answer.machine_token)
    }

    /// The resource token of this server.
    pub async fn resource_token(&self, machine_token: &Secret) -> Result<Secret, ContractsError> {
        let path = format!("/v1/resources/{ON_PREM}/context/machines/{ON_PREM}");
        let call = self.http.client().get(self.at(&path));
        let answer: ResourceAnswer = self.call(call.bearer_auth(machine_token.expose())).await?;
        self.token(answer.resource_token.unwrap_or_default())
    }

    /// Whether the service answers at all; the list of resources is public and needs no token.
    pub async fn reachable(&self) -> Result<(), ContractsError> {
        match self
            .status(self.http.client().get(self.at("/v1/resources")))
            .await
        {
            Ok(_) | Err(ContractsError::Refused(..)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn token(&self, token: String) -> Result<Secret, ContractsError> {
        if token.is_empty() || token.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(ContractsError::Nonsense(
                format!(
                    "{} gave no token; does the subscription include Livepatch on-prem?",
                    self.base
                ),
                None,
            ));
        }
        Ok(Secret::new(token))
    }

    async fn status(&self, call: RequestBuilder) -> Result<reqwest::Response, ContractsError> {
        let base = &self.base;
        let response = self.http.send(call).await.map_err(|error| {
            ContractsError::Away(format!("{base} does not answer: {error}"), None)
        })?;
        let status = response.status();
        let code = Some(status.as_u16());
        match status {
            status if status.is_success() => Ok(response),
            StatusCode::TOO_MANY_REQUESTS => Err(ContractsError::Away(
                format!("{base} answered {status}"),
                code,
            )),
            status if status.is_server_error() => Err(ContractsError::Away(
                format!("{base} answered {status}"),
                code,
            )),
            // Its proxy asks who we are: nothing is wrong with the token.
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(ContractsError::Away(
                format!("{base} answered {status}; look at contracts.user and contracts.password"),
                code,
            )),
            status if status.is_client_error() => Err(ContractsError::Refused(
                format!("{base} answered {status}: the token is not good for this"),
                code,
            )),
            status => Err(ContractsError::Nonsense(
                format!(
                    "{base} answered {status}; redirects are not followed; is contracts.url right?"
                ),
                code,
            )),
        }
    }

    async fn call<T: DeserializeOwned>(&self, call: RequestBuilder) -> Result<T, ContractsError> {
        let base = &self.base;
        let response = self.status(call).await?;
        let body = self.http.read(response, MAX_ANSWER).await;
        let body = body.map_err(|error| match error {
            ReadError::TooLong => ContractsError::Nonsense(
                format!("{base} sent an answer of more than {MAX_ANSWER} bytes"),
                None,
            ),
            ReadError::Broke(error) => {
                ContractsError::Away(format!("{base} broke off its answer: {error}"), None)
            }
        })?;
        // The parser's message could repeat a part of a token.
        serde_json::from_slice(&body).map_err(|_| {
            ContractsError::Nonsense(
                format!("{base} did not answer in the form that is known; is contracts.url right?"),
                None,
            )
        })
    }
}
