//! placeholder until merge
use super::{Core, ServiceError};
/// x
pub async fn report_damaged(_: &Core, _: i64, _: &str) -> Result<(), ServiceError> {
    Ok(())
}
