//! Under load from a simulated fleet, with 1,000,000 machines in the table: what is held for minutes, and what happens at
//! five times of what can be held.

use crate::Plan;
use crate::million::{MACHINES, SEED, Site, lost};
use crate::process::{Fleet, Server};
use crate::report::{Better, Row, median};
use anyhow::{Context, ensure};
use jiff::Timestamp;
use livepatch_onprem::sim::fleet::{Runs, Spread, machine};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Ten times what a million machines send by themselves, which ask once an hour.
const HELD: f64 = 2_800.0;

fn number(summary: &serde_json::Value, pointer: &str) -> anyhow::Result<f64> {
    summary
        .pointer(pointer)
        .and_then(serde_json::Value::as_f64)
        .with_context(|| format!("the fleet's summary has no {pointer}"))
}

fn row(name: &'static str, value: f64, floor: f64, aim: Option<f64>, detail: String) -> Row {
    Row {
        name,
        ratio: value,
        better: Better::Lower,
        floor,
        aim,
        rounds: vec![value],
        detail,
    }
}

/// Every machine of the table takes part, so that each check-in finds its row somewhere else.
pub(crate) async fn hold(duration: Duration, site: &Site) -> anyhow::Result<Vec<Row>> {
    let server = site.serve(&[]).await?;
    let ledger = site.folder.path().join("ledger");
    let tokens = site.tokens(server.address, MACHINES)?;
    eprintln!(
        "hold: {HELD} check-ins per second for {} s",
        duration.as_secs()
    );
    let summary = Fleet {
        server: server.address,
        machines: MACHINES,
        token: &site.token,
        tokens: &tokens,
        kernels: &site.kernels(),
        rate: HELD,
        duration,
        connections: 256,
        ledger: Some(&ledger),
    }
    .run()
    .await?;
    let resident = server.resident()?;
    drop(server);
    let (lost, acknowledged) = lost(site, &ledger).await?;
    let (due, ok) = (number(&summary, "/due")?, number(&summary, "/ok")?);
    ensure!(
        (acknowledged as f64 - ok).abs() < 0.5,
        "the fleet counted {ok} acknowledged check-ins and wrote {acknowledged} to its ledger"
    );
    let latency = |name: &str| number(&summary, &format!("/latency-ms/{name}"));
    Ok(vec![
        row(
            "hold 2,800 check-ins/s, p99 ms",
            latency("p99")?,
            50.0,
            None,
            format!(
                "{:.0} s, p50 {:.1} p99.9 {:.1} max {:.0} ms, {resident:.0} MiB resident",
                number(&summary, "/seconds")?,
                latency("p50")?,
                latency("p99.9")?,
                latency("max")?,
            ),
        ),
        row(
            "hold 2,800 check-ins/s, not answered well",
            due - ok,
            0.0,
            Some(0.0),
            format!("of {due} due; by kind: {}", summary["errors"]),
        ),
        row(
            "hold 2,800 check-ins/s, acknowledged and lost",
            lost as f64,
            0.0,
            Some(0.0),
            format!("of {acknowledged} acknowledged, compared with the database"),
        ),
    ])
}

/// So few places that a fleet on the same processors can ask for five times of what goes through them.
const LIMITS: [(&str, &str); 2] = [
    ("LP_SERVER_CONCURRENCY_LIMIT", "2"),
    ("LP_SERVER_BURST_LIMIT", "30"),
];
/// As many connections as the server has places: all are busy, and none is turned away.
const PLACES: u32 = 32;
/// Machines that take part.
const CROWD: u32 = 50_000;
/// How long after an overload the server may take until the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// A server is well again when every check-in of one second is answered well within this.
const WELL: Duration = Duration::from_millis(100);

