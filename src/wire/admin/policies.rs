//! Rollout policies as people write them, in YAML files and in the API alike. `GET policies`,
//! `GET|PUT|DELETE tiers/{name}/policy`, `POST policies/apply`.
//!
//! Values stand as texts (`10% for 4h`, `0.5%`, `mon-fri`); [`PolicySpec::read`] makes a [`Policy`] of them and names
//! everything that is wrong by its place.

use super::is_false;
use crate::domain::policy::{
    Freeze, Gate, LabelCap, Phase, Policy, Problem, Schedule, Span, Window,
};
use crate::domain::{LabelKey, Selector, TierName};
use jiff::Timestamp;
use jiff::civil::{DateTime, Time, Weekday};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;
use utoipa::ToSchema;

/// A file of policies: for `plan`, `apply` and `policy check`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PolicyFile {
    /// Policies by tier. A tier that is not named has none.
    #[schema(value_type = BTreeMap<String, PolicySpec>)]
    pub policies: BTreeMap<TierName, PolicySpec>,
}

/// A tier's policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PolicySpec {
    /// Phases, e.g. `10% for 4h`, `50% for 1d`, `100%`. Each is wider than the one before; the last is `100%`.
    pub phases: Vec<String>,
    /// What must have been reported before more machines are let in, and when to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateSpec>,
    /// At most so many machines are let in within an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machines_per_hour: Option<u32>,
    /// At most so many machines of one label value at a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub label_caps: Vec<LabelCapSpec>,
    /// Machines that are let in only in the last phase, as a selector, e.g. `critical` or `rack=r1,flavour=aws`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_back: Option<String>,
    /// Time zone of windows and freezes, e.g. `Europe/Berlin`; UTC if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// When machines may be let in; always if it is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowSpec>,
    /// When they may not, whatever the windows say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<FreezeSpec>,
    /// Whether a patch that came to its end here goes on to the next tier by itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub auto_promote: bool,
    /// How long it must have been at its end before that, e.g. `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<String>,
    /// Whether a second person must approve before it begins.
    #[serde(default, skip_serializing_if = "is_false")]
    pub approval: bool,
}

/// The gate of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GateSpec {
    /// So many machines must have reported, or all that were let in where these are fewer.
    pub machines: u32,
    /// More failures than this share of the reports halt the rollout, e.g. `0.5%`.
    pub failure_rate: String,
    /// Machines to which the patch was offered within this time before now count, e.g. `24h`.
    pub window: String,
}

/// A cap per label value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LabelCapSpec {
    /// The label's key, e.g. `rack`.
    pub label: String,
    /// Machines of one value at a time: offered, and not yet reported.
    pub machines: u32,
}

/// A maintenance window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WindowSpec {
    /// Days on which it begins, e.g. `mon-fri` or `sat, sun`; every day if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<String>,
    /// When it begins, e.g. `22:00`.
    pub from: String,
    /// When it ends; at or before `from`: on the next day.
    pub to: String,
}

/// A freeze.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FreezeSpec {
    /// From, e.g. `2026-12-20` or `2026-12-20T18:00`.
    pub from: String,
    /// Until; a date alone is its midnight.
    pub until: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A policy as it stands at a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyEntry {
    /// The tier.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// The policy.
    pub policy: PolicySpec,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub set_at: Timestamp,
    /// By whom.
    pub actor: String,
    /// Why, in the words of who set it; may be empty.
    #[serde(default)]
    pub reason: String,
}

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

fn day(text: &str) -> Result<usize, String> {
    let text = text.trim();
    DAYS.iter()
        .position(|(name, _)| text.eq_ignore_ascii_case(name))
        .ok_or_else(|| {
            format!("{text:?} is not a day; write mon, tue, wed, thu, fri, sat, sun, or mon-fri")
        })
}

/// Reads `mon-fri, sun`; a range may run over the end of the week.
fn days(text: &str) -> Result<Vec<Weekday>, String> {
    let mut on = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        on[at] = true;
        while at != last {
            at = (at + 1) % 7;
            on[at] = true;
        }
    }
    let chosen = DAYS.iter().zip(on).filter(|(_, on)| *on);
    Ok(chosen.map(|((_, day), _)| *day).collect())
}

