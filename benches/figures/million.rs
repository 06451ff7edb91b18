//! A site of full size: 40,000 payloads and 1,000,000 machines, made by SQL in half a minute. How long a server takes to
//! start on it and what it then holds in memory; and how long the administrator waits for lists and reports.
//!
//! The machines are those of `livepatch-client fleet` with seed 1, and have tokens that the server accepts: any of them
//! may check in.

use crate::process::Server;
use crate::report::{Better, Row, median};
use crate::{Plan, site};
use anyhow::{Context, anyhow, ensure};
use jiff::Timestamp;
use livepatch_onprem::domain::Secret;
use livepatch_onprem::domain::token::{MachineClaims, MachineTokenKey};
use livepatch_onprem::service::{auth, auth_tokens};
use livepatch_onprem::sim::fleet;
use livepatch_onprem::wire::admin::AuthTokenCreate;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// Machines in the table.
pub(crate) const MACHINES: u32 = 1_000_000;
/// The fleet whose machines they are.
pub(crate) const SEED: u64 = 1;
const PASSWORD: &str = "correct horse battery";

/// The catalog: 100 patches for 400 kernels.
const CATALOG: &str = "
    insert into patches (version) select (n::bigint << 20) + 1 from generate_series(1, 100) n;
    insert into payloads (patch_id, filename, kernel, flavour, architecture, sha256, size, module_name, module_sha256,
        vermagic, signature, fixes, source, added_by)
    select p.id, 'livepatch-' || k.kernel || '-' || (p.version >> 20) || '.1-amd64.tar.bz2', k.kernel, 'generic', 1,
        sha256((k.kernel || p.version)::bytea), 300 << 10, 'lkp', sha256('m'), k.kernel, 1,
        (select jsonb_agg(jsonb_build_object('name', 'CVE-2024-' || (p.version >> 20) * 100 + c,
            'description', 'A fix of the kernel, as long as such lines are')) from generate_series(1, 5) c),
        'bench', 'bench'
    from patches p, (select '5.15.0-' || n + 100 || '.' || n + 110 || '-generic' as kernel
        from generate_series(0, 399) n) k;
    insert into promotions (patch_id, tier_id, actor) select p.id, t.id, 'bench' from patches p, tiers t
        where t.position = 3;
    insert into words (kind, text) select distinct 1, kernel from payloads on conflict do nothing;";

/// The machines: four tiers, 400 kernels; two of three run one of the five newest patches, a few failed.
const MACHINES_SQL: &str = "
    insert into machines (id, tier_id, auth_token_id, registered_at, last_check, kernel_id, patch, offered, offered_at,
        architecture, state, outcome, support, tried, tried_at)
    select encode(substr(sha256(('livepatch fleet machine 1 ' || n)::bytea), 1, 16), 'hex')::uuid, t.ids[1 + n % 4],
        $1, now() - interval '30 days', now() - random() * interval '1 hour', k.ids[1 + (n / 4) % 400],
        case when n % 3 = 0 then 0 else ((100 - n / 7 % 5)::bigint << 20) + 1 end,
        case when n % 7 = 0 then (100::bigint << 20) + 1 else 0 end,
        case when n % 7 = 0 then now() end, 1,
        case when n % 1000 = 0 then 3 when n % 3 = 0 then 4 else 1 end, 1, 1,
        case when n % 5 < 3 then (100::bigint << 20) + 1 else 0 end,
        case when n % 5 < 3 then now() - random() * interval '20 hours' end
    from generate_series(0, $2::int - 1) n,
        (select array_agg(id order by position) as ids from tiers) t,
        (select array_agg(id order by id) as ids from words where kind = 1) k";

/// Labels of the machines: 25,000 racks of 40, and three sites.
const LABELS: &str = "
    insert into machine_labels (machine_id, key, value, from_token)
    select encode(substr(sha256(('livepatch fleet machine 1 ' || n)::bytea), 1, 16), 'hex')::uuid, l.key, l.value, true
    from generate_series(0, $1::int - 1) n,
        lateral (values ('rack', 'r' || n / 40), ('site', (array['berlin', 'paris', 'rome'])[1 + n % 3])) l(key, value)";

/// A policy for each tier, and the newest patch on its way out in all of them: 600,000 machines were offered it.
const ROLLOUTS: &str = r#"
    insert into policies (tier_id, spec, actor)
        select id, '{"phases": ["50% for 30d", "100%"], "gate": {"machines": 50, "failure-rate": "99%", "window": "24h"}}', 'bench' from tiers;
    insert into rollouts (patch_id, tier_id, state, threshold, begun_at, phase_at, counts_from, requested_by)
        select p.id, t.id, case when p.version >> 20 = 100 then 2 else 5 end, 2147483648, now() - interval '21 hours',
            now() - interval '21 hours', now() - interval '21 hours', 'bench'
        from patches p, tiers t order by p.version desc, t.position;"#;
