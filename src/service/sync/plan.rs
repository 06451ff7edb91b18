//! From a listing to what is to be done. Pure.

use crate::bundle::BundleName;
use crate::db::payloads::PRUNED;
use crate::db::staged::Stored;
use crate::domain::Sha256;
use crate::index::{IntakeFilter, Skipped, State, Summary};
use crate::upstream::{Listing, Offered};
use crate::wire::admin::{FilterChange, FilterSide, SyncShrink, SyncSkipped};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

/// Names that are given as examples.
pub(super) const EXAMPLES: usize = 20;

/// Payloads of an upstream by file name.
pub(super) type Names = BTreeMap<String, Offered>;

/// What a listing names; a name that is there twice counts once.
pub(super) fn names(listing: &Listing) -> Names {
    let by_name = |payload: &Offered| (payload.name.to_string(), payload.clone());
    listing.payloads.iter().map(by_name).collect()
}

/// The text that is kept of a listing without an index: a line each, name, bytes, content, separated by tabs.
pub(super) fn lines(names: &Names) -> String {
    let mut text = String::new();
    for (name, offered) in names {
        let size = offered.size.map(|s| s.to_string()).unwrap_or_default();
        let sha256 = offered.sha256.map(|s| s.to_string()).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}\t{size}\t{sha256}");
    }
    text
}

/// Reads what was kept of a listing: the state of an index, or [`lines`]. What cannot be read is passed over: it was written by
/// another version, and a listing that knows too little of before only withholds less.
pub(super) fn read(text: &str, index: bool) -> Names {
    let offered = |name: &str, sha256: Option<Sha256>, size: Option<u64>| {
        let parsed: BundleName = name.parse().ok()?;
        let offered = Offered {
            name: parsed,
            sha256,
            size,
        };
        Some((name.to_owned(), offered))
    };
    if index {
        let state = State::parse(text).unwrap_or_default();
        return state
            .payloads()
            .filter_map(|p| offered(&p.filename, Some(p.sha256), Some(p.size)))
            .collect();
    }
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let name = fields.next()?;
            let size = fields.next().and_then(|f| f.parse().ok());
            offered(name, fields.next().and_then(|f| f.parse().ok()), size)
        })
        .collect()
}

fn same(a: Option<&Sha256>, b: Option<&Sha256>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

/// Payloads of before that are not there any more, or with another content. A driver without an index may have been asked for
/// less, so for it only what the filter admits counts.
pub(super) fn shrink(
    before: &Names,
    now: &Names,
    filter: Option<&IntakeFilter>,
    limit: u32,
) -> Option<SyncShrink> {
    let counted = || {
        before
            .iter()
            .filter(|(_, o)| filter.is_none_or(|f| f.admits(&o.name).is_ok()))
    };
    let gone: Vec<&String> = counted()
        .filter(|(name, old)| {
            now.get(*name)
                .is_none_or(|new| !same(old.sha256.as_ref(), new.sha256.as_ref()))
        })
        .map(|(name, _)| name)
        .collect();
    let summary = Summary {
        added: 0,
        gone: gone.len() as u64,
        before: counted().count() as u64,
    };
    summary.shrinks_beyond(limit).then(|| SyncShrink {
        before: summary.before,
        gone: summary.gone,
        limit,
        names: gone.into_iter().take(EXAMPLES).cloned().collect(),
    })
}

/// What is to be done with what is offered.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// To be fetched.
    pub(super) fetch: Vec<Offered>,
    /// Of those and the resumed ones, the names that there is a row of, visible or not.
    pub(super) met: HashSet<String>,
    /// Fetched by an earlier run, and whole.
    pub(super) resumed: Vec<(Offered, Sha256, u64)>,
    /// Staged rows whose content upstream replaced.
    pub(super) replaced: Vec<i64>,
    /// Here and visible.
    pub(super) there: u64,
    /// Kept out, by filter.
    pub(super) skipped: BTreeMap<Skipped, SyncSkipped>,
}

/// Sorts what is offered.
pub(super) fn plan(names: &Names, filter: &IntakeFilter, stored: &HashMap<String, Stored>) -> Plan {
    let mut plan = Plan::default();
    for (name, offered) in names {
        let row = stored.get(name);
        let visible = row.filter(|row| row.staged.is_none());
        let agrees = |row: &Stored| {
            same(offered.sha256.as_ref(), Some(&row.sha256))
                && (offered.sha256.is_some() || offered.size.is_none_or(|size| size == row.size))
        };
        if let Some(row) = visible
            && agrees(row)
        {
            // What is here is mended whatever the filters say now.
            if row.damaged {
                plan.fetch.push(offered.clone());
            } else {
                plan.there += 1;
            }
            continue;
        }
        if let Err(by) = filter.admits(&offered.name) {
            let skipped = plan.skipped.entry(by).or_insert_with(|| SyncSkipped {
                filter: by.key().to_owned(),
                ..SyncSkipped::default()
            });
            skipped.payloads += 1;
            if skipped.names.len() < EXAMPLES {
                skipped.names.push(name.clone());
            }
            continue;
        }
        match row {
            Some(row) if row.staged.is_some_and(|run| run != PRUNED) => {
                if !agrees(row) {
                    plan.replaced.push(row.id);
                    plan.fetch.push(offered.clone());
                } else if row.damaged {
                    plan.fetch.push(offered.clone());
                } else {
                    plan.resumed.push((offered.clone(), row.sha256, row.size));
                }
            }
            _ => plan.fetch.push(offered.clone()),
        }
    }
    plan.met = plan
        .fetch
        .iter()
        .chain(plan.resumed.iter().map(|(offered, _, _)| offered))
        .map(|offered| offered.name.to_string())
        .filter(|name| stored.contains_key(name))
        .collect();
    plan
}

