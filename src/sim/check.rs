//! One round of a client: report, ask, fetch, verify, keep or apply, report again.
//!
//! Invariants: nothing is kept that was not hashed and verified; nothing is inserted that was not kept; what the state
//! file says was true at the moment of writing, whatever happens later in the round. Which version to have is the
//! server's decision: the client takes the highest one offered for its kernel, and keeps what it has if none is.

use super::api::{ConnectOptions, ServerApi};
use super::error::{Error, file};
use super::facts::{Facts, Given};
use super::insert::Kernel;
use super::state::{ClientState, HeldPatch, StateDir};
use super::status;
use super::verify::{Trust, Verified, verify};
use crate::bundle::{BundleName, Limits};
use crate::domain::{MachineState, PatchVersion, Sha256};
use crate::wire::{PatchOffer, PingReport, PingType, UpdatesAnswer};
use jiff::Timestamp;
use std::borrow::Cow;
use tokio_util::sync::CancellationToken;

/// What to do with a verified patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Keep it, and report it as not applied.
    Keep,
    /// Insert it into the running kernel.
    Apply,
    /// Keep it, and report it as applied: a simulated machine.
    AssumeApplied,
}

/// How a round is to be done.
#[derive(Debug, Clone)]
pub struct How {
    /// What to do with a verified patch.
    pub mode: Mode,
    /// Whose signatures count.
    pub trust: Trust,
}

/// How a round ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server had nothing to say.
    NothingToSay,
    /// No patch is offered and none is here.
    NoPatch,
    /// What is here stays as it is.
    Unchanged(PatchVersion, MachineState),
    /// A patch was verified and kept.
    Kept(PatchVersion),
    /// A patch was verified, kept and is counted as applied.
    Assumed(PatchVersion),
    /// A patch was inserted.
    Applied(PatchVersion),
}

/// One enabled machine and its server.
#[derive(Debug)]
pub struct Session {
    /// The protocol.
    pub api: ServerApi,
    /// Where state is kept.
    pub dir: StateDir,
    /// The state.
    pub state: ClientState,
    /// The machine.
    pub facts: Facts,
    /// The running kernel.
    pub kernel: Kernel,
    /// What a person should know that is not an error; taken by the caller.
    pub warnings: Vec<String>,
    /// Whether the patch had been applied before the last boot.
    rebooted: bool,
}

impl Session {
    /// Opens the state of an enabled machine.
    pub fn open(dir: StateDir, given: &Given) -> Result<Self, Error> {
        let (state, facts) = identify(&dir, given)?;
        let api = connect(&state)?;
        Ok(Self {
            api,
            dir,
            state,
            warnings: facts.kernel_note.iter().cloned().collect(),
            facts,
            kernel: Kernel::default(),
            rebooted: false,
        })
    }

    /// Does a round. `stop` interrupts requests and downloads, never an insertion.
    pub async fn check(&mut self, how: &How, stop: &CancellationToken) -> Result<Outcome, Error> {
        self.dir
            .prune(self.state.patch.as_ref().map(|p| p.module_file.as_str()))?;
        self.notice_reboot();
        let before = status::document(&self.state, &self.facts);
        let asked = tokio::select! {
            () = stop.cancelled() => return Err(Error::Interrupted),
            asked = self.api.updates(self.state.machine_id, self.state.machine_token.expose(), &before) => asked,
        };
        let answer = match asked {
            Ok(answer) => answer,
            Err(e) => {
                self.state.check_error = Some(e.to_string());
                self.dir.save(&self.state)?;
                return Err(e);
            }
        };
        self.state.last_check = Some(Timestamp::now());
        self.state.check_error = None;
        let result = match &answer {
            None => Ok(Outcome::NothingToSay),
            Some(answer) => {
                self.take_over(answer);
                self.follow(answer, how, stop).await
            }
        };
        if let Err(e) = &result
            && !matches!(e, Error::Insert(_) | Error::Interrupted)
        {
            self.state.check_error = Some(e.to_string());
        }
        self.dir.save(&self.state)?;
        let after = status::document(&self.state, &self.facts);
        if answer.is_some() && status::is_news(&before, &after) {
            self.report().await;
        }
        result
    }

    /// Tells the server where this machine stands, so that it knows before the next round.
    async fn report(&mut self) {
        let status = status::document(&self.state, &self.facts);
        match self
            .api
            .updates(
                self.state.machine_id,
                self.state.machine_token.expose(),
                &status,
            )
            .await
        {
            Ok(Some(answer)) => {
                self.take_over(&answer);
                if let Err(e) = self.dir.save(&self.state) {
                    self.warnings.push(e.to_string());
                }
            }
            Ok(None) => {}
            Err(e) => self.warnings.push(format!(
                "the new state is not reported yet, the next check will: {e}"
            )),
        }
    }

