//! Whether live patches are made for a kernel, from the table of supported kernels.
//!
//! Source of the table: Canonical's public page of kernels covered by Livepatch. The interval is 13 months for GA and
//! LTS-derived HWE kernels and 9 for interim HWE, counted from the kernel's build date
//! (5.15.0-100.110 built 2024-02-07 must be upgraded by 2025-03-07).

use crate::domain::kernel::check_flavour;
use crate::domain::{Architecture, KernelBase, KernelSupport, ParseError};
use jiff::{ToSpan, civil::Date};
use std::collections::{HashMap, HashSet};

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

/// The columns of the table as CSV; the last may be left out.
const HEADER: [&str; 8] = [
    "release",
    "codename",
    "architecture",
    "series",
    "kind",
    "flavours",
    "months",
    "end-of-life",
];

/// Lines of the table that hold something, with their numbers, without the header.
fn numbered(csv: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = csv.lines().enumerate().skip(1);
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| (number + 1, line))
}

fn wrong(number: usize, line: &str, why: &str) -> ParseError {
    let why = format!("line {number}: {why}");
    ParseError::new("table of supported kernels", line, why)
}

fn read_line(number: usize, line: &str) -> Result<SupportRow, ParseError> {
    let err = |why: &str| wrong(number, line, why);
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let (&[release, codename, arch, series, kind, flavours, months], rest) = fields
        .split_first_chunk::<7>()
        .ok_or_else(|| err("at least seven fields expected"))?;
    let end_of_life = match rest {
        [] | [""] => None,
        [date] => Some(
            date.parse()
                .map_err(|_| err(&format!("{date:?} is not a date")))?,
        ),
        _ => return Err(err("more than eight fields")),
    };
    Ok(SupportRow {
        release: release.to_owned(),
        codename: codename.to_owned(),
        architecture: arch.parse().map_err(|e: ParseError| err(&e.why))?,
        series: series.to_owned(),
        kind: kind.to_owned(),
        flavours: flavours.split_whitespace().map(ToOwned::to_owned).collect(),
        months: months
            .parse()
            .map_err(|_| err(&format!("{months:?} is not a number of months")))?,
        end_of_life,
    })
}

impl SupportRow {
    /// What a table holds once.
    fn key(&self) -> (&str, Architecture, &str) {
        (&self.codename, self.architecture, &self.series)
    }

    /// What is wrong with it, of what a person can get wrong.
    fn check(&self) -> Result<(), String> {
        let word = |text: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-+".contains(&b);
            (1..=40).contains(&text.len()) && text.bytes().all(plain)
        };
        for (what, text) in [
            ("release", &self.release),
            ("codename", &self.codename),
            ("kind", &self.kind),
        ] {
            if !word(text) {
                return Err(format!("{text:?} is not a {what}"));
            }
        }
        let base: Result<KernelBase, _> = self.series.parse();
        if base.map(KernelBase::series).as_ref() != Ok(&self.series) {
            return Err(format!("{:?} is not a series such as 5.15", self.series));
        }
        if self.flavours.is_empty() {
            return Err("it names no flavour".to_owned());
        }
        for flavour in &self.flavours {
            check_flavour(flavour).map_err(|why| format!("{flavour:?}: {why}"))?;
        }
        if !(1..=240).contains(&self.months) {
            return Err(format!("{} months: 1 to 240 expected", self.months));
        }
        Ok(())
    }
}

/// What becomes of a table when another takes its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference<'t> {
    /// Rows that come.
    pub added: Vec<&'t SupportRow>,
    /// Rows that go.
    pub removed: Vec<&'t SupportRow>,
    /// Rows that are other than before: as they were, and as they are.
    pub changed: Vec<(&'t SupportRow, &'t SupportRow)>,
    /// Rows that stay as they are.
    pub same: u64,
}

