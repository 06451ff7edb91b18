//! What clients were told, kept by the clients, and compared with what the database holds: nothing acknowledged may be
//! lost. And the rows of the table of faults.

use super::process::Site;
use livepatch_onprem::domain::Sha256;
use std::collections::HashSet;
use std::time::Duration;

/// Everything in the database that can have been acknowledged, one line for each.
const FACTS: &str = "
    select 'registered ' || replace(id::text, '-', '') from machines
    union all select 'check-in ' || replace(machine_id::text, '-', '') || ' ' || (patch >> 20) from machine_reports
    union all select 'promoted ' || (p.version >> 20) || ' ' || t.name
        from promotions x join patches p on p.id = x.patch_id join tiers t on t.id = x.tier_id
    union all select 'blocked ' || (p.version >> 20) from blocks b join patches p on p.id = b.patch_id
        where b.kind = 1 and b.lifted_at is null
    union all select 'token ' || name from auth_tokens where revoked_at is null
    union all select 'stored ' || filename || ' ' || encode(sha256, 'hex') from payloads where damaged is null
    union all select 'quarantined ' || filename || ' ' || encode(sha256, 'hex') from quarantine";

/// What was acknowledged, as lines of [`facts`].
#[derive(Debug, Default)]
pub struct Ledger {
    lines: Vec<String>,
}

/// A machine's registration.
pub fn registered(machine: u128) -> String {
    format!("registered {machine:032x}")
}

/// The check-in in which a machine reported version `<number>.1`. Each has a number of its own.
pub fn check_in(machine: u128, number: u32) -> String {
    format!("check-in {machine:032x} {number}")
}

/// A stored payload, or a quarantined file.
pub fn file(what: &str, name: &str, bytes: &[u8]) -> String {
    format!("{what} {name} {}", Sha256::of(bytes))
}

/// What the database holds.
pub async fn facts(site: &Site) -> HashSet<String> {
    let rows = site.raw().await.query(FACTS, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

impl Ledger {
    /// Notes an acknowledgement.
    pub fn note(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Takes over what another one noted.
    pub fn add(&mut self, other: Self) {
        self.lines.extend(other.lines);
    }

    /// How many were acknowledged.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// What was acknowledged and is not in the database, and machines whose last state is older than what was
    /// acknowledged of them.
    pub async fn lost(&self, site: &Site) -> Vec<String> {
        let facts = facts(site).await;
        let missing = self.lines.iter().filter(|line| !facts.contains(*line));
        let mut lost: Vec<String> = missing.cloned().collect();
        let latest = "select replace(id::text, '-', ''), patch >> 20 from machines";
        for row in site.raw().await.query(latest, &[]).await.unwrap() {
            let start = format!("check-in {} ", row.get::<_, &str>(0));
            let last = self.lines.iter().filter_map(|l| l.strip_prefix(&start));
            let last = last.map(|number| number.parse::<i64>().unwrap()).max();
            if last > Some(row.get(1)) {
                lost.push(format!("the latest state of {start}: {last:?}"));
            }
        }
        lost
    }
}

/// Fails unless every payload and every quarantined file has its object in the storage's folder, whole.
pub async fn objects_are_whole(site: &Site, at: &str) {
    let rows = "select 'objects', sha256 from payloads where damaged is null
        union all select 'quarantine', sha256 from quarantine";
    for row in site.raw().await.query(rows, &[]).await.unwrap() {
        let sha256: Sha256 = row.get::<_, &[u8]>(1).try_into().unwrap();
        let text = sha256.to_string();
        let area: &str = row.get(0);
        let path = site
            .patches()
            .join(format!("{area}/sha256/{}/{text}", &text[..2]));
        let bytes =
            std::fs::read(&path).unwrap_or_else(|e| panic!("{at}: {}: {e}", path.display()));
        assert_eq!(Sha256::of(&bytes), sha256, "{at}: {}", path.display());
    }
}

/// One row of the table of faults.
#[derive(Debug)]
pub struct Outcome {
    /// What was done to it.
    pub scenario: String,
    /// How often.
    pub runs: u32,
    /// What was acknowledged in all.
    pub acknowledged: usize,
    /// What of that was lost.
    pub lost: Vec<String>,
    /// The longest from a start, or from the fault's end, to working again.
    pub slowest: Duration,
}

impl Outcome {
    /// Prints the row, keeps it for `make faults`, and only then fails if anything was lost.
    pub fn told(self) {
        let row = format!(
            "| {} | {} | {} | {} | {:.2} s |",
            self.scenario,
            self.runs,
            self.acknowledged,
            self.lost.len(),
            self.slowest.as_secs_f64()
        );
        println!("{row}");
        if let Some(folder) = std::env::var_os("LIVEPATCH_FAULT_TABLE") {
            let name = self.scenario.replace(|c: char| !c.is_alphanumeric(), "-");
            let place = std::path::Path::new(&folder).join(name);
            std::fs::write(place, row + "\n").unwrap();
        }
        assert!(self.lost.is_empty(), "{}: {:#?}", self.scenario, self.lost);
    }
}

/// How often each kill is done: `LIVEPATCH_FAULT_RUNS`, else this.
pub fn runs(otherwise: u32) -> u32 {
    let given = std::env::var("LIVEPATCH_FAULT_RUNS").ok();
    given.map_or(otherwise, |text| text.parse().unwrap())
}
