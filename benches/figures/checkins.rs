//! Check-ins: decided in memory against a handler that does nothing, durable against those in memory, and durable against
//! what writes each report by itself.
//!
//! "In memory" is the whole server - governor, parsing, token, decision, answer - whose queue to the database is closed. It
//! answers as it does while its database is away: with the decision, and `"stored": false`. Nothing in the server is there for
//! the benchmark's sake.

use crate::report::Row;
use crate::{Plan, site, wrk};
use anyhow::{Context, anyhow};
use axum::Router;
use axum::body::Bytes;
use axum::extract::Path as UrlPath;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, post};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use jiff::Timestamp;
use livepatch_onprem::config::Server;
use livepatch_onprem::domain::PatchVersion;
use livepatch_onprem::domain::token::{MachineClaims, token_hash};
use livepatch_onprem::http::serve::{Listener, serve};
use livepatch_onprem::service::{Core, auth_tokens};
use livepatch_onprem::sim::fleet::{Runs, Spread, machine};
use livepatch_onprem::telemetry::Metrics;
use livepatch_onprem::wire::ClientReport;
use livepatch_onprem::wire::admin::AuthTokenCreate;
use std::fmt::Write;
use std::path::Path;
use tokio::net::TcpListener;
use tokio_postgres::NoTls;
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
    let (bare, bare_address) = bare(answer.clone(), stopping.clone()).await?;
    let (single, single_address) = single(&database, answer, stopping.clone()).await?;

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/figures/machines.lua");
    let script = Some((script.as_path(), input.as_path()));
    let url = |address: std::net::SocketAddr| format!("http://{address}/");
    let (durable_url, memory_url) = (url(durable.address), url(memory.address));
    let (bare_url, single_url) = (url(bare_address), url(single_address));
    // Every machine checks in once: from then on its row is there and is updated.
    wrk::run(plan, 256, &durable_url, script).await?;
    let mut decided = Vec::new();
    let mut durable_256 = Vec::new();
    let mut durable_64 = Vec::new();
    let mut grouped = Vec::new();
    for round in 0..plan.rounds {
        eprintln!("check-ins: round {} of {}", round + 1, plan.rounds);
        decided.push(pair(plan, round, 64, (&memory_url, &bare_url), script).await?);
        durable_256.push(pair(plan, round, 256, (&durable_url, &memory_url), script).await?);
        durable_64.push(pair(plan, round, 64, (&durable_url, &memory_url), script).await?);
        grouped.push(pair(plan, round, 256, (&durable_url, &single_url), script).await?);
    }
    stopping.cancel();
    bare.await?;
    single.await?;
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
        Row::of_pairs(
            "durable check-in / one INSERT per request",
            3.5,
            4.5,
            &grouped,
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
            labels: livepatch_onprem::domain::Labels::default(),
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
        let runs = if n % 2 == 0 {
            Runs::Applied("107.1".parse()?)
        } else {
            Runs::Nothing
        };
        let body = serde_json::to_string(&machine.status(runs, now))?;
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
    listen(handler_at(post(handler)), stopping).await
}

/// What a durable check-in is without groups: parsed by the same code, written by one statement of its own over one of ten
/// connections, and answered when that is committed.
async fn single(
    database: &str,
    answer: Bytes,
    stopping: CancellationToken,
) -> anyhow::Result<(tokio::task::JoinHandle<bool>, std::net::SocketAddr)> {
    let manager = Manager::from_config(
        database.parse()?,
        NoTls,
        ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        },
    );
    let pool = Pool::builder(manager).max_size(10).build()?;
    let tier: i32 = pool
        .get()
        .await?
        .query_one("select min(id) from tiers", &[])
        .await?
        .get(0);
    let handler = move |UrlPath(machine): UrlPath<uuid::Uuid>, body: Bytes| async move {
        let Ok(report) = ClientReport::parse(&body) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let patch = report.version().map_or(0, PatchVersion::code);
        let state = report.state().code();
        let written = async {
            let conn = pool.get().await?;
            let statement = conn.prepare_cached(INSERT).await?;
            let now = Timestamp::now();
            conn.execute(&statement, &[&machine, &tier, &now, &patch, &state])
                .await?;
            anyhow::Ok(())
        };
        match written.await {
            Ok(()) => ([(CONTENT_TYPE, "application/json")], answer).into_response(),
            Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
    };
    listen(handler_at(post(handler)), stopping).await
}

const INSERT: &str = "insert into machines (id, tier_id, registered_at, last_check, patch, state)
    values ($1, $2, $3, $3, $4, $5)
    on conflict (id) do update set last_check = excluded.last_check, patch = excluded.patch, state = excluded.state";

fn handler_at(handler: MethodRouter) -> Router {
    Router::new().route("/v1/client/{id}/updates", handler)
}

async fn listen(
    router: Router,
    stopping: CancellationToken,
) -> anyhow::Result<(tokio::task::JoinHandle<bool>, std::net::SocketAddr)> {
    let socket = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = socket.local_addr()?;
    let listener = Listener { socket, tls: None };
    let serving = tokio::spawn(async move {
        serve(
            listener,
            router,
            &Server::default(),
            &Metrics::new(),
            stopping,
        )
        .await
    });
    Ok((serving, address))
}
