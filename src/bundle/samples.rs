//! Makes small modules and archives, good and bad, for the tests of this module. Tests only.

use super::{Examined, Limits, ReadError, examine};
use bzip2::Compression;
use bzip2::write::BzEncoder;
use std::io::Write;
use tar::{EntryType, Header};

pub(super) const NAME: &str = "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2";

/// The parts of an ELF file that a module needs: class, byte order, machine, `.modinfo`.
pub(super) fn elf(wide: bool, little: bool, machine: u16, modinfo: &str) -> Vec<u8> {
    pub(super) const NAMES: &[u8] = b"\0.modinfo\0.names\0";
    let n = |value: usize, width: usize| {
        let bytes = (value as u64).to_be_bytes()[8 - width..].to_vec();
        if little {
            bytes.into_iter().rev().collect()
        } else {
            bytes
        }
    };
    let address = if wide { 8 } else { 4 };
    let header = if wide { 64 } else { 52 };
    let sections = header + modinfo.len() + NAMES.len();
    let mut out = vec![
        0x7f,
        b'E',
        b'L',
        b'F',
        1 + u8::from(wide),
        2 - u8::from(little),
        1,
    ];
    out.resize(16, 0);
    out.extend([n(1, 2), n(usize::from(machine), 2), n(1, 4)].concat());
    out.extend([n(0, address), n(0, address), n(sections, address), n(0, 4)].concat());
    let entry = if wide { 64 } else { 40 };
    out.extend(
        [
            n(header, 2),
            n(0, 2),
            n(0, 2),
            n(entry, 2),
            n(3, 2),
            n(2, 2),
        ]
        .concat(),
    );
    assert_eq!(out.len(), header);
    out.extend(modinfo.as_bytes());
    out.extend(NAMES);
    for (name, kind, at, size) in [
        (0, 0, 0, 0),
        (1, 1, header, modinfo.len()),
        (10, 3, header + modinfo.len(), NAMES.len()),
    ] {
        out.extend([n(name, 4), n(kind, 4), n(0, address), n(0, address)].concat());
        out.extend([n(at, address), n(size, address), n(0, 4), n(0, 4)].concat());
        out.extend([n(1, address), n(0, address)].concat());
    }
    out
}

pub(super) fn module() -> Vec<u8> {
    let info = "livepatch=Y\0name=lkp_Ubuntu_5_15_0_107_117_generic_107\0\
                vermagic=5.15.0-107-generic SMP mod_unload \0depends=a,b\0";
    elf(true, true, 62, info)
}

/// One entry as it stands in an archive; `size` is what its header claims.
pub(super) fn raw(kind: u8, name: &[u8], size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(EntryType::new(kind));
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

pub(super) fn entry(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
    raw(kind, name.as_bytes(), content.len() as u64, content)
}

pub(super) fn file(name: &str, content: &[u8]) -> Vec<u8> {
    entry(b'0', name, content)
}

pub(super) fn ended(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), vec![0; 1024]].concat()
}

pub(super) fn compressed(tar: &[u8]) -> Vec<u8> {
    let mut encoder = BzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn bundle(parts: &[Vec<u8>]) -> Vec<u8> {
    compressed(&ended(parts))
}

pub(super) fn examined(bytes: &[u8]) -> Result<Examined, ReadError> {
    examine(&NAME.parse().unwrap(), bytes, &Limits::default(), None)
}
