//! Bundles made of real modules: what the kernel's own tool signs verifies, and nothing that was changed does.

use crate::support::kmod;
use livepatch_onprem::bundle::{
    BundleName, Examined, Limits, Policy, ReadError, SignError, SignatureError, TrustStore,
    Verdict, examine, extract_module, sign, verify,
};
use livepatch_onprem::domain::Sha256;
use std::fs;
use std::path::Path;
use std::process::Command;

const TEXT: &str = "patched by 107.1";

fn trust() -> TrustStore {
    let mut trust = TrustStore::new();
    assert_eq!(trust.add(&kmod::keys().cert_pem()), Ok(1));
    trust
}

fn module() -> Vec<u8> {
    fs::read(kmod::module("107.1", TEXT)).unwrap()
}

fn look(path: &Path, trust: &TrustStore) -> Examined {
    let name: BundleName = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let file = fs::File::open(path).unwrap();
    examine(&name, file, &Limits::default(), Some(trust)).unwrap()
}

/// Signs with the kernel's own tool; `options` stand before the digest's name.
fn kernel_signed(options: &[&str], digest: &str) -> Vec<u8> {
    let keys = kmod::keys();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("signed.ko");
    kmod::run(
        Command::new(kmod::sign_file())
            .args(options)
            .arg(digest)
            .arg(&keys.key)
            .arg(&keys.cert)
            .arg(kmod::module("107.1", TEXT))
            .arg(&out),
    );
    fs::read(out).unwrap()
}

#[test]
fn what_the_kernels_own_tool_signs_verifies_and_ours_is_the_same() {
    let theirs = kernel_signed(&[], "sha512");
    let signature = verify(&theirs, &trust()).unwrap();
    assert_eq!(signature.signer, "CN=Live Patch Test Signing trusted");
    assert_eq!(signature.digest, "sha512");
    let installed = trust().certificates().next().unwrap().clone();
    assert_eq!(signature.fingerprint, installed.fingerprint);
    assert_eq!(signature.key_id, installed.key_id);
    assert!(!installed.canonical);

    assert!(
        kmod::keys().sign(&module()) == theirs,
        "ours differs from sign-file's"
    );
    // By subject key id instead of issuer and serial number, and with the other digests.
    assert!(verify(&kernel_signed(&["-k"], "sha512"), &trust()).is_ok());
    assert_eq!(
        verify(&kernel_signed(&[], "sha256"), &trust())
            .unwrap()
            .digest,
        "sha256"
    );
    assert!(matches!(
        verify(&kernel_signed(&[], "sha1"), &trust()),
        Err(SignatureError::Unsupported { .. })
    ));
}

/// Signs with openssl's own CMS command and puts the result behind the module.
fn openssl_signed(options: &[&str]) -> Vec<u8> {
    let keys = kmod::keys();
    let path = kmod::module("107.1", TEXT);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("message.der");
    kmod::run(
        Command::new("openssl")
            .args([
                "cms", "-sign", "-binary", "-outform", "DER", "-md", "sha512",
            ])
            .args(options)
            .args([
                Path::new("-signer"),
                &keys.cert,
                Path::new("-inkey"),
                &keys.key,
            ])
            .args([Path::new("-in"), &path, Path::new("-out"), &out]),
    );
    let message = fs::read(out).unwrap();
    let size = (message.len() as u32).to_be_bytes();
    let trailer = [0, 0, 2, 0, 0, 0, 0, 0];
    let magic = b"~Module signature appended~\n";
    [&module()[..], &message, &trailer, &size, magic].concat()
}

#[test]
fn what_openssl_signs_verifies_if_the_signature_covers_all_of_it() {
    let trust = trust();
    let bare = ["-nocerts", "-noattr"];
    assert!(openssl_signed(&bare) == kernel_signed(&[], "sha512"));
    // With signed attributes, among them the signing time.
    let mut attributes = openssl_signed(&["-nocerts"]);
    assert_eq!(verify(&attributes, &trust).unwrap().digest, "sha512");
    for at in (0..attributes.len())
        .step_by(1009)
        .chain(content_end(&attributes)..attributes.len())
    {
        attributes[at] ^= 1 << (at % 8);
        assert!(
            verify(&attributes, &trust).is_err(),
            "byte {at} does not matter"
        );
        attributes[at] ^= 1 << (at % 8);
    }
    // The certificate is embedded; and the module is, too.
    for options in [&["-noattr"][..], &["-nocerts", "-noattr", "-nodetach"]] {
        let found = verify(&openssl_signed(options), &trust);
        assert!(
            matches!(
                found,
                Err(SignatureError::Malformed { .. } | SignatureError::TooLarge { .. })
            ),
            "{options:?}: {found:?}"
        );
    }
}

/// Where signature and trailer begin.
fn content_end(signed: &[u8]) -> usize {
    let length = signed.len() - 32..signed.len() - 28;
    let length = u32::from_be_bytes(signed[length].try_into().unwrap()) as usize;
    signed.len() - 40 - length
}

