//! How far a slow test goes, told by the environment, so that `cargo verify` runs it briefly and its own verb runs it
//! in full. Used by every test that repeats something. It must not know what is repeated.

use std::time::{SystemTime, UNIX_EPOCH};

/// Names the variable that holds the number of rounds.
pub const ROUNDS: &str = "RINGWAY_ROUNDS";
/// Names the variable that holds the seed of everything random.
pub const SEED: &str = "RINGWAY_SEED";

/// Returns the number of rounds asked for, or `usual`.
///
/// # Panics
///
/// If the variable holds anything but a number: a mistyped count must not pass as a short run.
#[must_use]
pub fn rounds(usual: u64) -> u64 {
    number(ROUNDS, std::env::var(ROUNDS).ok().as_deref()).unwrap_or(usual)
}

/// Returns the seed asked for, or a new one. The test prints it, so that a failure can be repeated.
///
/// # Panics
///
/// If the variable holds anything but a number.
#[must_use]
pub fn seed() -> u64 {
    number(SEED, std::env::var(SEED).ok().as_deref()).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_secs().rotate_left(32) ^ u64::from(now.subsec_nanos()) ^ u64::from(std::process::id())
    })
}

fn number(name: &str, text: Option<&str>) -> Option<u64> {
    let text = text?;
    match text.replace('_', "").parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name} must be a whole number, and is `{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_may_be_grouped() {
        assert_eq!(number(ROUNDS, None), None);
        assert_eq!(number(ROUNDS, Some("20_000")), Some(20_000));
    }

    #[test]
    #[should_panic(expected = "RINGWAY_ROUNDS must be a whole number")]
    fn anything_else_is_refused() {
        number(ROUNDS, Some("many"));
    }
}
