//! `policy`: list, show, set, unset, check, example; and `plan`, `apply` and `drift` for the policies of all tiers.

use super::context::Context;
use super::output::{Row, Show, View, blocks, flag, properties, text, titled};
use super::{CliError, Exit, prompt};
use crate::config::lines::Lines;
use crate::domain::TierName;
use crate::domain::policy::Span;
use crate::wire::admin::{
    Page, PageQuery, PolicyChange, PolicyEntry, PolicyFile, PolicyOutcome, PolicyPlan, PolicySet,
    PolicySpec, PolicyUnset,
};
use clap::{Args, Subcommand, ValueHint};
use jiff::Timestamp;
use reqwest::Method;
use std::path::{Path, PathBuf};

const CHECK: &str = "\
A file of policies names tiers; `livepatch-admin policy example` prints one with everything that can stand in it.

Examples:
  livepatch-admin policy example > policy.yaml
  livepatch-admin policy check policy.yaml
  livepatch-admin plan -f policy.yaml
  livepatch-admin apply -f policy.yaml --reason 'as agreed on Tuesday'
  livepatch-admin drift -f policy.yaml    exits with 7 if the server has others";

/// Commands on rollout policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List the tiers that have a policy
    List,
    /// Show a tier's policy, as it would stand in a file
    Show {
        /// The tier
        tier: TierName,
    },
    /// Set a tier's policy from a file
    #[command(after_help = CHECK)]
    Set {
        /// The tier
        tier: TierName,
        /// File with the policies of tiers, of which this tier's is taken
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Why; stands in the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Take a tier's policy away: what reaches it is offered to all at once
    Unset {
        /// The tier
        tier: TierName,
        /// Why; stands in the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Check a file of policies without a server; names each mistake with its line
    #[command(after_help = CHECK)]
    Check {
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// How often machines check in
        #[arg(long, value_name = "TIME", default_value = "1h")]
        interval: Span,
    },
    /// Print an example of a file of policies, with everything that can stand in it
    Example,
}

/// A file with the policies of all tiers.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// File with the policies of all tiers; one that is not named in it has none
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// A file, and why it is applied.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The file.
    #[command(flatten)]
    pub file: FileArgs,
    /// Why; stands in the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// What `policy example` prints.
pub const EXAMPLE: &str = include_str!("policy-example.yaml");

/// Reads a file of policies. A mistake is named with its line.
pub fn read(path: &Path, interval: Span) -> Result<PolicyFile, CliError> {
    let content = std::fs::read_to_string(path).map_err(|error| CliError::File {
        doing: "read",
        path: path.to_owned(),
        why: error.to_string(),
    })?;
    parse(&content, interval, Timestamp::now()).map_err(|mistakes| {
        let lines: Vec<String> = mistakes
            .iter()
            .map(|mistake| format!("{}:{mistake}", path.display()))
            .collect();
        CliError::Usage(lines.join("\n"))
    })
}

/// Reads policies, or says of each mistake `line: where: why`.
fn parse(content: &str, interval: Span, now: Timestamp) -> Result<PolicyFile, Vec<String>> {
    let file: PolicyFile = match serde_saphyr::from_str(content) {
        Ok(file) => file,
        Err(error) => {
            let line = error.location().map_or(0, |place| place.line());
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            return Err(vec![format!("{line}: {first}")]);
        }
    };
    let lines = Lines::of(content);
    let mut mistakes = Vec::new();
    for (tier, spec) in &file.policies {
        let problems = match spec.read() {
            Ok(policy) => policy.problems(now, interval),
            Err(problems) => problems,
        };
        for problem in problems {
            let line = lines.at(&format!("policies.{tier}.{}", problem.at));
            mistakes.push(format!("{line}: {tier}: {}: {}", problem.at, problem.why));
        }
    }
    if mistakes.is_empty() {
        Ok(file)
    } else {
        Err(mistakes)
    }
}

/// A value as it stands in a file.
fn yaml(value: &impl serde::Serialize) -> String {
    serde_saphyr::to_string(value)
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

impl Row for PolicyEntry {
    const HEADER: &'static [&'static str] = &[
        "tier", "phases", "gate", "zone", "promotes", "approval", "set", "by",
    ];
    const NONE: &'static str = "No tier has a policy: what reaches a tier is offered to all at once. Try `livepatch-admin policy example`.";

    fn cells(&self, view: &View) -> Vec<String> {
        let gate = self
            .policy
            .gate
            .as_ref()
            .map(|gate| format!("{} machines, {}", gate.machines, gate.failure_rate));
        vec![
            self.tier.to_string(),
            self.policy.phases.join(", "),
            text(&gate.unwrap_or_default()),
            self.policy.zone.clone().unwrap_or_else(|| "UTC".to_owned()),
            flag(self.policy.auto_promote),
            flag(self.policy.approval),
            view.time(self.set_at),
            self.actor.clone(),
        ]
    }
}

impl Show for PolicyEntry {
    fn show(&self, view: &View) -> String {
        let file = PolicyFile {
            policies: [(self.tier.clone(), self.policy.clone())].into(),
        };
        blocks([
            properties(
                [
                    ("Tier", self.tier.to_string()),
                    ("Set", view.time(self.set_at)),
                    ("By", self.actor.clone()),
                    ("Why", text(&self.reason)),
                ],
                view,
            ),
            yaml(&file),
        ])
    }
}

/// Lines that are only in one of two texts, marked, among those in both.
fn difference(before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    // The longest common run of lines, by the table everybody knows; policies have some dozen lines.
    let mut common = vec![vec![0usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(format!("  {}", old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    lines.join("\n")
}

fn change(change: &PolicyChange) -> String {
    let side = |spec: &Option<PolicySpec>| spec.as_ref().map(yaml).unwrap_or_default();
    let diff = difference(&side(&change.before), &side(&change.after));
    let means: Vec<String> = change
        .means
        .iter()
        .map(|means| format!("* {means}"))
        .collect();
    let head = match change.action.as_str() {
        "set" => format!("Tier {} gets a policy", change.tier),
        "unset" => format!("Tier {} loses its policy", change.tier),
        _ => format!("The policy of tier {} changes", change.tier),
    };
    titled(&head, &format!("{diff}\n\n{}", means.join("\n")))
}

impl Show for PolicyOutcome {
    fn show(&self, _: &View) -> String {
        let real = self.changes.iter().filter(|change| change.action != "none");
        let texts: Vec<String> = real.map(change).collect();
        let end = match (texts.len(), self.dry_run) {
            (0, _) => "The server has these policies; nothing changes.".to_owned(),
            (_, true) => "Nothing was changed; `livepatch-admin apply -f FILE` does it.".to_owned(),
            (_, false) => "The policies are applied.".to_owned(),
        };
        blocks(texts.into_iter().chain([end]))
    }
}

async fn planned(
    context: &Context,
    file: &FileArgs,
) -> Result<(PolicyPlan, PolicyOutcome), CliError> {
    let policies = read(&file.file, Span::default())?.policies;
    let plan = PolicyPlan {
        policies,
        dry_run: true,
        ..PolicyPlan::default()
    };
    let client = context.client()?;
    let path = ["policies", "apply"];
    let outcome = client.send(Method::POST, &path, &plan).await?;
    Ok((plan, outcome))
}

/// Shows what a file of policies would change.
pub async fn plan(context: &Context, args: FileArgs) -> Result<(), CliError> {
    let (_, outcome) = planned(context, &args).await?;
    context.show(&outcome)
}

/// Says whether the server has other policies than a file.
pub async fn drift(context: &Context, args: FileArgs) -> Result<Exit, CliError> {
    let (_, outcome) = planned(context, &args).await?;
    let differs = outcome.changes.iter().any(|change| change.action != "none");
    context.show(&outcome)?;
    Ok(if differs { Exit::Unsound } else { Exit::Ok })
}

/// Makes the policies of a file those of the server, after showing what changes.
pub async fn apply(context: &Context, args: ApplyArgs) -> Result<(), CliError> {
    let (mut plan, outcome) = planned(context, &args.file).await?;
    if outcome.changes.iter().all(|change| change.action == "none") {
        return context.show(&outcome);
    }
    if !context.global.yes {
        context.note(&outcome.show(context.view()));
    }
    prompt::confirm("Apply these policies", context.global.yes)?;
    plan.reason = args.reason;
    plan.dry_run = false;
    let client = context.client()?;
    let outcome: PolicyOutcome = client
        .send(Method::POST, &["policies", "apply"], &plan)
        .await?;
    context.show(&outcome)
}

/// Runs a command on policies.
pub async fn run(context: &Context, command: PolicyCommand) -> Result<(), CliError> {
    match command {
        PolicyCommand::List => {
            let page: Page<PolicyEntry> = context
                .client()?
                .get(&["policies"], &PageQuery::default())
                .await?;
            context.show(&page)
        }
        PolicyCommand::Show { tier } => {
            let path = ["tiers", tier.as_str(), "policy"];
            let entry: PolicyEntry = context.client()?.get(&path, &PageQuery::default()).await?;
            context.show(&entry)
        }
        PolicyCommand::Set { tier, file, reason } => {
            let mut policies = read(&file, Span::default())?.policies;
            let policy = policies.remove(&tier).ok_or_else(|| {
                CliError::Usage(format!("{} has no policy for tier {tier}", file.display()))
            })?;
            let body = PolicySet { policy, reason };
            let path = ["tiers", tier.as_str(), "policy"];
            let entry: PolicyEntry = context.client()?.send(Method::PUT, &path, &body).await?;
            context.done(&entry, &format!("Tier {tier} has this policy now."))
        }
        PolicyCommand::Unset { tier, reason } => {
            prompt::confirm(
                &format!("Take the policy of tier {tier} away"),
                context.global.yes,
            )?;
            let client = context.client()?;
            let request = client
                .request(Method::DELETE, &["tiers", tier.as_str(), "policy"])?
                .query(&PolicyUnset { reason });
            if !client.exists(request).await? {
                return Err(CliError::Usage(format!(
                    "tier {tier} does not exist or has no policy"
                )));
            }
            context.say(&format!("Tier {tier} has no policy any more."))
        }
        PolicyCommand::Check { file, interval } => {
            let read = read(&file, interval)?;
            let tiers: Vec<String> = read.policies.keys().map(ToString::to_string).collect();
            context.say(&format!(
                "{} is good; it is for {}.",
                file.display(),
                tiers.join(", ")
            ))
        }
        PolicyCommand::Example => context.print(EXAMPLE.trim_end()),
    }
}

/// Keeps the example in step with the engine's own.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ParseError;
    use crate::domain::policy::Policy;

    fn now() -> Timestamp {
        "2026-11-28T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_example_is_good_and_begins_with_the_default() {
        let file = parse(EXAMPLE, Span::hours(1), now()).unwrap();
        let edge: TierName = "edge".parse().unwrap();
        let read: Result<Policy, _> = file.policies[&edge].read();
        let example = Policy::example();
        assert_eq!(read.unwrap().phases, example.phases);
    }

    #[test]
    fn mistakes_are_named_with_their_line() -> Result<(), ParseError> {
        let content = "policies:\n  edge:\n    phases:\n      - 10% for 4h\n      - 5%\n      - 100%\n    zone: Europe/Atlantis\n  beta:\n    phases: [100%]\n    gate:\n      machines: 0\n      failure-rate: 1%\n      window: 1m\n";
        let found = parse(content, "1h".parse()?, now()).unwrap_err();
        let starts = [
            "11: beta: gate.machines: a gate of 0 machines",
            "13: beta: gate.window: machines check in every 1h",
            "7: edge: zone: ",
        ];
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        for (mistake, start) in found.iter().zip(starts) {
            assert!(mistake.starts_with(start), "{mistake}");
        }
        let content = content.replace("Atlantis", "Berlin");
        let found = parse(&content, "1h".parse()?, now()).unwrap_err();
        assert!(
            found[2].starts_with("5: edge: phases[1].share: 5% follows 10%"),
            "{found:#?}"
        );
        let unknown = parse(
            "policies:\n  edge:\n    phases: [100%]\n    phase: 1\n",
            Span::hours(1),
            now(),
        );
        assert!(unknown.unwrap_err()[0].starts_with("4: "));
        Ok(())
    }

    #[test]
    fn a_difference_shows_what_goes_and_what_comes() {
        let diff = difference("a\nb\nc", "a\nx\nc\nd");
        assert_eq!(diff, "  a\n- b\n+ x\n  c\n+ d");
    }
}
