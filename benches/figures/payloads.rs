//! Payloads as large and as hard to unpack as real ones, and how long unpacking them takes by itself.

use crate::site;
use livepatch_onprem::bundle::{BundleName, PackInput, Signing, pack};
use livepatch_onprem::domain::{Architecture, KernelVersion};
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::x509::{X509, X509NameBuilder};
use std::path::{Path, PathBuf};

/// Machine code in each module, in bytes.
const CODE: usize = 400 << 10;

/// A key as large as Canonical's, and its certificate.
pub(crate) fn signer(folder: &Path) -> anyhow::Result<(Vec<u8>, PathBuf)> {
    let key = PKey::from_rsa(openssl::rsa::Rsa::generate(4096)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("CN", "Live Patch Benchmark Signing")?;
    let name = name.build();
    let mut certificate = X509::builder()?;
    certificate.set_version(2)?;
    let serial = openssl::bn::BigNum::from_u32(1)?.to_asn1_integer()?;
    certificate.set_serial_number(&serial)?;
    certificate.set_subject_name(&name)?;
    certificate.set_issuer_name(&name)?;
    certificate.set_pubkey(&key)?;
    let (from, to) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(2)?);
    certificate.set_not_before(&from)?;
    certificate.set_not_after(&to)?;
    certificate.sign(&key, MessageDigest::sha256())?;
    let path = folder.join("signing.pem");
    std::fs::write(&path, certificate.build().to_pem()?)?;
    Ok((key.private_key_to_pem_pkcs8()?, path))
}

/// Makes payloads for as many kernels, in as many threads as there are processors.
pub(crate) fn make(files: &Path, count: u32, key: &[u8], certificate: &Path) -> anyhow::Result<()> {
    let certificate = std::fs::read(certificate)?;
    let program = std::fs::read(std::env::current_exe()?)?;
    let threads = std::thread::available_parallelism()?.get() as u32;
    std::thread::scope(|scope| {
        let made: Vec<_> = (0..threads)
            .map(|thread| {
                let (certificate, program) = (&certificate, &program);
                scope.spawn(move || -> anyhow::Result<()> {
                    for abi in (1..=count).filter(|abi| abi % threads == thread) {
                        let kernel: KernelVersion = format!("5.15.0-{abi}.117-generic").parse()?;
                        let modinfo = format!(
                            "livepatch=Y\0name={}\0vermagic={} SMP \0",
                            kernel.module_name(107),
                            kernel.release()
                        );
                        let name = BundleName {
                            kernel,
                            version: "107.1".parse()?,
                            architecture: Architecture::Amd64,
                        };
                        let mut module = site::elf(&modinfo);
                        fill(&mut module, program, abi);
                        let bytes = pack(&PackInput {
                            ko: &module,
                            name: &name,
                            fixes: Vec::new(),
                            signing: Signing::With {
                                key_pem: key,
                                cert_pem: certificate,
                            },
                            obsolete: false,
                            built_at: None,
                        })?;
                        std::fs::write(files.join(name.to_string()), bytes)?;
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in made {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("making payloads failed"))??;
        }
        Ok(())
    })
}

/// Fills a module with what modules are full of: machine code, a piece of this program that differs from module to module,
/// and relocations for it (`Elf64_Rela`, ELF-64 object file format), one for every fifteen bytes or so. That makes 1.1 MiB, which
/// pack to about 300 KiB, as modules of the kernel do; random bytes would be both unlike them and quicker to unpack.
fn fill(module: &mut Vec<u8>, program: &[u8], seed: u32) {
    // The middle of a program is code.
    let (from, to) = (program.len() * 3 / 10, program.len() * 7 / 10 - CODE);
    let at = from + seed as usize * 5003 % (to - from);
    module.extend_from_slice(&program[at..at + CODE]);
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut random = |below: u32| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % below
    };
    let mut offset = 0_u64;
    while offset < CODE as u64 {
        offset += [5, 7, 8, 9, 12, 13, 16, 19, 23, 30][random(10) as usize];
        // A few symbols are met again and again; calls, and addresses of data.
        let symbol = u64::from(random(40) * random(16));
        let (kind, addend) = match random(5) {
            0 => (11, i64::from(random(512) * 8)),
            1 => (2, -4),
            _ => (4, -4),
        };
        module.extend_from_slice(&offset.to_le_bytes());
        module.extend_from_slice(&(symbol << 32 | kind).to_le_bytes());
        module.extend_from_slice(&addend.to_le_bytes());
    }
}

/// Unpacks every file with the usual decoder and throws it away, in as many threads as there are processors.
pub(crate) fn unpack(files: &Path) -> anyhow::Result<()> {
    let paths: Vec<PathBuf> = std::fs::read_dir(files)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let parts: Vec<_> = paths
            .chunks(paths.len().div_ceil(threads))
            .map(|part| {
                scope.spawn(move || -> anyhow::Result<()> {
                    for path in part {
                        let packed = std::io::Cursor::new(std::fs::read(path)?);
                        std::io::copy(
                            &mut bzip2::read::BzDecoder::new(packed),
                            &mut std::io::sink(),
                        )?;
                    }
                    Ok(())
                })
            })
            .collect();
        for part in parts {
            part.join()
                .map_err(|_| anyhow::anyhow!("unpacking failed"))??;
        }
        Ok(())
    })
}
