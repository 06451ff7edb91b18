//! What is fuzzed: every parser of bytes that come from outside, each as a function that takes any bytes, must return,
//! and checks what has to hold for whatever was accepted.
//!
//! Used twice: by the fuzz targets of this folder, and by `tests/it/fuzz_corpus.rs`, which replays the corpus in the
//! ordinary tests.

use livepatch_onprem::bundle::{
    BundleName, Limits, Manifest, ModuleInfo, ReadError, TrustStore, examine, verify,
};
use livepatch_onprem::config::load_with;
use livepatch_onprem::domain::token::MachineTokenKey;
use livepatch_onprem::domain::{
    Architecture, KernelBase, KernelVersion, MachineId, PatchVersion, Scope, Sha256, TierName,
};
use livepatch_onprem::wire::{
    ClientReport, PingReport, StatusDocument, SupportedQuery, admin, parse_build_date,
};
use std::borrow::Cow;
use std::fmt::{Debug, Display};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::str::FromStr;
use std::sync::LazyLock;

/// A parser under test.
pub type Target = fn(&[u8]);

/// All of them, by the name of their corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("admin_body", admin_body),
    ("archive", archive),
    ("certificate", certificate),
    ("client_report", client_report),
    ("config_env", config_env),
    ("config_yaml", config_yaml),
    ("file_name", file_name),
    ("kernel_version", kernel_version),
    ("machine_token", machine_token),
    ("manifest", manifest),
    ("module", module),
    ("patch_version", patch_version),
    ("ping", ping),
    ("supported_query", supported_query),
    ("tar", tar),
];

/// The certificate that the modules of the corpus are signed for.
const CERTIFICATE: &[u8] = include_bytes!("certificate.pem");

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// What is accepted is written so that it reads as the same again.
fn same_again<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Debug> + Display + PartialEq + Debug,
{
    let value: T = text.parse().ok()?;
    let again: T = value.to_string().parse().expect("its own text is refused");
    assert_eq!(value, again);
    Some(value)
}

pub fn file_name(bytes: &[u8]) {
    let text = text(bytes);
    if let Some(name) = same_again::<BundleName>(&text) {
        assert_eq!(name.to_string(), text);
        assert!(!text.contains('/'), "a name is no path");
    }
}

pub fn kernel_version(bytes: &[u8]) {
    let text = text(bytes);
    same_again::<KernelBase>(&text);
    if let Some(kernel) = same_again::<KernelVersion>(&text) {
        assert!(!kernel.flavour().is_empty());
        let _ = (kernel.release(), kernel.upload(), kernel.order_key());
        assert!(!kernel.module_name(107).contains('/'));
    }
}

/// Selectors: versions, tiers, ids, digests, and a scope of three lines.
pub fn patch_version(bytes: &[u8]) {
    let text = text(bytes);
    if let Some(version) = same_again::<PatchVersion>(&text) {
        assert_eq!(PatchVersion::from_code(version.code()), Some(version));
    }
    same_again::<TierName>(&text);
    same_again::<MachineId>(&text);
    same_again::<Sha256>(&text);
    same_again::<Architecture>(&text);
    let _ = admin::parse_repr_digest(&text);
    let mut lines = text.split('\n');
    if let Ok(scope) = Scope::parse(lines.next(), lines.next(), lines.next()) {
        assert!(scope.contains(&scope));
    }
}

const SMALL: Limits = Limits {
    max_packed_bytes: 1 << 20,
    max_unpacked_bytes: 4 << 20,
    max_ratio: 200,
    max_entries: 64,
    max_module_bytes: 1 << 20,
    max_metadata_bytes: 64 << 10,
};

fn name_of_the_bundle() -> BundleName {
    "livepatch-6.1.0-56.1-amd64-108.1-amd64.tar.bz2"
        .parse()
        .expect("the name of the bundle in the corpus")
}

fn examined(packed: &[u8]) {
    let found = examine(&name_of_the_bundle(), packed, &SMALL, Some(&TRUST));
    // Our own decoder of bzip2 and everybody's are of one mind.
    let theirs = io::copy(
        &mut bzip2::bufread::MultiBzDecoder::new(packed).take(SMALL.max_unpacked_bytes),
        &mut io::sink(),
    );
    match &found {
        Ok(_) => assert!(theirs.is_ok(), "{theirs:?}"),
        Err(ReadError::Truncated { inside }) if inside == "the compressed data" => {
            assert!(theirs.is_err(), "{found:?}");
        }
        Err(ReadError::Compression { why }) => {
            assert!(theirs.is_err() || why.contains("1999"), "{why}");
        }
        Err(_) => {}
    }
    if let Ok(found) = found {
        assert!(found.entries.len() as u64 <= SMALL.max_entries);
        assert!(found.module_size <= SMALL.max_module_bytes);
        assert!(
            found
                .entries
                .iter()
                .all(|entry| !entry.name.starts_with('/'))
        );
    }
}

