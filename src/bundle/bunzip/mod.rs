//! Unpacks bzip2, from which every bundle must be unpacked before anything in it can be checked.
//!
//! A decoder of our own, because unpacking is most of what intake costs and this one takes less than half of the time of the
//! usual ones on real modules, in safe code; decision 0017 says why and by what. What it accepts and gives is what `bzip2`
//! accepts and gives, which the tests compare. Not accepted are blocks written by bzip2 before 0.9.5 (1999) with the
//! "randomised" flag, and codes in which a word begins another.
//!
//! Invariants: memory is bounded by the format (a block has at most 900,000 bytes before runs are written out); nothing is
//! given whose block was not read whole; the end is reported only if all checksums were right.

mod bits;
mod code;
mod crc;
mod front;
mod unsort;

use bits::Bits;
use code::{Code, LONGEST, SYMBOLS};
use crc::crc;
use front::Front;
use std::io::{self, Read};

/// Symbols that are read with the same code before the next one is chosen.
const GROUP: usize = 50;
/// Codes in a block, at most.
const CODES: usize = 6;
/// A block's bytes are a multiple of this, said by the digit in the stream's header.
const LEVEL: usize = 100_000;
const HEADER: u32 = 0x42_5a68;
const BLOCK: u64 = 0x3141_5926_5359;
const END: u64 = 0x1772_4538_5090;

/// Room that can be used again for the next bundle.
#[derive(Debug, Default)]
pub(super) struct Room {
    codes: [Code; CODES],
    /// Which code each group of symbols is read with.
    choices: Vec<u8>,
    block: Vec<u8>,
    /// How much of `block` counts.
    length: usize,
    unsort: unsort::Room,
}

impl Room {
    fn block(&self) -> &[u8] {
        &self.block[..self.length]
    }
}

/// Gives the unpacked bytes of one or more streams behind each other.
pub(super) struct Unpack<'a, R> {
    bits: Bits<R>,
    room: &'a mut Room,
    /// The most that a block of this stream may hold; 0 between streams.
    most: usize,
    /// Of `room.block`: how far it was given.
    given: usize,
    /// How far it is given as it is.
    plain: Plain,
    /// A byte that is still to be repeated, and how often.
    repeat: (u8, usize),
    /// Checksums: of what was given of the block, of the whole block as announced, of the stream's blocks so far.
    crc: u32,
    announced: u32,
    stream: u32,
    done: bool,
}

/// Damage, for people.
fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<'a, R: Read> Unpack<'a, R> {
    pub(super) fn new(inner: R, room: &'a mut Room) -> Self {
        room.length = 0;
        Self {
            bits: Bits::new(inner),
            room,
            most: 0,
            given: 0,
            plain: Plain::default(),
            repeat: (0, 0),
            crc: !0,
            announced: 0,
            stream: 0,
            done: false,
        }
    }

    /// Where the bytes come from.
    pub(super) fn inner_mut(&mut self) -> &mut R {
        self.bits.inner_mut()
    }

    /// Goes on to the next block; `false` at the end of the last stream.
    fn next_block(&mut self) -> io::Result<bool> {
        if self.most > 0 {
            if !self.crc != self.announced {
                return Err(damaged("a block's checksum is wrong"));
            }
            self.stream = self.stream.rotate_left(1) ^ self.announced;
        }
        while !self.done {
            if self.most == 0 {
                self.begin_stream()?;
            }
            let magic = u64::from(self.bits.take(24)) << 24 | u64::from(self.bits.take(24));
            let sum = self.bits.take(32);
            self.bits.check()?;
            match magic {
                BLOCK => {
                    let origin = read_block(&mut self.bits, self.room, self.most);
                    let origin = origin.or_else(|error| {
                        // That it ends early explains whatever else seems to be wrong.
                        self.bits.check()?;
                        Err(error)
                    })?;
                    let block = &mut self.room.block[..self.room.length];
                    self.room.unsort.unsort(block, origin);
                    (self.crc, self.announced, self.given) = (!0, sum, 0);
                    self.plain = Plain::after(self.room.block(), 0);
                    return Ok(true);
                }
                END if sum == self.stream => {
                    self.most = 0;
                    self.done = !self.bits.rest()?;
                }
                END => return Err(damaged("a stream's checksum is wrong")),
                _ => return Err(damaged("no block begins where one should")),
            }
        }
        Ok(false)
    }

    fn begin_stream(&mut self) -> io::Result<()> {
        let (header, level) = (self.bits.take(24), self.bits.take(8));
        self.bits.check()?;
        match level.checked_sub(b'0'.into()) {
            Some(level @ 1..=9) if header == HEADER => self.most = level as usize * LEVEL,
            _ => return Err(damaged("no bzip2 stream begins where one should")),
        }
        self.stream = 0;
        Ok(())
    }

    /// Gives what the block still holds, as far as there is room.
    fn give(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            let room = &mut out[filled..];
            let (byte, times) = self.repeat;
            if times > 0 {
                let now = times.min(room.len());
                room[..now].fill(byte);
                self.repeat = (byte, times - now);
                filled += now;
            } else if self.given < self.plain.end {
                let now = (self.plain.end - self.given).min(room.len());
                room[..now].copy_from_slice(&self.room.block[self.given..self.given + now]);
                self.given += now;
                filled += now;
            } else if self.plain.run {
                let block = self.room.block();
                let times = block.get(self.given);
                let times = times.ok_or_else(|| damaged("a block ends in the middle of a run"))?;
                self.repeat = (block[self.given - 1], usize::from(*times));
                self.given += 1;
                self.plain = Plain::after(block, self.given);
            } else {
                break;
            }
        }
        self.crc = crc(self.crc, &out[..filled]);
        Ok(filled)
    }
}

