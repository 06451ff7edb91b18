//! The table of supported kernels as CSV, as it is shipped and as a person gives it; and what becomes of one table when another
//! takes its place.

use super::support::{SupportRow, SupportTable};
use crate::domain::kernel::check_flavour;
use crate::domain::{Architecture, KernelBase, ParseError};
use std::collections::{HashMap, HashSet};

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

impl SupportTable {
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
        Ok(Self::new(rows))
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
        for ((number, line), row) in numbered(csv).zip(table.rows()) {
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
        for row in self.rows() {
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
        let old: HashMap<_, _> = self.rows().iter().map(|row| (row.key(), row)).collect();
        let mut difference = Difference::default();
        for row in new.rows() {
            match old.get(&row.key()) {
                None => difference.added.push(row),
                Some(before) if *before != row => difference.changed.push((before, row)),
                Some(_) => difference.same += 1,
            }
        }
        let kept: HashSet<_> = new.rows().iter().map(SupportRow::key).collect();
        let gone = self.rows().iter().filter(|row| !kept.contains(&row.key()));
        difference.removed = gone.collect();
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::support::DEFAULT_TABLE;

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