/// The rollouts of that patch, asked for as `rollout show` does: what every machine reports, by kernel.
const GATES: [&str; 4] = ["rollouts/1", "rollouts/2", "rollouts/3", "rollouts/4"];

/// Two more versions of every patch, for the console and the reports: 300 patches with what the first of each has.
const MORE_PATCHES: &str = "
    insert into patches (version) select p.version + more from patches p, generate_series(1, 2) more;
    insert into payloads (patch_id, filename, kernel, flavour, architecture, sha256, size, module_name, module_sha256,
        vermagic, signature, fixes, source, added_by)
    select p.id, replace(y.filename, '.1-amd64', '.' || (p.version & 1048575) || '-amd64'), kernel, flavour,
        architecture, sha256((kernel || p.version)::bytea), size, module_name, module_sha256, vermagic, signature,
        fixes, source, added_by
    from payloads y join patches f on f.id = y.patch_id
        join patches p on p.version >> 20 = f.version >> 20 and p.id <> f.id;
    insert into promotions (patch_id, tier_id, actor) select p.id, t.id, 'bench' from patches p, tiers t
        where t.position = 3 and p.version & 1048575 > 1";
/// Takes away what the figures of reports and pages put there.
const AWAY: &str = "
    delete from rollouts;
    delete from policies;
    delete from promotions using patches p where p.id = patch_id and p.version & 1048575 > 1;
    delete from payloads using patches p where p.id = patch_id and p.version & 1048575 > 1;
    delete from patches where version & 1048575 > 1";

/// Pages of the console, while those rollouts are under way.
const PAGES: [&str; 10] = [
    "/console",
    "/console/patches/100.1",
    "/console/rollouts",
    "/console/rollouts/1",
    "/console/machines",
    "/console/machines?tier=stable&state=applied",
    "/console/machines?selector=rack=r7",
    "/console/intake",
    "/console/access",
    "/console/audit",
];

/// The database of such a site, and what a fleet needs.
pub(crate) struct Site {
    pub(crate) database: String,
    pub(crate) folder: TempDir,
    /// Auth token of all machines.
    pub(crate) token: String,
    token_id: i32,
    key: MachineTokenKey,
}

