//! `webhook`: add, list, test, enable, disable, remove; and what becomes of deliveries.

use super::client::Client;
use super::context::{Context, PageArgs, list};
use super::output::{Row, Show, View, blocks, count, properties, some, text};
use super::{CliError, prompt};
use crate::domain::{EventPattern, Secret};
use crate::wire::admin::{
    DeliveryState, PageQuery, Webhook, WebhookCreate, WebhookCreated, WebhookDelivery,
    WebhookDeliveryQuery, WebhookRetried, WebhookRetry,
};
use clap::{Args, Subcommand};
use reqwest::Method;
use std::time::{Duration, Instant};

/// How often a delivery is looked at.
const INTERVAL: Duration = Duration::from_millis(300);
/// How long one is waited for beyond the time that a receiver may take: the leader may be changing.
const PATIENCE: Duration = Duration::from_secs(45);

const EXAMPLES: &str = "\
Examples:
  livepatch-admin webhook add ops https://hooks.example.com/livepatch
  livepatch-admin webhook add pager https://hooks.example.com/pager --event rollout.halted --event payload.quarantined
  livepatch-admin webhook add chat https://hooks.example.com/chat --event 'patch.*'
  livepatch-admin webhook test ops

The secret is printed once; the receiver checks signatures with it. Events are listed in docs/reference/events.md.";

/// Commands on webhooks.
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Make a webhook, and print the secret that its deliveries are signed with
    #[command(after_help = EXAMPLES)]
    Add(AddArgs),
    /// List the webhooks; secrets are not shown
    List,
    /// Send a webhook an event that says only that it is tried out, and wait for what comes of it
    Test {
        /// Its name
        name: String,
    },
    /// Switch a webhook off: it is told of nothing new, and what waits for it stays
    Disable {
        /// Its name
        name: String,
    },
    /// Switch a webhook on: what waited for it is delivered
    Enable {
        /// Its name
        name: String,
    },
    /// Remove a webhook, with what waits for it
    Remove {
        /// Its name
        name: String,
    },
    /// List deliveries, newest first
    #[command(
        after_help = "Example, the dead letters: livepatch-admin webhook deliveries --state dead"
    )]
    Deliveries(DeliveriesArgs),
    /// Show a delivery with what is sent
    Delivery {
        /// Its id
        id: i64,
    },
    /// Send again now what failed, dead letters and what waits for another try
    #[command(after_help = "Example: livepatch-admin webhook retry ops 17 18")]
    Retry {
        /// The webhook's name
        name: String,
        /// Only these deliveries [default: all that failed]
        #[arg(value_name = "ID")]
        deliveries: Vec<i64>,
    },
}

/// The webhook to make.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// A name for it
    pub name: String,
    /// Where events are sent to
    // Not `url`: that is the server's.
    #[arg(value_name = "URL")]
    pub to: String,
    /// What it is told of: a kind such as patch.promoted or a group such as 'patch.*'; may be given several times [default: all]
    #[arg(long = "event", value_name = "KIND")]
    pub events: Vec<EventPattern>,
}

/// Which deliveries.
#[derive(Debug, Args)]
pub struct DeliveriesArgs {
    /// Only to this webhook
    pub name: Option<String>,
    /// Only in this state
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    pub state: Option<DeliveryState>,
    /// Which part of the list.
    #[command(flatten)]
    pub page: PageArgs,
}

fn parse_state(text: &str) -> Result<DeliveryState, String> {
    DeliveryState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| "pending, delivered or dead expected".to_owned())
}

impl Row for Webhook {
    const HEADER: &'static [&'static str] = &[
        "name",
        "url",
        "events",
        "state",
        "waiting",
        "dead",
        "last taken",
        "by",
    ];
    const NONE: &'static str = "There are no webhooks: livepatch-admin webhook add NAME URL";

    fn cells(&self, view: &View) -> Vec<String> {
        let events: Vec<&str> = self.events.iter().map(EventPattern::as_str).collect();
        vec![
            self.name.clone(),
            self.url.expose().to_owned(),
            if events.is_empty() {
                "all".to_owned()
            } else {
                events.join(" ")
            },
            if self.disabled_at.is_some() {
                "off"
            } else {
                "on"
            }
            .to_owned(),
            self.pending.to_string(),
            self.dead.to_string(),
            view.some_time(self.last_delivered_at),
            self.created_by.clone(),
        ]
    }
}

impl Show for Webhook {
    fn show(&self, view: &View) -> String {
        super::output::rows(std::slice::from_ref(self), view)
    }
}

impl Show for WebhookCreated {
    /// Only the secret, so that `SECRET=$(livepatch-admin webhook add ...)` works.
    fn show(&self, _: &View) -> String {
        self.secret.expose().to_owned()
    }
}

