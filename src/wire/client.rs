//! What a client says of its machine: one type for the status documents of every age, and for the bodies we define.
//!
//! Shapes read (public, from status output that people posted and that other software parses): the JSON of client 11,
//! that of client 10 with `Cloud-Enabled`, the older YAML shape written as JSON; and ours: a flat object with the kernel,
//! version and state at the top. All fields are optional; the server decides what it needs. Texts are as sent, without
//! surrounding white space, and empty ones count as absent.

use super::Token;
use super::read::{self, ReportError, Scalar, Tally, Target, Value};
use crate::domain::{MachineState, PatchVersion};
use jiff::{Timestamp, civil::Date};
use serde::de::MapAccess;
use std::borrow::Cow;

/// The most fixes kept from one report; more are counted as odd values.
pub const MAX_FIXES: usize = 512;

/// One report of one machine, borrowed from the request body.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClientReport<'a> {
    /// The administrator's token, sent once at registration.
    pub auth_token: Option<Token<'a>>,
    /// The machine's own token.
    pub machine_token: Option<Token<'a>>,
    /// The token of an Ubuntu Pro subscription.
    pub resource_token: Option<Token<'a>>,
    /// 32 hexadecimal digits, unchecked.
    pub machine_id: Option<Cow<'a, str>>,
    /// Version of the client, e.g. `v10.8.1`.
    pub client_version: Option<Cow<'a, str>>,
    /// Architecture under Debian's or uname's name, unchecked.
    pub architecture: Option<Cow<'a, str>>,
    /// Model name of the processor.
    pub cpu_model: Option<Cow<'a, str>>,
    /// When the client last asked a server.
    pub last_check: Option<Timestamp>,
    /// When the machine was booted.
    pub boot_time: Option<Timestamp>,
    /// Seconds since boot, to the precision the client gave (`1 day` is 86,400).
    pub uptime: Option<u64>,
    /// The tier the client believes it is in.
    pub tier: Option<Cow<'a, str>>,
    /// The running kernel, e.g. `5.15.0-107.117-generic`, unchecked.
    pub kernel: Option<Cow<'a, str>>,
    /// State of the patch; see [`Self::state`].
    pub patch_state: Option<Cow<'a, str>>,
    /// State of the last check: `checked`, `needs-check`, `check-failed`.
    pub check_state: Option<Cow<'a, str>>,
    /// Version of the patch that the state speaks of; see [`Self::version`].
    pub patch_version: Option<Cow<'a, str>>,
    /// What the client says is fixed.
    pub fixes: Vec<ReportedFix<'a>>,
    /// The day the running kernel was built.
    pub build_date: Option<Date>,
    /// Where the machine runs, if its client says so.
    pub cloud: Option<Cloud<'a>>,
    /// Keys that no known shape has.
    pub unknown_keys: u32,
    /// Known keys whose values said nothing.
    pub odd_values: u32,
}

/// One fix named in a report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReportedFix<'a> {
    /// Usually a CVE.
    pub name: Cow<'a, str>,
    /// What it is about.
    pub description: Option<Cow<'a, str>>,
    /// A bug number or link.
    pub bug: Option<Cow<'a, str>>,
    /// Whether the client counts it as patched.
    pub patched: Option<bool>,
}

/// The cloud a machine runs in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cloud<'a> {
    /// Whether the client found a cloud.
    pub enabled: Option<bool>,
    /// Name of the cloud.
    pub name: Option<Cow<'a, str>>,
    /// Region.
    pub region: Option<Cow<'a, str>>,
    /// Availability zone.
    pub zone: Option<Cow<'a, str>>,
}

