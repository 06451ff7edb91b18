//! The one integration binary: real PostgreSQL, a real S3 server, real processes.

mod blob;
mod blob_contract;
mod layering;
mod support {
    pub(crate) mod s3;
}