impl<R: Read> Read for Unpack<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            let given = self.give(out)?;
            if given > 0 || !self.next_block()? {
                return Ok(given);
            }
        }
    }
}

/// How far a block is given as it is: up to the fourth of four bytes that are equal, behind which stands how often that byte
/// follows once more, or to its end.
#[derive(Debug, Clone, Copy, Default)]
struct Plain {
    end: usize,
    run: bool,
}

impl Plain {
    fn after(block: &[u8], from: usize) -> Self {
        const STRIDE: usize = 32;
        let mut at = from;
        // Many at a time, without a branch for each.
        while let Some(bytes) = block[at..].first_chunk::<{ STRIDE + 3 }>() {
            let equal = |n: usize| bytes[n] == bytes[n + 1];
            let runs = (0..STRIDE).map(|n| equal(n) & equal(n + 1) & equal(n + 2));
            if runs.fold(false, |any, run| any | run) {
                break;
            }
            at += STRIDE;
        }
        let run = block[at..].windows(4).position(|four| four == [four[0]; 4]);
        Self {
            end: run.map_or(block.len(), |run| at + run + 4),
            run: run.is_some(),
        }
    }
}

/// Reads a block up to where it was sorted, into `room.block`; gives the row that the block itself stands in.
fn read_block(bits: &mut Bits<impl Read>, room: &mut Room, most: usize) -> io::Result<usize> {
    if bits.take(1) != 0 {
        return Err(damaged(
            "a block is of a kind that was last written in 1999",
        ));
    }
    let origin = bits.take(24) as usize;
    let (bytes, used) = read_used(bits)?;
    // Two symbols for runs of the first byte, one for each further byte, one for the end.
    let symbols = used + 2;
    let codes = bits.take(3) as usize;
    if !(2..=CODES).contains(&codes) {
        return Err(damaged("a block has no number of codes that is allowed"));
    }
    read_choices(bits, codes, &mut room.choices)?;
    for code in &mut room.codes[..codes] {
        read_code(bits, symbols, code)?;
    }
    let mut sink = Sink::new(&mut room.block, most, Front::new(&bytes));
    for choice in &room.choices {
        let code = &room.codes[usize::from(*choice)];
        let mut group = [0; GROUP];
        let (read, ended) = read_group(bits, code, symbols, &mut group);
        for symbol in &group[..read] {
            sink.put(*symbol)?;
        }
        if let Some(symbol) = ended {
            bits.check()?;
            if usize::from(symbol) >= symbols {
                return Err(damaged("there are bits that mean nothing"));
            }
            room.length = sink.finish()?;
            if origin >= room.length {
                return Err(damaged("a block does not say where it begins"));
            }
            return Ok(origin);
        }
    }
    Err(damaged("a block has no end"))
}

