//! Putting a module into the running kernel, and seeing that it took.
//!
//! The kernel's own tools do it (`insmod`, which calls finit_module(2), and `rmmod`), and what they did is read from
//! `/sys/kernel/livepatch` (Linux, Documentation/ABI/testing/sysfs-kernel-livepatch). Every wait has an end.

use super::error::Error;
use super::facts::Facts;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// How long tasks may take to move to the new code. The kernel itself retries every second, without end.
const TRANSITION: Duration = Duration::from_mins(2);
/// How long a tool may run.
const TOOL: Duration = Duration::from_mins(1);
/// sysfs does not notify of the end of a transition, so it is looked at this often.
const LOOK: Duration = Duration::from_millis(100);

/// The running kernel, as far as live patches go. The default is the real one; tests name another.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Where live patches are shown.
    pub sysfs: PathBuf,
    /// Where loaded modules are shown.
    pub modules: PathBuf,
    /// The tool that inserts a module file.
    pub insmod: PathBuf,
    /// The tool that removes a module by name.
    pub rmmod: PathBuf,
    /// How long tasks may take to move to the new code.
    pub transition: Duration,
    /// What `uname -r` prints; modules must be built for it.
    pub release: String,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            sysfs: PathBuf::from("/sys/kernel/livepatch"),
            modules: PathBuf::from("/sys/module"),
            insmod: PathBuf::from("insmod"),
            rmmod: PathBuf::from("rmmod"),
            transition: TRANSITION,
            release: Facts::running_release(),
        }
    }
}

impl Kernel {
    /// Whether the kernel has live patching at all.
    pub fn check(&self) -> Result<(), Error> {
        if self.sysfs.is_dir() {
            return Ok(());
        }
        Err(Error::Insert(format!(
            "this kernel has no live patching ({} is not there); leave out --apply to only keep verified patches",
            self.sysfs.display()
        )))
    }

    /// Whether a patch of this module name is there and enabled.
    pub fn is_enabled(&self, module: &str) -> bool {
        self.read(module, "enabled").is_some_and(|text| text == "1")
    }

    /// Takes out the module of this name, if it is loaded. Two revisions of one patch share a name, and the kernel
    /// refuses a second module of the same name. A patch that another one has replaced is no longer shown as a patch,
    /// but its module stays loaded, so it too has to go before it can come back.
    pub async fn remove(&self, module: &str) -> Result<(), Error> {
        let dir = self.dir(module)?;
        if self.is_enabled(module) {
            let path = dir.join("enabled");
            std::fs::write(&path, "0").map_err(|e| {
                Error::Insert(format!(
                    "cannot disable {module} by {}: {e}",
                    path.display()
                ))
            })?;
        }
        self.wait(|| !dir.exists(), || format!("{module} was not disabled"))
            .await?;
        let loaded = self.modules.join(module);
        if !loaded.exists() {
            return Ok(());
        }
        // The kernel lets go of the module a moment after it has taken the patch out of sysfs. A kernel that cannot
        // unload modules has no such file; then rmmod says so.
        let unused = || {
            let count = std::fs::read_to_string(loaded.join("refcnt")).ok();
            count.is_none_or(|count| count.trim() == "0")
        };
        self.wait(unused, || format!("module {module} is still in use"))
            .await?;
        self.run(&self.rmmod, module.as_ref()).await
    }

    /// Inserts a module file.
    pub async fn insert(&self, file: &Path) -> Result<(), Error> {
        self.run(&self.insmod, file).await
    }

    /// Waits until every task runs the new code.
    pub async fn settle(&self, module: &str) -> Result<(), Error> {
        if !self.dir(module)?.is_dir() {
            return Err(Error::Insert(format!(
                "module {module} was inserted, but it is not a live patch; remove it with rmmod"
            )));
        }
        let done = || {
            self.read(module, "transition")
                .is_none_or(|text| text == "0")
        };
        self.wait(done, || {
            format!("{module} is still in transition: some tasks keep running old code")
        })
        .await?;
        if self.is_enabled(module) {
            return Ok(());
        }
        Err(Error::Insert(format!(
            "the kernel took {module} out again; see the kernel's log"
        )))
    }

    fn dir(&self, module: &str) -> Result<PathBuf, Error> {
        let plain = !module.is_empty()
            && module
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if plain {
            Ok(self.sysfs.join(module))
        } else {
            Err(Error::Verification(format!(
                "module name {module:?} is not one the kernel would have"
            )))
        }
    }