/// Writes days one after the other.
fn show_days(days: &[Weekday]) -> String {
    let names = DAYS.iter().filter(|(_, day)| days.contains(day));
    names.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.trim()
        .parse()
        .map_err(|error: T::Err| error.to_string())
}

fn phase(text: &str) -> Result<Phase, String> {
    let (share, hold) = match text.split_once(" for ") {
        Some((share, hold)) => (share, parsed(hold)?),
        None => (text, Span::default()),
    };
    Ok(Phase {
        share: parsed(share)?,
        hold,
    })
}

fn time(text: &str) -> Result<Time, String> {
    let text = text.trim();
    let plain =
        matches!(text.len(), 5 | 8) && text.bytes().all(|b| b.is_ascii_digit() || b == b':');
    let time = if plain { text.parse().ok() } else { None };
    time.ok_or_else(|| format!("{text:?} is not a time of day; write e.g. 22:00"))
}

fn moment(text: &str) -> Result<DateTime, String> {
    parsed::<DateTime>(text).map_err(|_| {
        format!("{text:?} is not a date or a date with a time; write e.g. 2026-12-20 or 2026-12-20T18:00")
    })
}

/// Takes what parsed and notes what did not.
struct Reader(Vec<Problem>);

impl Reader {
    fn take<T>(&mut self, at: impl Into<String>, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| self.0.push(Problem { at: at.into(), why }))
            .ok()
    }
}

impl PolicySpec {
    /// Makes a policy of the texts, or says of each that is wrong where it stands and why. Whether they agree with each other is
    /// asked of [`Policy::problems`].
    pub fn read(&self) -> Result<Policy, Vec<Problem>> {
        let mut reader = Reader(Vec::new());
        let phases = (self.phases.iter().enumerate())
            .filter_map(|(index, text)| reader.take(format!("phases[{index}]"), phase(text)))
            .collect();
        let gate = self.gate.as_ref().and_then(|gate| {
            let failure_rate = reader.take("gate.failure-rate", parsed(&gate.failure_rate));
            let window = reader.take("gate.window", parsed(&gate.window));
            Some(Gate {
                machines: gate.machines,
                failure_rate: failure_rate?,
                window: window?,
            })
        });
        let label_caps = (self.label_caps.iter().enumerate())
            .filter_map(|(index, cap)| {
                let label = parsed::<LabelKey>(&cap.label).map(|key| key.to_string());
                Some(LabelCap {
                    label: reader.take(format!("label-caps[{index}].label"), label)?,
                    machines: cap.machines,
                })
            })
            .collect();
        let hold_back = self.hold_back.as_deref().map(parsed::<Selector>);
        let hold_back = hold_back.and_then(|read| reader.take("hold-back", read));
        let zone = self.zone.as_deref().unwrap_or("UTC");
        let schedule = Schedule {
            zone: reader.take("zone", parsed(zone)).unwrap_or_default(),
            windows: (self.windows.iter().enumerate())
                .filter_map(|(index, window)| {
                    let place = |key: &str| format!("windows[{index}].{key}");
                    let on = reader.take(
                        place("days"),
                        days(window.days.as_deref().unwrap_or("mon-sun")),
                    );
                    let from = reader.take(place("from"), time(&window.from));
                    let to = reader.take(place("to"), time(&window.to));
                    Some(Window {
                        days: on?,
                        from: from?,
                        to: to?,
                    })
                })
                .collect(),
            freezes: (self.freezes.iter().enumerate())
                .filter_map(|(index, freeze)| {
                    let from = reader.take(format!("freezes[{index}].from"), moment(&freeze.from));
                    let until =
                        reader.take(format!("freezes[{index}].until"), moment(&freeze.until));
                    Some(Freeze {
                        from: from?,
                        until: until?,
                        reason: freeze.reason.clone(),
                    })
                })
                .collect(),
        };
        let soak = self.soak.as_deref().map_or(Ok(Span::hours(24)), parsed);
        let soak = reader.take("soak", soak).unwrap_or_default();
        if !reader.0.is_empty() {
            return Err(reader.0);
        }
        Ok(Policy {
            phases,
            gate,
            machines_per_hour: self.machines_per_hour,
            label_caps,
            hold_back,
            schedule,
            auto_promote: self.auto_promote,
            soak,
            approval: self.approval,
        })
    }
}

