//! Undoes the sorting of a block (the Burrows-Wheeler transform).
//!
//! The sorted bytes form one chain: each leads to the one that follows it in the block. Following it byte by byte is a jump into
//! memory for each, and every jump must wait for the one before; on a block of a mebibyte that takes longer than all the rest.
//! So the chain is cut at many places, and several pieces of it are followed at the same time.

/// Pieces that are followed at the same time: so many jumps are waited for together.
const LANES: usize = 8;
/// Pieces that the chain is cut into. They are of different lengths; many of them keep all lanes busy to the end.
const PIECES: usize = 256;
/// A block below this many bytes is followed in one go.
const SMALL: usize = 16 << 10;
/// Marks where a piece begins.
const BEGINS: u32 = 1 << 31;
/// Where a link leads, above the byte that it brings; blocks have less than 2^20 bytes.
const PLACE: u32 = (1 << 20) - 1;

/// Room that can be used again for the next block.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// For each byte in sorted order, the byte itself and where the next one stands.
    links: Vec<u32>,
    /// What was met, step by step, a byte of each lane.
    met: Vec<u8>,
    pieces: Vec<Piece>,
}

/// A piece of the chain: where it was met, and which one follows.
#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    begins: u32,
    lane: usize,
    step: usize,
    length: usize,
    next: usize,
}

/// A link's place.
const fn place(link: u32) -> usize {
    (link >> 8 & PLACE) as usize
}

impl Room {
    /// Puts `block`, the last column, back into its order; `origin` is the row that it stands in and must be in the block.
    pub(super) fn unsort(&mut self, block: &mut [u8], origin: usize) {
        self.link(block);
        if block.len() < SMALL {
            let mut at = origin;
            for byte in block {
                let link = self.links[at];
                *byte = link as u8;
                at = place(link);
            }
            return;
        }
        self.cut(block.len(), origin);
        self.follow();
        self.join(block);
    }

    /// Sorts the bytes by counting, each with the place that it comes from.
    fn link(&mut self, block: &[u8]) {
        // Four counts side by side: a byte that comes twice in a row must not wait for its own count.
        let mut counts = [[0_u32; 256]; 4];
        let (fours, rest) = block.as_chunks::<4>();
        for four in fours {
            for (count, byte) in counts.iter_mut().zip(four) {
                count[usize::from(*byte)] += 1;
            }
        }
        for byte in rest {
            counts[0][usize::from(*byte)] += 1;
        }
        let mut places = [0_u32; 256];
        let mut sum = 0;
        for (byte, place) in places.iter_mut().enumerate() {
            *place = sum;
            sum += counts.iter().map(|count| count[byte]).sum::<u32>();
        }
        self.links.resize(block.len(), 0);
        for (from, byte) in block.iter().enumerate() {
            let place = &mut places[usize::from(*byte)];
            self.links[*place as usize] = (from as u32) << 8 | u32::from(*byte);
            *place += 1;
        }
    }

    /// Marks where pieces begin: at the origin, which is the first, and at even distances.
    fn cut(&mut self, length: usize, origin: usize) {
        let distance = length.div_ceil(PIECES);
        let even = (0..length).step_by(distance).filter(|at| *at != origin);
        self.pieces.clear();
        self.pieces
            .extend(std::iter::once(origin).chain(even).map(|at| Piece {
                begins: at as u32,
                ..Piece::default()
            }));
        for piece in &self.pieces {
            self.links[piece.begins as usize] |= BEGINS;
        }
    }

