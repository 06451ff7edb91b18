//! placeholder until merge
use super::{Core, ServiceError};
use crate::db::audit::Actor;
use crate::domain::Sha256;
/// x
#[derive(Debug)]
pub struct O {
    /// x
    pub reason: Option<String>,
}
/// x
pub async fn bundle<S>(
    _: &Core,
    _: &Actor,
    _: &str,
    _: &str,
    _: Option<Sha256>,
    _: S,
) -> Result<O, ServiceError> {
    Ok(O { reason: None })
}
