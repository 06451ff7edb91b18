//! `job`: list, show; and how other commands follow a job.

use super::client::Client;
use super::context::{Context, PageArgs, list};
use super::output::{Row, Show, View, blocks, bytes, pairs, properties, rows, some, table, word};
use super::upload::style;
use super::{CliError, Exit};
use crate::wire::admin::{Job, JobItem, JobState, PageQuery};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a job is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Commands on jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List the jobs, newest first
    List(PageArgs),
    /// Show one job
    Show {
        /// Its id
        id: i64,
        /// Wait for its end
        #[arg(long)]
        wait: bool,
    },
}

fn counts(job: &Job) -> BTreeMap<String, u64> {
    job.progress
        .counts
        .iter()
        .map(|(result, number)| (word(result), *number))
        .collect()
}

impl Row for Job {
    const HEADER: &'static [&'static str] = &[
        "id", "kind", "state", "done", "results", "by", "started", "finished",
    ];
    const NONE: &'static str = "There are no jobs.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.kind.clone(),
            word(&self.state),
            done(self),
            pairs(&counts(self)),
            self.actor.clone(),
            view.time(self.started_at),
            view.some_time(self.finished_at),
        ]
    }
}

fn done(job: &Job) -> String {
    match job.progress.total {
        Some(total) => format!("{}/{total}", job.progress.done),
        None => job.progress.done.to_string(),
    }
}

impl Row for JobItem {
    const HEADER: &'static [&'static str] = &["item", "result", "quarantine", "reason"];
    const NONE: &'static str = "none";

    fn cells(&self, _: &View) -> Vec<String> {
        vec![
            self.item.clone(),
            word(&self.result),
            some(self.quarantine_id),
            some(self.reason.as_ref().or(self.code.as_ref())),
        ]
    }
}

impl Show for Job {
    fn show(&self, view: &View) -> String {
        let mut head = properties(
            [
                ("Job", self.id.to_string()),
                ("Kind", self.kind.clone()),
                ("State", word(&self.state)),
                ("Error", some(self.error.as_ref())),
                ("Items", done(self)),
                ("Read", bytes(self.progress.bytes)),
                ("By", self.actor.clone()),
                ("Started", view.time(self.started_at)),
                ("Finished", view.some_time(self.finished_at)),
            ],
            view,
        );
        let counts = counts(self);
        if !counts.is_empty() {
            let lines = table(
                &["result", "items"],
                counts.into_iter().map(|(r, n)| vec![r, n.to_string()]),
                view,
            );
            head = blocks([head, lines]);
        }
        let results = if self.results.is_empty() {
            String::new()
        } else {
            rows(&self.results, view)
        };
        let left_out = match self.results_left_out {
            0 => String::new(),
            n => format!("{n} more are not named."),
        };
        blocks([head, results, left_out])
    }
}

/// How a job's end is told in the exit code.
fn verdict(job: &Job) -> Result<Exit, CliError> {
    if job.state == JobState::Failed {
        return Err(CliError::Job {
            id: job.id,
            kind: job.kind.clone(),
            why: job
                .error
                .clone()
                .unwrap_or_else(|| "the server gives no reason".to_owned()),
        });
    }
    let bad = job
        .progress
        .counts
        .iter()
        .any(|(result, number)| result.is_bad() && *number > 0);
    Ok(if bad { Exit::Unsound } else { Exit::Ok })
}

/// Follows a job to its end with a progress bar, and shows what came of it.
pub async fn follow(context: &Context, client: &Client, mut job: Job) -> Result<Exit, CliError> {
    let bar = ProgressBar::with_draw_target(
        job.progress.total,
        if context.progress() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        },
    );
    bar.set_style(style("{msg} [{wide_bar}] {pos}/{len} {eta}"));
    bar.set_message(job.kind.clone());
    let id = job.id.to_string();
    while job.state == JobState::Running {
        tokio::time::sleep(INTERVAL).await;
        job = client.get(&["jobs", &id], &PageQuery::default()).await?;
        if let Some(total) = job.progress.total {
            bar.set_length(total);
        }
        bar.set_position(job.progress.done);
    }
    bar.finish_and_clear();
    context.show(&job)?;
    verdict(&job)
}

/// Runs a command on jobs.
pub async fn run(context: &Context, command: JobCommand) -> Result<Exit, CliError> {
    let client = context.client()?;
    match command {
        JobCommand::List(page) => {
            let page = list::<Job, _>(&client, &["jobs"], page, PageQuery::new).await?;
            context.show(&page)?;
            context.more(page.next_cursor.as_deref());
            Ok(Exit::Ok)
        }
        JobCommand::Show { id, wait } => {
            let id = id.to_string();
            let job: Job = client.get(&["jobs", &id], &PageQuery::default()).await?;
            if wait {
                return follow(context, &client, job).await;
            }
            context.show(&job)?;
            Ok(Exit::Ok)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::admin::{JobItemResult, JobProgress};

    #[test]
    fn what_was_found_bad_shows_in_the_exit_code() {
        let mut job = Job {
            id: 1,
            kind: "storage-verify".into(),
            state: JobState::Done,
            progress: JobProgress::default(),
            results: Vec::new(),
            results_left_out: 0,
            error: None,
            actor: "admin".into(),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            finished_at: None,
        };
        job.progress.counts.insert(JobItemResult::Verified, 5);
        job.progress.counts.insert(JobItemResult::Damaged, 0);
        assert_eq!(verdict(&job).unwrap(), Exit::Ok);
        job.progress.counts.insert(JobItemResult::Damaged, 1);
        assert_eq!(verdict(&job).unwrap(), Exit::Unsound);
        job.state = JobState::Failed;
        assert_eq!(verdict(&job).unwrap_err().exit(), Exit::Failure);
    }
}
