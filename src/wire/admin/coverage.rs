//! How well the machines are covered, which kernels lose their cover, and the table of supported kernels.
//! `GET coverage`, `GET coverage/horizon`, `GET|PUT kernels`.

use crate::domain::{Architecture, KernelSupport, LabelKey, Selector};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What machines are grouped by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CoverageBy {
    /// Their tier.
    #[default]
    Tier,
    /// Their kernel, as reported.
    Kernel,
    /// Their kernel's flavour.
    Flavour,
    /// The value of a label.
    Label,
}

/// `GET coverage`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CoverageQuery {
    /// What the machines are grouped by; `tier` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub by: Option<CoverageBy>,
    /// With `by=label`: the label's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub label: Option<LabelKey>,
    /// Only machines that this selector means, e.g. `rack=r1,kernel=5.15.0-*,!retired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub selector: Option<Selector>,
}

/// `GET coverage/horizon`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HorizonQuery {
    /// Only machines that this selector means, e.g. `rack=r1,kernel=5.15.0-*,!retired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub selector: Option<Selector>,
}

/// Machines by how they are covered. Each is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CoverageCounts {
    /// All of them.
    pub machines: u64,
    /// They run the highest version that is available to their kernel in their tier.
    pub covered: u64,
    /// There is a higher one than they run; also while a rollout does not let them in yet.
    pub behind: u64,
    /// A patch could not be inserted, or did harm.
    pub failed: u64,
    /// Patches are made for their kernel, and none is available.
    pub no_payload: u64,
    /// The time of their kernel is over; a newer one of the series is covered.
    pub kernel_upgrade_required: u64,
    /// Their kernel's series is not covered any more.
    pub kernel_end_of_life: u64,
    /// Patches were never made for their kernel.
    pub unsupported: u64,
    /// They never said what they run.
    pub unknown: u64,
    /// Of all: have not checked in for twice the interval.
    pub silent: u64,
    /// Covered, as a share of all but `no-payload` and `unknown`; 1 if there is none of these.
    pub ratio: f64,
}

/// Machines that have something in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CoverageGroup {
    /// What they have in common; absent: they have no such thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How they are covered.
    pub counts: CoverageCounts,
}

/// How well the machines are covered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Coverage {
    /// What they are grouped by.
    #[schema(inline)]
    #[schema(value_type = String)]
    pub by: CoverageBy,
    /// The label's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub label: Option<LabelKey>,
    /// When they were counted.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
    /// All machines.
    pub total: CoverageCounts,
    /// Groups: tiers in their order, others by name; with more than 1000, those with the most machines.
    pub groups: Vec<CoverageGroup>,
    /// Groups that are left out.
    #[serde(default)]
    pub left_out: u64,
}

/// Machines of one kernel that loses its cover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HorizonKernel {
    /// Kernel as reported.
    pub kernel: String,
    /// Architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub architecture: Option<Architecture>,
    /// The day it was built, where machines report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Date)]
    pub build_date: Option<Date>,
    /// What is to be said of it then: `kernel-upgrade-required` or `kernel-end-of-life`.
    #[schema(value_type = String)]
    pub becomes: KernelSupport,
    /// On this day, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Date)]
    pub on: Option<Date>,
    /// In so many days; 0: it has lost its cover.
    pub days: u32,
    /// Machines that run it.
    pub machines: u64,
}

/// Which machines lose the cover of their kernel within 90 days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Horizon {
    /// When the machines were counted.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
    /// Machines whose kernel has lost its cover: it needs an upgrade now.
    pub now: u64,
    /// Machines whose kernel loses it within 30 days.
    pub within_30_days: u64,
    /// Within 60 days, those within 30 included.
    pub within_60_days: u64,
    /// Within 90 days, those within 60 included.
    pub within_90_days: u64,
    /// Machines with a kernel that is covered by its age, of which it is not known when it was built.
    pub age_unknown: u64,
    /// By kernel, the soonest first.
    pub kernels: Vec<HorizonKernel>,
}

/// A line of the table of supported kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SupportedKernel {
    /// Ubuntu release, e.g. `22.04`.
    pub release: String,
    /// Its codename, e.g. `jammy`.
    pub codename: String,
    /// Architecture.
    #[schema(value_type = String)]
    pub architecture: Architecture,
    /// Series, e.g. `5.15`.
    pub series: String,
    /// `GA` or `HWE`.
    pub kind: String,
    /// Flavours that are covered.
    pub flavours: Vec<String>,
    /// Months after the build date in which patches are made.
    pub months: i16,
    /// From this day on the series is not covered at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Date)]
    pub end_of_life: Option<Date>,
}

/// `PUT kernels`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KernelsImport {
    /// The whole table as CSV with the header
    /// `release,codename,architecture,series,kind,flavours,months,end-of-life`; flavours are separated by spaces.
    pub csv: String,
    /// Why; stands in the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// A line that is other than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SupportedKernelChange {
    /// As it was.
    pub before: SupportedKernel,
    /// As it is.
    pub after: SupportedKernel,
}

/// What an import changed, or would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct KernelsOutcome {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Lines that come.
    pub added: Vec<SupportedKernel>,
    /// Lines that go.
    pub removed: Vec<SupportedKernel>,
    /// Lines that are other than before.
    pub changed: Vec<SupportedKernelChange>,
    /// Lines that stay as they are.
    pub unchanged: u64,
}