#[test]
fn no_bit_of_signature_or_trailer_can_be_changed() {
    let trust = trust();
    // Every bit where the signer is named by issuer, one of each byte where by key id.
    for (options, bits) in [(&[][..], 8), (&["-k"], 1)] {
        let mut signed = kernel_signed(options, "sha512");
        let start = content_end(&signed);
        assert!(verify(&signed, &trust).is_ok());
        for at in start..signed.len() {
            for bit in 0..bits {
                signed[at] ^= 1 << bit;
                assert!(
                    verify(&signed, &trust).is_err(),
                    "byte {at} (signature begins at {start}), bit {bit} does not matter"
                );
                signed[at] ^= 1 << bit;
            }
        }
        assert!(verify(&signed, &trust).is_ok());
    }
}

#[test]
fn no_byte_of_the_module_can_be_changed() {
    let trust = trust();
    let mut signed = kernel_signed(&[], "sha512");
    let end = content_end(&signed);
    let tail = signed.len() - 2048..end;
    // A fixed stride and a fixed bit for each, so that every run tries the same.
    let sample = (0..400).map(|n| n * (end - 1) / 399);
    for at in sample.chain(tail) {
        signed[at] ^= 1 << (at % 8);
        assert!(
            matches!(
                verify(&signed, &trust),
                Err(SignatureError::Mismatch { .. })
            ),
            "byte {at} does not matter"
        );
        signed[at] ^= 1 << (at % 8);
    }
    for at in [0, 1, end / 2, end] {
        let mut longer = signed.clone();
        longer.insert(at, 0);
        assert!(verify(&longer, &trust).is_err(), "a byte added at {at}");
    }
    for cut in [1, 28, 29, 40, 41, 700, signed.len() - 1] {
        let shorter = &signed[..signed.len() - cut];
        assert!(verify(shorter, &trust).is_err(), "{cut} bytes cut off");
        assert!(
            verify(&signed[cut..], &trust).is_err(),
            "{cut} bytes cut from the front"
        );
    }
    assert!(verify(&signed, &trust).is_ok());
}

#[test]
fn each_kind_of_bad_signature_is_told_apart() {
    let trust = trust();
    let module = module();
    let signed = kmod::keys().sign(&module);
    assert_eq!(verify(&module, &trust), Err(SignatureError::Missing));

    let foreign = kmod::other_keys().sign(&module);
    let Err(SignatureError::UntrustedSigner {
        signer,
        installed,
        digest: "sha512",
    }) = verify(&foreign, &trust)
    else {
        panic!("a foreign key was accepted");
    };
    assert!(
        signer.contains("CN=Live Patch Test Signing other"),
        "{signer}"
    );
    assert_eq!(installed, 1);
    assert!(matches!(
        verify(&signed, &TrustStore::new()),
        Err(SignatureError::UntrustedSigner { installed: 0, .. })
    ));

    // A size beyond the limit, one beyond the file, and none.
    let with_size = |size: u32| {
        let mut changed = signed.clone();
        let at = changed.len() - 32;
        changed[at..at + 4].copy_from_slice(&size.to_be_bytes());
        verify(&changed, &trust)
    };
    assert!(matches!(
        with_size(1 << 20),
        Err(SignatureError::TooLarge { .. })
    ));
    assert!(matches!(
        with_size(u32::MAX),
        Err(SignatureError::TooLarge { .. })
    ));
    assert!(matches!(
        with_size(0),
        Err(SignatureError::Malformed { .. })
    ));
    let tiny = &signed[content_end(&signed)..];
    assert!(matches!(
        verify(tiny, &trust),
        Err(SignatureError::Malformed { .. })
    ));
    assert!(matches!(
        verify(&tiny[10..], &trust),
        Err(SignatureError::Malformed { .. })
    ));

    // Another module's signature.
    let other = fs::read(kmod::module("108.1", "patched by 108.1")).unwrap();
    let moved = [&other, &signed[content_end(&signed)..]].concat();
    assert!(matches!(
        verify(&moved, &trust),
        Err(SignatureError::Mismatch { .. })
    ));
}

#[test]
fn keys_that_do_not_fit_are_refused_before_signing() {
    let (keys, other) = (kmod::keys(), kmod::other_keys());
    let module = module();
    let sign = |key: &[u8], cert: &[u8]| sign(&module, key, cert).map(|signed| signed.len());
    assert!(matches!(
        sign(&other.key_pem(), &keys.cert_pem()),
        Err(SignError::KeyMismatch { subject }) if subject.contains("trusted")
    ));
    assert!(matches!(
        sign(b"", &keys.cert_pem()),
        Err(SignError::Key(_))
    ));
    assert!(matches!(
        sign(&keys.key_pem(), &keys.key_pem()),
        Err(SignError::Certificate(_))
    ));
    let two = [keys.cert_pem(), other.cert_pem()].concat();
    assert!(matches!(
        sign(&keys.key_pem(), &two),
        Err(SignError::Certificate(_))
    ));
    let encrypted = kmod::run(
        Command::new("openssl")
            .args(["pkey", "-aes128", "-passout", "pass:x", "-in"])
            .arg(&keys.key),
    );
    assert_eq!(
        sign(encrypted.as_bytes(), &keys.cert_pem()),
        Err(SignError::Key("it is encrypted".to_owned()))
    );
    assert_eq!(
        livepatch_onprem::bundle::sign(&keys.sign(&module), &keys.key_pem(), &keys.cert_pem()),
        Err(SignError::AlreadySigned)
    );
}

