//! Metrics of what the contracts service of Ubuntu Pro is asked. Public names.

use super::family::{Registry, Words, counter, counters};
use prometheus::IntCounter;

/// Status codes that have a series from the start.
const CODES: [&str; 10] = [
    "400", "401", "403", "404", "407", "429", "500", "502", "503", "504",
];

/// Questions to the contracts service that did not go well.
#[derive(Debug)]
pub struct ContractsMetrics {
    errors: IntCounter,
    server_errors: IntCounter,
    token_errors: IntCounter,
    reported: Words<IntCounter>,
}

impl ContractsMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let reported = counters(
            r,
            "livepatch_server_contracts_error_reported_count",
            "Answers of the contracts service that were errors, by their HTTP status code.",
            &["code"],
        );
        Self {
            errors: counter(
                r,
                "livepatch_server_contracts_error_count",
                "Questions to the contracts service that did not get what they asked for, for whatever reason.",
            ),
            server_errors: counter(
                r,
                "livepatch_server_contracts_server_error_count",
                "Questions to the contracts service that failed because of it: no answer, a server error, an answer without sense.",
            ),
            token_errors: counter(
                r,
                "livepatch_server_contracts_token_error_count",
                "Tokens of Ubuntu Pro that the contracts service did not accept, or that do not include Livepatch.",
            ),
            reported: Words::new(&CODES, |word| reported.with_label_values(&[word])),
        }
    }

    /// Counts a failure; `refused`: because of the token. `status` is that of the answer, if there was one and it was an error.
    pub fn failed(&self, refused: bool, status: Option<u16>) {
        self.errors.inc();
        if refused {
            self.token_errors.inc();
        } else {
            self.server_errors.inc();
        }
        if let Some(status) = status {
            self.reported.get(&status.to_string()).inc();
        }
    }
}