impl Row for WebhookDelivery {
    const HEADER: &'static [&'static str] = &[
        "id", "webhook", "event", "when", "state", "attempts", "next", "error",
    ];
    const NONE: &'static str = "There are no such deliveries.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.webhook.clone(),
            self.kind.to_string(),
            view.time(self.at),
            self.state.as_str().to_owned(),
            self.attempts.to_string(),
            view.some_time(self.next_attempt_at),
            text(self.error.as_deref().unwrap_or_default()),
        ]
    }
}

impl Show for WebhookDelivery {
    fn show(&self, view: &View) -> String {
        let head = properties(
            [
                ("Delivery", self.id.to_string()),
                ("Webhook", self.webhook.clone()),
                ("Event", format!("{} {}", self.kind, self.event)),
                ("When", view.time(self.at)),
                ("State", self.state.as_str().to_owned()),
                ("Attempts", self.attempts.to_string()),
                ("Tried", view.some_time(self.tried_at)),
                ("Next", view.some_time(self.next_attempt_at)),
                ("Error", some(self.error.as_ref())),
            ],
            view,
        );
        let body = self.body.as_ref().map(|body| format!("{body:#}"));
        blocks([head, body.unwrap_or_default()])
    }
}

impl Show for WebhookRetried {
    fn show(&self, _: &View) -> String {
        format!(
            "{} due now.",
            count(self.deliveries, "delivery is", "deliveries are")
        )
    }
}

/// Runs a command on webhooks.
pub async fn run(context: &Context, command: WebhookCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        WebhookCommand::Add(args) => {
            let body = WebhookCreate {
                name: args.name,
                url: Secret::new(args.to),
                events: args.events,
            };
            let made: WebhookCreated = client.send(Method::POST, &["webhooks"], &body).await?;
            context.show(&made)
        }
        WebhookCommand::List => {
            let page: crate::wire::admin::Page<Webhook> =
                client.get(&["webhooks"], &PageQuery::default()).await?;
            context.show(&page)
        }
        WebhookCommand::Test { name } => test(context, &client, &name).await,
        WebhookCommand::Disable { name } => {
            let webhook: Webhook = client
                .call(Method::POST, &["webhooks", &name, "disable"])
                .await?;
            context.done(&webhook, &format!("Webhook {name} is switched off."))
        }
        WebhookCommand::Enable { name } => {
            let webhook: Webhook = client
                .call(Method::POST, &["webhooks", &name, "enable"])
                .await?;
            context.done(&webhook, &format!("Webhook {name} is switched on."))
        }
        WebhookCommand::Remove { name } => {
            let act = format!("Remove webhook {name} with what waits for it");
            prompt::confirm(&act, context.global.yes)?;
            client.tell(Method::DELETE, &["webhooks", &name]).await?;
            context.say(&format!("Webhook {name} is removed."))
        }
        WebhookCommand::Deliveries(args) => deliveries(context, &client, args).await,
        WebhookCommand::Delivery { id } => context.show(&delivery(&client, id).await?),
        WebhookCommand::Retry { name, deliveries } => {
            let body = WebhookRetry {
                deliveries: (!deliveries.is_empty()).then_some(deliveries),
            };
            let path = ["webhooks", &name, "retry"];
            let retried: WebhookRetried = client.send(Method::POST, &path, &body).await?;
            context.show(&retried)
        }
    }
}

async fn delivery(client: &Client, id: i64) -> Result<WebhookDelivery, CliError> {
    client
        .get(
            &["webhook-deliveries", &id.to_string()],
            &PageQuery::default(),
        )
        .await
}

/// Waits for the only attempt of a test and shows what came of it.
async fn test(context: &Context, client: &Client, name: &str) -> Result<(), CliError> {
    let begun: WebhookDelivery = client
        .call(Method::POST, &["webhooks", name, "test"])
        .await?;
    let started = Instant::now();
    let ended = loop {
        let now = delivery(client, begun.id).await?;
        if now.state != DeliveryState::Pending || started.elapsed() > PATIENCE {
            break now;
        }
        tokio::time::sleep(INTERVAL).await;
    };
    context.show(&ended)?;
    if ended.state == DeliveryState::Delivered {
        return Ok(());
    }
    Err(CliError::Delivery {
        webhook: name.to_owned(),
        why: ended.error.unwrap_or_else(|| {
            format!(
                "it was not tried within {}; is a replica leading?",
                humantime::format_duration(PATIENCE)
            )
        }),
    })
}

async fn deliveries(
    context: &Context,
    client: &Client,
    args: DeliveriesArgs,
) -> Result<(), CliError> {
    let page = list::<WebhookDelivery, _>(
        client,
        &["webhook-deliveries"],
        args.page,
        |cursor, limit| WebhookDeliveryQuery {
            webhook: args.name.clone(),
            state: args.state,
            cursor,
            limit: Some(limit),
        },
    )
    .await?;
    context.show(&page)?;
    context.more(page.next_cursor.as_deref());
    Ok(())
}
