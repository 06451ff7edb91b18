//! What the benchmarks stand on: databases that really write to disk, servers in this process, and a payload.

use anyhow::{Context, anyhow};
use bytes::Bytes;
use livepatch_onprem::app::{self, Running};
use livepatch_onprem::bundle::{BundleName, PackInput, Signing, pack};
use livepatch_onprem::config::{Config, TrustPolicy};
use livepatch_onprem::db::audit::Actor;
use livepatch_onprem::domain::Secret;
use livepatch_onprem::service::{Core, ingest};
use std::path::Path;
use tokio_postgres::NoTls;

/// A variable that `tests/services.sh` exports.
pub(crate) fn service(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set; run `make bench`"))
}

/// A new database. The cluster was made for tests, which do without durability; here it is turned on first, since a
/// commit that does not reach the disk is not what is to be measured.
pub(crate) async fn database(name: &str) -> anyhow::Result<String> {
    let cluster = service("LIVEPATCH_TEST_DATABASE")?;
    let (client, connection) = tokio_postgres::connect(&cluster, NoTls).await?;
    let connection = tokio::spawn(connection);
    for sql in [
        "alter system set fsync = on",
        "alter system set full_page_writes = on",
        "select pg_reload_conf()",
        &format!("create database {name}"),
    ] {
        client.batch_execute(sql).await?;
    }
    drop(client);
    let _ = connection.await;
    Ok(cluster.replace("dbname=postgres", &format!("dbname={name}")))
}

/// The defaults on a loopback port. Modules are not signed here, and signatures are nothing a request looks at.
pub(crate) fn config(database: &str, folder: &Path) -> Config {
    let mut config = Config::default();
    config.database.connection_string = Secret::new(database);
    config.server.address = ([127, 0, 0, 1], 0).into();
    folder.clone_into(&mut config.patch_storage.filesystem_path);
    config.patch_trust.policy = TrustPolicy::Off;
    config
}

/// A server in this process.
pub(crate) async fn start(config: Config) -> anyhow::Result<Running> {
    Ok(app::start(config, true).await?)
}

/// Who does what a benchmark does.
pub(crate) fn actor() -> Actor {
    Actor {
        name: "bench".to_owned(),
        source: "bench".to_owned(),
    }
}

/// Takes in a payload of about `size` bytes, which enters the first tier; its file name and its bytes.
pub(crate) async fn payload(core: &Core, size: usize) -> anyhow::Result<(String, Vec<u8>)> {
    let name: BundleName = "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2".parse()?;
    let mut module = elf(
        "livepatch=Y\0name=lkp_Ubuntu_5_15_0_107_117_generic_107\0vermagic=5.15.0-107-generic SMP \0",
    );
    // Random bytes, so that the bundle is as large as what is packed.
    let mut filler = vec![0; size.saturating_sub(module.len())];
    openssl::rand::rand_bytes(&mut filler)?;
    module.extend(filler);
    let bytes = pack(&PackInput {
        ko: &module,
        name: &name,
        fixes: Vec::new(),
        signing: Signing::None,
        obsolete: false,
        built_at: None,
    })?;
    let body = futures_util::stream::iter([Ok(Bytes::from(bytes.clone()))]);
    let outcome = ingest::bundle(core, &actor(), "upload", &name.to_string(), None, body)
        .await
        .map_err(|e| anyhow!("the payload was not taken in: {e}"))?;
    anyhow::ensure!(
        core.snapshots
            .get_full()
            .catalog
            .by_filename(&name.to_string())
            .is_some(),
        "the payload is not in the catalog: {outcome:?}"
    );
    Ok((name.to_string(), bytes))
}

/// The smallest file for x86-64 that passes as a kernel module: an ELF header, `.modinfo` and the sections' names.
pub(crate) fn elf(modinfo: &str) -> Vec<u8> {
    const NAMES: &[u8] = b"\0.modinfo\0.names\0";
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    let n = |out: &mut Vec<u8>, value: usize, width: usize| {
        out.extend(&(value as u64).to_le_bytes()[..width]);
    };
    let sections = 64 + modinfo.len() + NAMES.len();
    // Relocatable, x86-64, version 1; no entry, no program headers; then where the sections are and how many.
    for (value, width) in [
        (1, 2),
        (62, 2),
        (1, 4),
        (0, 8),
        (0, 8),
        (sections, 8),
        (0, 4),
    ] {
        n(&mut out, value, width);
    }
    for value in [64, 0, 0, 64, 3, 2] {
        n(&mut out, value, 2);
    }
    out.extend(modinfo.as_bytes());
    out.extend(NAMES);
    for (name, kind, at, size) in [
        (0, 0, 0, 0),
        (1, 1, 64, modinfo.len()),
        (10, 3, 64 + modinfo.len(), NAMES.len()),
    ] {
        for (value, width) in [
            (name, 4),
            (kind, 4),
            (0, 8),
            (0, 8),
            (at, 8),
            (size, 8),
            (0, 4),
            (0, 4),
            (1, 8),
            (0, 8),
        ] {
            n(&mut out, value, width);
        }
    }
    out
}