    /// A patch of another kernel is of no use, and an inserted one does not survive a reboot.
    fn notice_reboot(&mut self) {
        let Some(patch) = &mut self.state.patch else {
            return;
        };
        let inserted = matches!(
            patch.state,
            MachineState::Applied | MachineState::AppliedWithBug
        );
        if patch.kernel != self.facts.kernel {
            self.state.patch = None;
            self.state.supported = None;
        } else if inserted && !patch.assumed && patch.boot_id != self.facts.boot_id {
            patch.state = MachineState::Unapplied;
            self.rebooted = true;
        }
    }

    fn take_over(&mut self, answer: &UpdatesAnswer) {
        self.state.tier = answer.tier.clone();
        self.state.check_interval = answer.check_interval;
        self.state.supported = Some(answer.supported);
        self.state.upgrade_required_date = answer.upgrade_required_date;
        self.state.reasons.clone_from(&answer.reasons);
    }

    async fn follow(
        &mut self,
        answer: &UpdatesAnswer,
        how: &How,
        stop: &CancellationToken,
    ) -> Result<Outcome, Error> {
        let Some(offer) = choose(answer, &self.facts)? else {
            return Ok(match &self.state.patch {
                Some(patch) => Outcome::Unchanged(patch.version, patch.state),
                None => Outcome::NoPatch,
            });
        };
        let fresh = !self.holds(offer, &how.trust);
        if fresh {
            self.fetch(offer, how, stop).await?;
        }
        self.settle(how.mode, fresh).await
    }

    /// Whether exactly this payload is here, verified as strictly as is asked for now, and undamaged.
    fn holds(&self, offer: &PatchOffer, trust: &Trust) -> bool {
        self.state.patch.as_ref().is_some_and(|patch| {
            let strict = patch.signer.is_some() || matches!(trust, Trust::Skip);
            let whole = || {
                std::fs::read(self.dir.file(&patch.module_file))
                    .is_ok_and(|b| Sha256::of(&b) == patch.module_sha256)
            };
            patch.version == offer.version && patch.sha256 == offer.sha256 && strict && whole()
        })
    }

    /// Downloads into a file that vanishes, verifies it, keeps the module.
    async fn fetch(
        &mut self,
        offer: &PatchOffer,
        how: &How,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let name = BundleName {
            kernel: offer.kernel.clone(),
            version: offer.version,
            architecture: offer.architecture,
        };
        let temporary = self.dir.temporary()?;
        let writer = temporary
            .reopen()
            .map_err(|e| file("open", temporary.path(), e))?;
        let download = self.api.download(
            self.state.machine_token.expose(),
            offer,
            tokio::fs::File::from_std(writer),
        );
        tokio::select! {
            () = stop.cancelled() => return Err(Error::Interrupted),
            done = download => done?,
        }
        let (trust, bundle) = (how.trust.clone(), name.clone());
        let verified =
            tokio::task::spawn_blocking(move || verify(temporary.path(), &bundle, &trust))
                .await
                .map_err(|e| Error::Local(format!("verifying {name} broke off: {e}")))??;
        let Verified {
            module,
            sha256,
            name: module_name,
            release,
            signer,
        } = verified;
        if how.mode == Mode::Apply && release.as_deref().is_some_and(|r| r != self.kernel.release) {
            return Err(Error::Verification(format!(
                "{} is for kernel {}, but {} runs here",
                offer.filename,
                release.unwrap_or_default(),
                self.kernel.release
            )));
        }
        let module_file = format!("{}.ko", offer.filename.trim_end_matches(".tar.bz2"));
        self.dir.write(&module_file, &module)?;
        self.state.patch = Some(HeldPatch {
            version: offer.version,
            kernel: offer.kernel.clone(),
            filename: offer.filename.clone(),
            sha256: offer.sha256,
            module_name,
            module_file: module_file.clone(),
            module_sha256: sha256,
            signer,
            state: MachineState::Unapplied,
            assumed: false,
            boot_id: self.facts.boot_id.clone(),
            fixes: offer.fixes.clone(),
        });
        self.dir.save(&self.state)?;
        self.dir.prune(Some(&module_file))
    }

    /// Brings the kept patch into the state the mode asks for.
    async fn settle(&mut self, mode: Mode, fresh: bool) -> Result<Outcome, Error> {
        let Some(patch) = &mut self.state.patch else {
            return Ok(Outcome::NoPatch);
        };
        let version = patch.version;
        let inserted = patch.state == MachineState::Applied && !patch.assumed;
        match mode {
            Mode::Keep | Mode::AssumeApplied if inserted => {}
            Mode::Apply if inserted && self.kernel.is_enabled(&patch.module_name) => {}
            Mode::Keep if patch.state == MachineState::Unapplied && !fresh => {}
            Mode::AssumeApplied if patch.assumed => {}
            Mode::Keep => {
                patch.state = MachineState::Unapplied;
                patch.assumed = false;
                return Ok(Outcome::Kept(version));
            }
            Mode::AssumeApplied => {
                patch.state = MachineState::Applied;
                patch.assumed = true;
                return Ok(Outcome::Assumed(version));
            }
            Mode::Apply => return self.apply().await.map(|()| Outcome::Applied(version)),
        }
        Ok(Outcome::Unchanged(version, patch.state))
    }