/// A connection outside the server.
async fn connect(database: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(database, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

impl Site {
    /// Makes the database.
    pub(crate) async fn make() -> anyhow::Result<Self> {
        let started = Instant::now();
        let folder = tempfile::tempdir()?;
        let database = site::database("bench_million").await?;
        let config = site::config(&database, &folder.path().join("patches"));
        let server = site::start(config).await?;
        auth::ensure_admin(&server.core.db, "bench", &Secret::new(PASSWORD))
            .await
            .map_err(|e| anyhow!("no administrator: {e}"))?;
        let request = AuthTokenCreate {
            name: "bench".to_owned(),
            tier: "stable".parse()?,
            valid_until: None,
            labels: livepatch_onprem::domain::Labels::default(),
            format: livepatch_onprem::wire::admin::TokenFormat::default(),
        };
        let created = auth_tokens::create(&server.core, &site::actor(), request)
            .await
            .map_err(|e| anyhow!("no auth token: {e}"))?;
        server.stop().await;
        let client = connect(&database).await?;
        let token_id = client
            .query_one("select id from auth_tokens", &[])
            .await?
            .get(0);
        let key: Vec<u8> = client
            .query_one(
                "select value from server_keys where name = 'machine-token'",
                &[],
            )
            .await?
            .get(0);
        client.batch_execute(CATALOG).await?;
        client
            .execute(MACHINES_SQL, &[&token_id, &(MACHINES as i32)])
            .await?;
        client.execute(LABELS, &[&(MACHINES as i32)]).await?;
        // Each alone: a vacuum runs in no transaction, not even one of two statements.
        client.batch_execute("vacuum analyze").await?;
        client.batch_execute("checkpoint").await?;
        let first: uuid::Uuid = uuid::Uuid::from_bytes(fleet::id(SEED, 0).0);
        let there = client
            .query_one("select count(*) from machines where id = $1", &[&first])
            .await?;
        ensure!(
            there.get::<_, i64>(0) == 1,
            "the ids of the fleet's machines are made in another way now; mend MACHINES_SQL"
        );
        std::fs::write(folder.path().join("kernels"), kernels()?)?;
        eprintln!(
            "a site of 40,000 payloads and 1,000,000 machines, made in {:.0} s",
            started.elapsed().as_secs_f64()
        );
        Ok(Self {
            database,
            token: created.token.expose().to_owned(),
            token_id,
            key: MachineTokenKey::new(&key).map_err(|e| anyhow!(e))?,
            folder,
        })
    }

    /// What kernels the fleet's machines run, for `--kernels`.
    pub(crate) fn kernels(&self) -> PathBuf {
        self.folder.path().join("kernels")
    }

    /// The token of a machine.
    pub(crate) fn token_of(&self, number: u32) -> String {
        let claims = MachineClaims {
            machine: fleet::id(SEED, number),
            auth_token: self.token_id,
            issued_at: Timestamp::now().as_microsecond(),
        };
        self.key.issue(&claims)
    }

    /// The file of tokens of the first `machines` machines, for `--tokens`.
    pub(crate) fn tokens(&self, server: SocketAddr, machines: u32) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join("tokens");
        let mut out = std::io::BufWriter::new(std::fs::File::create(&path)?);
        writeln!(out, "server http://{server}")?;
        for number in 0..machines {
            writeln!(out, "{} {}", fleet::id(SEED, number), self.token_of(number))?;
        }
        out.flush()?;
        Ok(path)
    }

    /// Starts a server on it.
    pub(crate) async fn serve(&self, more: &[(&str, &str)]) -> anyhow::Result<Server> {
        Server::start(&self.database, self.folder.path(), more).await
    }
}

fn kernels() -> anyhow::Result<String> {
    let mut text = String::new();
    for n in 0..400 {
        writeln!(text, "5.15.0-{}.{}-generic amd64 1", n + 100, n + 110)?;
    }
    Ok(text)
}

/// Starts servers one after the other.
pub(crate) async fn start(plan: Plan, site: &Site) -> anyhow::Result<Vec<Row>> {
    let (mut seconds, mut resident) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        eprintln!("start: round {} of {}", round + 1, plan.rounds);
        let server = site.serve(&[]).await?;
        // What is done right after the start belongs to it.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        seconds.push(server.ready.as_secs_f64());
        resident.push(server.resident()?);
    }
    let row = |name, floor, aim, rounds: Vec<f64>, unit: &str| {
        let ratio = median(rounds.iter().copied());
        Row {
            name,
            ratio,
            better: Better::Lower,
            floor,
            aim: Some(aim),
            rounds,
            detail: format!("{ratio:.2} {unit}, 40,000 payloads and 1,000,000 machines"),
        }
    };
    Ok(vec![
        row("start, seconds until ready", 2.0, 1.0, seconds, "s"),
        row("start, MiB resident", 300.0, 200.0, resident, "MiB"),
    ])
}

fn reqwest_client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

/// What an administrator asks for, in turn; `{cursor}` is where the page before of this line ended.
const REPORTS: [&str; 4] = [
    "reports/machines?tier=stable",
    "reports/machines?tier=edge&version=100.1&state=applied",
    "reports/patch-health?tier=beta&version=100.1",
    "reports/patch-health?tier=stable&version=98.1",
];
const LISTS: [&str; 7] = [
    "machines?limit=100",
    "machines?limit=1000",
    "machines?tier=stable&state=applied",
    "machines?kernel=5.15.0-300.310-generic",
    "machines?flavour=generic&version=99.1",
    "machines?state=apply-failed&tier=candidate",
    "machines?tier=beta&version=97.1&kernel=5.15.0-107.117-generic",
];
const BY_LABEL: [&str; 7] = [
    "machines?selector=rack=r7",
    "machines?selector=site=berlin",
    "machines?selector=site=berlin,rack=r7,flavour=generic",
    "machines?tier=stable&state=applied&selector=site=berlin",
    "machines?selector=site=berlin,kernel=5.15.0-30*",
    "reports/machines?tier=stable&selector=rack=r7",
    "reports/patch-health?tier=beta&version=100.1&selector=rack=r7",
];
/// Reports over a label that a third of the machines have; they are counted when they are asked for.
const BY_LARGE_LABEL: [&str; 2] = [
    "reports/machines?tier=stable&selector=site=berlin",
    "reports/patch-health?tier=beta&version=100.1&selector=site=berlin",
];
/// How often each is asked for in a round.
const TIMES: usize = 15;

