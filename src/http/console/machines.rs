//! Machines: looking for them, and the list of those found, page by page.

use super::error::PageError;
use super::forms::address;
use super::page::{may_act, number, or_none, page, time};
use super::patch_parts::fate;
use super::session::Visitor;
use super::tables::{more, table};
use super::{BASE, machine, machine_acts};
use crate::domain::selector::Traits;
use crate::domain::{
    Architecture, Fate, KernelVersion, Labels, MachineId, MachineState, ParseError, Selector,
    TierName,
};
use crate::service::{Core, ServiceError, census, fleet, text};
use crate::wire::admin::{Limit, Machine, MachineQuery, Page};
use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

/// Machines on one page.
const ROWS: u32 = 100;
/// Labels that a row of the list shows.
const LABELS: usize = 4;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/machines", get(list))
        .merge(machine::routes())
        .merge(machine_acts::routes())
}

/// The word for machines that have missed a check-in.
const SILENT: &str = "silent";

/// What is asked for, as it stands in the address. What is empty is not asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    id: String,
    selector: String,
    kernel: String,
    state: String,
    tier: String,
    version: String,
    /// What came of that patch, a [`Fate`]; empty: machines that report it.
    fate: String,
    /// `silent`, or a span such as `2h`.
    seen: String,
    cursor: String,
}

/// What is wrong with fields of a form, by the name of the field.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(&'static str, String)>);

impl Faults {
    /// Nothing is wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes what is wrong with a field.
    pub(super) fn add(&mut self, field: &'static str, why: impl ToString) {
        self.0.push((field, why.to_string()));
    }

    fn of(&self, field: &str) -> Option<&str> {
        let mut all = self.0.iter();
        all.find(|(name, _)| *name == field)
            .map(|(_, why)| why.as_str())
    }

    /// Reads a field; one that is empty is not given.
    pub(super) fn read<T: FromStr<Err = ParseError>>(
        &mut self,
        field: &'static str,
        text: &str,
    ) -> Option<T> {
        match given(text)?.parse() {
            Ok(value) => Some(value),
            Err(why) => {
                self.add(field, why);
                None
            }
        }
    }

    /// Reads the name of a tier that there is.
    pub(super) fn tier(
        &mut self,
        core: &Core,
        field: &'static str,
        text: &str,
    ) -> Option<TierName> {
        let name: TierName = self.read(field, text)?;
        if core.snapshots.get().catalog.tier_named(&name).is_none() {
            self.add(field, format!("there is no tier {name}"));
            return None;
        }
        Some(name)
    }

    /// What is wrong with a field, to stand below it.
    fn told(&self, field: &str, id: &str) -> Markup {
        html! {
            @if let Some(why) = self.of(field) {
                span.problem id={ (id) "-fault" } { (why) }
            }
        }
    }

    /// A field for a line of text.
    pub(super) fn input(
        &self,
        name: &'static str,
        id: &str,
        label: &str,
        value: &str,
        example: &str,
    ) -> Markup {
        let bad = self.of(name).is_some();
        html! {
            div {
                label for=(id) { (label) }
                input id=(id) name=(name) value=(value) placeholder=(example) autocomplete="off" spellcheck="false"
                    aria-invalid=[bad.then_some("true")] aria-describedby=[bad.then(|| format!("{id}-fault"))];
                (self.told(name, id))
            }
        }
    }

    /// A choice among words.
    pub(super) fn select(
        &self,
        name: &'static str,
        id: &str,
        label: &str,
        value: &str,
        none: &str,
        words: &[String],
    ) -> Markup {
        let bad = self.of(name).is_some();
        html! {
            div {
                label for=(id) { (label) }
                select id=(id) name=(name)
                    aria-invalid=[bad.then_some("true")] aria-describedby=[bad.then(|| format!("{id}-fault"))] {
                    option value="" { (none) }
                    @for word in words {
                        option value=(word) selected[word == value] { (word) }
                    }
                }
                (self.told(name, id))
            }
        }
    }
}