    /// Inserts the kept module, with a ping at each step.
    async fn apply(&mut self) -> Result<(), Error> {
        let result = self.insert().await;
        let state = if result.is_ok() {
            MachineState::Applied
        } else {
            MachineState::ApplyFailed
        };
        if let Some(patch) = &mut self.state.patch {
            patch.state = state;
            patch.assumed = false;
            patch.boot_id.clone_from(&self.facts.boot_id);
        }
        // Before the pings: the kernel's state must be on disk even if the network hangs.
        self.dir.save(&self.state)?;
        match &result {
            Ok(()) => self.ping(PingType::Applied, None).await,
            Err(e) => self.ping(PingType::Error, Some(&e.to_string())).await,
        }
        result
    }

    async fn insert(&mut self) -> Result<(), Error> {
        let Some(patch) = self.state.patch.clone() else {
            return Ok(());
        };
        self.kernel.check()?;
        self.ping(PingType::Before, None).await;
        self.kernel.remove(&patch.module_name).await?;
        self.kernel
            .insert(&self.dir.file(&patch.module_file))
            .await?;
        self.ping(PingType::After, None).await;
        self.ping(PingType::Transition, None).await;
        self.kernel.settle(&patch.module_name).await
    }

    /// Sends a ping. A ping that does not arrive changes nothing, so it is only a warning.
    pub async fn ping(&mut self, kind: PingType, message: Option<&str>) {
        let patch = self.state.patch.as_ref();
        let ping = PingReport {
            ping_type: if self.rebooted { kind.rebooted() } else { kind },
            kernel: Some(Cow::Owned(self.facts.kernel.to_string())),
            patch_version: patch.map(|p| Cow::Owned(p.version.to_string())),
            patch_state: patch.map(|p| Cow::Borrowed(p.state.as_str())),
            architecture: Some(Cow::Borrowed(self.facts.architecture.as_str())),
            message: message.map(Cow::Borrowed),
            ..PingReport::default()
        };
        let sent = self
            .api
            .ping(
                self.state.machine_id,
                self.state.machine_token.expose(),
                &ping,
            )
            .await;
        if let Err(e) = sent {
            self.warnings.push(e.to_string());
        }
    }
}

/// Reads the state of an enabled machine and gathers its facts: as given, as remembered, as found.
pub fn identify(dir: &StateDir, given: &Given) -> Result<(ClientState, Facts), Error> {
    let state = dir.load_enabled()?;
    if let Some(id) = given.machine_id.filter(|id| *id != state.machine_id) {
        return Err(Error::Usage(format!(
            "{} belongs to machine {}, not {id}; use another --state-dir for another machine",
            dir.path().display(),
            state.machine_id
        )));
    }
    let facts = Facts::gather(&Given {
        machine_id: Some(state.machine_id),
        kernel: given
            .kernel
            .clone()
            .or_else(|| state.settings.kernel.clone()),
        architecture: given.architecture.or(state.settings.architecture),
        build_date: given.build_date.or(state.settings.build_date),
    })?;
    Ok((state, facts))
}

/// The connection that a state asks for.
pub fn connect(state: &ClientState) -> Result<ServerApi, Error> {
    ServerApi::new(&ConnectOptions {
        server: state.server.clone(),
        tls: state.settings.tls_files().read()?,
        tls_patch_download: state.settings.tls_patch_download,
    })
}

/// The highest version offered. An offer that is not for this machine, or contradicts itself, discredits the answer.
fn choose<'a>(answer: &'a UpdatesAnswer, facts: &Facts) -> Result<Option<&'a PatchOffer>, Error> {
    let limit = Limits::default().max_packed_bytes;
    for offer in &answer.patches {
        let name = BundleName {
            kernel: offer.kernel.clone(),
            version: offer.version,
            architecture: offer.architecture,
        };
        let wrong = if offer.kernel != facts.kernel || offer.architecture != facts.architecture {
            format!(
                "is for {} {}, this machine is {} {}",
                offer.kernel, offer.architecture, facts.kernel, facts.architecture
            )
        } else if name.to_string() != offer.filename {
            format!("should be named {name}")
        } else if offer.size > limit {
            format!(
                "has {} bytes, more than the {limit} that any patch may have",
                offer.size
            )
        } else {
            continue;
        };
        let named: String = offer
            .filename
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        return Err(Error::Verification(format!(
            "the server offers {named}, which {wrong}"
        )));
    }
    Ok(answer.patches.iter().max_by_key(|offer| offer.version))
}