impl Difference<'_> {
    /// Whether nothing changes.
    pub fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
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

    /// Reads the table from CSV with the header
    /// `release,codename,architecture,series,kind,flavours,months[,end-of-life]`; flavours are separated by spaces.
    pub fn parse(csv: &str) -> Result<Self, ParseError> {
        let rows = numbered(csv)
            .map(|(number, line)| read_line(number, line))
            .collect::<Result<Vec<_>, _>>()?;
        if rows.is_empty() {
            return Err(ParseError::new(
                "table of supported kernels",
                csv,
                "it has no rows",
            ));
        }
        Ok(Self { rows })
    }

    /// [`Self::parse`] for a table that a person gives: the header must be right, every field be what it can be, and each
    /// series stand once for a release and architecture.
    pub fn import(csv: &str) -> Result<Self, ParseError> {
        let header: Vec<&str> = csv.lines().next().unwrap_or_default().split(',').collect();
        let header: Vec<&str> = header.into_iter().map(str::trim).collect();
        if header != HEADER[..7] && header != HEADER {
            let why = format!("line 1: the header {} expected", HEADER.join(","));
            let first = csv.lines().next().unwrap_or_default();
            return Err(ParseError::new("table of supported kernels", first, why));
        }
        let table = Self::parse(csv)?;
        let mut lines: HashMap<(&str, Architecture, &str), usize> = HashMap::new();
        for ((number, line), row) in numbered(csv).zip(&table.rows) {
            row.check().map_err(|why| wrong(number, line, &why))?;
            if let Some(first) = lines.insert(row.key(), number) {
                let why = format!("the same series, release and architecture as in line {first}");
                return Err(wrong(number, line, &why));
            }
        }
        Ok(table)
    }

    /// The table as CSV, as [`Self::import`] reads it.
    pub fn to_csv(&self) -> String {
        let mut csv = HEADER.join(",");
        for row in &self.rows {
            let end = row
                .end_of_life
                .map_or_else(String::new, |day| day.to_string());
            let (architecture, months) = (row.architecture.as_str(), row.months.to_string());
            let flavours = row.flavours.join(" ");
            let fields = [
                &row.release,
                &row.codename,
                architecture,
                &row.series,
                &row.kind,
                &flavours,
                &months,
                &end,
            ];
            csv.push('\n');
            csv.push_str(&fields.join(","));
        }
        csv
    }

    /// What becomes of this table when `new` takes its place.
    pub fn difference<'t>(&'t self, new: &'t Self) -> Difference<'t> {
        let old: HashMap<_, _> = self.rows.iter().map(|row| (row.key(), row)).collect();
        let mut difference = Difference::default();
        for row in &new.rows {
            match old.get(&row.key()) {
                None => difference.added.push(row),
                Some(before) if *before != row => difference.changed.push((before, row)),
                Some(_) => difference.same += 1,
            }
        }
        let kept: HashSet<_> = new.rows.iter().map(SupportRow::key).collect();
        let gone = self.rows.iter().filter(|row| !kept.contains(&row.key()));
        difference.removed = gone.collect();
        difference
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

    #[test]
    fn imports_are_strict_name_the_line_and_are_written_back() {
        let head = "release,codename,architecture,series,kind,flavours,months,end-of-life";
        let good = "22.04,jammy,amd64,5.15,GA,aws generic,13,";
        for (csv, expected) in [
            (format!("a,b\n{good}\n"), "line 1: the header release,"),
            (
                format!("{head}\n\n{good}\n{good}\n"),
                "line 4: the same series, release and architecture as in line 3",
            ),
            (
                format!("{head}\n22.04,jammy,amd64,5,GA,generic,13\n"),
                "line 2: \"5\" is not a series",
            ),
            (
                format!("{head}\n22.04,jammy,amd64,5.15.0,GA,generic,13\n"),
                "line 2: \"5.15.0\" is not a series",
            ),
            (
                format!("{head}\n22.04,jam\u{0}my,amd64,5.15,GA,generic,13\n"),
                "is not a codename",
            ),
            (
                format!("{head}\n22.04,jammy,amd64,5.15,GA,,13\n"),
                "line 2: it names no flavour",
            ),
            (
                format!("{head}\n22.04,jammy,amd64,5.15,GA,Generic,13\n"),
                "line 2: \"Generic\": a flavour",
            ),
            (
                format!("{head}\n22.04,jammy,amd64,5.15,GA,generic,0\n"),
                "line 2: 0 months",
            ),
        ] {
            let err = SupportTable::import(&csv).unwrap_err().to_string();
            assert!(err.contains(expected), "{err}");
        }
        let default = SupportTable::import(DEFAULT_TABLE).unwrap();
        assert_eq!(SupportTable::import(&default.to_csv()), Ok(default));
    }

    #[test]
    fn differences_are_by_series_release_and_architecture() {
        let read = |rows: &str| SupportTable::parse(&format!("h\n{rows}")).unwrap();
        let a = "22.04,jammy,amd64,5.15,GA,generic,13\n";
        let (b, longer) = (
            "24.04,noble,amd64,6.8,GA,generic,13\n",
            "22.04,jammy,amd64,5.15,GA,generic,14\n",
        );
        let c = "20.04,focal,amd64,5.4,GA,generic,13\n";
        let (old, new) = (read(&format!("{a}{b}")), read(&format!("{longer}{c}")));
        let difference = old.difference(&new);
        assert_eq!(difference.added[0].series, "5.4");
        assert_eq!(difference.removed[0].series, "6.8");
        assert_eq!(difference.changed[0].1.months, 14);
        assert_eq!(difference.same, 0);
        let none = old.difference(&old);
        assert!(none.is_none() && none.same == 2);
    }
}
