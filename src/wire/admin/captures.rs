//! Capture mode: raw requests of one machine or address, secrets masked, for a bounded time.
//! `GET|POST captures`, `GET|DELETE captures/{id}`.

use crate::domain::MachineId;
use core::net::IpAddr;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST captures`, answered with a [`Capture`]. Names a machine, an address or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CaptureStart {
    /// Requests of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub machine_id: Option<MachineId>,
    /// Requests from this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// For how many seconds.
    #[serde(rename = "for")]
    pub seconds: u64,
    /// Ends after this many requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_records: Option<u32>,
}

/// A capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Capture {
    /// Id.
    pub id: i64,
    /// Requests of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub machine_id: Option<MachineId>,
    /// Requests from this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// Ends after this many requests.
    pub max_records: u32,
    /// Requests recorded so far.
    pub records: u64,
    /// Whether it still records.
    pub active: bool,
    /// Who began it.
    pub actor: String,
}

/// One recorded request with its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CaptureRecord {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Method, path, headers and bodies, secrets masked.
    #[schema(value_type = Object)]
    pub record: serde_json::Value,
}

/// `GET captures/{id}`: the file to attach to a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CaptureContent {
    /// The capture.
    pub capture: Capture,
    /// What it recorded, in order.
    pub records: Vec<CaptureRecord>,
}
