//! Families of metrics whose label values are closed sets, with every handle resolved when the family is made.
//!
//! So counting neither allocates nor takes a lock, every series that can be known is there from the start, and free
//! text cannot become a label.

use prometheus::core::{
    Atomic, Collector, GenericCounter, GenericCounterVec, GenericGauge, GenericGaugeVec,
};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts};
use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

/// The label value of what is outside its set.
pub(super) const OTHER: &str = "other";

/// Seconds of work that is answered to someone.
pub(super) const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// What a metric is, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// What it says, in a sentence.
    pub help: String,
}

/// All metrics, and what they are: a family without series is not seen in what is gathered.
#[derive(Debug, Default)]
pub(super) struct Registry {
    inner: prometheus::Registry,
    described: Mutex<Vec<Described>>,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.inner.gather()
    }

    /// Every metric, in the order of their names.
    pub(super) fn described(&self) -> Vec<Described> {
        let described = self
            .described
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all = described.clone();
        all.sort();
        all
    }
}

/// What Prometheus calls a type of metrics.
pub(super) trait Kind {
    const KIND: &'static str;
}
impl<P: Atomic> Kind for GenericCounter<P> {
    const KIND: &'static str = "counter";
}
impl<P: Atomic> Kind for GenericCounterVec<P> {
    const KIND: &'static str = "counter";
}
impl<P: Atomic> Kind for GenericGauge<P> {
    const KIND: &'static str = "gauge";
}
impl<P: Atomic> Kind for GenericGaugeVec<P> {
    const KIND: &'static str = "gauge";
}
impl Kind for Histogram {
    const KIND: &'static str = "histogram";
}
impl Kind for HistogramVec {
    const KIND: &'static str = "histogram";
}

/// Registers a metric that was just made. Names and labels are constants of this program, and every test that makes a
/// `Metrics` checks them, so a refusal is a mistake in it.
///
/// # Panics
/// When the name is taken or not valid.
pub(super) fn register<M: Collector + Clone + Kind + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let registered = metric.and_then(|metric| {
        registry.inner.register(Box::new(metric.clone()))?;
        let described = metric.desc().into_iter().map(|desc| Described {
            name: desc.fq_name.clone(),
            kind: M::KIND,
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        });
        registry
            .described
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(described);
        Ok(metric)
    });
    match registered {
        Ok(metric) => metric,
        Err(error) => panic!("a metric of this program is wrong: {error}"),
    }
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::IntGauge {
    register(registry, prometheus::IntGauge::new(name, help))
}

pub(super) fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(options))
}

pub(super) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

pub(super) fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
    register(registry, HistogramVec::new(options, labels))
}

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Self::index`].
    const ALL: &'static [Self];
    /// The value as a word.
    fn word(self) -> &'static str;
    /// Its place in [`Self::ALL`].
    fn index(self) -> usize;
}

/// Makes an enum that is a [`Label`].
macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident => $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)*
        }

        impl $crate::telemetry::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),*];
            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(super) use labels;

/// Counters by a closed set.
#[derive(Debug)]
pub struct Counters<L> {
    handles: Vec<IntCounter>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    pub(super) fn new(registry: &Registry, name: &str, help: &str, label: &str) -> Self {
        let family = counters(registry, name, help, &[label]);
        let handle = |value: &L| family.with_label_values(&[value.word()]);
        Self {
            handles: L::ALL.iter().map(handle).collect(),
            label: PhantomData,
        }
    }

    /// Counts one.
    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    /// Counts `n`.
    pub fn add(&self, label: L, n: u64) {
        if let Some(handle) = self.handles.get(label.index()) {
            handle.inc_by(n);
        }
    }

    /// What was counted.
    pub fn get(&self, label: L) -> u64 {
        self.handles.get(label.index()).map_or(0, IntCounter::get)
    }
}

/// Histograms of seconds by a closed set.
#[derive(Debug)]
pub struct Histograms<L> {
    handles: Vec<Histogram>,
    label: PhantomData<L>,
}

impl<L: Label> Histograms<L> {
    pub(super) fn new(registry: &Registry, name: &str, help: &str, label: &str) -> Self {
        let family = histograms(registry, name, help, &[label]);
        let handle = |value: &L| family.with_label_values(&[value.word()]);
        Self {
            handles: L::ALL.iter().map(handle).collect(),
            label: PhantomData,
        }
    }

    /// Takes a reading, in seconds.
    pub fn observe(&self, label: L, seconds: f64) {
        if let Some(handle) = self.handles.get(label.index()) {
            handle.observe(seconds);
        }
    }
}

/// Gauges whose series come and go with what there is, such as tiers.
#[derive(Debug)]
pub(super) struct Gauges<P: Atomic> {
    family: GenericGaugeVec<P>,
    shown: Mutex<HashSet<Vec<String>>>,
}

impl<P: Atomic + 'static> Gauges<P> {
    pub(super) fn new(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Self {
        Self {
            family: register(
                registry,
                GenericGaugeVec::new(Opts::new(name, help), labels),
            ),
            shown: Mutex::default(),
        }
    }

    /// Shows these and no others. Those that stay are never missing from a scrape.
    pub(super) fn show(&self, series: impl IntoIterator<Item = (Vec<String>, P::T)>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = HashSet::new();
        for (labels, value) in series {
            self.family.with_label_values(&labels).set(value);
            now.insert(labels);
        }
        for gone in shown.difference(&now) {
            // Whoever shows series removes them; there is no other way for one to be gone already.
            let _ = self.family.remove_label_values(gone);
        }
        *shown = now;
    }
}

/// Handles by words that are defined in layers above this one: a short list, and one for every other word.
#[derive(Debug)]
pub struct Words<M> {
    known: Vec<(&'static str, M)>,
    other: M,
}

impl<M> Words<M> {
    pub(super) fn new(words: &[&'static str], handle: impl Fn(&'static str) -> M) -> Self {
        let known = words.iter().filter(|word| **word != OTHER);
        Self {
            known: known.map(|word| (*word, handle(word))).collect(),
            other: handle(OTHER),
        }
    }

    /// The handle of `word`, or of `other`.
    pub fn get(&self, word: &str) -> &M {
        self.known
            .iter()
            .find(|(known, _)| *known == word)
            .map_or(&self.other, |(_, handle)| handle)
    }
}
