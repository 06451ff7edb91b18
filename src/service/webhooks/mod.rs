//! Webhooks: telling others of events. Events are written by whoever makes them (`db::outbox`); this delivers them and looks after
//! the webhooks. Deliveries are made by the leader, at least once each, in no promised order.

mod admin;
mod deliver;

pub use admin::{create, deliveries, list, remove, retry, show, switch, test};
pub use deliver::attempt;

use crate::config::Config;
use crate::upstream::webhook::Sender;
use tokio::sync::Notify;

/// What delivering needs.
#[derive(Debug)]
pub struct Webhooks {
    /// Sends.
    pub sender: Sender,
    /// Notified when there is something to deliver.
    pub wake: Notify,
}

impl Webhooks {
    /// As configured; the error names the key.
    pub fn new(config: &Config) -> Result<Self, String> {
        let sender = Sender::new(&config.webhooks, &config.patch_sync.proxy);
        Ok(Self {
            sender: sender.map_err(|e| e.to_string())?,
            wake: Notify::new(),
        })
    }
}
