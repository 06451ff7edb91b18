//! What the machine is: its identity, kernel and processor, read from the places the system keeps them.

use super::error::{Error, file};
use crate::domain::{Architecture, KernelVersion, MachineId};
use crate::wire::parse_build_date;
use jiff::{Timestamp, civil::Date};
use std::path::Path;

/// The facts that a report holds.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The machine.
    pub machine_id: MachineId,
    /// Its running kernel, or the one it is said to run.
    pub kernel: KernelVersion,
    /// How the kernel was found, if that needs saying.
    pub kernel_note: Option<String>,
    /// Its architecture.
    pub architecture: Architecture,
    /// The day the kernel was built.
    pub build_date: Option<Date>,
    /// Model name of the processor; empty if not known.
    pub cpu_model: String,
    /// When it was booted.
    pub boot_time: Option<Timestamp>,
    /// Seconds since boot.
    pub uptime: u64,
    /// Changes at every boot; empty if not known.
    pub boot_id: String,
}

/// Facts given by a person instead of read.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Machine id.
    pub machine_id: Option<MachineId>,
    /// Kernel.
    pub kernel: Option<KernelVersion>,
    /// Architecture.
    pub architecture: Option<Architecture>,
    /// Build date of the kernel.
    pub build_date: Option<Date>,
}

impl Facts {
    /// Reads what is not given.
    pub fn gather(given: &Given) -> Result<Self, Error> {
        let machine_id = match given.machine_id {
            Some(id) => id,
            None => machine_id(Path::new("/etc/machine-id"))?,
        };
        let release = proc("sys/kernel/osrelease");
        let version = proc("sys/kernel/version");
        let (kernel, kernel_note) = match &given.kernel {
            Some(kernel) => (kernel.clone(), None),
            None => running_kernel(&proc("version_signature"), &release, &version)?,
        };
        let architecture = match given.architecture {
            Some(architecture) => architecture,
            None => std::env::consts::ARCH
                .parse()
                .map_err(|e| Error::Local(format!("{e}; give it with --arch")))?,
        };
        // The build date of the kernel that runs here says nothing about another one.
        let here = given
            .kernel
            .as_ref()
            .is_none_or(|kernel| kernel.release() == release);
        Ok(Self {
            machine_id,
            kernel,
            kernel_note,
            architecture,
            build_date: given
                .build_date
                .or_else(|| parse_build_date(&version).filter(|_| here)),
            cpu_model: cpu_model(&proc("cpuinfo")),
            boot_time: boot_time(&proc("stat")),
            uptime: proc("uptime")
                .split('.')
                .next()
                .and_then(|t| t.parse().ok())
                .unwrap_or_default(),
            boot_id: proc("sys/kernel/random/boot_id"),
        })
    }

    /// The release of the kernel that really runs here, as `uname -r` prints it.
    pub fn running_release() -> String {
        proc("sys/kernel/osrelease")
    }
}

/// A file under `/proc`, trimmed; empty if it is not there.
fn proc(name: &str) -> String {
    let text = std::fs::read_to_string(Path::new("/proc").join(name)).unwrap_or_default();
    text.trim().to_owned()
}

fn machine_id(path: &Path) -> Result<MachineId, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| file("read", path, format!("{e}; give --machine-id")))?;
    text.trim()
        .parse()
        .map_err(|e| file("use", path, format!("{e}; give --machine-id")))
}

/// Field 2 of `/proc/version_signature`; without that file, what `uname` says, where it is in Ubuntu's form.
fn running_kernel(
    signature: &str,
    release: &str,
    version: &str,
) -> Result<(KernelVersion, Option<String>), Error> {
    if let Some(field) = signature.split_ascii_whitespace().nth(1) {
        let kernel = field.parse().map_err(|e| {
            Error::Local(format!(
                "/proc/version_signature names the kernel, but {e}; give it with --kernel"
            ))
        })?;
        return Ok((kernel, None));
    }
    // `5.15.0-107-generic` and `#117-Ubuntu SMP ...`: the upload number is the number of the build.
    let derived = || {
        let mut parts = release.splitn(3, '-');
        let (base, abi, flavour) = (parts.next()?, parts.next()?, parts.next()?);
        let build = version.strip_prefix('#')?.split_ascii_whitespace().next()?;
        let upload = build.split('-').next()?;
        format!("{base}-{abi}.{upload}-{flavour}")
            .parse::<KernelVersion>()
            .ok()
    };
    let Some(kernel) = derived() else {
        return Err(Error::Local(format!(
            "this kernel, {release} ({version}), is not an Ubuntu kernel and /proc/version_signature is not there; \
             give the kernel with --kernel, e.g. --kernel 5.15.0-107.117-generic"
        )));
    };
    let note = format!(
        "/proc/version_signature is not there; the kernel is taken to be {kernel}, from `uname -rv`; if it is not, give --kernel"
    );
    Ok((kernel, Some(note)))
}

fn cpu_model(cpuinfo: &str) -> String {
    let value = |wanted: &str| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == wanted).then(|| value.trim().to_owned())
        })
    };
    value("model name")
        .or_else(|| value("cpu"))
        .or_else(|| value("Processor"))
        .unwrap_or_default()
}

fn boot_time(stat: &str) -> Option<Timestamp> {
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(seconds.trim().parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_found() {
        let found = |signature, release, version| {
            running_kernel(signature, release, version)
                .map(|(k, note)| (k.to_string(), note.is_some()))
        };
        assert_eq!(
            found("Ubuntu 6.8.0-1047.50-aws 6.8.12", "6.8.0-1047-aws", "").unwrap(),
            ("6.8.0-1047.50-aws".to_owned(), false)
        );
        let version = "#13~24.04.1-Ubuntu SMP Wed Feb 7 13:27:48 UTC 2024";
        assert_eq!(
            found("", "7.0.0-1013-ibm-gt", version).unwrap(),
            ("7.0.0-1013.13~24.04.1-ibm-gt".to_owned(), true)
        );
        let error = found("", "6.12.9+deb13-amd64", "#1 SMP Debian 6.12.9-1")
            .unwrap_err()
            .to_string();
        assert!(error.contains("--kernel"), "{error}");
        assert!(
            found("Ubuntu nonsense", "6.8.0-1047-aws", version)
                .unwrap_err()
                .to_string()
                .contains("nonsense")
        );
    }

    #[test]
    fn proc_files_are_read() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: Xeon\n"), "Xeon");
        assert_eq!(cpu_model("CPU implementer : 0x41\n"), "");
        assert_eq!(
            boot_time("cpu 1\nbtime 1714557600\n").unwrap().to_string(),
            "2024-05-01T10:00:00Z"
        );
        assert_eq!(boot_time("cpu 1\n"), None);
    }

    #[test]
    fn a_given_kernel_does_not_get_the_build_date_of_another() {
        let mut given = Given {
            machine_id: Some(MachineId([1; 16])),
            kernel: Some("1.2.3-4.5-generic".parse().unwrap()),
            architecture: Some(Architecture::S390x),
            build_date: None,
        };
        assert_eq!(Facts::gather(&given).unwrap().build_date, None);
        given.build_date = Some(Date::constant(2024, 2, 7));
        assert_eq!(Facts::gather(&given).unwrap().build_date, given.build_date);
    }
}
