//! Joins the bytes of a piece to tokens: the pair of the lowest rank first, of equal ones the left one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

/// No rank, and no token.
pub const NONE: u32 = u32::MAX;
/// Pieces of at most so many bytes are joined in place; longer ones with a heap, or their time would grow with
/// the square.
const SHORT: usize = 64;

#[derive(Debug, Clone)]
pub struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each token ends in `bytes`.
    ends: Vec<u32>,
    /// Open addresses: 32 bits of the hash above the token's number.
    slots: Vec<u64>,
    longest: usize,
}

const FREE: u64 = u64::MAX;

#[inline]
fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

impl Vocabulary {
    /// The vocabulary of `tokens`, which are numbered in their order. Of equal ones the first counts.
    pub fn new<'t>(tokens: impl IntoIterator<Item = &'t [u8]>) -> Vocabulary {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for token in tokens {
            bytes.extend_from_slice(token);
            ends.push(bytes.len() as u32);
        }
        let size = (ends.len() * 2).next_power_of_two();
        let mut vocabulary = Vocabulary { bytes, ends, slots: vec![FREE; size], longest: 0 };
        for token in 0..vocabulary.ends.len() as u32 {
            let bytes = vocabulary.token(token);
            let (hash, length) = (hash(bytes), bytes.len());
            if vocabulary.get(bytes) == NONE {
                vocabulary.longest = vocabulary.longest.max(length);
                let mut slot = hash as usize & (size - 1);
                while vocabulary.slots[slot] != FREE {
                    slot = (slot + 1) & (size - 1);
                }
                vocabulary.slots[slot] = hash >> 32 << 32 | u64::from(token);
            }
        }
        vocabulary
    }

    fn token(&self, token: u32) -> &[u8] {
        let start = token.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        &self.bytes[start as usize..self.ends[token as usize] as usize]
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.ends.len()).map(|token| self.token(token as u32))
    }

    /// The number of the token `bytes`, or [`NONE`].
    #[inline]
    pub fn get(&self, bytes: &[u8]) -> u32 {
        let hash = hash(bytes);
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let found = self.slots[slot];
            if found == FREE {
                return NONE;
            }
            if found >> 32 == hash >> 32 && self.token(found as u32) == bytes {
                return found as u32;
            }
            slot = (slot + 1) & mask;
        }
    }
}

/// Which pairs become one token, and in which order.
#[derive(Debug, Clone)]
pub enum Merges {
    /// Two tokens whose bytes together are one; its number is the rank.
    ByBytes,
    /// The pairs that are listed, by the numbers of both.
    ByPair(Pairs),
}

/// A part of a piece on its way to become a token.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    start: u32,
    token: u32,
    /// The rank of it and the next part.
    rank: u32,
}

#[derive(Debug, Clone)]
pub struct Bpe {
    pub vocabulary: Vocabulary,
    pub merges: Merges,
    /// Which tokens a piece is that has their bytes, without a look at the merges.
    pub whole: Vec<bool>,
}

impl Bpe {
    /// Calls `token` with the end of each token of `piece`, from its beginning.
    #[inline]
    pub fn split(&self, piece: &[u8], mut token: impl FnMut(usize)) {
        if self.is_whole(piece) {
            return token(piece.len());
        }
        self.join_all(piece, token);
    }

    /// The same, by merges alone.
    pub fn join_all(&self, piece: &[u8], mut token: impl FnMut(usize)) {
        let mut parts = [Part::default(); SHORT + 1];
        match piece.len() {
            0 => {}
            1 => token(1),
            short @ ..=SHORT => {
                let parts = self.join(piece, &mut parts[..=short]);
                parts[1..].iter().for_each(|part| token(part.start as usize));
            }
            _ => self.join_long(piece).into_iter().for_each(token),
        }
    }

    #[inline]
    fn is_whole(&self, piece: &[u8]) -> bool {
        let token = if piece.len() > self.vocabulary.longest { NONE } else { self.vocabulary.get(piece) };
        self.whole.get(token as usize).is_some_and(|is_whole| *is_whole)
    }

    fn single(&self, byte: u8) -> u32 {
        match self.merges {
            Merges::ByBytes => NONE,
            Merges::ByPair(_) => self.vocabulary.get(&[byte]),
        }
    }

    /// The rank of two neighbours, of which the second ends at `end`.
    #[inline]
    fn rank(&self, piece: &[u8], left: Part, right: Part, end: u32) -> u32 {
        match &self.merges {
            Merges::ByBytes => {
                let bytes = &piece[left.start as usize..end as usize];
                if bytes.len() > self.vocabulary.longest { NONE } else { self.vocabulary.get(bytes) }
            }
            Merges::ByPair(pairs) => pairs.rank(left.token, right.token),
        }
    }

