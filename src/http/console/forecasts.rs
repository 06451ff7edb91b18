//! What lies ahead, in tables: phases still to open, and how a patch would come to each tier.

use super::page::{bytes, number, time};
use super::tables::table;
use crate::domain::policy::Zone;
use crate::wire::admin::{KernelGap, PatchForecast, RolloutForecast, TierForecast};
use jiff::Timestamp;
use maud::{Markup, html};

/// The most kernels without a payload that are named.
const GAPS: usize = 30;

/// A point in time, and what the clocks show then in the zone of a policy.
pub(super) fn zoned(zone: &str, at: Option<Timestamp>) -> Markup {
    let there = zone
        .parse::<Zone>()
        .ok()
        .filter(|zone| zone.name() != "UTC");
    html! {
        (time(at))
        @if let Some((zone, at)) = there.zip(at) { small.quiet { " (" (zone.show(at)) ")" } }
    }
}

/// Phases still to open, and the end.
pub(super) fn ahead(caption: &str, forecast: &RolloutForecast, zone: &str) -> Markup {
    let rows: Vec<Vec<Markup>> = forecast
        .phases
        .iter()
        .map(|phase| {
            vec![
                html! { (phase.phase) },
                html! { (phase.share) },
                html! { (number(phase.machines)) },
                zoned(zone, Some(phase.at)),
            ]
        })
        .collect();
    html! {
        @if !rows.is_empty() {
            (table(caption, &["Phase", "Share", "Machines let in", "Opens"], &rows, ""))
        }
        p {
            @match forecast.ends_at {
                Some(end) => { "At its end " (zoned(zone, Some(end))) },
                None => "Not at its end within four months, or not by itself",
            }
            "; at most " (format!("{:.1}", forecast.peak_downloads_per_second)) " downloads per second."
        }
    }
}

fn begins(tier: &TierForecast) -> &str {
    match tier.begins.as_str() {
        "by-hand" => "when somebody promotes it",
        "promoted" => "begins by its policy",
        "available" => "to all machines at once",
        "awaiting-approval" => "awaits approval",
        other => other,
    }
}

/// How a patch comes to each tier, if every machine that takes it is well.
pub(super) fn by_tier(forecast: &PatchForecast) -> Markup {
    let rows: Vec<Vec<Markup>> = forecast
        .tiers
        .iter()
        .map(|tier| {
            let ahead = tier.at.is_some();
            vec![
                html! { (tier.tier) },
                html! { (begins(tier)) },
                html! { @if ahead { (zoned(&tier.zone, tier.at)) } @else { span.quiet { "–" } } },
                html! { (number(tier.machines)) },
                html! { (number(tier.kernels)) },
                html! { (bytes(tier.bytes)) },
                html! { (format!("{:.1}/s", tier.forecast.peak_downloads_per_second)) },
                html! {
                    @match tier.forecast.ends_at {
                        Some(end) => (zoned(&tier.zone, Some(end))),
                        None => span.quiet { "–" },
                    }
                },
            ]
        })
        .collect();
    let head = [
        "Tier",
        "How it comes",
        "From",
        "Machines",
        "Kernels",
        "Bytes",
        "Downloads at most",
        "Done",
    ];
    html! {
        (table("How the patch comes to each tier, if all goes well", &head, &rows, "There are no tiers."))
        @for tier in forecast.tiers.iter().filter(|tier| !tier.forecast.phases.is_empty()) {
            h3 { "Phases in " (tier.tier) }
            (ahead(&format!("Phases in {}", tier.tier), &tier.forecast, &tier.zone))
        }
    }
}

/// Kernels of machines that get nothing.
pub(super) fn gaps(caption: &str, gaps: &[KernelGap]) -> Markup {
    let rows: Vec<Vec<Markup>> = gaps
        .iter()
        .take(GAPS)
        .map(|gap| {
            vec![
                html! { code { (gap.kernel) } },
                html! { @match gap.architecture { Some(arch) => (arch), None => span.quiet { "–" } } },
                html! { (number(gap.machines)) },
            ]
        })
        .collect();
    html! {
        (table(caption, &["Kernel", "Architecture", "Machines"], &rows, "Every kernel there has one."))
        @if gaps.len() > GAPS { p.quiet { "And " (number((gaps.len() - GAPS) as u64)) " more kernels." } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_in_the_zone_too_where_it_is_another() {
        let at = Some("2026-11-28T21:00:00Z".parse().unwrap());
        let there = zoned("Europe/Berlin", at).into_string();
        assert!(there.contains("2026-11-28 21:00 UTC") && there.contains("2026-11-28 22:00 CET"));
        assert!(!zoned("UTC", at).into_string().contains("small"));
        assert!(zoned("Europe/Berlin", None).into_string().contains("never"));
    }
}
