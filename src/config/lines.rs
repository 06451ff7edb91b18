//! Which line of a YAML file a value stands on, for messages about files whose values are checked after they were read.

use super::yaml::{Node, Raw, parse};
use std::collections::HashMap;

/// Paths, e.g. `policies.edge.phases[1]`, with their lines.
#[derive(Debug, Default)]
pub struct Lines(HashMap<String, u64>);

impl Lines {
    /// Looks at a file. One that is not YAML has no lines.
    pub fn of(text: &str) -> Self {
        let mut lines = Self::default();
        if let Ok(node) = parse(text) {
            lines.enter(String::new(), &node);
        }
        lines
    }

    fn enter(&mut self, path: String, node: &Node) {
        match &node.raw {
            Raw::Null | Raw::Scalar { .. } => {}
            Raw::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.enter(format!("{path}[{index}]"), item);
                }
            }
            Raw::Map(entries) => {
                for (key, value) in entries {
                    let dot = if path.is_empty() { "" } else { "." };
                    self.enter(format!("{path}{dot}{key}"), value);
                }
            }
        }
        self.0.insert(path, node.line);
    }

    /// The line of a value, or of the nearest that it stands in.
    pub fn at(&self, path: &str) -> u64 {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.0.get("").copied().unwrap_or(1),
            }
        }
    }
}