#[test]
fn a_real_bundle_says_what_it_is() {
    let path = kmod::real_bundle("107.1", TEXT);
    let name = kmod::bundle_name("107.1");
    assert_eq!(
        path.file_name().unwrap().to_str().unwrap(),
        name.to_string()
    );
    let examined = look(&path, &trust());
    assert_eq!(examined.module_name, name.kernel.module_name(107));
    let vermagic = examined.vermagic.as_deref().unwrap();
    assert!(vermagic.starts_with(&name.kernel.release()), "{vermagic}");
    assert!(examined.livepatch);
    assert!(!examined.obsolete && examined.other_files.is_empty());
    assert_eq!(examined.fixes[0].name, "CVE-2024-1086");
    assert_eq!(examined.entries.len(), 2);
    assert!(examined.signature.is_ok());
    assert_eq!(examined.verdict(Policy::Require), Verdict::Accepted);

    let file = fs::File::open(&path).unwrap();
    let (again, bytes) = extract_module(&name, file, &Limits::default(), Some(&trust())).unwrap();
    assert_eq!(again, examined);
    assert!(bytes == kmod::keys().sign(&module()));
    assert_eq!(Sha256::of(&bytes), examined.module_sha256);
    assert_eq!(bytes.len() as u64, examined.module_size);
}

#[test]
fn the_policy_decides_about_a_bad_signature() {
    for (path, why) in [
        (kmod::unsigned_bundle("107.1", TEXT), "no signature"),
        (
            kmod::foreign_bundle("107.1", TEXT),
            "none of the 1 installed",
        ),
    ] {
        let examined = look(&path, &trust());
        assert_eq!(examined.verdict(Policy::Off), Verdict::Accepted);
        let Verdict::AcceptedWithWarning(warning) = examined.verdict(Policy::Warn) else {
            panic!("no warning");
        };
        assert!(warning.contains(why), "{warning}");
        assert_eq!(examined.verdict(Policy::Require), Verdict::Refused(warning));
    }
}

#[test]
fn a_bundle_under_a_wrong_name_is_refused() {
    let path = kmod::real_bundle("107.1", TEXT);
    let right = kmod::bundle_name("107.1").to_string();
    let release = kmod::kernel().release();
    let abi = kmod::kernel().abi();
    let flavour = kmod::kernel().flavour().to_owned();
    for (wrong, what) in [
        (
            right.replace(&format!("-{abi}."), &format!("-{}.", abi + 1)),
            "kernel",
        ),
        (
            right.replace(&format!("-{flavour}-"), "-aws-fips-"),
            "kernel",
        ),
        (right.replace("-107.1-", "-108.1-"), "patch"),
        (right.replace("-107.1-", "-107.2-"), "patch"),
        (right.replace("-amd64.tar", "-arm64.tar"), "architecture"),
        (right.replace("-amd64.tar", "-s390x.tar"), "architecture"),
    ] {
        assert_ne!(wrong, right, "{release}");
        let name: BundleName = wrong.parse().unwrap();
        let file = fs::File::open(&path).unwrap();
        match examine(&name, file, &Limits::default(), Some(&trust())) {
            Err(ReadError::Disagrees { what: found, .. }) => assert_eq!(found, what, "{wrong}"),
            other => panic!("{wrong}: {other:?}"),
        }
    }
}

#[test]
fn no_cut_and_no_damage_of_a_bundle_goes_unseen() {
    let path = kmod::real_bundle("107.1", TEXT);
    let name = kmod::bundle_name("107.1");
    let bytes = fs::read(path).unwrap();
    let read = |bytes: &[u8]| examine(&name, bytes, &Limits::default(), Some(&trust()));
    let whole = read(&bytes).unwrap();
    for part in 0..20 {
        let cut = bytes.len() * part / 20;
        assert!(
            matches!(read(&bytes[..cut]), Err(ReadError::Truncated { .. })),
            "cut to {cut} bytes"
        );
        let mut damaged = bytes.clone();
        damaged[cut] ^= 0x10;
        // Damage shows in bzip2's checksums, or before them in what comes out.
        let seen = read(&damaged);
        assert!(
            matches!(&seen, Err(e) if !e.is_source()),
            "damaged at {cut}: {seen:?}"
        );
    }
    assert_eq!(read(&bytes).unwrap(), whole);
}
