//! How bytes, times and names are written in what this crate makes and reads: base64url, hex digits, UTC. Used by every
//! module here. It must not know what the bytes are.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use ringway_protocol::ids::put_hex;
use ringway_protocol::limits;

/// The system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted random bytes, found that the system gives none")]
pub struct NoRandomnessError;

/// Draws bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandomnessError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomnessError)?;
    Ok(bytes)
}

/// Writes base64 with the letters of URLs and no padding.
pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads what [`base64url`] writes; another spelling of the same bytes is none.
pub(crate) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Reads exactly `N` bytes of base64url. A text of any other length is not decoded at all.
pub(crate) fn fixed_from_base64url<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != (N * 4).div_ceil(3) {
        return None;
    }
    from_base64url(text)?.try_into().ok()
}

/// Writes two lower-case hex digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = vec![0; bytes.len() * 2];
    put_hex(bytes, &mut digits);
    digits.into_iter().map(char::from).collect()
}

/// Hashes with SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Writes seconds since 1970 as people read them: `2026-03-01 12:00:00 UTC`.
#[must_use]
pub fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Counted from 1 March of the year 0, so that the day that some years have more is the last of a year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Whether a peer may be called this: 1 to 256 bytes that show as what they are.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=limits::NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let check = |seconds: u64, expected: &str| assert_eq!(utc(seconds), expected);
        check(0, "1970-01-01 00:00:00 UTC");
        check(951_782_400, "2000-02-29 00:00:00 UTC");
        check(951_868_800, "2000-03-01 00:00:00 UTC");
        check(1_735_689_599, "2024-12-31 23:59:59 UTC");
        check(1_772_366_400, "2026-03-01 12:00:00 UTC");
        check(4_107_542_400, "2100-03-01 00:00:00 UTC");
        // Nobody lives to see it; a token may say it.
        assert!(utc(u64::MAX).ends_with(" UTC"));
    }

    #[test]
    fn base64url_has_one_spelling() {
        let check =
            |text: &str, good: bool| assert_eq!(fixed_from_base64url::<1>(text).is_some(), good, "{text}");
        check("AA", true);
        check("AB", false);
        check("AA==", false);
        check("A", false);
        check("", false);
        check("AAA", false);
        check("é", false);
        assert_eq!(fixed_from_base64url(&base64url(&[0xfb; 32])), Some([0xfb; 32]));
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }

    #[test]
    fn names_show_as_what_they_are() {
        let check = |text: &str, good: bool| assert_eq!(is_name(text), good, "{text:?}");
        check("edge 7", true);
        check("größe", true);
        check("", false);
        check("a\u{1b}[2J", false);
        check(&"x".repeat(256), true);
        check(&"x".repeat(257), false);
    }
}
