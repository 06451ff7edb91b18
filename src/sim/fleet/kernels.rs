//! Which kernels the machines of a fleet run: a weighted list, built in or from a file.
//!
//! A line is `KERNEL ARCHITECTURE WEIGHT`; `#` begins a comment. The built-in weights are this project's estimate of a
//! mixed site (mostly servers of two long-term releases, some clouds, some ARM), not a survey.

use crate::domain::{Architecture, KernelVersion};

/// Kernels in Ubuntu's form of versions, with estimated weights.
const BUILT_IN: &str = "\
5.15.0-107.117-generic        amd64   180
5.15.0-105.115-generic        amd64   70
5.15.0-101.111-generic        amd64   30
5.15.0-107.117-generic        arm64   25
5.15.0-107.117-lowlatency     amd64   15
6.8.0-31.31-generic           amd64   160
6.8.0-35.35-generic           amd64   120
6.8.0-35.35-generic           arm64   35
6.8.0-38.38-lowlatency        amd64   10
5.4.0-182.202-generic         amd64   75
5.4.0-176.196-generic         amd64   25
4.15.0-213.224-generic        amd64   20
6.8.0-1008.8-aws              amd64   60
6.8.0-1008.8-aws              arm64   30
5.15.0-1061.67-aws            amd64   40
6.8.0-1007.7-azure            amd64   35
5.15.0-1064.73-azure          amd64   30
6.8.0-1008.9-gcp              amd64   20
5.15.0-1060.68-gcp            amd64   15
5.15.0-1058.64-oracle         arm64   5
5.15.0-107.117-generic        s390x   5
5.15.0-107.117-generic        ppc64el 5
5.4.0-1103.111-fips           amd64   5
6.8.0-1005.5-ibm              amd64   5
";

/// A kernel on an architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Exact version.
    pub version: KernelVersion,
    /// Architecture.
    pub architecture: Architecture,
}

/// A weighted choice of kernels; never empty.
#[derive(Debug, Clone)]
pub struct Spread {
    kernels: Vec<Kernel>,
    /// Sums of weights up to and with each kernel, rising.
    sums: Vec<u64>,
}

impl Spread {
    /// The built-in list. An error here is a mistake in this file, which a test would show.
    pub fn built_in() -> Result<Self, String> {
        Self::parse(BUILT_IN)
    }

    /// Reads a list. The error names the line and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut spread = Self {
            kernels: Vec::new(),
            sums: Vec::new(),
        };
        let mut sum = 0u64;
        for (at, line) in text.lines().enumerate() {
            let wrong = |why: String| format!("line {}: {why}", at + 1);
            let words: Vec<&str> = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_ascii_whitespace()
                .collect();
            let (version, architecture, weight) = match words[..] {
                [] => continue,
                [version, architecture, weight] => (version, architecture, weight),
                _ => {
                    return Err(wrong(format!(
                        "{} words; KERNEL ARCHITECTURE WEIGHT expected, e.g. 5.15.0-107.117-generic amd64 100",
                        words.len()
                    )));
                }
            };
            let kernel = Kernel {
                version: version
                    .parse()
                    .map_err(|e: crate::domain::ParseError| wrong(e.to_string()))?,
                architecture: architecture
                    .parse()
                    .map_err(|e: crate::domain::ParseError| wrong(e.to_string()))?,
            };
            let weight: u32 = weight
                .parse()
                .ok()
                .filter(|weight| *weight > 0)
                .ok_or_else(|| {
                    wrong(format!(
                        "{weight:?} is not a weight; a number from 1 on is expected"
                    ))
                })?;
            sum += u64::from(weight);
            spread.kernels.push(kernel);
            spread.sums.push(sum);
        }
        if sum == 0 {
            return Err("it names no kernel".to_owned());
        }
        Ok(spread)
    }

    /// The kernel that a random number falls on.
    pub fn pick(&self, random: u64) -> &Kernel {
        let total = self.sums.last().copied().unwrap_or(1);
        // The high half of the product is an even spread over 0..total.
        let at = ((u128::from(random) * u128::from(total)) >> 64) as u64;
        let index = self.sums.partition_point(|sum| *sum <= at);
        &self.kernels[index.min(self.kernels.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_list_can_be_read() {
        let spread = Spread::built_in().unwrap();
        assert!(spread.kernels.len() > 20);
        assert!(
            spread
                .kernels
                .iter()
                .any(|k| k.architecture == Architecture::Arm64)
        );
    }

    #[test]
    fn shares_follow_the_weights() {
        let spread =
            Spread::parse("# a test\n5.15.0-1.1-generic amd64 3\n\n6.8.0-1.1-aws arm64 1 # few\n")
                .unwrap();
        let picks = (0..400u64)
            .map(|n| spread.pick(n * (u64::MAX / 400)))
            .filter(|k| k.architecture == Architecture::Amd64)
            .count();
        assert!((299..=301).contains(&picks), "{picks}");
        assert_eq!(spread.pick(u64::MAX).architecture, Architecture::Arm64);
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, why) in [
            ("", "no kernel"),
            ("5.15.0-1.1-generic amd64", "line 1: 2 words"),
            (
                "\n5.15.0-1.1-generic amd64 0",
                "line 2: \"0\" is not a weight",
            ),
            ("5.15 amd64 1", "kernel version"),
            ("5.15.0-1.1-generic vax 1", "architecture"),
        ] {
            let error = Spread::parse(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
