//! Check-ins: decided in memory against a handler that does nothing, and durable against those in memory.
//!
//! "In memory" is the whole server - governor, parsing, token, decision, answer - whose queue to the database is closed. It
//! answers as it does while its database is away: with the decision, and `"stored": false`. Nothing in the server is there for
//! the benchmark's sake.

use crate::report::Row;
use crate::{Plan, site, wrk};
use anyhow::{Context, anyhow};
use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::post;
use jiff::Timestamp;
use livepatch_onprem::config::Server;
use livepatch_onprem::domain::token::{MachineClaims, token_hash};
use livepatch_onprem::http::serve::serve;
use livepatch_onprem::service::{Core, auth_tokens};
use livepatch_onprem::sim::fleet::{Spread, machine};
use livepatch_onprem::wire::ClientReport;
use livepatch_onprem::wire::admin::AuthTokenCreate;
use std::fmt::Write;
use std::path::Path;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Machines that check in, in turn.
const MACHINES: u32 = 20_000;

pub(crate) async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let database = site::database("bench_checkins").await?;
    let durable = site::start(site::config(&database, folder.path())).await?;
    site::payload(&durable.core, 4 << 10).await?;
    let input = folder.path().join("machines");
    std::fs::write(&input, requests(&durable.core).await?)?;
    let memory = site::start(site::config(&database, folder.path())).await?;
    memory.core.check_ins.close();
    let answer = an_answer(&input, memory.address).await?;
    let stopping = CancellationToken::new();
    let (bare, bare_address) = bare(answer, stopping.clone()).await?;

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/figures/machines.lua");
    let script = Some((script.as_path(), input.as_path()));
    let url = |address: std::net::SocketAddr| format!("http://{address}/");
    let (durable_url, memory_url, bare_url) =
        (url(durable.address), url(memory.address), url(bare_address));
    // Every machine checks in once: from then on its row is there and is updated.
    wrk::run(plan, 256, &durable_url, script).await?;
    let mut decided = Vec::new();
    let mut durable_256 = Vec::new();
    let mut durable_64 = Vec::new();
    for round in 0..plan.rounds {
        eprintln!("check-ins: round {} of {}", round + 1, plan.rounds);
        decided.push(pair(plan, round, 64, (&memory_url, &bare_url), script).await?);
        durable_256.push(pair(plan, round, 256, (&durable_url, &memory_url), script).await?);
        durable_64.push(pair(plan, round, 64, (&durable_url, &memory_url), script).await?);
    }
    stopping.cancel();
    bare.await?;
    memory.stop().await;
    durable.stop().await;
    Ok(vec![
        Row::of_pairs("check-in in memory / bare handler", 0.90, 1.05, &decided),
        Row::of_pairs(
            "durable check-in / in memory, 256 conn.",
            0.50,
            0.60,
            &durable_256,
        ),
        Row::of_pairs(
            "durable check-in / in memory, 64 conn.",
            0.40,
            0.50,
            &durable_64,
        ),
    ])
}

/// Ours and the yardstick, one after the other; who is first changes from round to round.
pub(crate) async fn pair(
    plan: Plan,
    round: usize,
    connections: u32,
    (ours, theirs): (&str, &str),
    script: Option<(&Path, &Path)>,
) -> anyhow::Result<(f64, f64)> {
    if round.is_multiple_of(2) {
        let first = wrk::run(plan, connections, ours, script).await?;
        Ok((first, wrk::run(plan, connections, theirs, script).await?))
    } else {
        let first = wrk::run(plan, connections, theirs, script).await?;
        Ok((wrk::run(plan, connections, ours, script).await?, first))
    }
}

/// The requests of all machines, as the script wants them.
async fn requests(core: &Core) -> anyhow::Result<String> {
    let created = auth_tokens::create(
        core,
        &site::actor(),
        AuthTokenCreate {
            name: "bench".to_owned(),
            tier: "edge".parse()?,
            valid_until: None,
            labels: std::collections::BTreeMap::default(),
            format: livepatch_onprem::wire::admin::TokenFormat::default(),
        },
    )
    .await
    .map_err(|e| anyhow!("no auth token: {e}"))?;
    let now = Timestamp::now();
    let auth_token = core
        .snapshots
        .get_full()
        .enabling_token(&token_hash(created.token.expose()), now.as_microsecond())?
        .id;
    let spread = Spread::built_in().map_err(|e| anyhow!(e))?;
    let mut text = String::new();
    for n in 0..MACHINES {
        let machine = machine(1, n, &spread);
        let claims = MachineClaims {
            machine: machine.id,
            auth_token,
            issued_at: now.as_microsecond(),
        };
        let token = core.machine_key.issue(&claims);
        // Half of them run the newest patch there is for their kernel, or say so.
        let applied = (n % 2 == 0).then_some("107.1".parse()?);
        let body = serde_json::to_string(&machine.status(applied, now))?;
        writeln!(text, "{} {token} {body}", machine.id)?;
    }
    Ok(text)
}

/// What the server answers the first machine.
async fn an_answer(input: &Path, server: std::net::SocketAddr) -> anyhow::Result<Bytes> {
    let text = std::fs::read_to_string(input)?;
    let mut words = text.lines().next().context("no machine")?.splitn(3, ' ');
    let mut word = || words.next().map(str::to_owned).context("half a line");
    let (id, token, body) = (word()?, word()?, word()?);
    let answer = reqwest::Client::builder()
        .no_proxy()
        .build()?
        .post(format!("http://{server}/v1/client/{id}/updates"))
        .bearer_auth(token)
        .body(body)
        .send()
        .await?
        .error_for_status()?;
    Ok(answer.bytes().await?)
}

/// The yardstick: the same listener and the same parsing, then always the same answer.
async fn bare(
    answer: Bytes,
    stopping: CancellationToken,
) -> anyhow::Result<(tokio::task::JoinHandle<bool>, std::net::SocketAddr)> {
    let handler = move |body: Bytes| async move {
        match ClientReport::parse(&body) {
            Ok(report) if report.kernel.is_some() => {
                ([(CONTENT_TYPE, "application/json")], answer).into_response()
            }
            _ => StatusCode::BAD_REQUEST.into_response(),
        }
    };
    let router = Router::new().route("/v1/client/{id}/updates", post(handler));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let serving =
        tokio::spawn(async move { serve(listener, router, &Server::default(), stopping).await });
    Ok((serving, address))
}
