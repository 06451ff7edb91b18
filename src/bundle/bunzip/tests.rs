//! Against the decoder that everybody uses: the same bytes, and the same streams refused.

use super::*;
use bzip2::Compression;
use bzip2::bufread::MultiBzDecoder;
use bzip2::write::BzEncoder;
use proptest::prelude::*;
use std::io::Write as _;

fn packed(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = BzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn ours(packed: impl Read) -> io::Result<Vec<u8>> {
    let mut room = Room::default();
    let mut bytes = Vec::new();
    Unpack::new(packed, &mut room).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn theirs(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    MultiBzDecoder::new(packed).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Gives a few bytes at a time, so that every boundary is met somewhere.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // From less than a word of the machine to several.
        self.1 = self.1 % 29 + 1;
        let most = out.len().min(self.1);
        self.0.read(&mut out[..most])
    }
}

/// Bytes of different kinds, by a small generator so that they are the same each time.
fn content(kind: u32, length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let mut bytes = Vec::with_capacity(length + 300);
    while bytes.len() < length {
        let word = random();
        match kind {
            0 => bytes.push(word as u8),
            1 => bytes.push((word % 3) as u8),
            // Runs of all lengths, beyond what one count can tell.
            2 => bytes.resize(bytes.len() + (word % 300) as usize, (word >> 16) as u8),
            3 => bytes.extend(&b"livepatch "[..(word % 10) as usize]),
            _ => bytes.push(7),
        }
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn what_bzip2_packs_comes_back() {
    for kind in 0..5 {
        for length in [0, 1, 3, 4, 5, 255, 259, 260, 1000, 99_980, 100_001, 950_000] {
            let bytes = content(kind, length);
            for level in [1, 9] {
                let packed = packed(&bytes, level);
                let what = format!("kind {kind}, {length} bytes, level {level}");
                assert!(ours(packed.as_slice()).unwrap() == bytes, "{what}");
                let back = ours(Dribble(&packed, 0)).unwrap();
                assert!(back == bytes, "{what}, a few bytes at a time");
            }
        }
    }
}

#[test]
fn room_is_used_again_and_small_reads_give_the_same() {
    let mut room = Room::default();
    for (kind, length) in [(2, 400_000), (0, 1_000), (4, 70_000_000), (3, 300_000)] {
        let bytes = content(kind, length);
        let packed = packed(&bytes, 9);
        let mut unpack = Unpack::new(packed.as_slice(), &mut room);
        let mut back = Vec::new();
        let mut some = [0; 777];
        loop {
            match unpack.read(&mut some).unwrap() {
                0 => break,
                read => back.extend_from_slice(&some[..read]),
            }
        }
        assert!(back == bytes, "kind {kind}");
    }
}

#[test]
fn streams_behind_each_other_are_one_and_anything_else_behind_is_refused() {
    let mut both = packed(b"first ", 1);
    both.extend(packed(b"", 5));
    both.extend(packed(b"second", 9));
    assert_eq!(ours(both.as_slice()).unwrap(), b"first second");
    for more in [&b"B"[..], b"BZh", b"\0", b"garbage behind the end"] {
        let longer = [&both, more].concat();
        assert!(ours(longer.as_slice()).is_err(), "{more:?}");
    }
    assert_eq!(
        ours(&b""[..]).unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[test]
fn a_broken_source_is_told_and_a_short_stream_is_told_as_short() {
    struct Broken<'a>(&'a [u8]);
    impl Read for Broken<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.0.read(out)? {
                0 => Err(io::ErrorKind::ConnectionReset.into()),
                read => Ok(read),
            }
        }
    }
    let whole = packed(&content(3, 50_000), 9);
    for length in 0..whole.len() {
        let short = &whole[..length];
        let error = ours(short).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::UnexpectedEof,
            "{length}: {error}"
        );
        let error = ours(Broken(short)).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionReset,
            "{length}: {error}"
        );
    }
}

#[test]
fn every_single_bit_matters() {
    let bytes = content(3, 3_000);
    let whole = packed(&bytes, 1);
    for bit in 0..whole.len() * 8 {
        let mut altered = whole.clone();
        altered[bit / 8] ^= 0x80 >> (bit % 8);
        // A higher level allows larger blocks, and the bits behind the end are not looked at by anyone.
        match (ours(altered.as_slice()), theirs(&altered)) {
            (Ok(ours), Ok(theirs)) => assert!(ours == bytes && theirs == bytes, "bit {bit}"),
            (Err(_), Err(_)) => {}
            (ours, theirs) => panic!(
                "bit {bit}: {:?} {:?}",
                ours.map(|b| b.len()),
                theirs.map(|b| b.len())
            ),
        }
    }
}

proptest! {
    #[test]
    fn both_say_the_same_of_damaged_streams(
        kind in 0..5_u32,
        length in 0..4_000_usize,
        level in 1..=9_u32,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut stream = packed(&content(kind, length), level);
        for (at, byte) in changes {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        if let Some(cut) = cut {
            stream.truncate(cut.index(stream.len()));
        }
        let (ours, theirs) = (ours(stream.as_slice()), theirs(&stream));
        prop_assert_eq!(ours.is_ok(), theirs.is_ok());
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            prop_assert!(ours == theirs);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let mut stream = b"BZh91AY&SY".to_vec();
        stream.extend(bytes);
        prop_assert!(ours(stream.as_slice()).is_err());
    }
}
