//! Real input: kernel modules compiled on the spot from the distribution's kernel headers, really signed and packed.
//!
//! Every test runs in a process of its own, so what is made is kept in `target/kmod-cache`, under a name that holds
//! everything it depends on, and made under a file lock. Nothing there is ever changed, only added whole.

use livepatch_onprem::bundle::{BundleName, PackInput, Signing, pack};
use livepatch_onprem::domain::Fix;
use livepatch_onprem::domain::{Architecture, KernelVersion, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A signing key and its certificate, as PEM files.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// The private key.
    pub(crate) key: PathBuf,
    /// The self-signed certificate.
    pub(crate) cert: PathBuf,
}

impl Keys {
    /// The private key's content.
    pub(crate) fn key_pem(&self) -> Vec<u8> {
        fs::read(&self.key).unwrap()
    }

    /// The certificate's content.
    pub(crate) fn cert_pem(&self) -> Vec<u8> {
        fs::read(&self.cert).unwrap()
    }

    /// How a bundle is to be signed with them.
    pub(crate) fn sign(&self, ko: &[u8]) -> Vec<u8> {
        livepatch_onprem::bundle::sign(ko, &self.key_pem(), &self.cert_pem()).unwrap()
    }
}

/// The key that the tests' servers trust: RSA of 4096 bits, as Canonical's.
pub(crate) fn keys() -> Keys {
    made_keys("trusted", "4096")
}

/// A key that nobody trusts.
pub(crate) fn other_keys() -> Keys {
    made_keys("other", "2048")
}

/// The kernel that the modules are for: the newest one whose headers are installed here.
pub(crate) fn kernel() -> KernelVersion {
    static KERNEL: OnceLock<KernelVersion> = OnceLock::new();
    KERNEL
        .get_or_init(|| {
            run(script("build.sh").arg("--kernel"))
                .trim()
                .parse()
                .unwrap()
        })
        .clone()
}

/// The name of the bundle of one patch version for [`kernel`].
pub(crate) fn bundle_name(version: &str) -> BundleName {
    BundleName {
        kernel: kernel(),
        version: version.parse().unwrap(),
        architecture: Architecture::Amd64,
    }
}

/// An unsigned module of that patch, which makes `/proc/cmdline` show `text`.
pub(crate) fn module(version: &str, text: &str) -> PathBuf {
    let name = bundle_name(version);
    let module = name.kernel.module_name(name.version.major);
    let release = name.kernel.release();
    let dir = once(&["module", &release, &module, text], |dir| {
        run(script("build.sh").arg(dir).arg(&module).arg(text));
    });
    dir.join(format!("{module}.ko"))
}

/// A bundle of that patch under its proper file name, signed with [`keys`]. It fixes `CVE-2024-1086`.
pub(crate) fn real_bundle(version: &str, text: &str) -> PathBuf {
    let keys = keys();
    let signing = Signing::With {
        key_pem: &keys.key_pem(),
        cert_pem: &keys.cert_pem(),
    };
    packed(version, text, signing)
}

/// As [`real_bundle`], but signed with [`other_keys`].
pub(crate) fn foreign_bundle(version: &str, text: &str) -> PathBuf {
    let keys = other_keys();
    let signing = Signing::With {
        key_pem: &keys.key_pem(),
        cert_pem: &keys.cert_pem(),
    };
    packed(version, text, signing)
}

/// As [`real_bundle`], but without a signature.
pub(crate) fn unsigned_bundle(version: &str, text: &str) -> PathBuf {
    packed(version, text, Signing::None)
}

/// The bundle of a patch version in memory, signed with [`keys`] or not at all, under its file name. For tests that need
/// many: nothing is kept.
pub(crate) fn bundle_in_memory(version: &str, signed: bool) -> (String, Vec<u8>) {
    let keys = keys();
    let (key_pem, cert_pem) = (keys.key_pem(), keys.cert_pem());
    let signing = if signed {
        Signing::With {
            key_pem: &key_pem,
            cert_pem: &cert_pem,
        }
    } else {
        Signing::None
    };
    (
        bundle_name(version).to_string(),
        pack_bytes(version, "patched", signing),
    )
}

fn pack_bytes(version: &str, text: &str, signing: Signing<'_>) -> Vec<u8> {
    let name = bundle_name(version);
    let ko = fs::read(module(version, text)).unwrap();
    pack(&PackInput {
        ko: &ko,
        name: &name,
        fixes: vec![Fix {
            name: "CVE-2024-1086".to_owned(),
            description: "use after free in netfilter".to_owned(),
            bug: String::new(),
        }],
        signing,
        obsolete: false,
        built_at: None,
    })
    .unwrap()
}

fn packed(version: &str, text: &str, signing: Signing<'_>) -> PathBuf {
    let file = bundle_name(version).to_string();
    // Packed every time, so that what is kept is always what the code of today makes.
    let bytes = pack_bytes(version, text, signing);
    let content = Sha256::of(&bytes).to_string();
    let dir = once(&["bundle", &file, &content], |dir| {
        fs::write(dir.join(&file), &bytes).unwrap();
    });
    dir.join(file)
}

fn made_keys(who: &str, bits: &str) -> Keys {
    let dir = once(&["keys", who, bits], |dir| {
        run(script("keys.sh")
            .arg(dir)
            .arg(bits)
            .arg(format!("Live Patch Test Signing {who}")));
    });
    Keys {
        key: dir.join("key.pem"),
        cert: dir.join("cert.pem"),
    }
}

/// The kernel's own signing tool, as the distribution packages it.
pub(crate) fn sign_file() -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("/linux-kbuild-"))
        .map(|path| path.join("scripts/sign-file"))
        .chain([PathBuf::from(format!(
            "/usr/src/linux-headers-{}/scripts/sign-file",
            kernel().release()
        ))])
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found
        .pop()
        .expect("sign-file is not installed; it comes with the kernel headers")
}

/// A script beside the modules' source.
fn script(name: &str) -> Command {
    Command::new(source_dir().join(name))
}

fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kmod")
}

/// Runs a command, fails with what it said, gives its output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a directory of the cache, if no process has made it yet, and gives its path. `key` names everything the
/// content depends on beside the sources in `tests/kmod`.
fn once(key: &[&str], make: impl FnOnce(&Path)) -> PathBuf {
    let mut parts: Vec<String> = key.iter().map(|part| (*part).to_owned()).collect();
    for source in ["livepatch.c", "build.sh", "keys.sh"] {
        parts.push(fs::read_to_string(source_dir().join(source)).unwrap());
    }
    let id = Sha256::of(parts.join("\0").as_bytes()).to_string();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kmod-cache");
    fs::create_dir_all(&root).unwrap();
    let done = root.join(format!("{}-{}", key[0], &id[..16]));
    if done.exists() {
        return done;
    }
    let lock = File::create(root.join(format!("{}-{}.lock", key[0], &id[..16]))).unwrap();
    lock.lock().unwrap();
    if !done.exists() {
        let work = tempfile::tempdir_in(&root).unwrap();
        make(work.path());
        fs::rename(work.keep(), &done).unwrap();
    }
    done
}
