//! PostgreSQL: pool, migrations, notifications, and one module of SQL per table family.
//!
//! SQL stands only here, as named constants ([`statements!`]); a test prepares every one against the real schema.
//! Functions take anything that can run a statement ([`Run`]): a connection or a transaction. Every mutation ends
//! with [`audit::append`] in its own transaction.

pub mod admins;
pub mod adoption;
pub mod airgap;
pub mod audit;
pub mod auth_tokens;
pub mod captures;
pub mod catalog;
pub mod connect;
pub mod deployments;
pub mod filter;
pub mod fleet;
pub mod jobs;
pub mod labels;
pub mod leader;
pub mod listen;
pub mod machines;
pub mod migrate;
pub mod outbox;
pub mod patches;
pub mod payloads;
pub mod quarantine;
pub mod reach;
pub mod reports;
pub mod retention;
pub mod rollout_labels;
pub mod rollouts;
mod run;
pub mod selected;
pub mod service_tokens;
pub mod sessions;
pub mod staged;
pub mod sync;
pub mod sync_tokens;
pub mod tiers;
pub(crate) mod tls;
pub mod tokens;
pub mod trusted_keys;
pub mod webhooks;
pub mod words;

pub use connect::Db;
pub use run::{Conn, DbError, Observer, Run, Sql, Tx};

/// Names SQL constants and lists them in `ALL`.
macro_rules! statements {
    ($($(#[$meta:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$meta])* pub(crate) const $name: $crate::db::Sql = $crate::db::Sql { name: stringify!($name), text: $text };)*
        /// Every statement of this module, for the test that prepares them.
        pub const ALL: &[&$crate::db::Sql] = &[$(&$name),*];
    };
}
pub(crate) use statements;

/// Every statement of every module.
pub fn all_statements() -> Vec<&'static Sql> {
    [
        admins::ALL,
        adoption::ALL,
        airgap::ALL,
        audit::ALL,
        auth_tokens::ALL,
        captures::ALL,
        catalog::ALL,
        deployments::ALL,
        filter::ALL,
        jobs::ALL,
        labels::ALL,
        leader::ALL,
        machines::ALL,
        outbox::ALL,
        retention::ALL,
        rollout_labels::ALL,
        rollouts::ALL,
        patches::ALL,
        payloads::ALL,
        quarantine::ALL,
        fleet::ALL,
        reach::ALL,
        reports::ALL,
        selected::ALL,
        sessions::ALL,
        staged::ALL,
        sync::ALL,
        sync_tokens::ALL,
        tiers::ALL,
        tokens::ALL,
        trusted_keys::ALL,
        webhooks::ALL,
        words::ALL,
    ]
    .concat()
}
