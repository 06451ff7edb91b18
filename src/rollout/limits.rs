//! Caps per label value: how many machines of a rack may be at it at a time, as a threshold for each rack that only grows.

use super::cohort::PLACES;

/// A machine with a label value, in the line for a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InLine {
    /// Its place.
    pub place: u64,
    /// The patch was offered to it.
    pub offered: bool,
    /// It was, and what came of it is known.
    pub reported: bool,
}

/// The threshold of a label value of which at most `cap` machines may be at it at a time. A machine that is let in but was not
/// offered the patch yet counts as one that is at it. Never lower than `before`.
pub fn limit(machines: &mut [InLine], cap: u32, rollout: u64, before: u64) -> u64 {
    machines.sort_unstable_by_key(|machine| machine.place);
    let let_in = before.min(rollout);
    let busy = machines
        .iter()
        .filter(|machine| !machine.reported && (machine.offered || machine.place < let_in))
        .count();
    let free = (cap as usize).saturating_sub(busy);
    if free == 0 {
        return before;
    }
    let mut waiting = machines.iter().filter(|machine| {
        !machine.offered && !machine.reported && machine.place >= let_in && machine.place < rollout
    });
    match waiting.nth(free) {
        // Up to, and without, the first one for whom there is no room.
        Some(next) => next.place.max(before),
        // There is room for all that wait; the ones that register later wait for the next look.
        None => machines
            .iter()
            .filter(|machine| machine.place < rollout)
            .map(|machine| machine.place + 1)
            .max()
            .unwrap_or(0)
            .min(PLACES)
            .max(before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_more_than_the_cap_at_a_time(
            places in prop::collection::btree_set(0u64..1000, 1..60), cap in 1u32..5, rollout in 0u64..1100,
            order in prop::collection::vec(any::<prop::sample::Index>(), 200),
        ) {
            let mut machines: Vec<InLine> = places.iter().map(|p| InLine { place: *p, offered: false, reported: false }).collect();
            let mut at = 0;
            for pick in order {
                let next = limit(&mut machines, cap, rollout, at);
                prop_assert!(next >= at);
                at = next;
                let admitted = |m: &InLine| m.place < at && m.place < rollout;
                let busy = machines.iter().filter(|m| admitted(m) && !m.reported).count();
                prop_assert!(busy <= cap as usize, "{busy} of {cap}");
                // Some machine that is let in is offered it, or reports.
                let mut able: Vec<&mut InLine> = machines.iter_mut().filter(|m| m.place < at && m.place < rollout && !m.reported).collect();
                if !able.is_empty() {
                    let index = pick.index(able.len());
                    let machine = &mut *able[index];
                    if machine.offered { machine.reported = true } else { machine.offered = true }
                }
            }
            // Twice as many steps as machines would do: everybody in line had a turn.
            if machines.len() * 2 <= 190 {
                prop_assert!(machines.iter().filter(|m| m.place < rollout).all(|m| m.offered));
            }
        }
    }
}
