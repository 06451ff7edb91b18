//! Which machines: the one place where lists, reports and changes of many machines get their conditions from.
//!
//! A statement that looks at machines `m` takes `matching!()` as its condition and [`MachineFilter::params`] as its first
//! parameters. Where a label must have a certain value, that label leads: its machines are read from the index of labels,
//! in the order of lists, and not looked for among all. So each statement has two forms, by its `source!`; which one to
//! run, [`MachineFilter::pick`] says.

use super::run::{DbError, Run, Sql};
use super::statements;
use crate::domain::selector::{KernelPattern, Term, Test};
use crate::domain::{Architecture, Fate, LabelValue, MachineState, PatchVersion, Selector, States};
use jiff::Timestamp;
use tokio_postgres::types::ToSql;

/// The parameters that every filtered statement begins with; its own follow from `$16`.
const PARAMS: usize = 15;

/// The condition on a machine `m`, in the parameters `$1` to `$9` and `$12` to `$15`. What was not reported counts as kernel
/// 0 and architecture 0. Labels that must be there are looked up machine by machine (`$6`), or the set of machines that have
/// them is made once (`$12`), which is better for most of a large fleet (measured: four times for a third of a million). `$15` is
/// what [`Exactly::rare`] makes; the codes there are those of [`MachineState`] and [`Fate`].
macro_rules! matching {
    () => {
        "($1::int is null or m.tier_id = $1) and ($2::smallint is null or m.state = $2)
              and ($3::bigint is null or m.patch = $3)
              and ($4::int[] is null or coalesce(m.kernel_id, 0) = any ($4))
              and ($5::smallint[] is null or m.architecture = any ($5))
              and ($14::timestamptz is null or m.last_check < $14)
              and ($15::bigint[] is null or (
                ($15[1] = 0 or (1::bigint << m.state::int) & $15[1] > 0)
                and ($15[2] = 0 or ($15[2] in (m.offered, m.patch) and case $15[3]
                    when 0 then m.state not in (2, 7) and not (m.state = 1 and m.patch = $15[2])
                    when 1 then m.state in (2, 7)
                    when 2 then m.state = 1 and m.patch = $15[2]
                    else true end))))
              and ($6::text[] is null or not exists (
                select from unnest($6::text[], $7::text[]) w(key, value)
                where not exists (select from machine_labels l
                    where l.machine_id = m.id and l.key = w.key and (w.value is null or l.value = w.value))))
              and ($12::text[] is null or m.id in (
                select l.machine_id from unnest($12::text[], $13::text[]) w(key, value)
                join machine_labels l on l.key = w.key and (w.value is null or l.value = w.value)
                group by l.machine_id having count(*) = cardinality($12)))
              and ($8::text[] is null or not exists (
                select from machine_labels l join unnest($8::text[], $9::text[]) w(key, value)
                    on l.key = w.key and (w.value is null or l.value = w.value)
                where l.machine_id = m.id))"
    };
}

/// Where the machines `m` come from: `all` of them, or those that the leading label `d` has (`led`), in whose order
/// (`d.machine_id`) they can be read. Ends where a condition follows.
macro_rules! source {
    (all) => {
        " from machines m where $10::text is null and $11::text is null and "
    };
    (led) => {
        " from machine_labels d join machines m on m.id = d.machine_id where d.key = $10 and d.value = $11 and "
    };
}
pub(super) use {matching, source};

statements! {
    SELECT_KERNEL_IDS = "select id from (
            select id, text, substring(text from '^[^-]+-[^-]+-(.+)$') as flavour from words where kind = 1) w
        where text = all ($1::text[]) and text <> all ($2::text[])
          and not exists (select from unnest($3::text[]) b where not starts_with(w.text, b))
          and not exists (select from unnest($4::text[]) b where starts_with(w.text, b))
          and flavour = all ($5::text[]) and coalesce(flavour, '') <> all ($6::text[])";
    // Counting stops where it makes no difference any more.
    SELECT_RAREST_LABEL = "select w.place, (select count(*) from (
            select from machine_labels l where l.key = w.key and l.value = w.value limit $3::bigint) found) as n
        from unnest($1::text[], $2::text[]) with ordinality w(key, value, place) order by n, w.place limit 1";
}

/// With so many machines under the label that leads, the others are looked up as sets.
const MANY: i64 = 20_000;

/// Labels that must be there, or must not be: keys, and values or none for any.
#[derive(Debug, Clone, Default)]
struct Pairs {
    keys: Option<Vec<String>>,
    values: Vec<Option<String>>,
}

