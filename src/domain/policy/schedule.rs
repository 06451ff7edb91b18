//! When machines may be let in: maintenance windows by the week and freezes by date, both by the clock of a time zone.
//!
//! A window holds its start and not its end; one that ends at or before its start ends on the next day. When clocks are put
//! back, the hour that comes twice counts twice; when they are put forward, what lies in the hour that is left out does not come.

use crate::domain::ParseError;
use jiff::Timestamp;
use jiff::civil::{DateTime, Time, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span as Step, ToSpan};
use std::fmt;
use std::str::FromStr;

/// A time zone by its name in the IANA database, which is built in, so that every machine reads it alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl Zone {
    /// The name, e.g. `Europe/Berlin`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the clocks there show at a moment.
    pub fn clock(&self, at: Timestamp) -> DateTime {
        self.zone.to_datetime(at)
    }

    /// The moment at which the clocks there show this; of two the first, and of none the one an hour on.
    pub fn moment(&self, clock: DateTime) -> Option<Timestamp> {
        Some(self.zone.to_zoned(clock).ok()?.timestamp())
    }

    /// A moment as people there write it, e.g. `2026-11-27 22:00 CET`.
    pub fn show(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone())
            .strftime("%Y-%m-%d %H:%M %Z")
            .to_string()
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self {
            name: "UTC".to_owned(),
            zone: TimeZone::UTC,
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

impl FromStr for Zone {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let zone = TimeZoneDatabase::bundled().get(text).map_err(|_| {
            ParseError::new(
                "time zone",
                text,
                "no such zone in the IANA database; write e.g. Europe/Berlin or UTC",
            )
        })?;
        let name = zone.iana_name().unwrap_or("UTC").to_owned();
        Ok(Self { name, zone })
    }
}

/// A stretch of certain days of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Days on which it begins, Monday first.
    pub days: Vec<Weekday>,
    /// When it begins.
    pub from: Time,
    /// When it ends; at or before `from`: on the next day.
    pub to: Time,
}

/// A stretch of time in which nothing new goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// From this on.
    pub from: DateTime,
    /// Until this.
    pub until: DateTime,
    /// Why, for people.
    pub reason: String,
}

/// Windows and freezes. Without windows it is always open but in freezes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    /// The zone of all times here.
    pub zone: Zone,
    /// When it is open; empty: always.
    pub windows: Vec<Window>,
    /// When it is not, whatever the windows say.
    pub freezes: Vec<Freeze>,
}

/// Whether it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening<'a> {
    /// It is.
    Open,
    /// A freeze is on.
    Frozen(&'a Freeze),
    /// No window is on.
    OutsideWindow,
}

impl Window {
    /// Whether the clock shows a time within it.
    fn holds(&self, clock: DateTime) -> bool {
        let (day, time) = (clock.date().weekday(), clock.time());
        let on = |day: Weekday| self.days.contains(&day);
        if self.from < self.to {
            on(day) && self.from <= time && time < self.to
        } else {
            (on(day) && self.from <= time) || (on(day.previous()) && time < self.to)
        }
    }
}

impl Schedule {
    /// Whether nothing is said, so that it is always open.
    pub fn is_always(&self) -> bool {
        self.windows.is_empty() && self.freezes.is_empty()
    }