pub(crate) async fn overload(plan: Plan, site: &Site) -> anyhow::Result<Vec<Row>> {
    let server = site.serve(&LIMITS).await?;
    let tokens = site.tokens(server.address, CROWD)?;
    let load = async |rate: f64, connections: u32, seconds: u64| {
        Fleet {
            server: server.address,
            machines: CROWD,
            token: &site.token,
            tokens: &tokens,
            kernels: &site.kernels(),
            rate,
            duration: Duration::from_secs(seconds),
            connections,
            ledger: None,
        }
        .run()
        .await
    };
    let seconds = plan.seconds.as_secs().max(4);
    let (mut ratios, mut recoveries, mut strays) = (Vec::new(), Vec::new(), Vec::new());
    let (mut peaks, mut shed) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds.min(3) {
        eprintln!("overload: round {}", round + 1);
        // More than can be held falls due, over as many connections as there are places: they are always full.
        let full = load(30_000.0, PLACES, seconds).await?;
        let peak = number(&full, "/ok")? / number(&full, "/seconds")?;
        let probe = Probe::new(site, &server)?;
        let stop = CancellationToken::new();
        let watching = tokio::spawn(probe.watch(stop.clone()));
        let over = load(5.0 * peak, 600, seconds * 2).await?;
        let ended = Instant::now();
        stop.cancel();
        let (probe, mut seen) = watching.await??;
        recoveries.push(probe.recovery(ended).await?);
        ratios.push(number(&over, "/ok")? / number(&over, "/seconds")? / peak);
        peaks.push(peak);
        let errors = over["errors"].as_object().context("no errors")?;
        let count = |kind: &str| {
            errors
                .get(kind)
                .and_then(serde_json::Value::as_u64)
                .unwrap_or(0)
        };
        let refused = count("status-429") + count("status-503");
        shed.push(refused as f64 / number(&over, "/due")?);
        // What the generator did not get to send says nothing about the server.
        let all: u64 = errors.values().filter_map(serde_json::Value::as_u64).sum();
        let stray = all - refused - count("not-sent") + seen.remove("stray").unwrap_or(0);
        if stray > 0 {
            eprintln!("overload: answers that should not be: {errors:?}");
        }
        eprintln!(
            "  peak {peak:.0}/s, then {:.0}/s asked for: {:.0}/s well, {errors:?}; watched from beside: {seen:?}",
            5.0 * peak,
            ratios.last().unwrap_or(&f64::NAN) * peak
        );
        strays.push(stray as f64);
    }
    drop(server);
    let of = |values: &[f64]| median(values.iter().copied());
    Ok(vec![
        Row {
            name: "overload x5, well answered / peak",
            ratio: of(&ratios),
            better: Better::Higher,
            floor: 0.9,
            aim: Some(1.0),
            detail: format!(
                "peak {:.0}/s with 2 places and 30 to wait; {:.0} % turned away",
                of(&peaks),
                of(&shed) * 100.0
            ),
            rounds: ratios,
        },
        Row {
            name: "overload x5, other than 200, 429, 503",
            ratio: strays.iter().sum(),
            better: Better::Lower,
            floor: 0.0,
            aim: Some(0.0),
            detail: "answers; 429 and 503 without Retry-After count too".to_owned(),
            rounds: strays,
        },
        Row {
            name: "overload x5, seconds to recover",
            ratio: of(&recoveries),
            better: Better::Lower,
            floor: 5.0,
            aim: Some(1.0),
            detail: "from its end until a whole second is answered within 100 ms".to_owned(),
            rounds: recoveries,
        },
    ])
}

/// One machine that keeps asking beside the fleet, and looks at answers more closely than the fleet does.
struct Probe {
    client: reqwest::Client,
    url: String,
    token: String,
    body: String,
}

impl Probe {
    fn new(site: &Site, server: &Server) -> anyhow::Result<Self> {
        let number = CROWD;
        let spread = Spread::built_in().map_err(|e| anyhow::anyhow!(e))?;
        let machine = machine(SEED, number, &spread);
        Ok(Self {
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(10))
                .build()?,
            url: format!("http://{}/v1/client/{}/updates", server.address, machine.id),
            token: site.token_of(number),
            body: serde_json::to_string(&machine.status(Runs::Nothing, Timestamp::now()))?,
        })
    }

    /// Asks once: the kind of the answer, and whether it was a good one.
    async fn ask(&self) -> (String, bool) {
        let request = self.client.post(&self.url).bearer_auth(&self.token);
        match request.body(self.body.clone()).send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                let waits = answer.headers().contains_key("retry-after");
                let text = answer.text().await.unwrap_or_default();
                match status {
                    200 if !text.contains("\"stored\":false") => ("200".to_owned(), true),
                    429 | 503 if waits => (status.to_string(), false),
                    _ => ("stray".to_owned(), false),
                }
            }
            Err(_) => ("stray".to_owned(), false),
        }
    }

    /// Asks again and again until it is stopped; counts of kinds.
    async fn watch(self, stop: CancellationToken) -> anyhow::Result<(Self, BTreeMap<String, u64>)> {
        let mut seen = BTreeMap::new();
        while !stop.is_cancelled() {
            *seen.entry(self.ask().await.0).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok((self, seen))
    }

    /// Seconds from `ended` until the first second in which every answer was good and in time.
    async fn recovery(&self, ended: Instant) -> anyhow::Result<f64> {
        let mut since = Instant::now();
        loop {
            ensure!(
                ended.elapsed() < PATIENCE,
                "the server was not well again within {} s after an overload",
                PATIENCE.as_secs()
            );
            let asked = Instant::now();
            if !self.ask().await.1 || asked.elapsed() > WELL {
                since = Instant::now();
            }
            if since.elapsed() >= Duration::from_secs(1) {
                return Ok((since - ended).as_secs_f64());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