fn side<'a>(found: impl Iterator<Item = (&'a String, u64)>) -> FilterSide {
    let mut side = FilterSide::default();
    for (name, bytes) in found {
        side.payloads += 1;
        side.bytes += bytes;
        if side.names.len() < EXAMPLES {
            side.names.push(name.clone());
        }
    }
    side
}

/// What another filter adds of what upstream has, and drops of what is here.
pub(super) fn change(
    names: &Names,
    stored: &HashMap<String, Stored>,
    before: &IntakeFilter,
    after: &IntakeFilter,
) -> FilterChange {
    let visible = |name: &String| stored.get(name).is_some_and(|row| row.staged.is_none());
    let adds = names
        .iter()
        .filter(|(name, o)| {
            !visible(name) && before.admits(&o.name).is_err() && after.admits(&o.name).is_ok()
        })
        .map(|(name, o)| (name, o.size.unwrap_or_default()));
    let drops = stored
        .iter()
        .filter(|(name, row)| {
            let parsed = name.parse::<BundleName>();
            row.staged.is_none()
                && parsed.is_ok_and(|n| before.admits(&n).is_ok() && after.admits(&n).is_err())
        })
        .map(|(name, row)| (name, row.size));
    let mut drops: Vec<(&String, u64)> = drops.collect();
    drops.sort_unstable();
    FilterChange {
        adds: side(adds),
        drops: side(drops.into_iter()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(version: &str, sha256: Option<u8>) -> Offered {
        let name = format!("livepatch-5.15.0-107.117-generic-{version}-amd64.tar.bz2");
        Offered {
            name: name.parse().unwrap(),
            sha256: sha256.map(|n| Sha256([n; 32])),
            size: Some(10),
        }
    }

    fn named(payloads: &[Offered]) -> Names {
        names(&Listing {
            payloads: payloads.to_vec(),
            ..Listing::default()
        })
    }

    fn row(id: i64, sha256: u8, staged: Option<i64>, damaged: bool) -> Stored {
        Stored {
            id,
            sha256: Sha256([sha256; 32]),
            size: 10,
            damaged,
            staged,
        }
    }

    #[test]
    fn what_is_kept_of_a_listing_comes_back() {
        let listed = named(&[offered("107.1", Some(1)), offered("107.2", None)]);
        assert_eq!(read(&lines(&listed), false), listed);
        assert!(read("nonsense\n\n\t\t", false).is_empty());
        assert!(read("nonsense", true).is_empty());
    }

    #[test]
    fn what_is_gone_or_has_another_content_shrinks_a_listing() {
        let had = named(&[
            offered("107.1", Some(1)),
            offered("107.2", Some(2)),
            offered("107.3", None),
            offered("107.4", Some(4)),
        ]);
        let now = named(&[
            offered("107.1", Some(1)),
            offered("107.2", Some(9)),
            offered("107.3", Some(3)),
        ]);
        let found = shrink(&had, &now, None, 49).unwrap();
        assert_eq!((found.before, found.gone), (4, 2));
        assert_eq!(shrink(&had, &now, None, 50), None);
        assert_eq!(shrink(&Names::new(), &now, None, 0), None);
        // Of a listing that may have been asked for less, only what is still wanted counts.
        let nothing = IntakeFilter {
            flavours: vec!["aws".to_owned()],
            ..IntakeFilter::default()
        };
        assert_eq!(shrink(&had, &Names::new(), Some(&nothing), 0), None);
    }

    #[test]
    fn each_payload_is_dealt_with_in_one_way() {
        let all: Vec<Offered> = (1..=7)
            .map(|n| offered(&format!("107.{n}"), Some(n)))
            .collect();
        let listed = named(&all);
        let name = |n: usize| all[n - 1].name.to_string();
        let stored: HashMap<String, Stored> = [
            (name(1), row(1, 1, None, false)),
            (name(2), row(2, 2, None, true)),
            (name(3), row(3, 3, Some(5), false)),
            (name(4), row(4, 9, Some(5), false)),
            (name(5), row(5, 5, Some(PRUNED), false)),
            (name(6), row(6, 9, None, false)),
        ]
        .into();
        let planned = plan(&listed, &IntakeFilter::default(), &stored);
        let fetch: Vec<String> = planned.fetch.iter().map(|o| o.name.to_string()).collect();
        assert_eq!(fetch, [name(2), name(4), name(5), name(6), name(7)]);
        let met: HashSet<String> = [2, 3, 4, 5, 6].map(name).into();
        assert_eq!(planned.met, met);
        assert_eq!(planned.there, 1);
        assert_eq!(planned.resumed.len(), 1);
        assert_eq!(planned.replaced, [4]);
        // A filter that admits nothing keeps out all but what is here.
        let nothing = IntakeFilter {
            flavours: vec!["aws".to_owned()],
            ..IntakeFilter::default()
        };
        let planned = plan(&listed, &nothing, &stored);
        let fetch: Vec<String> = planned.fetch.iter().map(|o| o.name.to_string()).collect();
        assert_eq!(fetch, [name(2)]);
        assert_eq!(planned.skipped[&Skipped::Flavour].payloads, 5);
        let change = change(&listed, &stored, &IntakeFilter::default(), &nothing);
        assert_eq!((change.adds.payloads, change.drops.payloads), (0, 3));
        assert_eq!(change.drops.bytes, 30);
    }
}