impl From<&Policy> for PolicySpec {
    fn from(policy: &Policy) -> Self {
        let time = |time: &Time| {
            time.strftime(if time.second() == 0 {
                "%H:%M"
            } else {
                "%H:%M:%S"
            })
            .to_string()
        };
        let schedule = &policy.schedule;
        Self {
            phases: (policy.phases.iter())
                .map(|phase| {
                    if phase.hold == Span::default() {
                        phase.share.to_string()
                    } else {
                        format!("{} for {}", phase.share, phase.hold)
                    }
                })
                .collect(),
            gate: policy.gate.map(|gate| GateSpec {
                machines: gate.machines,
                failure_rate: gate.failure_rate.to_string(),
                window: gate.window.to_string(),
            }),
            machines_per_hour: policy.machines_per_hour,
            label_caps: (policy.label_caps.iter())
                .map(|cap| LabelCapSpec {
                    label: cap.label.clone(),
                    machines: cap.machines,
                })
                .collect(),
            hold_back: policy.hold_back.as_ref().map(ToString::to_string),
            zone: Some(schedule.zone.name().to_owned()),
            windows: (schedule.windows.iter())
                .map(|window| WindowSpec {
                    days: Some(show_days(&window.days)),
                    from: time(&window.from),
                    to: time(&window.to),
                })
                .collect(),
            freezes: (schedule.freezes.iter())
                .map(|freeze| FreezeSpec {
                    from: freeze.from.to_string(),
                    until: freeze.until.to_string(),
                    reason: freeze.reason.clone(),
                })
                .collect(),
            auto_promote: policy.auto_promote,
            soak: Some(policy.soak.to_string()),
            approval: policy.approval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{
        "phases": ["10% for 4h", "50% for 1day", "100%"],
        "gate": {"machines": 50, "failure-rate": "0.5%", "window": "24h"},
        "machines-per-hour": 1000,
        "label-caps": [{"label": "rack", "machines": 2}],
        "hold-back": "critical,kernel=5.15.0-*",
        "zone": "Europe/Berlin",
        "windows": [{"days": "fri-mon, wed", "from": "22:00", "to": "04:30"}, {"from": "12:00", "to": "13:00"}],
        "freezes": [{"from": "2026-12-20", "until": "2027-01-04T06:00", "reason": "end of year"}],
        "auto-promote": true, "soak": "12h", "approval": true}"#;

    #[test]
    fn a_policy_reads_and_shows_alike() {
        let spec: PolicySpec = serde_json::from_str(FULL).unwrap();
        let policy = spec.read().unwrap();
        assert_eq!(
            policy.phases[1].share,
            crate::domain::policy::Share::percent(50)
        );
        assert_eq!(policy.schedule.windows[0].days.len(), 5);
        assert_eq!(policy.schedule.windows[1].days.len(), 7);
        assert_eq!(PolicySpec::from(&policy).read(), Ok(policy));
        let example = Policy::example();
        assert_eq!(
            PolicySpec::from(&example).phases,
            ["10% for 4h", "50% for 1day", "100%"]
        );
        assert_eq!(PolicySpec::from(&example).read(), Ok(example));
    }

    #[test]
    fn what_does_not_parse_is_named_by_its_place() {
        for (from, to, at) in [
            ("10% for 4h", "10 for 4h", "phases[0]"),
            ("50% for 1day", "50% for ever", "phases[1]"),
            ("0.5%", "half", "gate.failure-rate"),
            ("\"24h\"", "\"24\"", "gate.window"),
            ("Europe/Berlin", "Europe/Atlantis", "zone"),
            ("fri-mon", "someday", "windows[0].days"),
            ("04:30", "25:00", "windows[0].to"),
            ("2026-12-20", "20.12.2026", "freezes[0].from"),
            ("12h", "soon", "soak"),
            ("\"rack\"", "\"\"", "label-caps[0].label"),
        ] {
            assert!(FULL.contains(from), "{from}");
            let spec: PolicySpec = serde_json::from_str(&FULL.replacen(from, to, 1)).unwrap();
            let problems = spec.read().unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].at, at, "{problems:?}");
        }
        assert!(serde_json::from_str::<PolicySpec>(r#"{"phases": [], "phase": 1}"#).is_err());
    }
}
