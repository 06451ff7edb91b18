//! The one integration binary: real PostgreSQL, a real S3 server, real processes.

#![expect(
    unreachable_pub,
    reason = "a test binary has no outside; `pub` marks what other test files use"
)]

mod admin_admins;
mod admin_api;
mod admin_audit;
mod admin_captures;
mod admin_explain;
mod admin_machines;
mod admin_nonsense;
mod admin_reports;
mod admin_samples;
mod admin_sessions;
mod admin_throttle;
mod admin_tokens;
mod airgap;
mod airgap_faults;
mod airgap_format;
mod blob;
mod blob_cache;
mod blob_contract;
mod blob_download;
mod blob_filesystem;
mod blob_postgres;
mod blob_s3;
mod bundle;
mod bundle_cli;
mod cli;
mod cli_http;
mod cli_output;
mod client_api;
mod client_apply;
mod client_cli;
mod client_flow;
mod config;
mod contracts;
mod db;
mod delivery;
mod documents;
mod downloader;
mod engine;
mod faults_clock;
mod faults_crash;
mod faults_database;
mod faults_replicas;
mod faults_storage;
mod fleet;
mod fuzz_corpus;
mod http_limits;
mod ingest;
mod ingest_bad;
mod ingest_quarantine;
mod layering;
mod main_job;
mod peer_attacks;
mod peer_connection;
mod peer_keys;
mod peer_runs;
mod peer_serving;
mod promotion;
mod prune_crash;
mod quickstart;
mod slow_clients;
mod storage;
mod support;
mod sync;
mod sync_faults;
mod sync_index;
mod telemetry;
mod tiers;
mod webhook_delivery;
mod webhooks;
mod wire;
mod wire_reports;
