//! Downloads of 4 MiB from the cache: CPU time of the server for each, against nginx with sendfile.
//!
//! Requests per second say little here, since on loopback the generator's copying is most of the work.

use crate::downloads::nginx;
use crate::process::{Server, cpu_seconds};
use crate::report::{Better, Row, median};
use crate::{Plan, site, wrk};
use anyhow::ensure;

const SIZE: usize = 4 << 20;
const CONNECTIONS: u32 = 16;

pub(crate) async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let database = site::database("bench_cpu").await?;
    let first = site::start(site::config(&database, &folder.path().join("patches"))).await?;
    let (name, bytes) = site::payload(&first.core, SIZE).await?;
    first.stop().await;
    let server = Server::start(&database, folder.path(), &[]).await?;
    let files = folder.path().join("files");
    std::fs::create_dir(&files)?;
    std::fs::write(files.join(&name), &bytes)?;
    let (nginx, nginx_url) = nginx(folder.path(), &files, &name, None).await?;
    let url = format!("http://{}/v1/patches/{name}", server.address);
    let client = reqwest::Client::builder().no_proxy().build()?;
    for each in [&url, &nginx_url] {
        let got = client.get(each).send().await?.error_for_status()?;
        ensure!(got.bytes().await? == bytes, "{each} serves something else");
    }
    // Milliseconds of CPU for each request.
    let one = async |pid: u32, url: &str| -> anyhow::Result<f64> {
        let before = cpu_seconds(pid)?;
        let requests = wrk::count(plan, CONNECTIONS, url).await?;
        Ok((cpu_seconds(pid)? - before) * 1e3 / requests)
    };
    let mut pairs = Vec::new();
    for round in 0..plan.rounds {
        eprintln!("CPU per download: round {} of {}", round + 1, plan.rounds);
        let (ours, theirs) = if round.is_multiple_of(2) {
            let ours = one(server.pid(), &url).await?;
            (ours, one(nginx.pid(), &nginx_url).await?)
        } else {
            let theirs = one(nginx.pid(), &nginx_url).await?;
            (one(server.pid(), &url).await?, theirs)
        };
        pairs.push((ours, theirs));
    }
    let rounds: Vec<f64> = pairs.iter().map(|(ours, theirs)| ours / theirs).collect();
    let side = |pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick));
    Ok(vec![Row {
        name: "download 4 MiB, cached: CPU / nginx",
        ratio: median(rounds.iter().copied()),
        better: Better::Lower,
        floor: 2.5,
        aim: Some(1.8),
        rounds,
        detail: format!(
            "{:.2} ms of CPU each against {:.2} ms",
            side(|p| p.0),
            side(|p| p.1)
        ),
    }])
}
