//! Logs, security events and traces of a server's process, set up before anything else.

use crate::config::{Config, SecurityLog};
use crate::telemetry::{logs, security, traces};
use crate::upstream::collector;
use anyhow::Context;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::Layer;

/// What must be told when the process ends.
#[derive(Debug, Default)]
pub struct Telling {
    provider: Option<SdkTracerProvider>,
}

/// Sets up what a server tells, as configured. Must be called within the runtime, once in a process.
pub fn tell(config: &Config) -> anyhow::Result<Telling> {
    let server = &config.server;
    let mut telling = Telling::default();
    let mut layer = None;
    if config.tracing.enabled {
        let exporter = collector::exporter(&config.tracing)?;
        let settings = traces::Settings {
            sample_rate: config.tracing.sample_rate,
            service_name: &config.tracing.service_name,
        };
        let (provider, made) = traces::layer(&settings, exporter);
        telling.provider = Some(provider);
        layer = Some(made.boxed());
    }
    logs::init_with(&server.log_level, server.log_format, layer).context("server.log-level")?;
    match &server.security_log {
        SecurityLog::Stderr => security::to_stderr(),
        SecurityLog::Off => {}
        SecurityLog::File(path) => security::to_file(path)
            .with_context(|| format!("server.security-log: {}", path.display()))?,
    }
    Ok(telling)
}

impl Telling {
    /// Sends what is still to be sent.
    pub async fn end(self) {
        let Some(provider) = self.provider else {
            return;
        };
        // It waits for its own thread, which needs this runtime to send.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}
