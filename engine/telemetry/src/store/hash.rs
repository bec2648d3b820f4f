//! A fast keyed hash for ids.
//!
//! Used by the span index, which looks up a few ids for every span taken in. Ids come from workers, who could choose
//! them to collide if the hash were a fixed one; the keys are drawn at random for every store. It is no cryptographic
//! hash: it must not be used where an answer would tell a stranger what collided.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers that share two random keys.
#[derive(Debug, Clone)]
pub(super) struct IdHash {
    seed: u64,
    key: u64,
}

impl Default for IdHash {
    fn default() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        Self { seed: random(), key: random() | 1 }
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { state: self.seed, key: self.key }
    }
}

/// Folds words into a state by multiplying to 128 bits and adding the halves without carry.
#[derive(Debug)]
pub(super) struct IdHasher {
    state: u64,
    key: u64,
}

impl IdHasher {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.state ^ word).wrapping_mul(u128::from(self.key));
        let [low, high] = [product & u128::from(u64::MAX), product >> 64];
        self.state = u64::try_from(low ^ high).unwrap_or(0).rotate_left(29) ^ self.key;
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.fold(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.fold(number.into());
    }

    /// Lengths of arrays, which are the same for every id, say nothing.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        let mut end = Self { state: self.state, key: self.key };
        end.fold(self.key.rotate_left(32));
        end.state
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ringway_protocol::SpanId;

    use super::*;

    #[test]
    fn ids_that_look_alike_spread_over_the_table() {
        let hash = IdHash::default();
        for shift in [0, 8, 24, 40] {
            let ids = (0..4096_u64).map(|number| SpanId::from_bytes((number << shift).to_be_bytes()));
            let hashes: Vec<u64> = ids.map(|id| hash.hash_one((7_u32, id))).collect();
            // Of 4096 balls in 4096 boxes about 2589 boxes get one, give or take 30.
            let low: HashSet<u64> = hashes.iter().map(|hash| hash & 4095).collect();
            let high: HashSet<u64> = hashes.iter().map(|hash| hash >> 52).collect();
            assert!(low.len() > 2300 && high.len() > 2300, "{} {} at {shift}", low.len(), high.len());
        }
    }

    #[test]
    fn stores_hash_differently() {
        let id = SpanId::from_bytes([1; 8]);
        assert_ne!(IdHash::default().hash_one(id), IdHash::default().hash_one(id));
    }
}