    fn read(&self, module: &str, file: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.dir(module).ok()?.join(file)).ok()?;
        Some(text.trim().to_owned())
    }

    async fn wait(&self, done: impl Fn() -> bool, what: impl Fn() -> String) -> Result<(), Error> {
        let end = Instant::now() + self.transition;
        while !done() {
            if Instant::now() >= end {
                return Err(Error::Insert(format!(
                    "after {} s {}; see the kernel's log",
                    self.transition.as_secs(),
                    what()
                )));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    async fn run(&self, tool: &Path, argument: &Path) -> Result<(), Error> {
        let shown = format!("{} {}", tool.display(), argument.display());
        let child = Command::new(tool)
            .arg(argument)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match timeout(TOOL, child).await {
            Ok(Ok(output)) => output,
            Ok(Err(e)) => {
                return Err(Error::Insert(format!(
                    "cannot run `{shown}`: {e}; install kmod"
                )));
            }
            Err(_) => {
                return Err(Error::Insert(format!(
                    "`{shown}` did not end within {} s",
                    TOOL.as_secs()
                )));
            }
        };
        if output.status.success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&output.stderr)
            .trim()
            .chars()
            .take(300)
            .collect();
        Err(Error::Insert(format!(
            "`{shown}` failed ({}): {said}; see the kernel's log",
            output.status
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A kernel made of a directory and two scripts; `insmod` runs `script` with `$S` as the sysfs directory.
    fn kernel(root: &Path, insmod: &str) -> Kernel {
        let sysfs = root.join("livepatch");
        let modules = root.join("module");
        fs::create_dir_all(&sysfs).unwrap();
        let tool = |name: &str, script: &str| {
            let path = root.join(name);
            fs::write(
                &path,
                format!("#!/bin/sh\nS={}\n{script}\n", sysfs.display()),
            )
            .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        Kernel {
            insmod: tool("insmod", insmod),
            rmmod: tool("rmmod", "echo $1 > $S/../removed"),
            sysfs,
            modules,
            transition: Duration::from_millis(300),
            release: String::new(),
        }
    }

    const TAKES: &str = "mkdir $S/lkp_1; echo 1 > $S/lkp_1/enabled; echo 0 > $S/lkp_1/transition";

    #[tokio::test]
    async fn a_module_is_inserted_and_settles() {
        let root = tempfile::tempdir().unwrap();
        let kernel = kernel(root.path(), TAKES);
        kernel.check().unwrap();
        assert!(!kernel.is_enabled("lkp_1"));
        kernel.remove("lkp_1").await.unwrap();
        kernel.insert(Path::new("x.ko")).await.unwrap();
        kernel.settle("lkp_1").await.unwrap();
        assert!(kernel.is_enabled("lkp_1"));
        // A disabled patch does not vanish here, as it would in a kernel: the wait ends by itself.
        let error = kernel.remove("lkp_1").await.unwrap_err().to_string();
        assert!(error.contains("not disabled"), "{error}");
        assert_eq!(
            fs::read_to_string(root.path().join("livepatch/lkp_1/enabled")).unwrap(),
            "0"
        );
        assert!(!root.path().join("removed").exists());
    }

    #[tokio::test]
    async fn a_replaced_patch_is_unloaded_once_the_kernel_lets_go_of_it() {
        let root = tempfile::tempdir().unwrap();
        let kernel = kernel(root.path(), TAKES);
        let module = root.path().join("module/lkp_1");
        fs::create_dir_all(&module).unwrap();
        fs::write(module.join("refcnt"), "1\n").unwrap();
        let removed = root.path().join("removed");
        let error = kernel.remove("lkp_1").await.unwrap_err().to_string();
        assert!(error.contains("still in use"), "{error}");
        assert!(!removed.exists());
        fs::write(module.join("refcnt"), "0\n").unwrap();
        kernel.remove("lkp_1").await.unwrap();
        assert_eq!(fs::read_to_string(&removed).unwrap(), "lkp_1\n");
        // What is not loaded needs no removal.
        fs::remove_file(&removed).unwrap();
        kernel.remove("lkp_2").await.unwrap();
        assert!(!removed.exists());
    }

    #[tokio::test]
    async fn what_the_kernel_refuses_is_told() {
        let cases = [
            (
                "echo 'Key was rejected by service' >&2; exit 1",
                "Key was rejected",
            ),
            ("true", "not a live patch"),
            (
                "mkdir $S/lkp_1; echo 1 > $S/lkp_1/enabled; echo 1 > $S/lkp_1/transition",
                "still in transition",
            ),
            (
                "mkdir $S/lkp_1; echo 0 > $S/lkp_1/enabled; echo 0 > $S/lkp_1/transition",
                "out again",
            ),
        ];
        for (script, expected) in cases {
            let root = tempfile::tempdir().unwrap();
            let kernel = kernel(root.path(), script);
            let mut result = kernel.insert(Path::new("x.ko")).await;
            if result.is_ok() {
                result = kernel.settle("lkp_1").await;
            }
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{script}: {error}");
        }
    }

    #[tokio::test]
    async fn missing_pieces_are_told() {
        let root = tempfile::tempdir().unwrap();
        let mut kernel = kernel(root.path(), TAKES);
        kernel.insmod = root.path().join("nothing");
        assert!(
            kernel
                .insert(Path::new("x.ko"))
                .await
                .unwrap_err()
                .to_string()
                .contains("install kmod")
        );
        assert!(matches!(
            kernel.settle("../x").await,
            Err(Error::Verification(_))
        ));
        kernel.sysfs = root.path().join("nowhere");
        assert!(kernel.check().unwrap_err().to_string().contains("--apply"));
    }
}
