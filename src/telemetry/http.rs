//! Durations of HTTP requests by route template, method and status code.
//!
//! Route templates are a closed set, but one that only the router knows: the first request of a route makes its
//! handles, every later one finds them without allocating. Beyond a bound, which a mistake could reach by passing paths
//! instead of templates, routes count as `other`.

use super::family::{OTHER, Registry, counter, histograms};
use prometheus::{Histogram, HistogramVec};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", OTHER,
];
const CODES: [(u16, &str); 22] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (206, "206"),
    (302, "302"),
    (304, "304"),
    (307, "307"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (412, "412"),
    (413, "413"),
    (416, "416"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
];
/// Public names of what only Canonical's hosted service has, by the documentation of the client's keys `cutoff-date` and `patch-delay`.
const NEVER: [(&str, &str); 2] = [
    (
        "livepatch_server_http_cutoff_date_count",
        "a patch cut-off date",
    ),
    ("livepatch_server_http_patch_delay_count", "a patch delay"),
];
const MAX_ROUTES: usize = 512;

/// `livepatch_server_http_request_duration_seconds`.
#[derive(Debug)]
pub struct HttpMetrics {
    family: HistogramVec,
    routes: RwLock<HashMap<String, Arc<HttpRoute>>>,
    other: Arc<HttpRoute>,
}

/// The handles of one route; the last code stands for all that are not in `CODES`.
#[derive(Debug)]
pub struct HttpRoute {
    handler: String,
    family: HistogramVec,
    handles: [[OnceLock<Histogram>; CODES.len() + 1]; METHODS.len()],
}

impl HttpRoute {
    fn new(handler: &str, family: &HistogramVec) -> Self {
        Self {
            handler: handler.to_owned(),
            family: family.clone(),
            handles: Default::default(),
        }
    }

    /// Makes the series of these codes, so that they are there from the start.
    pub fn know(&self, method: &str, codes: &[u16]) {
        for code in codes {
            self.handle(method, *code);
        }
    }

    /// Takes the duration of a request that was answered.
    pub fn observe(&self, method: &str, code: u16, seconds: f64) {
        self.handle(method, code).observe(seconds);
    }

    fn handle(&self, method: &str, code: u16) -> &Histogram {
        let method = METHODS
            .iter()
            .position(|known| *known == method)
            .unwrap_or(METHODS.len() - 1);
        let code = CODES
            .iter()
            .position(|(known, _)| *known == code)
            .unwrap_or(CODES.len());
        let word = CODES.get(code).map_or(OTHER, |(_, word)| word);
        self.handles[method][code].get_or_init(|| {
            self.family
                .with_label_values(&[self.handler.as_str(), METHODS[method], word])
        })
    }
}

impl HttpMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        for (name, what) in NEVER {
            let help = format!(
                "Requests with {what}. Always 0: clients use one only with Canonical's hosted service, never with a server on premises."
            );
            // Nobody counts; what is registered is shown.
            counter(registry, name, &help);
        }
        let family = histograms(
            registry,
            "livepatch_server_http_request_duration_seconds",
            "How long requests took, by route, method and status code.",
            &["handler", "method", "code"],
        );
        Self {
            routes: RwLock::default(),
            other: Arc::new(HttpRoute::new(OTHER, &family)),
            family,
        }
    }

    /// Takes the duration of a request that was answered. `template` is the route as the router matched it, e.g.
    /// `/v1/client/{id}/updates`; `None` when no route matched.
    pub fn observe(&self, template: Option<&str>, method: &str, code: u16, seconds: f64) {
        match template {
            Some(template) => self.route(template).observe(method, code, seconds),
            None => self.other.observe(method, code, seconds),
        }
    }

    /// The handles of a route, for those who are asked for the same one again and again.
    pub fn route(&self, template: &str) -> Arc<HttpRoute> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.get(template) {
            return route.clone();
        }
        drop(routes);
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        if routes.len() >= MAX_ROUTES {
            return self.other.clone();
        }
        let new = || Arc::new(HttpRoute::new(&handler(template), &self.family));
        routes
            .entry(template.to_owned())
            .or_insert_with(new)
            .clone()
    }
}

/// A route template in the form that published dashboards use: `/v1/client/{id}/updates` as `/v1/client/:id/updates`.
fn handler(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    for c in template.chars() {
        match c {
            '{' => out.push(':'),
            '}' | '*' => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_templates_and_bounded() {
        assert_eq!(handler("/v1/client/{id}/updates"), "/v1/client/:id/updates");
        assert_eq!(handler("/files/{*path}"), "/files/:path");

        let registry = Registry::new();
        let metrics = HttpMetrics::new(&registry);
        metrics.observe(Some("/v1/x/{id}"), "GET", 200, 0.1);
        metrics.observe(Some("/v1/x/{id}"), "GET", 200, 0.1);
        metrics.observe(Some("/v1/x/{id}"), "BREW", 418, 0.1);
        for i in 0..2 * MAX_ROUTES {
            metrics.observe(Some(&format!("/{i}")), "GET", 200, 0.1);
        }
        metrics.observe(None, "GET", 404, 0.1);
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let count = |labels: &str| {
            text.lines()
                .find(|line| line.contains("_count{") && line.contains(labels))
        };
        assert!(
            count(r#"code="200",handler="/v1/x/:id",method="GET"} 2"#).is_some(),
            "{text}"
        );
        assert!(count(r#"code="other",handler="/v1/x/:id",method="other"} 1"#).is_some());
        assert!(count(r#"code="404",handler="other",method="GET"} 1"#).is_some());
        let series = text.lines().filter(|line| line.contains("_count{")).count();
        assert_eq!(series, MAX_ROUTES + 3);
    }
}