impl<'a> ClientReport<'a> {
    /// Reads a request body. Nothing, `null` and `{}` are valid, empty reports.
    pub fn parse(body: &'a [u8]) -> Result<Self, ReportError> {
        let mut reading = Reading::default();
        let Tally {
            unknown_keys,
            odd_values,
        } = read::object(body, &mut reading)?;
        let Reading {
            mut report,
            flat,
            statuses,
        } = reading;
        // What an entry of the list says wins over what stands beside the list.
        let entry = statuses.chosen.map_or(Entry::default(), |e| e);
        report.kernel = entry.kernel.or(flat.kernel);
        report.patch_state = entry.patch_state.or(flat.patch_state);
        report.check_state = entry.check_state.or(flat.check_state);
        report.patch_version = entry.patch_version.or(flat.patch_version);
        report.build_date = entry.build_date.or(flat.build_date);
        report.fixes = if entry.fixes.list.is_empty() {
            flat.fixes.list
        } else {
            entry.fixes.list
        };
        report.unknown_keys = unknown_keys;
        report.odd_values = odd_values;
        Ok(report)
    }

    /// The state of the machine: that of the patch where given, else what the check says, else unknown.
    pub fn state(&self) -> MachineState {
        let text = self.patch_state.as_deref().or(self.check_state.as_deref());
        text.map_or(MachineState::Unknown, MachineState::read)
    }

    /// The patch version, if one is given and well formed. A leading `v` is tolerated.
    pub fn version(&self) -> Option<PatchVersion> {
        let text = self.patch_version.as_deref()?;
        text.strip_prefix('v').unwrap_or(text).parse().ok()
    }
}

/// The report while it is being read.
#[derive(Default)]
struct Reading<'a> {
    report: ClientReport<'a>,
    flat: Entry<'a>,
    statuses: Statuses<'a>,
}

impl<'de> Target<'de> for Reading<'de> {
    const OBJECT: bool = true;

    fn key<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        let report = &mut self.report;
        match key {
            "authtoken" | "token" => token(value, &mut report.auth_token),
            "machinetoken" => token(value, &mut report.machine_token),
            "resourcetoken" => token(value, &mut report.resource_token),
            "machineid" => value.text(&mut report.machine_id),
            "clientversion" => value.text(&mut report.client_version),
            "architecture" | "arch" => value.text(&mut report.architecture),
            "cpumodel" => value.text(&mut report.cpu_model),
            "lastcheck" => value.time(&mut report.last_check),
            "boottime" => value.time(&mut report.boot_time),
            "uptime" => value.seconds(&mut report.uptime),
            "tier" => value.text(&mut report.tier),
            "cloudenabled" => value.into(report.cloud.get_or_insert_default()),
            "status" => value.into(&mut self.statuses),
            // A digest of fixed CVEs per package: public in the status document, not needed here.
            "fixedcves" => value.skip(),
            _ => self.flat.key(key, value),
        }
    }
}

fn token<'de, A: MapAccess<'de>>(
    value: Value<'_, A>,
    into: &mut Option<Token<'de>>,
) -> Result<(), A::Error> {
    let mut text = None;
    value.text(&mut text)?;
    *into = text.map(Token::new);
    Ok(())
}

/// One kernel of the status list, or the same facts at the top of a flat report.
#[derive(Default)]
struct Entry<'a> {
    kernel: Option<Cow<'a, str>>,
    running: Option<bool>,
    patch_state: Option<Cow<'a, str>>,
    check_state: Option<Cow<'a, str>>,
    patch_version: Option<Cow<'a, str>>,
    build_date: Option<Date>,
    fixes: Fixes<'a>,
}

impl<'de> Target<'de> for Entry<'de> {
    const OBJECT: bool = true;

    fn key<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "kernel" | "kernelversion" => value.text(&mut self.kernel),
            "running" => value.flag(&mut self.running),
            "livepatch" => value.into(self),
            "state" | "patchstate" => value.text(&mut self.patch_state),
            "checkstate" => value.text(&mut self.check_state),
            "version" | "patchversion" => value.exact_text(&mut self.patch_version),
            "builddate" | "kernelbuilddate" => value.day(&mut self.build_date),
            "fixes" => value.into(&mut self.fixes),
            // What a server told the client before: known, of no use to a server.
            "supported" | "upgraderequireddate" => value.skip(),
            _ => value.unknown(),
        }
    }
}

