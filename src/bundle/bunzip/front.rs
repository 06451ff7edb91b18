//! The list of bytes in which the one that was met last stands first.
//!
//! In programs, most of what is asked for is among the first sixteen. Those are one number, so that moving one of them to the
//! front is a matter of shifting.

/// Bytes in `head`.
const HEAD: usize = 16;

#[derive(Debug)]
pub(super) struct Front {
    /// The first ones, from the lowest byte on.
    head: u128,
    tail: [u8; 256 - HEAD],
}

impl Front {
    pub(super) fn new(bytes: &[u8; 256]) -> Self {
        let (head, tail) = bytes.split_at(HEAD);
        let mut front = Self {
            head: 0,
            tail: [0; 256 - HEAD],
        };
        for byte in head.iter().rev() {
            front.head = front.head << 8 | u128::from(*byte);
        }
        front.tail.copy_from_slice(tail);
        front
    }

    /// The first.
    #[inline]
    pub(super) fn first(&self) -> u8 {
        self.head as u8
    }

    /// Moves the byte at a place to the front.
    #[inline]
    pub(super) fn take(&mut self, place: u8) -> u8 {
        let place = usize::from(place);
        if place < 8 {
            let head = self.head as u64;
            let shift = place as u32 * 8;
            let byte = (head >> shift) as u8;
            let before = (1_u64 << shift) - 1;
            let after = !(before << 8 | 0xff);
            let moved = head & after | (head & before) << 8 | u64::from(byte);
            self.head = self.head >> 64 << 64 | u128::from(moved);
            byte
        } else if place < HEAD {
            let shift = place as u32 * 8;
            let byte = (self.head >> shift) as u8;
            let before = (1_u128 << shift) - 1;
            let after = !(before << 8 | 0xff);
            self.head = self.head & after | (self.head & before) << 8 | u128::from(byte);
            byte
        } else {
            self.take_far(place - HEAD)
        }
    }

    #[inline(never)]
    fn take_far(&mut self, place: usize) -> u8 {
        let byte = self.tail[place];
        self.tail.copy_within(..place, 1);
        self.tail[0] = (self.head >> 120) as u8;
        self.head = self.head << 8 | u128::from(byte);
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_moves_to_the_front_as_in_a_plain_list() {
        let mut plain: Vec<u8> = (0..=255).rev().collect();
        let mut front = Front::new(plain.as_slice().try_into().unwrap());
        for n in 0..10_000_u32 {
            // Small places more often than large ones, each met many times.
            let place = (n * 97 % 256) as u8 >> (n % 6);
            let byte = plain.remove(place.into());
            plain.insert(0, byte);
            assert_eq!(front.take(place), byte, "place {place}");
            assert_eq!(front.first(), byte);
        }
    }
}