/// A text that is not empty.
pub(super) fn given(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// The names of the tiers, first to last.
pub(super) fn tiers(core: &Core) -> Vec<String> {
    let snapshot = core.snapshots.get();
    let tiers = snapshot.catalog.tiers().iter();
    tiers.map(|tier| tier.name.to_string()).collect()
}

fn query(core: &Core, asked: &Asked, faults: &mut Faults) -> MachineQuery {
    let kernel = given(&asked.kernel);
    if let Err(why) = text::line("kernel", kernel.unwrap_or_default(), KernelVersion::MAX_LEN) {
        faults.add("kernel", why);
    }
    let (version, fate) = (
        faults.read("version", &asked.version),
        faults.read("fate", &asked.fate),
    );
    if fate.is_some() && given(&asked.version).is_none() {
        faults.add("version", "say of which patch");
    }
    MachineQuery {
        tier: faults.tier(core, "tier", &asked.tier),
        state: faults.read("state", &asked.state),
        kernel: kernel.map(str::to_owned),
        version,
        last_seen_before: seen_before(core, &asked.seen, faults),
        fate,
        selector: faults.read("selector", &asked.selector),
        cursor: given(&asked.cursor).map(str::to_owned),
        limit: Limit::try_from(ROWS).ok(),
        ..MachineQuery::default()
    }
}

/// Before when a machine checked in last: `silent` is twice the interval ago, `2h` so long ago.
fn seen_before(core: &Core, text: &str, faults: &mut Faults) -> Option<Timestamp> {
    let text = given(text)?;
    let ago = if text == SILENT {
        core.config.check_in.interval * 2
    } else {
        match humantime::parse_duration(text) {
            Ok(ago) => ago,
            Err(why) => {
                faults.add("seen", format!("{why}; expected e.g. 2h, 3d or {SILENT}"));
                return None;
            }
        }
    };
    let ago = SignedDuration::try_from(ago).ok();
    ago.and_then(|ago| Timestamp::now().checked_sub(ago).ok())
}

/// The page of the machine, if there is one.
async fn straight(
    core: &Core,
    asked: &Asked,
    faults: &mut Faults,
) -> Result<Option<Response>, PageError> {
    let Some(id) = faults.read::<MachineId>("id", &asked.id) else {
        return Ok(None);
    };
    match fleet::show(core, id).await {
        Ok(_) => Ok(Some(
            Redirect::to(&format!("{BASE}/machines/{id}")).into_response(),
        )),
        Err(why @ ServiceError::NotFound { .. }) => {
            faults.add("id", why);
            Ok(None)
        }
        Err(why) => Err(why.into()),
    }
}

async fn list(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let mut faults = Faults::default();
    if let Some(answer) = straight(&core, &asked, &mut faults).await? {
        return Ok(answer);
    }
    let query = query(&core, &asked, &mut faults);
    let mut found = None;
    if faults.is_empty() {
        match fleet::list(&core, &query).await {
            Ok(page) => found = Some(page),
            // What remains is the cursor, or a tier that has just gone.
            Err(why @ (ServiceError::Invalid(_) | ServiceError::NotFound { .. })) => {
                faults.add("cursor", why);
            }
            Err(why) => return Err(why.into()),
        }
    }
    let total = match &found {
        Some(_) => total(&core, &query).await?,
        None => None,
    };
    let content = html! {
        h1 { "Machines" }
        (form(&core, &asked, &faults))
        @if let Some(why) = faults.of("cursor") {
            p.problem role="alert" { (why) ". " a href={ (BASE) "/machines" } { "To the first machines" } }
        }
        @if let Some(found) = &found {
            (shown(found, &query, &asked.seen, total))
            @if may_act(&visitor) {
                (bulk(&core, &asked))
            }
        }
    };
    Ok(page(&visitor, "Machines", "/machines", content).into_response())
}

fn form(core: &Core, asked: &Asked, faults: &Faults) -> Markup {
    let fates: Vec<String> = Fate::ALL.iter().map(ToString::to_string).collect();
    let mut states: Vec<String> = MachineState::ALL.iter().map(ToString::to_string).collect();
    // What a link asked for that is no single state is a choice, too.
    let asked_for = given(&asked.state).unwrap_or_default();
    if asked_for.contains(',') {
        states.push(asked_for.to_owned());
    }
    html! {
        form.row method="get" action={ (BASE) "/machines" } role="search" aria-label="Machines" {
            (faults.input("id", "find-id", "Machine id", &asked.id, "32 hexadecimal digits"))
            (faults.input("selector", "find-selector", "Selector", &asked.selector, "rack=r1,kernel=5.15.0-*"))
            (faults.input("kernel", "find-kernel", "Kernel", &asked.kernel, "5.15.0-107.117-generic"))
            (faults.select("state", "find-state", "State", asked.state.trim(), "any", &states))
            (faults.select("tier", "find-tier", "Tier", asked.tier.trim(), "any", &tiers(core)))
            (faults.input("version", "find-version", "Patch", &asked.version, "107.1"))
            (faults.select("fate", "find-fate", "What came of it", asked.fate.trim(), "reported", &fates))
            (faults.input("seen", "find-seen", "Not seen for", &asked.seen, "2h, or silent"))
            div { button type="submit" { "Find" } }
        }
    }
}

/// How many machines there are in all, where counts are kept that can tell: those know nothing of labels.
async fn total(core: &Core, query: &MachineQuery) -> Result<Option<u64>, PageError> {
    let by_label = query
        .selector
        .as_ref()
        .is_some_and(Selector::asks_for_labels);
    if by_label || query.last_seen_before.is_some() {
        return Ok(None);
    }
    let tier_id = {
        let snapshot = core.snapshots.get();
        let mut tiers = snapshot.catalog.tiers().iter();
        let wanted = query.tier.as_ref();
        wanted.map(|name| tiers.find(|tier| tier.name == *name).map(|tier| tier.id))
    };
    let census = census::current(core).await?;
    let labels = Labels::default();
    let rows = census.rows.iter().filter(|row| {
        let machine = Traits {
            kernel: row.kernel.as_deref(),
            architecture: row.architecture,
            labels: &labels,
        };
        let kernel = query.kernel.as_deref();
        tier_id.is_none_or(|id| id == Some(row.tier_id))
            && (query.state.as_ref()).is_none_or(|states| states.contains(row.state))
            && query.version.is_none_or(|version| match query.fate {
                None => row.patch == Some(version),
                Some(asked) => fate(version, row).is_some_and(|fate| fate.is(asked)),
            })
            && kernel.is_none_or(|kernel| row.kernel.as_deref() == Some(kernel))
            && query.selector.as_ref().is_none_or(|s| s.matches(&machine))
    });
    Ok(Some(rows.map(|row| row.machines).sum()))
}

/// What the query asks for, to be asked again.
fn again(query: &MachineQuery, seen: &str) -> [(&'static str, Option<String>); 7] {
    [
        ("selector", query.selector.as_ref().map(ToString::to_string)),
        ("kernel", query.kernel.clone()),
        ("state", query.state.as_ref().map(ToString::to_string)),
        ("tier", query.tier.as_ref().map(ToString::to_string)),
        ("version", query.version.as_ref().map(ToString::to_string)),
        ("fate", query.fate.as_ref().map(ToString::to_string)),
        ("seen", given(seen).map(str::to_owned)),
    ]
}

fn shown(found: &Page<Machine>, query: &MachineQuery, seen: &str, total: Option<u64>) -> Markup {
    let rows: Vec<Vec<Markup>> = found.items.iter().map(row).collect();
    let none = if found.next_cursor.is_some() {
        "None among those that were looked at; the next page goes on."
    } else {
        "There are no such machines."
    };
    html! {
        p {
            @if let Some(total) = total {
                (number(total)) @if total == 1 { " machine. " } @else { " machines. " }
            }
            @if query.cursor.is_some() {
                a href=(address("/machines", &again(query, seen))) { "To the first page" }
            }
        }
        (table(
            "Machines",
            &["Machine", "Tier", "Kernel", "Architecture", "State", "Applied", "Offered", "Last seen", "Labels"],
            &rows,
            none,
        ))
        (more("/machines", &again(query, seen), found.next_cursor.as_deref()))
    }
}

fn row(machine: &Machine) -> Vec<Markup> {
    let id = machine.machine_id;
    vec![
        html! { a href={ (BASE) "/machines/" (id) } { code { (id) } } },
        html! { (machine.tier) @if machine.moved { span.quiet { " (moved)" } } },
        or_none(machine.kernel.as_deref()),
        or_none(machine.architecture.map(Architecture::as_str)),
        state_tag(machine.state),
        or_none(machine.applied.map(|v| v.to_string()).as_deref()),
        or_none(machine.offered.map(|v| v.to_string()).as_deref()),
        time(machine.last_check),
        few(&machine.labels),
    ]
}

/// The first of a machine's labels.
fn few(labels: &BTreeMap<String, String>) -> Markup {
    html! {
        @if labels.is_empty() { (or_none(None)) }
        @for (at, (key, value)) in labels.iter().take(LABELS).enumerate() {
            @if at > 0 { " " }
            code { (key) "=" (value) }
        }
        @if labels.len() > LABELS { span.quiet { " and " (labels.len() - LABELS) " more" } }
    }
}

/// A state as a word in the colour of its kind.
pub(super) fn state_tag(state: MachineState) -> Markup {
    let class = match state {
        MachineState::Applied | MachineState::NothingToApply => "good",
        MachineState::ApplyFailed | MachineState::AppliedWithBug => "bad",
        MachineState::Unapplied
        | MachineState::NeedsCheck
        | MachineState::CheckFailed
        | MachineState::KernelUpgradeRequired => "wait",
        MachineState::Unknown => "idle",
    };
    html! { span class={ "tag " (class) } { (state) } }
}

/// The way to a move of all machines that a selector means.
fn bulk(core: &Core, asked: &Asked) -> Markup {
    let faults = Faults::default();
    html! {
        h2 { "Move machines" }
        p.quiet {
            "All machines that a selector means go to a tier, whatever their auth tokens say. It is shown first what that means."
        }
        form.row method="get" action={ (BASE) "/machines/move" } {
            (faults.input("selector", "move-selector", "Selector", &asked.selector, "rack=r1,flavour=aws"))
            (faults.select("tier", "move-tier", "Tier from now on", "", "choose", &tiers(core)))
            div { button.plain type="submit" { "Look at the move" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_fields_are_told_beside_them_and_escaped() {
        let mut faults = Faults::default();
        let selector: Option<Selector> = faults.read("selector", "rack=<b>x");
        assert_eq!(selector, None);
        let field = faults
            .input("selector", "s", "Selector", "rack=<b>x", "")
            .into_string();
        assert!(field.contains(r#"aria-invalid="true" aria-describedby="s-fault""#));
        assert!(field.contains(r#"id="s-fault""#));
        assert!(field.contains("&lt;b&gt;") && !field.contains("<b>"));
    }

    #[test]
    fn empty_fields_are_not_given() {
        let mut faults = Faults::default();
        assert_eq!(faults.read::<MachineState>("state", "  "), None);
        assert_eq!(faults.read::<Selector>("selector", ""), None);
        assert!(faults.is_empty());
        assert_eq!(
            faults
                .read::<Selector>("selector", " rack=r1 ")
                .unwrap()
                .to_string(),
            "rack=r1"
        );
        let field = faults
            .input("selector", "s", "Selector", "", "")
            .into_string();
        assert!(!field.contains("aria-invalid"));
    }

    #[test]
    fn a_choice_keeps_what_was_chosen() {
        let words = ["a".to_owned(), "b".to_owned()];
        let field = Faults::default()
            .select("tier", "t", "Tier", "b", "any", &words)
            .into_string();
        assert!(field.contains(r#"<option value="b" selected>b</option>"#));
        assert!(field.contains(r#"<option value="a">a</option>"#));
    }
}
