//! Where a hostile peer takes its decisions from: a seed, or the bytes of a fuzzer. Used by the attacker and by its
//! victims, so that one run is one sequence of decisions and can be repeated. It must not know what is decided.

/// A sequence of numbers.
#[derive(Debug, Clone)]
pub(crate) enum Choices<'a> {
    /// Endless, from a seed: Steele, Lea and Flood's `SplitMix64`.
    Seeded(u64),
    /// Those of a fuzzer, then zeros.
    Bytes(&'a [u8]),
}

impl Choices<'_> {
    /// Whether the fuzzer's bytes are used up.
    #[cfg_attr(not(fuzzing), expect(dead_code, reason = "a seed never ends"))]
    pub(crate) fn ended(&self) -> bool {
        matches!(self, Self::Bytes([]))
    }

    /// Any number.
    pub(crate) fn word(&mut self) -> u64 {
        match self {
            Self::Seeded(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut word = *state;
                word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                word ^ word >> 31
            }
            Self::Bytes(bytes) => {
                let (taken, rest) = bytes.split_at(bytes.len().min(8));
                *bytes = rest;
                let mut word = [0; 8];
                word[..taken.len()].copy_from_slice(taken);
                u64::from_le_bytes(word)
            }
        }
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        match self {
            Self::Bytes([first, rest @ ..]) if end <= 256 => {
                let found = u64::from(*first) % end;
                *self = Self::Bytes(rest);
                found
            }
            _ => self.word() % end,
        }
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == times - 1
    }

    /// One of several; none of none.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            return None;
        }
        let at = self.below(from.len() as u64);
        usize::try_from(at).ok().and_then(|at| from.get(at)).copied()
    }

    /// A number of the kind that breaks things: small, a border, or any.
    pub(crate) fn awkward(&mut self) -> u64 {
        let near = self.below(4);
        match self.below(6) {
            0 => near,
            1 => near.wrapping_neg(),
            2 => (1 << 16) - 2 + near,
            3 => (1 << 32) - 2 + near,
            4 => 4094 + near,
            _ => self.word(),
        }
    }
}
