//! `machine move` and `machine label`: of one machine, or of all that a selector means.

use super::args::SelectorArgs;
use super::client::Client;
use super::context::Context;
use super::output::{Row, Show, View, blocks, count, pairs, rows};
use super::{CliError, prompt};
use crate::domain::{LabelChanges, MachineId, ParseError, Selector, TierName};
use crate::wire::admin::{
    LabelOutcome, Machine, MachineLabel, MachineMove, MoveOutcome, SelectedLabel, SelectedMove,
    TierMachines,
};
use clap::Args;
use reqwest::Method;

const MOVE: &str = "\
With a selector it is shown first how many machines would be moved and from where, and then asked, unless --yes.
Machines that get the label later are not moved.

Examples:
  livepatch-admin machine move 3f1c... beta --reason 'a canary'
  livepatch-admin machine move -l rack=r1,flavour=aws beta --dry-run
  livepatch-admin machine move -l rack=r1 beta --yes";

const LABEL: &str = "\
KEY=VALUE sets a label, KEY- takes it away. What is set here stays when a machine registers again with another auth token.

Examples:
  livepatch-admin machine label 3f1c... rack=r1 site=berlin retired-
  livepatch-admin machine label -l rack=r1 rack=r2 --dry-run";

/// Arguments of `machine move`.
#[derive(Debug, Args)]
#[command(after_help = MOVE, allow_missing_positional = true)]
pub struct MoveArgs {
    /// Id of the machine
    #[arg(required_unless_present = "selector", conflicts_with = "selector")]
    pub id: Option<MachineId>,
    /// The tier from now on
    pub tier: TierName,
    /// Which machines, in place of an id.
    #[command(flatten)]
    pub which: SelectorArgs,
    /// Why; stands in the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only say what would change; with a selector
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `machine label`.
#[derive(Debug, Args)]
#[command(
    after_help = LABEL,
    override_usage = "livepatch-admin machine label [OPTIONS] <ID> <KEY=VALUE|KEY->...\n       \
                      livepatch-admin machine label [OPTIONS] -l <SELECTOR> <KEY=VALUE|KEY->..."
)]
pub struct LabelArgs {
    /// Id of the machine, unless a selector is given; then what to set and to take away
    #[arg(required = true, value_name = "ID|KEY=VALUE|KEY-")]
    pub what: Vec<String>,
    /// Which machines, in place of an id.
    #[command(flatten)]
    pub which: SelectorArgs,
    /// Why; stands in the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only say what would change; with a selector
    #[arg(long)]
    pub dry_run: bool,
}

impl Row for TierMachines {
    const HEADER: &'static [&'static str] = &["from", "machines"];
    const NONE: &'static str = "none";

    fn cells(&self, _: &View) -> Vec<String> {
        vec![self.tier.to_string(), self.machines.to_string()]
    }
}

fn machines(number: u64) -> String {
    count(number, "machine", "machines")
}

impl Show for MoveOutcome {
    fn show(&self, view: &View) -> String {
        let tier = &self.tier;
        if self.moved == 0 {
            return match self.machines {
                0 => "The selector means no machine; nothing was changed.".to_owned(),
                n => format!(
                    "All {} are in tier {tier} already; nothing was changed.",
                    machines(n)
                ),
            };
        }
        let (moved, there) = (
            machines(self.moved),
            self.machines - self.moved.min(self.machines),
        );
        let already = if there == 0 {
            String::new()
        } else {
            format!(" {there} more are there already.")
        };
        let sentence = if self.dry_run {
            format!(
                "Nothing was changed. {moved} would be moved to tier {tier}; {} of them would be offered something else than now.{already}",
                self.offered_else
            )
        } else {
            format!(
                "{moved} moved to tier {tier}; {} of them will be offered something else at the next check.{already}",
                self.offered_else
            )
        };
        blocks([rows(&self.from, view), sentence])
    }
}

impl Show for LabelOutcome {
    fn show(&self, _: &View) -> String {
        let (all, changed) = (machines(self.machines), machines(self.changed));
        match (self.machines, self.dry_run) {
            (0, _) => "The selector means no machine; nothing was changed.".to_owned(),
            (_, true) => {
                format!("Nothing was changed. Of {all}, labels of {changed} would change.")
            }
            (_, false) => format!("Of {all}, labels of {changed} changed."),
        }
    }
}