    /// Whether it is open at a moment.
    pub fn at(&self, now: Timestamp) -> Opening<'_> {
        if self.is_always() {
            return Opening::Open;
        }
        let clock = self.zone.clock(now);
        let freeze = self
            .freezes
            .iter()
            .find(|freeze| freeze.from <= clock && clock < freeze.until);
        if let Some(freeze) = freeze {
            return Opening::Frozen(freeze);
        }
        if self.windows.is_empty() || self.windows.iter().any(|window| window.holds(clock)) {
            Opening::Open
        } else {
            Opening::OutsideWindow
        }
    }

    /// Whether it is open at a moment, without why not.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.at(now) == Opening::Open
    }

    /// The next moment at or after `now` at which it is open; `None` if it is not within the time that can be told.
    pub fn next_open(&self, now: Timestamp) -> Option<Timestamp> {
        self.next(now, true)
    }

    /// The next moment after `now` at which it closes; `None` if it stays open.
    pub fn next_close(&self, now: Timestamp) -> Option<Timestamp> {
        self.next(now, false)
    }

    /// The next moment at or after `now` at which it is open, or is not.
    fn next(&self, now: Timestamp, open: bool) -> Option<Timestamp> {
        let mut at = now;
        // Each freeze and each week can hide an edge; beyond that nothing changes any more.
        for _ in 0..self.freezes.len() * 2 + self.windows.len() * 16 + 8 {
            if self.is_open(at) == open {
                return Some(at);
            }
            at = self.next_edge(at)?;
        }
        None
    }

    /// The first moment after this one at which a window or a freeze begins or ends.
    fn next_edge(&self, after: Timestamp) -> Option<Timestamp> {
        let today = self.zone.clock(after).date();
        let days = (-1..=8).filter_map(|days: i64| today.checked_add(Step::new().days(days)).ok());
        let of_windows = days.flat_map(|day| {
            self.windows
                .iter()
                .filter(move |window| window.days.contains(&day.weekday()))
                .flat_map(move |window| {
                    let same_day = window.from < window.to;
                    let end = if same_day {
                        Some(day)
                    } else {
                        day.checked_add(1.day()).ok()
                    };
                    [
                        Some(day.to_datetime(window.from)),
                        end.map(|day| day.to_datetime(window.to)),
                    ]
                })
                .flatten()
        });
        let of_freezes = self
            .freezes
            .iter()
            .flat_map(|freeze| [freeze.from, freeze.until]);
        of_windows
            .chain(of_freezes)
            .filter_map(|clock| self.zone.moment(clock))
            .chain(self.change_of_clocks(after))
            .filter(|edge| *edge > after)
            .min()
    }

    /// When clocks are put forward or back next: what lies at the changed hour opens or closes there.
    fn change_of_clocks(&self, after: Timestamp) -> Option<Timestamp> {
        Some(self.zone.zone.following(after).next()?.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn berlin(windows: Vec<Window>, freezes: Vec<Freeze>) -> Schedule {
        Schedule {
            zone: "Europe/Berlin".parse().unwrap(),
            windows,
            freezes,
        }
    }

    fn window(days: &[Weekday], from: &str, to: &str) -> Window {
        Window {
            days: days.to_vec(),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn windows_cross_midnight_and_belong_to_the_day_they_begin_on() {
        let friday = berlin(vec![window(&[Weekday::Friday], "22:00", "04:00")], vec![]);
        // 27 November 2026 is a Friday; Berlin is an hour ahead of UTC.
        for (moment, open) in [
            ("2026-11-27T20:59:59Z", false),
            ("2026-11-27T21:00:00Z", true),
            ("2026-11-28T02:59:59Z", true),
            ("2026-11-28T03:00:00Z", false),
            ("2026-11-28T21:30:00Z", false),
        ] {
            assert_eq!(friday.is_open(at(moment)), open, "{moment}");
        }
        assert_eq!(
            friday.next_open(at("2026-11-28T03:00:00Z")),
            Some(at("2026-12-04T21:00:00Z"))
        );
        assert_eq!(
            friday.next_close(at("2026-11-27T23:00:00Z")),
            Some(at("2026-11-28T03:00:00Z"))
        );
    }

    #[test]
    fn freezes_win_over_windows() {
        let freeze = Freeze {
            from: "2026-12-20T00:00".parse().unwrap(),
            until: "2027-01-04T06:00".parse().unwrap(),
            reason: "end of year".to_owned(),
        };
        let schedule = berlin(vec![], vec![freeze]);
        assert!(matches!(
            schedule.at(at("2026-12-24T12:00:00Z")),
            Opening::Frozen(_)
        ));
        assert_eq!(
            schedule.next_open(at("2026-12-24T12:00:00Z")),
            Some(at("2027-01-04T05:00:00Z"))
        );
        assert_eq!(schedule.next_close(at("2027-01-05T00:00:00Z")), None);
    }

    #[test]
    fn the_change_of_clocks_shifts_windows() {
        let all = [
            Weekday::Monday,
            Weekday::Tuesday,
            Weekday::Wednesday,
            Weekday::Thursday,
            Weekday::Friday,
            Weekday::Saturday,
            Weekday::Sunday,
        ];
        let night = berlin(vec![window(&all, "02:15", "02:45")], vec![]);
        // 28 March 2027: two o'clock is three o'clock.
        assert!(!night.is_open(at("2027-03-28T01:20:00Z")));
        assert_eq!(
            night.next_open(at("2027-03-27T12:00:00Z")),
            Some(at("2027-03-29T00:15:00Z"))
        );
        // 25 October 2026: the hour comes twice.
        assert!(
            night.is_open(at("2026-10-25T00:20:00Z")) && night.is_open(at("2026-10-25T01:20:00Z"))
        );
        assert!(!night.is_open(at("2026-10-25T00:50:00Z")));
    }

    proptest! {
        #[test]
        fn edges_are_where_it_says(start in 1_700_000_000i64..1_900_000_000, from in 0i8..24, to in 0i8..24, day in 0i8..7) {
            let day = Weekday::from_monday_zero_offset(day).unwrap();
            let schedule = berlin(
                vec![Window { days: vec![day], from: Time::constant(from, 0, 0, 0), to: Time::constant(to, 0, 0, 0) }],
                vec![],
            );
            let now = Timestamp::from_second(start).unwrap();
            let open = schedule.next_open(now).unwrap();
            prop_assert!(open >= now && schedule.is_open(open));
            prop_assert!(open == now || !schedule.is_open(open - 1.second()));
            let close = schedule.next_close(open).unwrap();
            prop_assert!(!schedule.is_open(close) && schedule.is_open(close - 1.second()));
        }
    }
}