/// Asks for each list and report, page after page, one at a time.
pub(crate) async fn reports(plan: Plan, site: &Site) -> anyhow::Result<Vec<Row>> {
    let database = connect(&site.database).await?;
    database.batch_execute(MORE_PATCHES).await?;
    database.batch_execute("vacuum analyze").await?;
    let server = site.serve(&[]).await?;
    let base = format!("http://{}/v1/admin", server.address);
    let client = reqwest_client()?;
    let login: serde_json::Value = client
        .post(format!("{base}/login"))
        .json(&serde_json::json!({ "user": "bench", "password": PASSWORD }))
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    let token = login["token"].as_str().context("no session")?.to_owned();
    let mut rows = Vec::new();
    for (name, paths) in [
        ("report over 1,000,000 machines, p99 ms", &REPORTS[..]),
        ("list over 1,000,000 machines, p99 ms", &LISTS[..]),
        ("by label over 1,000,000 machines, p99 ms", &BY_LABEL[..]),
        (
            "report of a label of a third of them, p99 ms",
            &BY_LARGE_LABEL[..],
        ),
        ("gate over 1,000,000 machines, p99 ms", &GATES[..]),
        ("console page over 1,000,000 machines, p99 ms", &PAGES[..]),
    ] {
        // Reports and lists first: from here on the leader counts the same machines all the time.
        if paths == GATES.as_slice() {
            database.batch_execute(ROLLOUTS).await?;
        }
        let mut rounds = Vec::new();
        let mut by_path: Vec<Vec<f64>> = vec![Vec::new(); paths.len()];
        for round in 0..plan.rounds {
            eprintln!("{name}: round {} of {}", round + 1, plan.rounds);
            let mut all = Vec::new();
            for (path, times) in paths.iter().zip(&mut by_path) {
                let mut cursor = String::new();
                for _ in 0..TIMES {
                    let started = Instant::now();
                    let is_page = path.starts_with("/console");
                    let url = if is_page {
                        format!("http://{}{path}", server.address)
                    } else {
                        format!("{base}/{path}{cursor}")
                    };
                    let answer = client
                        .get(url)
                        .bearer_auth(&token)
                        .header("cookie", format!("livepatch-console={token}"))
                        .send()
                        .await?
                        .error_for_status()
                        .with_context(|| (*path).to_owned())?
                        .bytes()
                        .await?;
                    let took = started.elapsed().as_secs_f64() * 1e3;
                    all.push(took);
                    times.push(took);
                    if !is_page {
                        cursor = next(&answer)?;
                    }
                }
            }
            rounds.push(p99(&mut all));
        }
        for (path, times) in paths.iter().zip(&mut by_path) {
            let middle = median(times.iter().copied());
            eprintln!("  p50 {middle:>6.1} ms  p99 {:>6.1} ms  {path}", p99(times));
        }
        let ratio = median(rounds.iter().copied());
        rows.push(Row {
            name,
            ratio,
            better: Better::Lower,
            floor: if paths == PAGES.as_slice() {
                50.0
            } else {
                200.0
            },
            aim: Some(50.0),
            rounds,
            detail: format!(
                "median {:.1} ms, {} queries a round",
                median(by_path.into_iter().flatten()),
                paths.len() * TIMES
            ),
        });
    }
    database.batch_execute(AWAY).await?;
    Ok(rows)
}

/// `&cursor=...` for the next page of an answer; nothing after the last.
fn next(answer: &[u8]) -> anyhow::Result<String> {
    let answer: serde_json::Value = serde_json::from_slice(answer)?;
    let page = answer.get("machines").filter(|m| m.is_object());
    let cursor = page.unwrap_or(&answer)["next-cursor"].as_str();
    Ok(cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}")))
}

/// The value that 99 of 100 do not exceed.
fn p99(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * 0.99).ceil() as usize;
    values
        .get(rank.clamp(1, values.len()) - 1)
        .copied()
        .unwrap_or(f64::NAN)
}

/// Loads a ledger and counts what the database does not have: machines whose last acknowledged check-in was sent after
/// the latest one that is stored.
pub(crate) async fn lost(site: &Site, ledger: &Path) -> anyhow::Result<(i64, u64)> {
    let entries = fleet::ledger::read(ledger).map_err(|e| anyhow!("{e}"))?;
    let client = connect(&site.database).await?;
    client
        .batch_execute("create temporary table ledger (machine uuid, sent_at timestamptz)")
        .await?;
    for part in entries.chunks(50_000) {
        let ids: Vec<uuid::Uuid> = part
            .iter()
            .map(|(id, _)| uuid::Uuid::from_bytes(id.0))
            .collect();
        let sent: Vec<Timestamp> = part
            .iter()
            .map(|(_, entry)| Timestamp::from_microsecond(entry.sent_at))
            .collect::<Result<_, _>>()?;
        client
            .execute(
                "insert into ledger select * from unnest($1::uuid[], $2::timestamptz[])",
                &[&ids, &sent],
            )
            .await?;
    }
    let row = client
        .query_one(
            "select count(*) from ledger l left join machines m on m.id = l.machine
             where m.last_check is null or m.last_check < l.sent_at",
            &[],
        )
        .await?;
    let acknowledged = entries.iter().map(|(_, entry)| entry.count).sum();
    Ok((row.get(0), acknowledged))
}