    /// The token that a pair of this rank becomes.
    #[inline]
    fn joined(&self, rank: u32) -> u32 {
        match &self.merges {
            Merges::ByBytes => rank,
            Merges::ByPair(pairs) => pairs.results[rank as usize],
        }
    }

    /// The parts that stay, and one of no length at the end. `parts` has room for one a byte and that one.
    fn join<'p>(&self, piece: &[u8], parts: &'p mut [Part]) -> &'p [Part] {
        let mut last = piece.len();
        for (at, part) in parts.iter_mut().enumerate() {
            let token = piece.get(at).map_or(NONE, |byte| self.single(*byte));
            *part = Part { start: at as u32, token, rank: NONE };
        }
        for at in 0..last - 1 {
            parts[at].rank = self.rank(piece, parts[at], parts[at + 1], at as u32 + 2);
        }
        loop {
            let (mut at, mut rank) = (0, NONE);
            for (index, part) in parts[..last].iter().enumerate() {
                if part.rank < rank {
                    (at, rank) = (index, part.rank);
                }
            }
            if rank == NONE {
                return &parts[..=last];
            }
            parts[at].token = self.joined(rank);
            parts.copy_within(at + 2..=last, at + 1);
            last -= 1;
            let rank_at = |parts: &[Part], at: usize| match at + 1 < last {
                true => self.rank(piece, parts[at], parts[at + 1], parts[at + 2].start),
                false => NONE,
            };
            parts[at].rank = rank_at(parts, at);
            if at > 0 {
                parts[at - 1].rank = rank_at(parts, at - 1);
            }
        }
    }

    /// The ends of the tokens of a long piece.
    fn join_long(&self, piece: &[u8]) -> Vec<usize> {
        let length = piece.len();
        let mut parts: Vec<Part> = (0..=length)
            .map(|at| Part {
                start: at as u32,
                token: piece.get(at).map_or(NONE, |byte| self.single(*byte)),
                rank: NONE,
            })
            .collect();
        // The part that begins at a byte has its neighbours here.
        let mut next: Vec<usize> = (1..=length + 1).collect();
        let mut before: Vec<usize> = (0..=length).map(|at| at.wrapping_sub(1)).collect();
        let mut heap = BinaryHeap::new();
        let rank = |parts: &mut [Part], next: &[usize], at: usize| {
            let right = next[at];
            let rank = if right < length {
                self.rank(piece, parts[at], parts[right], next[right] as u32)
            } else {
                NONE
            };
            parts[at].rank = rank;
            (rank != NONE).then_some(Reverse((rank, at)))
        };
        for at in 0..length {
            heap.extend(rank(&mut parts, &next, at));
        }
        while let Some(Reverse((found, at))) = heap.pop() {
            // Gone, or grown meanwhile.
            if parts[at].rank != found {
                continue;
            }
            let right = next[at];
            parts[right].rank = NONE;
            parts[at].token = self.joined(found);
            next[at] = next[right];
            before[next[at]] = at;
            heap.extend(rank(&mut parts, &next, at));
            if at > 0 {
                heap.extend(rank(&mut parts, &next, before[at]));
            }
        }
        let starts = std::iter::successors(Some(0), |at| next.get(*at).copied());
        starts.skip(1).take_while(|at| *at <= length).collect()
    }
}

#[derive(Debug, Clone)]
pub struct Pairs {
    /// Open addresses: 18 bits a token above 28 of the rank.
    slots: Vec<u64>,
    results: Vec<u32>,
}

/// More tokens than this are in no vocabulary of the kind.
pub const MOST_TOKENS: usize = 1 << 18;

impl Pairs {
    /// Left, right and result of each merge, the first to be done first.
    pub fn new(merges: &[(u32, u32, u32)]) -> Pairs {
        let size = (merges.len() * 2).next_power_of_two();
        let mut pairs =
            Pairs { slots: vec![FREE; size], results: merges.iter().map(|merge| merge.2).collect() };
        for (rank, (left, right, _)) in merges.iter().enumerate() {
            let (key, mut slot) = pairs.place(*left, *right);
            while pairs.slots[slot] != FREE && pairs.slots[slot] >> 28 != key {
                slot = (slot + 1) & (size - 1);
            }
            // The last of two lines with one pair counts, as in the library that writes these files.
            pairs.slots[slot] = key << 28 | rank as u64;
        }
        pairs
    }

    #[inline]
    fn place(&self, left: u32, right: u32) -> (u64, usize) {
        let key = u64::from(left) << 18 | u64::from(right);
        let spread = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (key, spread as usize & (self.slots.len() - 1))
    }

    #[inline]
    fn rank(&self, left: u32, right: u32) -> u32 {
        let (key, mut slot) = self.place(left, right);
        loop {
            match self.slots[slot] {
                FREE => return NONE,
                found if found >> 28 == key => return (found & 0xfff_ffff) as u32,
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }
}
