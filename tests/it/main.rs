//! The one integration binary: real PostgreSQL, a real S3 server, real processes.

mod blob;
mod blob_cache;
mod blob_contract;
mod blob_download;
mod blob_filesystem;
mod blob_postgres;
mod blob_s3;
mod layering;
mod support {
    pub(crate) mod s3;
}
