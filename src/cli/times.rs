//! Times on the command line: a moment, a day, or a span from now.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::str::FromStr;
use std::time::Duration;

/// A time as a person gives it; what a span means depends on the option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// `2026-12-31T23:00:00Z`, with any offset.
    At(Timestamp),
    /// `2026-12-31`: its first moment in the local zone.
    Day(Date),
    /// `30d`, `12h30m`.
    Span(Duration),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::At(at));
        }
        // A civil date parser would also take a time of day without an offset and silently drop it.
        if text.len() == 10
            && let Ok(day) = text.parse::<Date>()
        {
            return Ok(Self::Day(day));
        }
        humantime::parse_duration(text).map(Self::Span).map_err(|_| {
            "a time such as 2026-12-31T23:00:00Z, a day such as 2026-12-31 or a span such as 30d expected"
                .to_owned()
        })
    }
}

impl When {
    /// The moment meant, a span counted forward.
    pub fn ahead(self, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
        self.resolve(now, zone, false)
    }

    /// The moment meant, a span counted backward.
    pub fn ago(self, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
        self.resolve(now, zone, true)
    }

    fn resolve(self, now: Timestamp, zone: &TimeZone, back: bool) -> Result<Timestamp, String> {
        match self {
            Self::At(at) => Ok(at),
            Self::Day(day) => day
                .to_zoned(zone.clone())
                .map(|zoned| zoned.timestamp())
                .map_err(|e| e.to_string()),
            Self::Span(span) => {
                let span = SignedDuration::try_from(span).map_err(|e| e.to_string())?;
                if back {
                    now.checked_sub(span)
                } else {
                    now.checked_add(span)
                }
                .map_err(|e| e.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_days_or_spans() {
        let now: Timestamp = "2026-01-10T12:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let ahead = |t: &str| {
            t.parse::<When>()
                .unwrap()
                .ahead(now, &zone)
                .unwrap()
                .to_string()
        };
        assert_eq!(ahead("2026-12-31T23:00:00+01:00"), "2026-12-31T22:00:00Z");
        assert_eq!(ahead("2026-12-31"), "2026-12-30T22:00:00Z");
        assert_eq!(ahead("1d12h"), "2026-01-12T00:00:00Z");
        let ago = "2h".parse::<When>().unwrap().ago(now, &zone).unwrap();
        assert_eq!(ago.to_string(), "2026-01-10T10:00:00Z");
        for bad in ["", "tomorrow", "2026-13-01", "2026-12-31T23:00:00", "-1h"] {
            assert!(bad.parse::<When>().is_err(), "{bad:?} was accepted");
        }
        let far = "900000y".parse::<When>().unwrap();
        assert!(far.ahead(now, &zone).is_err());
    }
}