impl Pairs {
    fn push(&mut self, key: String, value: Option<String>) {
        self.keys.get_or_insert_default().push(key);
        self.values.push(value);
    }

    fn remove(&mut self, at: usize) -> Option<(String, Option<String>)> {
        let keys = self.keys.as_mut()?;
        let pair = (keys.remove(at), self.values.remove(at));
        if keys.is_empty() {
            self.keys = None;
        }
        Some(pair)
    }
}

/// What a query says beside its selector; `None`: any.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exactly<'q> {
    /// In this tier.
    pub tier_id: Option<i32>,
    /// In one of these states.
    pub state: Option<&'q States>,
    /// With this patch in its reports.
    pub patch: Option<PatchVersion>,
    /// With this kernel, as reported.
    pub kernel: Option<&'q str>,
    /// With a kernel of this flavour.
    pub flavour: Option<&'q str>,
    /// Of this architecture.
    pub architecture: Option<Architecture>,
    /// That last checked in before this.
    pub seen_before: Option<Timestamp>,
    /// Of whom this patch had this fate.
    pub fate: Option<(PatchVersion, Fate)>,
}

impl Exactly<'_> {
    /// What is rarely asked, in one parameter: with a condition of its own each of them would have the common queries planned
    /// otherwise (measured: by label up to four times slower).
    fn rare(&self) -> Option<Vec<i64>> {
        let several = self.state.filter(|states| states.only().is_none());
        let (patch, fate) = self.fate.unzip();
        (several.is_some() || patch.is_some()).then(|| {
            vec![
                several.map_or(0, States::bits),
                patch.map_or(0, PatchVersion::code),
                fate.map_or(0, |fate| fate.code().into()),
            ]
        })
    }
}

/// Which machines; codes and ids as stored, `None`: any.
#[derive(Debug, Clone, Default)]
pub struct MachineFilter {
    tier_id: Option<i32>,
    state: Option<i16>,
    patch: Option<i64>,
    seen_before: Option<Timestamp>,
    /// What is rarely asked: a bit for each of several states, a patch, and its fate.
    rare: Option<Vec<i64>>,
    kernels: Option<Vec<i32>>,
    architectures: Option<Vec<i16>>,
    with: Pairs,
    without: Pairs,
    /// The label that leads: key and value.
    lead: (Option<String>, Option<String>),
    /// Many machines are left to be looked at for `with`.
    wide: bool,
    none: Pairs,
}

/// What is asked of kernels, wanted and not wanted.
#[derive(Debug, Default)]
struct Kernels {
    exactly: [Vec<String>; 2],
    beginning: [Vec<String>; 2],
    flavour: [Vec<String>; 2],
}

impl Kernels {
    async fn ids(&self, run: &impl Run) -> Result<Option<Vec<i32>>, DbError> {
        let all = [&self.exactly, &self.beginning, &self.flavour];
        if all.iter().all(|side| side.iter().all(Vec::is_empty)) {
            return Ok(None);
        }
        let [exactly, not_exactly] = &self.exactly;
        let [beginning, not_beginning] = &self.beginning;
        let [flavour, not_flavour] = &self.flavour;
        let rows = run
            .rows(
                &SELECT_KERNEL_IDS,
                &[
                    exactly,
                    not_exactly,
                    beginning,
                    not_beginning,
                    flavour,
                    not_flavour,
                ],
            )
            .await?;
        let mut ids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        if all.iter().all(|side| side[0].is_empty()) {
            ids.push(0);
        }
        Ok(Some(ids))
    }
}

impl MachineFilter {
    /// Turns words into codes and ids, and chooses the label that leads: the one that the fewest machines have.
    pub async fn resolve(
        run: &impl Run,
        exactly: &Exactly<'_>,
        selector: &Selector,
    ) -> Result<Self, DbError> {
        let mut filter = Self {
            tier_id: exactly.tier_id,
            state: exactly.state.and_then(States::only).map(MachineState::code),
            patch: exactly.patch.map(PatchVersion::code),
            seen_before: exactly.seen_before,
            rare: exactly.rare(),
            ..Self::default()
        };
        let mut kernels = Kernels::default();
        kernels.exactly[0].extend(exactly.kernel.map(ToOwned::to_owned));
        kernels.flavour[0].extend(exactly.flavour.map(ToOwned::to_owned));
        if let Some(architecture) = exactly.architecture {
            filter.narrow(architecture, false);
        }
        for term in selector.terms() {
            filter.take(term, &mut kernels);
        }
        filter.kernels = kernels.ids(run).await?;
        filter.choose_lead(run).await?;
        Ok(filter)
    }

