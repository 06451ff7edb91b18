//! How long things took, kept in bounded memory: a histogram whose buckets are at most 1/64 apart.
//!
//! Invariant: the maximum is exact; a quantile is at most 1.6 % above the true one and never above the maximum.

use std::time::Duration;

/// Buckets within each doubling, as a power of two.
const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
/// Enough for every 64-bit number of microseconds.
const BUCKETS: usize = (SUB as usize) * (64 - SUB_BITS as usize + 1);

/// A histogram of durations, to the microsecond.
#[derive(Debug, Clone)]
pub struct Latency {
    counts: Box<[u64]>,
    count: u64,
    max: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            max: 0,
        }
    }
}

impl Latency {
    /// Adds one duration.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// How many were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max)
    }

    /// The duration that the share `q` (0 to 1) of all did not exceed; zero if there are none.
    pub fn quantile(&self, q: f64) -> Duration {
        let wanted = ((self.count as f64 * q).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(highest(index).min(self.max));
            }
        }
        Duration::ZERO
    }
}

/// Below `SUB`, one bucket for each number; above, `SUB` buckets for each doubling.
fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = value.ilog2() - SUB_BITS;
    ((u64::from(shift) + 1) * SUB + ((value >> shift) - SUB)) as usize
}

/// The largest number that falls into a bucket.
fn highest(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB {
        return index;
    }
    let shift = index / SUB - 1;
    let low = u128::from(index % SUB + SUB) << shift;
    u64::try_from(low + (1 << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_recorded_is_zero() {
        let latency = Latency::default();
        assert_eq!(latency.quantile(0.99), Duration::ZERO);
        assert_eq!((latency.count(), latency.max()), (0, Duration::ZERO));
    }

    proptest! {
        #[test]
        fn every_number_falls_into_the_bucket_that_holds_it(value in any::<u64>()) {
            let index = bucket(value);
            prop_assert!(index < BUCKETS);
            prop_assert!(value <= highest(index));
            prop_assert!(index == 0 || value > highest(index - 1));
            prop_assert!(highest(index) as f64 <= value as f64 * (1.0 + 1.0 / 64.0));
        }

        #[test]
        fn quantiles_are_close_to_those_of_the_sorted_list(
            mut values in prop::collection::vec(0u64..10_000_000, 1..400),
            q in 0.0f64..=1.0,
        ) {
            let mut latency = Latency::default();
            for value in &values {
                latency.record(Duration::from_micros(*value));
            }
            values.sort_unstable();
            let rank = ((values.len() as f64 * q).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1] as f64;
            let got = latency.quantile(q).as_micros() as f64;
            prop_assert!(got >= exact && got <= exact * (1.0 + 1.0 / 64.0), "{got} for {exact}");
            prop_assert_eq!(latency.quantile(1.0).as_micros() as u64, *values.last().unwrap());
        }
    }
}
