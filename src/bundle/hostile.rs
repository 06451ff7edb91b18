//! Archives made to do harm, and what is said to each. Tests only.

use super::samples::{NAME, bundle, compressed, ended, entry, examined, file, module, raw};
use super::*;
use bzip2::Compression;
use bzip2::write::BzEncoder;
use proptest::prelude::*;
use std::io::{self, Read};

fn read(reader: impl Read, limits: &Limits) -> Result<super::archive::Archive, ReadError> {
    super::archive::read(reader, limits, &mut Workspace::default())
}

/// What is said to an archive of these entries with a good module before them.
fn refused(parts: &[Vec<u8>]) -> ReadError {
    let mut all = vec![file("x.ko", &module())];
    all.extend_from_slice(parts);
    examined(&bundle(&all)).unwrap_err()
}

#[test]
fn bundles_of_others_are_read() {
    let parts = [
        entry(b'5', "./", b""),
        entry(b'5', "./lib/", b""),
        file("./lib/x-y.ko", &module()),
        file("./metadata.json", br#"{"someone": "else"}"#),
        entry(b'g', "pax_global_header", b"19 comment=anybody\n"),
        entry(
            b'x',
            "whatever",
            b"18 mtime=123.4567\n21 path=lib/long.txt\n",
        ),
        file("short", b"notes"),
    ];
    let examined = examined(&bundle(&parts)).unwrap();
    let names: Vec<&str> = examined.entries.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["lib/x-y.ko", "metadata.json", "lib/long.txt"]);
    assert_eq!(examined.entries[2].size, 5);
    assert_eq!(examined.other_files, names[1..]);
    assert!(examined.livepatch && !examined.obsolete);
    assert_eq!(examined.signature, Err(SignatureError::Missing));
}

#[test]
fn two_modules_are_refused_whatever_they_are_called() {
    for second in [
        file("y.ko", &module()),
        file("y.KO", b"x"),
        file("data.bin", &module()),
    ] {
        assert!(matches!(
            refused(&[second]),
            ReadError::SeveralModules { first, .. } if first == "x.ko"
        ));
    }
}

#[test]
fn names_that_leave_the_archive_are_refused() {
    for (name, why) in [
        ("/etc/passwd", "absolute"),
        ("../x", ".."),
        ("a/../../x", ".."),
        ("a/./b", "."),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("..", ".."),
        ("", "empty"),
        ("a\\b", "backslash"),
        ("a\nb", "control"),
    ] {
        match refused(&[file(name, b"")]) {
            ReadError::UnsafeName { why: found, .. } => {
                assert!(found.contains(why), "{name:?}: {found}");
            }
            other => panic!("{name:?}: {other}"),
        }
    }
    assert!(matches!(
        refused(&[raw(b'0', b"\xff", 0, b"")]),
        ReadError::UnsafeName { .. }
    ));
    assert!(matches!(
        refused(&[file("./x.ko", b"")]),
        ReadError::DuplicateName { .. }
    ));
    assert!(matches!(
        refused(&[entry(b'5', "x.ko/", b"")]),
        ReadError::DuplicateName { .. }
    ));
}

#[test]
fn everything_but_files_and_directories_is_refused() {
    for (kind, text) in [
        (b'1', "hard link"),
        (b'2', "symbolic link"),
        (b'3', "character device"),
        (b'4', "block device"),
        (b'6', "named pipe"),
        (b'7', "contiguous file"),
        (b'S', "sparse file"),
        (b'K', "link with a long target"),
        (b'V', "special entry of type 'V'"),
        (0xff, "special entry"),
    ] {
        match refused(&[entry(kind, "n", b"")]) {
            ReadError::EntryKind { name, kind: found } => {
                assert_eq!(name, "n");
                assert!(found.starts_with(text), "{found}");
            }
            other => panic!("{text}: {other}"),
        }
    }
}