/// The status list; only the entry that counts is kept: the first marked as running, else the first.
#[derive(Default)]
struct Statuses<'a> {
    chosen: Option<Entry<'a>>,
    current: Entry<'a>,
}

impl<'de> Target<'de> for Statuses<'de> {
    const OBJECT: bool = true;
    const LIST: bool = true;

    fn begin(&mut self) {
        self.current = Entry::default();
    }

    fn key<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        self.current.key(key, value)
    }

    fn end(&mut self, _tally: &mut Tally) {
        let running = |e: &Entry<'_>| e.running == Some(true);
        if self
            .chosen
            .as_ref()
            .is_none_or(|chosen| running(&self.current) && !running(chosen))
        {
            self.chosen = Some(std::mem::take(&mut self.current));
        }
    }
}

/// The fixes: a list of objects, a list of names, or one text with a line for each.
#[derive(Default)]
struct Fixes<'a> {
    list: Vec<ReportedFix<'a>>,
    current: ReportedFix<'a>,
}

impl<'a> Fixes<'a> {
    fn push(&mut self, fix: ReportedFix<'a>, tally: &mut Tally) {
        if self.list.len() < MAX_FIXES {
            self.list.push(fix);
        } else {
            tally.odd_values += 1;
        }
    }

    /// One line such as `* CVE-2016-7914 LP: #1645906`; the bullet may be missing.
    fn line(line: &str) -> Option<(&str, Option<&str>)> {
        let line = line.trim().trim_start_matches(['*', '-']).trim_start();
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        (!name.is_empty()).then_some((name, (!rest.is_empty()).then_some(rest)))
    }
}

impl<'de> Target<'de> for Fixes<'de> {
    const OBJECT: bool = true;
    const LIST: bool = true;

    fn begin(&mut self) {
        self.current = ReportedFix::default();
    }

    fn key<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "name" | "cve" => {
                let mut name = None;
                value.text(&mut name)?;
                self.current.name = name.unwrap_or_default();
                Ok(())
            }
            "description" => value.text(&mut self.current.description),
            "bug" => value.text(&mut self.current.bug),
            "patched" => value.flag(&mut self.current.patched),
            _ => value.unknown(),
        }
    }

    fn end(&mut self, tally: &mut Tally) {
        let fix = std::mem::take(&mut self.current);
        if fix.name.is_empty() {
            tally.odd_values += 1;
        } else {
            self.push(fix, tally);
        }
    }

    fn scalar(&mut self, scalar: Scalar<'de>, tally: &mut Tally) {
        match scalar {
            Scalar::Text(Cow::Borrowed(text)) => {
                for (name, rest) in text.lines().filter_map(Self::line) {
                    let description = rest.map(Cow::Borrowed);
                    self.push(
                        ReportedFix {
                            name: Cow::Borrowed(name),
                            description,
                            ..Default::default()
                        },
                        tally,
                    );
                }
            }
            Scalar::Text(Cow::Owned(text)) => {
                for (name, rest) in text.lines().filter_map(Self::line) {
                    let description = rest.map(|r| Cow::Owned(r.to_owned()));
                    self.push(
                        ReportedFix {
                            name: Cow::Owned(name.to_owned()),
                            description,
                            ..Default::default()
                        },
                        tally,
                    );
                }
            }
            Scalar::Null => {}
            _ => tally.odd_values += 1,
        }
    }
}

impl<'de> Target<'de> for Cloud<'de> {
    const OBJECT: bool = true;

    fn key<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "cloudenabled" | "enabled" => value.flag(&mut self.enabled),
            "cloud" => value.text(&mut self.name),
            "region" => value.text(&mut self.region),
            "az" => value.text(&mut self.zone),
            _ => value.unknown(),
        }
    }

    fn scalar(&mut self, scalar: Scalar<'de>, tally: &mut Tally) {
        match scalar {
            Scalar::Bool(enabled) => self.enabled = Some(enabled),
            Scalar::Null => {}
            _ => tally.odd_values += 1,
        }
    }
}
