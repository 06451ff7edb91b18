//! Downloads of 300 KiB against nginx with sendfile, and a thousand machines that ask at once for what nobody has.

use crate::checkins::pair;
use crate::report::{Better, Row, median};
use crate::{Plan, site};
use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use livepatch_onprem::config::{Config, PatchStorage, S3, StorageKind};
use livepatch_onprem::domain::Secret;
use livepatch_onprem::service::Core;
use std::path::Path;
use std::process::{Child, Command};

const SIZE: usize = 300 << 10;
const CONNECTIONS: u32 = 32;
/// Machines that ask at once.
const CROWD: usize = 1000;

pub(crate) async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let database = site::database("bench_downloads").await?;
    let config = || site::config(&database, &folder.path().join("patches"));
    let cached = site::start(config()).await?;
    let (name, bytes) = site::payload(&cached.core, SIZE).await?;
    let mut without = config();
    without.patch_cache.enabled = false;
    let uncached = site::start(without).await?;

    let files = folder.path().join("files");
    std::fs::create_dir(&files)?;
    std::fs::write(files.join(&name), &bytes)?;
    let (nginx, nginx_url) = nginx(folder.path(), &files, &name, None).await?;

    let url = |address: std::net::SocketAddr| format!("http://{address}/v1/patches/{name}");
    let (cached_url, uncached_url) = (url(cached.address), url(uncached.address));
    let client = reqwest::Client::builder().no_proxy().build()?;
    for each in [&cached_url, &uncached_url, &nginx_url] {
        let got = client
            .get(each)
            .send()
            .await?
            .error_for_status()?
            .bytes()
            .await?;
        ensure!(got == bytes, "{each} serves something else");
    }
    let mut from_memory = Vec::new();
    let mut from_file = Vec::new();
    for round in 0..plan.rounds {
        eprintln!("downloads: round {} of {}", round + 1, plan.rounds);
        from_memory.push(pair(plan, round, CONNECTIONS, (&cached_url, &nginx_url), None).await?);
        from_file.push(pair(plan, round, CONNECTIONS, (&uncached_url, &nginx_url), None).await?);
    }
    drop(nginx);
    cached.stop().await;
    uncached.stop().await;
    let mut rows = vec![
        Row::of_pairs("download 300 KiB, cached / nginx", 0.70, 0.85, &from_memory),
        Row::of_pairs(
            "download 300 KiB, not cached / nginx",
            0.55,
            0.65,
            &from_file,
        ),
    ];
    rows.push(crowd(plan).await?);
    Ok(rows)
}

/// A running nginx, stopped on drop: asked to end, since one that is killed leaves its workers behind.
pub(crate) struct Nginx(Child);

impl Nginx {
    /// Process id of the master; its workers are its children.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// nginx on a free port, serving `files`; with TLS by this certificate and key.
pub(crate) async fn nginx(
    home: &Path,
    files: &Path,
    name: &str,
    tls: Option<(&Path, &Path)>,
) -> anyhow::Result<(Nginx, String)> {
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port();
    // Its workers would give up root's rights, and with them the way into this folder.
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let (scheme, ssl, pair) = match tls {
        Some((certificate, key)) => (
            "https",
            " ssl",
            format!(
                "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3;",
                certificate.display(),
                key.display()
            ),
        ),
        None => ("http", "", String::new()),
    };
    let config = home.join("nginx.conf");
    let home = home.display();
    std::fs::write(
        &config,
        format!(
            "{user}\nworker_processes auto;\npid {home}/nginx.pid;\nerror_log stderr;\nevents {{ worker_connections 4096; }}\n\
             http {{\n  sendfile on; tcp_nopush on; tcp_nodelay on; access_log off;\n  keepalive_requests 1000000000;\n\
             open_file_cache max=100 inactive=60s;\n  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;\n\
             uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;\n  server {{ listen 127.0.0.1:{port}{ssl}; {pair} root {}; }}\n}}\n",
            files.display()
        ),
    )?;
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"]
        .into_iter()
        .find(|p| Path::new(p).exists())
        .unwrap_or("nginx");
    let child = Command::new(program)
        .arg("-c")
        .arg(&config)
        .args(["-e", "stderr", "-g", "daemon off;"])
        .spawn()
        .context("nginx does not run; tests/setup.sh bench installs it")?;
    let child = Nginx(child);
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
        {
            return Ok((child, format!("{scheme}://127.0.0.1:{port}/{name}")));
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    anyhow::bail!("nginx did not listen on port {port} within five seconds")
}

/// Objects fetched so far, by the server's own metric.
fn gets(core: &Core) -> f64 {
    let text = core.metrics.encode();
    let fetched = |line: &&str| {
        line.starts_with("livepatch_object_store_requests_total{")
            && ["\"get\"", "\"open\"", "\"read\""]
                .iter()
                .any(|op| line.contains(op))
    };
    let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    text.lines().filter(fetched).filter_map(value).sum()
}

/// Objects fetched from S3 when a thousand ask at once for a payload that is not cached.
async fn crowd(plan: Plan) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir()?;
    let database = site::database("bench_crowd").await?;
    let bucket = Path::new(&site::service("LIVEPATCH_TEST_S3_DIR")?).join("bench");
    std::fs::create_dir(&bucket)?;
    let storage = PatchStorage {
        kind: StorageKind::S3,
        s3: S3 {
            bucket: "bench".to_owned(),
            endpoint: site::service("LIVEPATCH_TEST_S3")?,
            access_key: Secret::new(site::service("LIVEPATCH_TEST_S3_KEY")?),
            secret_key: Secret::new(site::service("LIVEPATCH_TEST_S3_SECRET")?),
            ..S3::default()
        },
        ..PatchStorage::default()
    };
    let config = || Config {
        patch_storage: storage.clone(),
        ..site::config(&database, folder.path())
    };
    let first = site::start(config()).await?;
    let (name, bytes) = site::payload(&first.core, SIZE).await?;
    first.stop().await;
    let mut rounds = Vec::new();
    let mut seconds = Vec::new();
    for _ in 0..plan.rounds {
        // A new server each time: its cache is empty.
        let server = site::start(config()).await?;
        let url = format!("http://{}/v1/patches/{name}", server.address);
        let client = reqwest::Client::builder().no_proxy().build()?;
        let before = gets(&server.core);
        let started = std::time::Instant::now();
        let one = async || -> anyhow::Result<()> {
            let got = client
                .get(&url)
                .send()
                .await?
                .error_for_status()?
                .bytes()
                .await?;
            ensure!(got == bytes, "{url} serves something else");
            Ok(())
        };
        try_join_all((0..CROWD).map(|_| one())).await?;
        seconds.push(started.elapsed().as_secs_f64());
        rounds.push(gets(&server.core) - before);
        drop(client);
        server.stop().await;
    }
    Ok(Row {
        name: "cold download by 1,000 at once, object GETs",
        ratio: median(rounds.iter().copied()),
        better: Better::Lower,
        floor: 1.0,
        aim: Some(1.0),
        rounds,
        detail: format!("all served within {:.1} s", median(seconds.into_iter())),
    })
}
