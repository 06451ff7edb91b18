//! The nearest known name to a misspelt one.

/// The candidate nearest to `name`, if one is near enough to be what was meant. Case, `_`, `-` and `.` count as little.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // Hostile input must not cost time: the distance is quadratic in the lengths.
    if name.len() > 100 {
        return None;
    }
    let wanted = plain(name);
    let limit = (wanted.chars().count() / 4).max(2);
    candidates
        .map(|candidate| (distance(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn one text into the other.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_else() {
        let known = ["server.log-level", "server.log-format", "database.work_mem"];
        let nearest = |name| nearest(name, known.into_iter());
        assert_eq!(nearest("server.log_level"), Some("server.log-level"));
        assert_eq!(nearest("sevrer.log-levle"), Some("server.log-level"));
        assert_eq!(nearest("database.work-mem"), Some("database.work_mem"));
        assert_eq!(nearest("entirely.other"), None);
        assert_eq!(nearest(&"x".repeat(10_000)), None);
        assert_eq!(
            (
                distance("ab", "ba"),
                distance("", "abc"),
                distance("kitten", "sitting")
            ),
            (1, 3, 3)
        );
    }
}
