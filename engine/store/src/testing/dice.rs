//! Random numbers from a seed that a failing test can print (splitmix64), and how often a test repeats itself.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// How many rounds a test runs: `RINGWAY_ROUNDS`, or what `cargo verify` can afford.
#[must_use]
pub fn rounds(short: u64) -> u64 {
    std::env::var("RINGWAY_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(short)
}

/// A sequence that its seed decides.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Begins the sequence of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Begins the sequence of `RINGWAY_SEED`, or one of the time; prints which, so that a failure can be repeated.
    ///
    /// # Panics
    /// If the clock stands before 1970.
    #[must_use]
    pub fn of_environment() -> Self {
        let given = std::env::var("RINGWAY_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that goes");
            now.as_secs() ^ (u64::from(now.subsec_nanos()) << 20)
        });
        writeln!(std::io::stdout(), "RINGWAY_SEED={seed}").expect("somebody to read it");
        Self::new(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    ///
    /// # Panics
    /// If `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// An index into something of this length.
    ///
    /// # Panics
    /// If it is empty.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }
}
