//! Pictures that the server draws: bars of machines by state, and curves over time.
//!
//! They are SVG with attributes only, since the pages' policy forbids inline style, and each says in words what it shows.

use super::page::number;
use jiff::Timestamp;
use maud::{Markup, html};
use std::fmt::Write;

/// A part of a bar.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Its class, which gives its colour: `good`, `bad`, `wait`, `idle` or `lost`.
    pub(super) class: &'static str,
    /// What it counts, in words.
    pub(super) name: &'static str,
    /// How many.
    pub(super) count: u64,
}

/// A bar of parts, as wide as the place it stands in.
pub(super) fn bar(parts: &[Part]) -> Markup {
    const WIDTH: f64 = 100.0;
    let total: u64 = parts.iter().map(|part| part.count).sum();
    let words: Vec<String> = parts
        .iter()
        .filter(|part| part.count > 0)
        .map(|part| format!("{} {}", number(part.count), part.name))
        .collect();
    let words = if words.is_empty() {
        "no machines".to_owned()
    } else {
        words.join(", ")
    };
    let mut at = 0.0;
    let mut placed = Vec::new();
    for part in parts.iter().filter(|part| part.count > 0) {
        let width = WIDTH * part.count as f64 / total as f64;
        placed.push((part.class, at, width));
        at += width;
    }
    html! {
        svg.bar viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label=(words) {
            title { (words) }
            rect.none x="0" y="0" width="100" height="6" {}
            @for (class, x, width) in placed {
                rect class=(class) x=(format!("{x:.2}")) y="0" width=(format!("{width:.2}")) height="6" {}
            }
        }
    }
}

/// A curve of machines over time. `words` say what it shows.
pub(super) fn curve(points: &[(Timestamp, u64)], words: &str) -> Markup {
    const WIDTH: f64 = 600.0;
    const HEIGHT: f64 = 120.0;
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return html! { p.quiet { "Nothing is known yet: it is noted every few minutes." } };
    };
    let most = points.iter().map(|point| point.1).max().unwrap_or(0).max(1);
    let span = (last.0.as_second() - first.0.as_second()).max(1) as f64;
    let place = |(at, count): &(Timestamp, u64)| {
        let x = WIDTH * (at.as_second() - first.0.as_second()) as f64 / span;
        let y = HEIGHT - (HEIGHT - 4.0) * *count as f64 / most as f64;
        (x, y)
    };
    let mut line = String::new();
    // A number stands until the next one was noted.
    for (n, point) in points.iter().enumerate() {
        let (x, y) = place(point);
        let _ = if n == 0 {
            write!(line, "M{x:.1} {y:.1}")
        } else {
            write!(line, "H{x:.1}V{y:.1}")
        };
    }
    let words = format!(
        "{words}: {} at {}, {} at {}; at most {}",
        number(first.1),
        first.0.strftime("%Y-%m-%d %H:%M"),
        number(last.1),
        last.0.strftime("%Y-%m-%d %H:%M"),
        number(most)
    );
    html! {
        figure {
            svg.curve viewBox="0 0 600 120" preserveAspectRatio="none" role="img" aria-label=(words) {
                title { (words) }
                path.area d=(format!("{line}L{WIDTH:.0} {HEIGHT:.0}L0 {HEIGHT:.0}Z")) {}
                path.line d=(line) {}
            }
            figcaption { (words) }
        }
    }
}