/// A bundle as it comes.
pub fn archive(bytes: &[u8]) {
    examined(bytes);
}

/// The tar archive inside, which changes at random would hardly ever leave readable under the compression.
pub fn tar(bytes: &[u8]) {
    let mut packed = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    if packed.write_all(bytes).is_ok()
        && let Ok(packed) = packed.finish()
    {
        examined(&packed);
    }
}

pub fn manifest(bytes: &[u8]) {
    if let Ok(Some(manifest)) = Manifest::read(bytes) {
        let written = manifest.to_json().expect("what was read can be written");
        let again = Manifest::read(&written).expect("its own text is refused");
        assert_eq!(again.as_ref(), Some(&manifest));
    }
}

static TRUST: LazyLock<TrustStore> = LazyLock::new(|| {
    let mut trust = TrustStore::new();
    trust
        .add(CERTIFICATE)
        .expect("the certificate of the corpus");
    trust
});

/// A kernel module with what is appended to it. Whatever is changed in one that verifies, it verifies no more.
pub fn module(bytes: &[u8]) {
    let _ = ModuleInfo::read(bytes);
    if verify(bytes, &TRUST).is_ok() {
        let mut changed = bytes.to_vec();
        changed[0] ^= 1;
        assert!(
            verify(&changed, &TRUST).is_err(),
            "a changed module verifies"
        );
    }
    assert!(
        verify(bytes, &TrustStore::new()).is_err(),
        "nobody is trusted"
    );
}

pub fn certificate(bytes: &[u8]) {
    let mut trust = TrustStore::new();
    if let Ok(added) = trust.add(bytes) {
        assert_eq!(trust.len(), added);
    }
}

/// Reports of the current and of the old client have one shape; `status` is what its command prints.
pub fn client_report(bytes: &[u8]) {
    if let Ok(report) = ClientReport::parse(bytes) {
        let _ = (report.state(), report.version());
    }
    let _ = serde_json::from_slice::<StatusDocument>(bytes);
}

pub fn ping(bytes: &[u8]) {
    let _ = PingReport::parse(bytes);
}

pub fn supported_query(bytes: &[u8]) {
    let text = text(bytes);
    let pairs = text.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (Cow::Borrowed(name), Cow::Borrowed(value))
    });
    let query = SupportedQuery::from_pairs(pairs);
    let _ = (query.base(), query.build_day(), parse_build_date(&text));
}

pub fn machine_token(bytes: &[u8]) {
    static KEY: LazyLock<MachineTokenKey> =
        LazyLock::new(|| MachineTokenKey::new(&[7; 32]).expect("a key"));
    let text = text(bytes);
    if let Some(claims) = KEY.verify(&text) {
        assert_eq!(KEY.issue(&claims).as_str(), text.trim());
    }
}

pub fn admin_body(bytes: &[u8]) {
    fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) {
        let _ = serde_json::from_slice::<T>(bytes);
    }
    read::<admin::AdminCreate>(bytes);
    read::<admin::AuthTokenCreate>(bytes);
    read::<admin::CaptureStart>(bytes);
    read::<admin::LoginRequest>(bytes);
    read::<admin::PromoteRequest>(bytes);
    read::<admin::RefreshRequest>(bytes);
    read::<admin::TierChange>(bytes);
    read::<admin::TierCreate>(bytes);
    read::<admin::WebhookCreate>(bytes);
    read::<admin::WebhookRetry>(bytes);
}

/// No file that a configuration may name is there.
fn nothing(_: &Path) -> io::Result<String> {
    Err(io::ErrorKind::NotFound.into())
}

pub fn config_yaml(bytes: &[u8]) {
    let content = text(bytes);
    let file = Path::new("/etc/livepatch.yaml");
    let read = |path: &Path| {
        if path == file {
            Ok(content.as_ref().to_owned())
        } else {
            nothing(path)
        }
    };
    loaded(load_with(Some(file), std::iter::empty(), &read));
}

/// One variable a line.
pub fn config_env(bytes: &[u8]) {
    let text = text(bytes);
    let variables = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    loaded(load_with(None, variables, &nothing));
}

fn loaded(
    result: Result<livepatch_onprem::config::Loaded, Vec<livepatch_onprem::config::ConfigError>>,
) {
    match result {
        Ok(loaded) => {
            let _ = livepatch_onprem::config::show::yaml(&loaded.sources);
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a reason");
            for error in errors {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}