/// Which bytes stand in the block at all, in order, and how many those are.
fn read_used(bits: &mut Bits<impl Read>) -> io::Result<([u8; 256], usize)> {
    let mut bytes = [0; 256];
    let mut used = 0;
    let ranges = bits.take(16);
    for range in (0..16_u8).filter(|range| ranges << range & 0x8000 != 0) {
        let members = bits.take(16);
        for member in (0..16_u8).filter(|member| members << member & 0x8000 != 0) {
            bytes[used] = range << 4 | member;
            used += 1;
        }
    }
    if used == 0 {
        return Err(damaged("a block holds no bytes"));
    }
    Ok((bytes, used))
}

/// Which code each group is read with, moved to the front when it is chosen.
fn read_choices(bits: &mut Bits<impl Read>, codes: usize, choices: &mut Vec<u8>) -> io::Result<()> {
    let mut order = [0, 1, 2, 3, 4, 5];
    choices.clear();
    for _ in 0..bits.take(15) {
        let mut place = 0;
        while bits.take(1) == 1 {
            place += 1;
            if place == codes {
                return Err(damaged("a code is chosen that is not there"));
            }
        }
        bits.check()?;
        order[..=place].rotate_right(1);
        choices.push(order[0]);
    }
    Ok(())
}

/// The lengths of a code's words, each told by its difference from the one before.
fn read_code(bits: &mut Bits<impl Read>, symbols: usize, code: &mut Code) -> io::Result<()> {
    let mut lengths = [0; SYMBOLS];
    let mut length = bits.take(5);
    for slot in &mut lengths[..symbols] {
        loop {
            if !(1..=LONGEST).contains(&length) {
                return Err(damaged("a word of a code has no length that is allowed"));
            }
            if bits.take(1) == 0 {
                break;
            }
            if bits.take(1) == 0 {
                length += 1;
            } else {
                length -= 1;
            }
        }
        *slot = length as u8;
    }
    bits.check()?;
    code.set(&lengths[..symbols])
}

/// Reads symbols up to one that ends the block, or is none; how many, and that one.
fn read_group(
    bits: &mut Bits<impl Read>,
    code: &Code,
    symbols: usize,
    group: &mut [u16; GROUP],
) -> (usize, Option<u16>) {
    let end = symbols as u16 - 1;
    // Two words are never longer than what is available at once.
    for (pair, slots) in group.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        bits.refill();
        for (of_pair, slot) in slots.iter_mut().enumerate() {
            let (symbol, length) = code.read(bits.peek());
            bits.skip(length);
            if symbol >= end {
                return (pair * 2 + of_pair, Some(symbol));
            }
            *slot = symbol;
        }
    }
    (GROUP, None)
}

/// Takes symbols and writes the bytes they stand for.
struct Sink<'a> {
    block: &'a mut [u8],
    filled: usize,
    front: Front,
    /// How often the first byte is to be written, told so far, and what the next symbol of a run counts.
    run: usize,
    weight: usize,
}

impl<'a> Sink<'a> {
    fn new(block: &'a mut Vec<u8>, most: usize, front: Front) -> Self {
        if block.len() < most {
            *block = vec![0; most];
        }
        Self {
            block: &mut block[..most],
            filled: 0,
            front,
            run: 0,
            weight: 1,
        }
    }

    #[inline]
    fn put(&mut self, symbol: u16) -> io::Result<()> {
        // A run is a number in which the digits are 1 and 2, the lowest first.
        if symbol < 2 {
            self.run += self.weight << symbol;
            self.weight <<= 1;
            if self.run > self.block.len() {
                return Err(too_long());
            }
            return Ok(());
        }
        if self.run > 0 {
            self.write_run()?;
        }
        let byte = self.front.take((symbol - 1) as u8);
        let slot = self.block.get_mut(self.filled).ok_or_else(too_long)?;
        *slot = byte;
        self.filled += 1;
        Ok(())
    }

    fn write_run(&mut self) -> io::Result<()> {
        let part = self.block[self.filled..].get_mut(..self.run);
        part.ok_or_else(too_long)?.fill(self.front.first());
        self.filled += self.run;
        (self.run, self.weight) = (0, 1);
        Ok(())
    }

    /// How many bytes there are.
    fn finish(mut self) -> io::Result<usize> {
        self.write_run()?;
        Ok(self.filled)
    }
}

#[cold]
fn too_long() -> io::Error {
    damaged("a block is longer than its stream allows")
}

#[cfg(test)]
mod tests;