#[test]
fn tricks_with_extended_headers_are_refused() {
    let pax = |records: &str| entry(b'x', "p", records.as_bytes());
    let long = "a".repeat(256);
    let cases = [
        vec![pax("10 size=1\n"), file("a", b"bb")],
        vec![pax("12 path=a/b\n"), pax("12 path=a/c\n"), file("a", b"")],
        vec![
            pax("12 path=a/b\n"),
            entry(b'L', "l", b"a/c\0"),
            file("a", b""),
        ],
        vec![entry(b'g', "g", b"12 path=a/b\n"), file("a", b"")],
        vec![pax("22 GNU.sparse.major=1\n"), file("a", b"")],
        vec![pax("12 path=a/b\n")],
        vec![entry(b'L', "l", b"a\0b\0"), file("a", b"")],
        vec![raw(b'x', b"p", 1 << 30, b"")],
        vec![raw(b'L', b"l", (16 << 10) + 1, b"")],
    ];
    for (at, parts) in cases.iter().enumerate() {
        let error = refused(parts);
        assert!(matches!(error, ReadError::Tar { .. }), "case {at}: {error}");
    }
    for unsafe_name in ["../x", "/x", long.as_str()] {
        let long_name = entry(b'L', "l", format!("{unsafe_name}\0").as_bytes());
        assert!(matches!(
            refused(&[long_name, file("a", b"")]),
            ReadError::UnsafeName { .. }
        ));
    }
    let link = [pax("12 path=a/b\n"), entry(b'2', "n", b"")];
    assert!(matches!(refused(&link), ReadError::EntryKind { name, .. } if name == "a/b"));
}

#[test]
fn a_million_entries_are_refused_at_the_limit() {
    let many: Vec<Vec<u8>> = (0..1001).map(|n| file(&format!("f{n}"), b"")).collect();
    assert!(matches!(
        refused(&many),
        ReadError::TooManyEntries { limit: 1000 }
    ));
    let extensions: Vec<Vec<u8>> = (0..1001).map(|_| entry(b'x', "p", b"")).collect();
    assert!(matches!(
        refused(&extensions),
        ReadError::TooManyEntries { .. }
    ));
}

/// Gives so many bytes of one value, without holding them.
fn zeros(head: Vec<u8>, length: u64) -> impl Read {
    io::Cursor::new(head).chain(io::repeat(0).take(length))
}

fn compress_all(mut from: impl Read) -> Vec<u8> {
    let mut encoder = BzEncoder::new(Vec::new(), Compression::best());
    io::copy(&mut from, &mut encoder).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn bombs_are_refused_before_they_unpack() {
    // What is too large by its own header is refused there.
    for name in ["x.ko", "data", "metadata.json"] {
        let claim = raw(b'0', name.as_bytes(), 300 << 20, b"abcd");
        let error = examined(&compressed(&claim)).unwrap_err();
        assert!(
            matches!(
                error,
                ReadError::EntryTooLarge {
                    size: 0x12c0_0000,
                    ..
                }
            ),
            "{name}: {error}"
        );
    }
    // Within the size of its kind, but compressed beyond belief; also behind the end mark.
    let size = 8 << 20;
    let bomb = compress_all(zeros(raw(b'0', b"data", size, b""), size + 1024));
    assert!(bomb.len() < 10_000, "{} bytes", bomb.len());
    assert!(matches!(
        examined(&bomb),
        Err(ReadError::Ratio { limit: 200 })
    ));
    let bomb = compress_all(zeros(ended(&[file("x.ko", &module())]), size));
    assert!(matches!(
        examined(&bomb),
        Err(ReadError::Ratio { limit: 200 })
    ));
    let limits = Limits {
        max_ratio: u64::MAX,
        max_unpacked_bytes: 1 << 20,
        ..Limits::default()
    };
    let name = NAME.parse().unwrap();
    let found = examine(&name, bomb.as_slice(), &limits, None);
    assert!(matches!(
        found,
        Err(ReadError::UnpackedTooLarge { limit: 0x10_0000 })
    ));
}

#[test]
fn each_limit_holds_to_the_byte() {
    let name: BundleName = NAME.parse().unwrap();
    let tar = ended(&[file("x.ko", &module()), file("metadata.json", b"{}")]);
    let bytes = compressed(&tar);
    let exact = Limits {
        max_packed_bytes: bytes.len() as u64,
        max_unpacked_bytes: tar.len() as u64,
        max_ratio: 200,
        max_entries: 2,
        max_module_bytes: module().len() as u64,
        max_metadata_bytes: 2,
    };
    let with = |limits: Limits| examine(&name, bytes.as_slice(), &limits, None);
    assert!(with(exact).is_ok());
    let less = |change: fn(&mut Limits)| {
        let mut limits = exact;
        change(&mut limits);
        with(limits).unwrap_err()
    };
    assert!(matches!(
        less(|l| l.max_packed_bytes -= 1),
        ReadError::PackedTooLarge { .. }
    ));
    assert!(matches!(
        less(|l| l.max_unpacked_bytes -= 1),
        ReadError::UnpackedTooLarge { .. }
    ));
    assert!(matches!(
        less(|l| l.max_entries -= 1),
        ReadError::TooManyEntries { .. }
    ));
    assert!(matches!(
        less(|l| l.max_module_bytes -= 1),
        ReadError::EntryTooLarge { .. }
    ));
    assert!(matches!(
        less(|l| l.max_metadata_bytes -= 1),
        ReadError::EntryTooLarge { .. }
    ));
}

#[test]
fn an_endless_stream_of_nothing_ends() {
    /// Empty bzip2 streams for ever: no output, so no limit on output would stop it.
    struct Nothing(Vec<u8>, usize);
    impl Read for Nothing {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            for byte in buf.iter_mut() {
                *byte = self.0[self.1 % self.0.len()];
                self.1 += 1;
            }
            Ok(buf.len())
        }
    }
    let limits = Limits {
        max_packed_bytes: 256 << 10,
        ..Limits::default()
    };
    let found = read(Nothing(compressed(b""), 0), &limits);
    assert!(
        matches!(found, Err(ReadError::PackedTooLarge { .. })),
        "{found:?}"
    );
}

