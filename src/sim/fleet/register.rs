//! Enabling the machines of a fleet: each needs a token of its own, from a file of an earlier run or by registering.
//!
//! The file holds secrets and is readable by its owner only: a line `server URL`, then `MACHINE-ID TOKEN` for each machine.

use super::Options;
use super::kinds::kind;
use super::machines::{self, Runs};
use crate::domain::MachineId;
use crate::sim::ServerApi;
use crate::sim::error::{Error, file};
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Registrations at once, at most: they are no part of the measurement and must not stampede a server.
const AT_ONCE: usize = 64;
/// How often one machine tries.
const TRIES: u32 = 5;
/// How long it waits between tries where the server does not say.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the progress is said.
const SAY: Duration = Duration::from_secs(5);

/// A machine that may check in.
#[derive(Debug)]
pub(super) struct Member {
    /// Its number in the fleet.
    pub(super) number: u32,
    /// Its machine token.
    pub(super) token: Box<str>,
}

/// What came of enabling.
#[derive(Debug, Default)]
pub(super) struct Enabled {
    /// Machines with a token, in order of number.
    pub(super) members: Vec<Member>,
    /// How many were registered now.
    pub(super) registered: u32,
    /// Failed tries by kind.
    pub(super) errors: BTreeMap<String, u64>,
}

/// Registers every machine that has no token yet. A refused auth token ends it: no other machine would fare better.
pub(super) async fn enable(
    options: &Options,
    api: &ServerApi,
    begun: Timestamp,
    stop: &CancellationToken,
    say: &(impl Fn(String) + ?Sized),
) -> Result<Enabled, Error> {
    let mut known = match &options.tokens {
        Some(path) => read(path, &options.server)?,
        None => HashMap::new(),
    };
    let missing: Vec<u32> = (0..options.machines)
        .filter(|n| !known.contains_key(&machines::id(options.seed, *n)))
        .collect();
    let errors = Mutex::new(BTreeMap::new());
    let total = missing.len();
    let mut registered = 0;
    let mut refused = None;
    {
        let errors = &errors;
        let mut results = stream::iter(missing)
            .map(|n| async move { (n, register(options, api, n, begun, stop, errors).await) })
            .buffer_unordered(AT_ONCE.min(options.connections as usize).max(1));
        let mut said = Instant::now();
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                next = results.next() => next,
            };
            match next {
                None => break,
                Some((n, Ok(Some(token)))) => {
                    known.insert(machines::id(options.seed, n), token.into());
                    registered += 1;
                }
                Some((_, Ok(None))) => {}
                Some((_, Err(error))) => {
                    refused = Some(error);
                    break;
                }
            }
            if said.elapsed() >= SAY {
                said = Instant::now();
                say(format!("registered {registered} of {total} machines"));
            }
        }
    }
    if registered > 0
        && let Some(path) = &options.tokens
    {
        write(path, &options.server, &known)?;
    }
    if let Some(error) = refused {
        return Err(error);
    }
    let members = (0..options.machines)
        .filter_map(|number| {
            let token = known.remove(&machines::id(options.seed, number))?;
            Some(Member { number, token })
        })
        .collect();
    Ok(Enabled {
        members,
        registered,
        errors: errors.into_inner().unwrap_or_default(),
    })
}

/// Registers one machine, trying again where that may help. `None`: it could not be, and the errors are counted.
async fn register(
    options: &Options,
    api: &ServerApi,
    number: u32,
    begun: Timestamp,
    stop: &CancellationToken,
    errors: &Mutex<BTreeMap<String, u64>>,
) -> Result<Option<String>, Error> {
    let machine = machines::machine(options.seed, number, &options.spread);
    let status = machine.status(Runs::Nothing, begun);
    for _ in 0..TRIES {
        let error = match api.register(machine.id, &options.token, &status).await {
            Ok(answer) => return Ok(Some(answer.machine_token.expose().to_owned())),
            Err(error @ Error::Refused { .. }) => return Err(error),
            Err(error) => error,
        };
        if let Ok(mut errors) = errors.lock() {
            *errors.entry(kind(&error)).or_default() += 1;
        }
        let pause = match &error {
            Error::Network { .. } => PAUSE,
            Error::Server {
                status: 429 | 500..,
                retry_after,
                ..
            } => retry_after.unwrap_or(PAUSE).min(Duration::from_secs(10)),
            _ => return Ok(None),
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(pause) => {}
        }
    }
    Ok(None)
}

fn read(path: &Path, server: &str) -> Result<HashMap<MachineId, Box<str>>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(e) => return Err(file("read", path, e)),
    };
    let mut lines = text.lines();
    let of = lines
        .next()
        .and_then(|line| line.strip_prefix("server "))
        .ok_or_else(|| {
            file(
                "use",
                path,
                "it is not a file of fleet tokens; give another with --tokens",
            )
        })?;
    if of != server {
        return Err(Error::Usage(format!(
            "the tokens in {} are for {of}, not for {server}; give another file with --tokens",
            path.display()
        )));
    }
    let mut known = HashMap::new();
    for line in lines {
        let Some((id, token)) = line.split_once(' ') else {
            return Err(file(
                "use",
                path,
                "a line has no token; delete the file to register anew",
            ));
        };
        let id = id.parse().map_err(|e| file("use", path, e))?;
        known.insert(id, token.into());
    }
    Ok(known)
}

fn write(path: &Path, server: &str, known: &HashMap<MachineId, Box<str>>) -> Result<(), Error> {
    let wrong = |e: std::io::Error| file("write", path, e);
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // Temporary files are made readable by their owner only, and the name changes hands when all is written.
    let temporary = tempfile::NamedTempFile::new_in(folder).map_err(wrong)?;
    let mut out = std::io::BufWriter::new(temporary);
    writeln!(out, "server {server}").map_err(wrong)?;
    for (id, token) in known {
        writeln!(out, "{id} {token}").map_err(wrong)?;
    }
    let temporary = out.into_inner().map_err(|e| wrong(e.into_error()))?;
    temporary.persist(path).map_err(|e| wrong(e.error))?;
    Ok(())
}
