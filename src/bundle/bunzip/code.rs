//! One of a block's Huffman codes.

use super::damaged;
use std::io;

/// Words up to this many bits are found by one look into a table.
const LOOK: u32 = 10;
/// The longest word that the format knows, in bits.
pub(super) const LONGEST: u32 = 20;
/// Bytes, less the one at the front, two for runs, and the end of the block.
pub(super) const SYMBOLS: usize = 258;
/// What stands for bits that are no word: greater than any symbol.
pub(super) const NO_WORD: u16 = u16::MAX >> LENGTH_BITS;

/// A symbol and the length of its word are kept in one number, the length in its lowest bits.
const LENGTH_BITS: u32 = 5;

#[derive(Debug)]
pub(super) struct Code {
    /// By the next [`LOOK`] bits: what they begin with; 0: a longer word, or none.
    short: Box<[u16; 1 << LOOK]>,
    /// By length, the end of its words, as the beginnings of words of [`LONGEST`] bits.
    ends: [u32; LONGEST as usize + 1],
    /// By length, what leads from a word to its place in `sorted`.
    places: [u32; LONGEST as usize + 1],
    /// Symbols by the length of their words, then by themselves.
    sorted: [u16; SYMBOLS],
}

impl Default for Code {
    fn default() -> Self {
        Self {
            short: Box::new([0; 1 << LOOK]),
            ends: [0; LONGEST as usize + 1],
            places: [0; LONGEST as usize + 1],
            sorted: [0; SYMBOLS],
        }
    }
}

impl Code {
    /// Makes the canonical code of these lengths, each from 1 to [`LONGEST`]; at most [`SYMBOLS`] of them.
    pub(super) fn set(&mut self, lengths: &[u8]) -> io::Result<()> {
        let mut counts = [0_u32; LONGEST as usize + 1];
        for length in lengths {
            counts[usize::from(*length)] += 1;
        }
        let mut firsts = counts;
        let (mut end, mut place) = (0_u32, 0_u32);
        for (length, count) in counts.iter().enumerate().skip(1) {
            let shift = LONGEST - length as u32;
            firsts[length] = place;
            self.places[length] = place.wrapping_sub(end >> shift);
            end += count << shift;
            if end > 1 << LONGEST {
                return Err(damaged("a code has more words than bits can tell"));
            }
            self.ends[length] = end;
            place += count;
        }
        for (symbol, length) in lengths.iter().enumerate() {
            let place = &mut firsts[usize::from(*length)];
            self.sorted[*place as usize] = symbol as u16;
            *place += 1;
        }
        self.fill(&counts);
        Ok(())
    }

    fn fill(&mut self, counts: &[u32; LONGEST as usize + 1]) {
        let mut symbols = self.sorted.iter();
        let mut at = 0;
        for length in 1..=LOOK {
            let width = 1 << (LOOK - length);
            for symbol in symbols.by_ref().take(counts[length as usize] as usize) {
                self.short[at..at + width].fill(entry(*symbol, length));
                at += width;
            }
        }
        self.short[at..].fill(0);
    }

    /// The symbol that these bits begin with, and how many of them it took.
    #[inline]
    pub(super) fn read(&self, bits: u64) -> (u16, u32) {
        let mut found = self.short[(bits >> (64 - LOOK)) as usize];
        if found == 0 {
            found = self.read_long(bits);
        }
        (found >> LENGTH_BITS, u32::from(found) & 31)
    }

    #[cold]
    #[inline(never)]
    fn read_long(&self, bits: u64) -> u16 {
        let word = (bits >> (64 - LONGEST)) as u32;
        for length in LOOK + 1..=LONGEST {
            if word < self.ends[length as usize] {
                let place = self.places[length as usize].wrapping_add(word >> (LONGEST - length));
                let symbol = self.sorted.get(place as usize).copied();
                return entry(symbol.unwrap_or(NO_WORD), length);
            }
        }
        entry(NO_WORD, 1)
    }
}

const fn entry(symbol: u16, length: u32) -> u16 {
    symbol << LENGTH_BITS | length as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_all_lengths_are_read_and_what_is_no_word_is_told() {
        // One word of each length: 0, 10, 110, ... and at the end two that differ in the last bit.
        let lengths: Vec<u8> = (1..=20).chain([20]).collect();
        let mut code = Code::default();
        code.set(&lengths).unwrap();
        for symbol in 0..21_u32 {
            let ones = symbol.min(20);
            let word = if ones == 0 {
                0
            } else {
                u64::MAX << (64 - ones)
            };
            assert_eq!(
                code.read(word),
                (symbol as u16, lengths[symbol as usize].into())
            );
        }
        code.set(&lengths[..20]).unwrap();
        assert_eq!(code.read(u64::MAX).0, NO_WORD);
        code.set(&[2, 2]).unwrap();
        assert_eq!(code.read(1 << 62), (1, 2));
        assert_eq!(code.read(1 << 63).0, NO_WORD);
    }

    #[test]
    fn too_many_words_are_refused() {
        let mut code = Code::default();
        assert!(code.set(&[1, 1, 2]).is_err());
        assert!(code.set(&[1; SYMBOLS]).is_err());
        assert!(code.set(&[20; SYMBOLS]).is_ok());
    }
}