#[test]
fn broken_streams_are_told_apart() {
    let tar = ended(&[file("x.ko", &module())]);
    let good = compressed(&tar);
    assert!(examined(&good).is_ok());
    assert!(matches!(examined(b""), Err(ReadError::Truncated { .. })));
    assert!(matches!(
        examined(b"PK\x03\x04"),
        Err(ReadError::Compression { .. })
    ));
    assert!(matches!(
        examined(&good[..good.len() - 1]),
        Err(ReadError::Truncated { .. })
    ));
    for garbage in [&b"x"[..], b"\0", b"BZh9", b"BZh9garbage"] {
        let longer = [&good, garbage].concat();
        assert!(
            matches!(
                examined(&longer),
                Err(ReadError::Compression { .. } | ReadError::Truncated { .. })
            ),
            "{garbage:?} at the end"
        );
    }
    // Several streams behind each other are one file (pbzip2 writes such), and hide nothing.
    let (head, tail) = tar.split_at(700);
    assert!(examined(&[compressed(head), compressed(tail)].concat()).is_ok());
    let hidden = [good.clone(), compressed(b"hidden")].concat();
    assert!(matches!(examined(&hidden), Err(ReadError::Tar { why }) if why.contains("end mark")));

    let uncut = tar.len() - 1024;
    for cut in [0, 100, 512, 600, uncut - 1, uncut, uncut + 512] {
        let found = examined(&compressed(&tar[..cut]));
        assert!(
            matches!(found, Err(ReadError::Truncated { .. })),
            "cut at {cut}: {found:?}"
        );
    }
    let mut wrong = tar.clone();
    wrong[5] ^= 1;
    assert!(
        matches!(examined(&compressed(&wrong)), Err(ReadError::Tar { why }) if why.contains("checksum"))
    );
    let mut binary = file("a", b"");
    binary[124] = 0x80;
    binary[148..156].fill(b' ');
    let sum: u32 = binary[..512].iter().map(|b| u32::from(*b)).sum();
    binary[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(
        matches!(examined(&bundle(&[binary])), Err(ReadError::Tar { why }) if why.contains("8 GiB"))
    );
}

#[test]
fn a_failing_reader_is_not_held_against_the_bundle() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "connection lost",
            ))
        }
    }
    let good = bundle(&[file("x.ko", &module())]);
    for given in [0, 10, good.len() / 2, good.len()] {
        let found = read(good[..given].chain(Fails), &Limits::default()).unwrap_err();
        assert!(found.is_source(), "after {given} bytes: {found}");
        assert!(found.to_string().contains("connection lost"), "{found}");
    }
    assert!(!examined(b"x").unwrap_err().is_source());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(examined(&data).is_err());
        let _ = examined(&compressed(&data));
        let _ = ModuleInfo::read(&data);
    }

    #[test]
    fn no_damage_to_an_archive_panics(changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8)) {
        let mut tar = ended(&[entry(b'x', "p", b"12 path=a/b\n"), file("a", b"b"), file("x.ko", &module())]);
        let length = tar.len();
        for (at, byte) in changes {
            tar[usize::from(at) % length] = byte;
        }
        let _ = examined(&compressed(&tar));
    }
}
