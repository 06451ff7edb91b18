//! Whether live patches are made for a kernel, from the table of supported kernels.
//!
//! Source of the table: Canonical's public page of kernels covered by Livepatch. The interval is 13 months for GA and
//! LTS-derived HWE kernels and 9 for interim HWE, counted from the kernel's build date
//! (5.15.0-100.110 built 2024-02-07 must be upgraded by 2025-03-07).

use crate::domain::{Architecture, KernelBase, KernelSupport};
use jiff::{ToSpan, civil::Date};

/// The table as it stood when this version was made; a server loads it into its database at first start.
pub const DEFAULT_TABLE: &str = include_str!("supported-kernels.csv");

/// One line of the table: a series of one Ubuntu release on one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportRow {
    /// Ubuntu release, e.g. `22.04`.
    pub release: String,
    /// Its codename, e.g. `jammy`.
    pub codename: String,
    /// Architecture.
    pub architecture: Architecture,
    /// Kernel series, e.g. `5.15`.
    pub series: String,
    /// `GA` or `HWE`.
    pub kind: String,
    /// Flavours that are covered.
    pub flavours: Vec<String>,
    /// Months after the build date in which patches are made.
    pub months: i16,
    /// From this day on the series is not covered at all.
    pub end_of_life: Option<Date>,
}

/// The whole table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SupportTable {
    rows: Vec<SupportRow>,
}

/// What the table says of one kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Support {
    /// The verdict.
    pub verdict: KernelSupport,
    /// The day on which a newer kernel is needed, where the build date is known.
    pub upgrade_required: Option<Date>,
}

/// What is known of a kernel when asking.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Upstream version, of which the series (`5.15`) counts.
    pub base: KernelBase,
    /// Flavour, e.g. `generic`.
    pub flavour: &'a str,
    /// Architecture.
    pub architecture: Option<Architecture>,
    /// Ubuntu codename, where the caller knows it.
    pub codename: Option<&'a str>,
    /// The day the kernel was built, where the caller knows it.
    pub build_date: Option<Date>,
}

impl SupportTable {
    /// Takes rows, e.g. from the database.
    pub fn new(rows: Vec<SupportRow>) -> Self {
        Self { rows }
    }

    /// The rows.
    pub fn rows(&self) -> &[SupportRow] {
        &self.rows
    }

    /// What the table says of a kernel on the day `today`.
    ///
    /// Where several releases list the series (5.15 is GA in jammy and HWE in focal) and the codename is not known,
    /// the kindest row counts: a machine is not told to upgrade on a guess.
    pub fn evaluate(&self, query: &Query<'_>, today: Date) -> Support {
        let none = |verdict| Support {
            verdict,
            upgrade_required: None,
        };
        let Some(arch) = query.architecture else {
            return none(KernelSupport::Unknown);
        };
        let rows = self.rows.iter().filter(|row| {
            query.base.is_of(&row.series)
                && row.architecture == arch
                && query.codename.is_none_or(|name| row.codename == name)
                && row.flavours.iter().any(|f| f == query.flavour)
        });
        let mut best: Option<Support> = None;
        for row in rows {
            let required = query
                .build_date
                .and_then(|built| built.checked_add(i32::from(row.months).months()).ok());
            let verdict = if row.end_of_life.is_some_and(|end| today >= end) {
                KernelSupport::KernelEndOfLife
            } else if required.is_some_and(|day| today >= day) {
                KernelSupport::KernelUpgradeRequired
            } else {
                KernelSupport::Supported
            };
            let candidate = Support {
                verdict,
                upgrade_required: required,
            };
            let better = best.is_none_or(|b| {
                verdict < b.verdict
                    || (verdict == b.verdict && candidate.upgrade_required > b.upgrade_required)
            });
            if better {
                best = Some(candidate);
            }
        }
        best.unwrap_or_else(|| none(KernelSupport::Unsupported))
    }

