//! A wrapper for values that must never be printed.

use std::fmt;

/// A secret. `Debug` shows only that there is one; there is no `Display` and no `Serialize`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Gives the secret out; the call's name marks every place that does.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// Replaces the password in a connection URL or `key=value` connection string by `***`, for showing it.
pub fn mask_connection_string(text: &str) -> String {
    if let Some((scheme, rest)) = text.split_once("://") {
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let Some((user, host)) = authority.rsplit_once('@') else {
            return text.to_owned();
        };
        let name = user.split_once(':').map_or(user, |(name, _)| name);
        let path = path.split_once('?').map_or_else(
            || path.to_owned(),
            |(path, query)| {
                let kept: Vec<&str> = query
                    .split('&')
                    .filter(|pair| !pair.starts_with("password="))
                    .collect();
                if kept.is_empty() {
                    path.to_owned()
                } else {
                    format!("{path}?{}", kept.join("&"))
                }
            },
        );
        return format!("{scheme}://{name}:***@{host}{path}");
    }
    match text.find("password=") {
        Some(at) => {
            let (head, tail) = text.split_at(at + "password=".len());
            let end = if let Some(quoted) = tail.strip_prefix('\'') {
                quoted.find('\'').map_or(tail.len(), |i| i + 2)
            } else {
                tail.find(' ').unwrap_or(tail.len())
            };
            format!("{head}***{}", &tail[end..])
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaks() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[secret]");
        assert_eq!(
            mask_connection_string("postgresql://u:p%40w@h:5/db?sslmode=require"),
            "postgresql://u:***@h:5/db?sslmode=require"
        );
        assert_eq!(
            mask_connection_string("postgresql://u@h/db?password=x&a=b"),
            "postgresql://u:***@h/db?a=b"
        );
        assert_eq!(
            mask_connection_string("host=/run user=u password=geheim dbname=d"),
            "host=/run user=u password=*** dbname=d"
        );
        assert_eq!(
            mask_connection_string("host=/run password='a b' dbname=d"),
            "host=/run password=*** dbname=d"
        );
        assert_eq!(
            mask_connection_string("host=/run user=u"),
            "host=/run user=u"
        );
    }
}
