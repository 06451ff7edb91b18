//! placeholder until merge
use crate::db::{Db, DbError, listen::Change};
/// x
#[derive(Debug)]
pub struct Captures;
impl Captures {
    /// x
    pub async fn load(_: &Db) -> Result<Self, DbError> {
        Ok(Self)
    }
    /// x
    pub async fn follow(&self, _: &Db, _: Option<Change>) {}
}