/// Sends a change of many machines: asks the server what it would do, shows it, asks the person, and lets it be done.
async fn send<B, O>(
    context: &Context,
    client: &Client,
    path: &[&str],
    dry_run: bool,
    body: impl Fn(bool) -> B,
    act: impl FnOnce(&O) -> Option<String>,
) -> Result<(), CliError>
where
    B: serde::Serialize,
    O: serde::de::DeserializeOwned + Show,
{
    if dry_run || !context.global.yes {
        let preview: O = client.send(Method::POST, path, &body(true)).await?;
        let act = act(&preview).filter(|_| !dry_run);
        let Some(act) = act else {
            return context.show(&preview);
        };
        prompt::meant(
            &act,
            "It can only be undone machine by machine or by another selector.",
            false,
        )?;
    }
    let outcome: O = client.send(Method::POST, path, &body(false)).await?;
    context.show(&outcome)
}

/// Runs `machine move`.
pub async fn move_to(context: &Context, client: &Client, args: MoveArgs) -> Result<(), CliError> {
    let MoveArgs {
        id, tier, reason, ..
    } = args;
    if let Some(id) = id {
        one_only(args.dry_run)?;
        let body = MachineMove { tier, reason };
        let machine: Machine = client
            .send(Method::PUT, &["machines", &id.to_string(), "tier"], &body)
            .await?;
        let said = format!("Machine {id} is in tier {} now.", machine.tier);
        return context.done(&machine, &said);
    }
    let selector = args.which.selector.unwrap_or_default();
    let body = |dry_run| SelectedMove {
        selector: selector.clone(),
        tier: tier.clone(),
        reason: reason.clone(),
        dry_run,
    };
    let act = |preview: &MoveOutcome| {
        let from = preview.from.iter().map(|from| (&from.tier, from.machines));
        (preview.moved > 0).then(|| {
            format!(
                "Move {} to tier {tier} (from {}; {} would be offered something else)",
                machines(preview.moved),
                pairs(&from.collect()),
                preview.offered_else
            )
        })
    };
    send(
        context,
        client,
        &["machines", "move"],
        args.dry_run,
        body,
        act,
    )
    .await
}

/// Runs `machine label`.
pub async fn label(context: &Context, client: &Client, args: LabelArgs) -> Result<(), CliError> {
    let usage = |e: ParseError| CliError::Usage(e.to_string());
    let read = |texts: &[String]| {
        let changes = LabelChanges::read(texts.iter().map(String::as_str)).map_err(usage)?;
        Ok::<_, CliError>((changes.set().clone(), changes.remove().clone()))
    };
    let reason = args.reason;
    let Some(selector) = args.which.selector else {
        one_only(args.dry_run)?;
        let (id, changes) = args.what.split_first().ok_or_else(nothing)?;
        let id: MachineId = id.parse().map_err(usage)?;
        let (set, remove) = read(changes)?;
        let body = MachineLabel {
            set,
            remove,
            reason,
        };
        let machine: Machine = client
            .send(
                Method::PATCH,
                &["machines", &id.to_string(), "labels"],
                &body,
            )
            .await?;
        let said = format!("Labels of machine {id} now: {}", pairs(&machine.labels));
        return context.done(&machine, &said);
    };
    let (set, remove) = read(&args.what)?;
    let body = |dry_run| SelectedLabel {
        selector: Selector::clone(&selector),
        set: set.clone(),
        remove: remove.clone(),
        reason: reason.clone(),
        dry_run,
    };
    let act = |preview: &LabelOutcome| {
        (preview.changed > 0).then(|| format!("Change labels of {}", machines(preview.changed)))
    };
    send(
        context,
        client,
        &["machines", "label"],
        args.dry_run,
        body,
        act,
    )
    .await
}

/// A single machine is not tried.
fn one_only(dry_run: bool) -> Result<(), CliError> {
    if dry_run {
        return Err(CliError::Usage(
            "--dry-run is for a selector; of a single machine, say what is meant".to_owned(),
        ));
    }
    Ok(())
}

fn nothing() -> CliError {
    CliError::Usage("the id of a machine or a selector is needed".to_owned())
}
