//! Rounds to rows, rows to a table and a file.

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// One measured figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Median of the rounds' ratios.
    pub(crate) ratio: f64,
    pub(crate) better: Better,
    /// What must be reached.
    pub(crate) floor: f64,
    /// What is hoped for, where it is a number.
    pub(crate) aim: Option<f64>,
    /// The ratio of each round.
    pub(crate) rounds: Vec<f64>,
    /// Ours and the yardstick, medians, with their unit; for people.
    #[serde(skip)]
    pub(crate) detail: String,
}

impl Row {
    /// A figure that is the ratio of pairs (ours, yardstick) measured one after the other.
    pub(crate) fn of_pairs(name: &'static str, floor: f64, aim: f64, pairs: &[(f64, f64)]) -> Self {
        let rounds: Vec<f64> = pairs.iter().map(|(ours, theirs)| ours / theirs).collect();
        let side = |pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick));
        Self {
            name,
            ratio: median(rounds.iter().copied()),
            better: Better::Higher,
            floor,
            aim: Some(aim),
            detail: format!("{:.0}/s against {:.0}/s", side(|p| p.0), side(|p| p.1)),
            rounds,
        }
    }

    fn verdict(&self) -> &'static str {
        let reaches = |bar: f64| match self.better {
            Better::Higher => self.ratio >= bar,
            Better::Lower => self.ratio <= bar,
        };
        match self.aim {
            Some(aim) if reaches(aim) => "aim",
            _ if reaches(self.floor) => "floor",
            _ => "MISSED",
        }
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// Prints the table and writes the file.
pub(crate) fn finish(rows: &[Row]) -> anyhow::Result<()> {
    println!(
        "\n{:<46} {:>7} {:>15} {:>6} {:>6}  {:<7} measured",
        "figure", "median", "spread", "floor", "aim", "reached"
    );
    for row in rows {
        let low = row.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let high = row.rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        println!(
            "{:<46} {:>7.3} {:>15} {:>6} {:>6}  {:<7} {}",
            row.name,
            row.ratio,
            format!("{low:.3}-{high:.3}"),
            row.floor,
            row.aim
                .map_or_else(|| "-".to_owned(), |aim| aim.to_string()),
            row.verdict(),
            row.detail
        );
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/latest.json");
    std::fs::create_dir_all(path.parent().context("no folder")?)?;
    let kept = std::fs::read_to_string(&path)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let text = serde_json::to_string_pretty(&merge(kept, rows)?)?;
    std::fs::write(&path, text + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("\nwritten to target/bench/latest.json");
    Ok(())
}

/// Puts new rows in the place of older ones of the same name. Rows that were not measured now stay, with their time.
fn merge(mut all: Vec<Value>, rows: &[Row]) -> anyhow::Result<Vec<Value>> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    for row in rows {
        let mut new = serde_json::to_value(row)?;
        new["measured"] = now.to_string().into();
        match all.iter_mut().find(|old| old["name"] == row.name) {
            Some(old) => *old = new,
            None => all.push(new),
        }
    }
    Ok(all)
}