    /// [`Self::evaluate`] for an exact kernel's base and flavour.
    pub fn of_kernel(
        &self,
        (base, flavour): (KernelBase, &str),
        architecture: Option<Architecture>,
        build_date: Option<Date>,
        today: Date,
    ) -> Support {
        let query = Query {
            base,
            flavour,
            architecture,
            codename: None,
            build_date,
        };
        self.evaluate(&query, today)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn table() -> SupportTable {
        SupportTable::parse(DEFAULT_TABLE).unwrap()
    }

    #[test]
    fn the_public_example_holds() {
        let kernel = ("5.15".parse().unwrap(), "generic");
        let built = Some(date(2024, 2, 7));
        let before = table().of_kernel(kernel, Some(Architecture::Amd64), built, date(2025, 3, 6));
        assert_eq!(
            before,
            Support {
                verdict: KernelSupport::Supported,
                upgrade_required: Some(date(2025, 3, 7))
            }
        );
        let after = table().of_kernel(kernel, Some(Architecture::Amd64), built, date(2025, 3, 7));
        assert_eq!(after.verdict, KernelSupport::KernelUpgradeRequired);
    }

    #[test]
    fn flavour_architecture_series_and_codename_count() {
        let today = date(2026, 1, 1);
        let ask = |series: &str, flavour, arch, codename| {
            table()
                .evaluate(
                    &Query {
                        base: series.parse().unwrap(),
                        flavour,
                        architecture: Some(arch),
                        codename,
                        build_date: None,
                    },
                    today,
                )
                .verdict
        };
        assert_eq!(
            ask("5.15", "generic", Architecture::Amd64, Some("jammy")),
            KernelSupport::Supported
        );
        assert_eq!(
            ask("5.15", "generic", Architecture::S390x, None),
            KernelSupport::Supported
        );
        assert_eq!(
            ask("5.15", "aws", Architecture::S390x, None),
            KernelSupport::Unsupported
        );
        assert_eq!(
            ask("5.15", "generic", Architecture::Amd64, Some("noble")),
            KernelSupport::Unsupported
        );
        assert_eq!(
            ask("6.5", "generic", Architecture::Amd64, None),
            KernelSupport::Unsupported
        );
        assert_eq!(
            table()
                .evaluate(
                    &Query {
                        base: "5.15".parse().unwrap(),
                        flavour: "generic",
                        architecture: None,
                        codename: None,
                        build_date: None,
                    },
                    today
                )
                .verdict,
            KernelSupport::Unknown
        );
    }

    #[test]
    fn the_interval_depends_on_the_kind() {
        let today = date(2026, 1, 1);
        let interim = Query {
            base: "6.17".parse().unwrap(),
            flavour: "generic",
            architecture: Some(Architecture::Amd64),
            codename: Some("noble"),
            build_date: Some(date(2025, 3, 31)),
        };
        assert_eq!(
            table().evaluate(&interim, today).upgrade_required,
            Some(date(2025, 12, 31))
        );
        assert_eq!(
            table().evaluate(&interim, today).verdict,
            KernelSupport::KernelUpgradeRequired
        );
    }

    #[test]
    fn wrong_tables_are_refused_with_the_line() {
        for (csv, expected) in [
            (
                "h\n22.04,jammy,amd64,5.15,GA,generic\n",
                "line 2: at least seven",
            ),
            (
                "h\n22.04,jammy,vax,5.15,GA,generic,13\n",
                "line 2: known are",
            ),
            (
                "h\n22.04,jammy,amd64,5.15,GA,generic,many\n",
                "line 2: \"many\"",
            ),
            (
                "h\n22.04,jammy,amd64,5.15,GA,generic,13,soon\n",
                "line 2: \"soon\" is not a date",
            ),
            ("h\n", "no rows"),
        ] {
            let err = SupportTable::parse(csv).unwrap_err().to_string();
            assert!(err.contains(expected), "{err}");
        }
        let ended =
            SupportTable::parse("h\n18.04,bionic,amd64,4.15,GA,generic,13,2028-04-01\n").unwrap();
        let kernel = ("4.15".parse().unwrap(), "generic");
        let support = ended.of_kernel(kernel, Some(Architecture::Amd64), None, date(2028, 4, 1));
        assert_eq!(support.verdict, KernelSupport::KernelEndOfLife);
    }
}