    /// Follows all pieces, as many at the same time as there are lanes.
    fn follow(&mut self) {
        let links = self.links.as_slice();
        let pieces = self.pieces.as_mut_slice();
        self.met.clear();
        // Which piece a lane follows, and the link that it has come to.
        let mut current = [None; LANES];
        let mut at = [0_u32; LANES];
        let mut waiting = 0;
        let mut begin = |pieces: &mut [Piece], lane: usize, step: usize| {
            let piece = pieces.get_mut(waiting)?;
            (piece.lane, piece.step) = (lane, step);
            waiting += 1;
            Some((waiting - 1, links[piece.begins as usize] & !BEGINS))
        };
        for lane in 0..LANES {
            if let Some((piece, link)) = begin(pieces, lane, 0) {
                (current[lane], at[lane]) = (Some(piece), link);
            }
        }
        let mut step = 0;
        while current.iter().any(Option::is_some) {
            let mut before;
            loop {
                self.met.extend_from_slice(&at.map(|link| link as u8));
                step += 1;
                before = at;
                at = before.map(|link| links[place(link)]);
                if at.iter().fold(0, |all, link| all | link) & BEGINS != 0 {
                    break;
                }
            }
            for lane in 0..LANES {
                if at[lane] & BEGINS == 0 {
                    continue;
                }
                at[lane] &= !BEGINS;
                // A lane that has nothing to do goes on in circles, which nobody looks at.
                let Some(done) = current[lane] else { continue };
                let next = place(before[lane]);
                let next = pieces
                    .iter()
                    .position(|piece| piece.begins as usize == next);
                pieces[done].length = step - pieces[done].step;
                pieces[done].next = next.unwrap_or_default();
                current[lane] = None;
                if let Some((piece, link)) = begin(pieces, lane, step) {
                    (current[lane], at[lane]) = (Some(piece), link);
                }
            }
        }
    }

    /// Puts the pieces one behind the other. The chain of a block that repeats itself is shorter than the block, and begins anew.
    fn join(&self, block: &mut [u8]) {
        let steps = self.met.as_chunks::<LANES>().0;
        let mut rest = block;
        let mut number = 0;
        while !rest.is_empty() {
            let piece = self.pieces[number];
            let length = piece.length.min(rest.len());
            let (part, after) = rest.split_at_mut(length);
            for (byte, step) in part.iter_mut().zip(&steps[piece.step..]) {
                *byte = step[piece.lane];
            }
            rest = after;
            number = piece.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The last column of the sorted rotations, and the row of the block itself.
    fn sorted(block: &[u8]) -> (Vec<u8>, usize) {
        let n = block.len();
        let mut rows: Vec<usize> = (0..n).collect();
        let row = |from: usize| block[from..].iter().chain(&block[..from]);
        rows.sort_by(|a, b| row(*a).cmp(row(*b)));
        let last = rows.iter().map(|from| block[(from + n - 1) % n]).collect();
        (last, rows.iter().position(|from| *from == 0).unwrap())
    }

    fn comes_back(block: &[u8], room: &mut Room) {
        let (mut last, origin) = sorted(block);
        // Both ways, whatever the length.
        let mut in_pieces = last.clone();
        room.link(&in_pieces);
        room.cut(in_pieces.len(), origin);
        room.follow();
        room.join(&mut in_pieces);
        assert!(in_pieces == block, "in pieces, of {}", block.len());
        room.unsort(&mut last, origin);
        assert!(last == block, "of {}", block.len());
    }

    #[test]
    fn blocks_of_all_lengths_come_back_and_also_those_that_repeat_themselves() {
        let mut room = Room::default();
        for length in (1..70).chain([255, 256, 257, 2000]) {
            let block: Vec<u8> = (0..length).map(|n| (n * n % 251) as u8).collect();
            comes_back(&block, &mut room);
            for period in [1, 2, 3, 7] {
                let block: Vec<u8> = (0..length).map(|n| (n % period) as u8).collect();
                comes_back(&block, &mut room);
            }
        }
    }

    proptest! {
        #[test]
        fn any_block_comes_back(block in proptest::collection::vec(0..4_u8, 1..600)) {
            comes_back(&block, &mut Room::default());
        }

        #[test]
        fn no_column_hangs_or_panics(mut last in proptest::collection::vec(any::<u8>(), 1..600), origin in any::<prop::sample::Index>()) {
            let origin = origin.index(last.len());
            let mut room = Room::default();
            room.link(&last);
            room.cut(last.len(), origin);
            room.follow();
            room.join(&mut last);
        }
    }
}