    fn take(&mut self, term: &Term, kernels: &mut Kernels) {
        let side = usize::from(term.negated);
        match &term.test {
            Test::Kernel(KernelPattern::Exactly(text)) => kernels.exactly[side].push(text.clone()),
            Test::Kernel(KernelPattern::Beginning(text)) => {
                kernels.beginning[side].push(text.clone());
            }
            Test::Flavour(text) => kernels.flavour[side].push(text.clone()),
            Test::Architecture(architecture) => self.narrow(*architecture, term.negated),
            Test::Label(key, value) => {
                let pairs = if term.negated {
                    &mut self.without
                } else {
                    &mut self.with
                };
                let value = value.as_ref().map(LabelValue::to_string);
                pairs.push(key.to_string(), value);
            }
        }
    }

    fn narrow(&mut self, architecture: Architecture, negated: bool) {
        let every = || {
            let known = Architecture::ALL.into_iter().map(Architecture::code);
            std::iter::once(0).chain(known).collect()
        };
        self.architectures
            .get_or_insert_with(every)
            .retain(|code| (*code == architecture.code()) != negated);
    }

    async fn choose_lead(&mut self, run: &impl Run) -> Result<(), DbError> {
        let keys_left = self.with.values.len().saturating_sub(1);
        let keys = self.with.keys.iter().flatten().zip(&self.with.values);
        let able: Vec<(usize, &str, &str)> = keys
            .enumerate()
            .filter_map(|(at, (key, value))| Some((at, key.as_str(), value.as_deref()?)))
            .collect();
        let at = match able[..] {
            [] => {
                self.wide = true;
                return Ok(());
            }
            [(at, ..)] if keys_left == 0 => at,
            _ => {
                let keys: Vec<&str> = able.iter().map(|(_, key, _)| *key).collect();
                let values: Vec<&str> = able.iter().map(|(.., value)| *value).collect();
                let row = run
                    .one(&SELECT_RAREST_LABEL, &[&keys, &values, &MANY])
                    .await?;
                self.wide = row.get::<_, i64>(1) >= MANY;
                let place = row.get::<_, i64>(0) as usize - 1;
                able.get(place).map_or(0, |(at, ..)| *at)
            }
        };
        self.lead = self
            .with
            .remove(at)
            .map_or((None, None), |(key, value)| (Some(key), value));
        Ok(())
    }

    /// Whether it is known already that no machine matches.
    pub fn is_empty(&self) -> bool {
        self.kernels.as_ref().is_some_and(Vec::is_empty)
            || self.architectures.as_ref().is_some_and(Vec::is_empty)
    }

    /// The form of a statement to run.
    pub(super) fn pick<'s>(&self, all: &'s Sql, led: &'s Sql) -> &'s Sql {
        if self.lead.0.is_some() { led } else { all }
    }

    /// Its parameters, and then those of the statement, which looks at all machines there are.
    pub(super) fn params<'p>(
        &'p self,
        own: &[&'p (dyn ToSql + Sync)],
    ) -> Vec<&'p (dyn ToSql + Sync)> {
        self.params_for(self.wide, own)
    }

    /// The same for a statement that looks at a bounded number of machines.
    pub(super) fn params_of_slice<'p>(
        &'p self,
        own: &[&'p (dyn ToSql + Sync)],
    ) -> Vec<&'p (dyn ToSql + Sync)> {
        self.params_for(false, own)
    }

    fn params_for<'p>(
        &'p self,
        as_sets: bool,
        own: &[&'p (dyn ToSql + Sync)],
    ) -> Vec<&'p (dyn ToSql + Sync)> {
        let (each, set) = if as_sets {
            (&self.none, &self.with)
        } else {
            (&self.with, &self.none)
        };
        let mut params: Vec<&'p (dyn ToSql + Sync)> = vec![
            &self.tier_id,
            &self.state,
            &self.patch,
            &self.kernels,
            &self.architectures,
            &each.keys,
            &each.values,
            &self.without.keys,
            &self.without.values,
            &self.lead.0,
            &self.lead.1,
            &set.keys,
            &set.values,
            &self.seen_before,
            &self.rare,
        ];
        debug_assert_eq!(params.len(), PARAMS);
        params.extend_from_slice(own);
        params
    }
}
