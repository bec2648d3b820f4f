//! Numbers and times in words, and texts that a terminal can take.

/// Replaces control characters, which could move the cursor or change colours, by spaces.
pub(crate) fn printable(text: &str) -> String {
    let hidden = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if hidden(c) { ' ' } else { c }).collect()
}

/// Writes a number of bytes with three digits and a binary unit.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

/// Writes a duration with three digits.
pub(crate) fn nanoseconds(ns: u64) -> String {
    if ns < 1000 {
        return format!("{ns} ns");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = ns as f64;
    for unit in ["µs", "ms", "s"] {
        value /= 1000.0;
        if value < 999.5 || unit == "s" {
            return format!("{} {unit}", three_digits(value));
        }
    }
    format!("{ns} ns")
}

/// Writes a rate or a count with three digits.
pub(crate) fn count(value: f64) -> String {
    let mut value = value;
    for unit in ["", " k", " M", " G"] {
        if value < 999.5 || unit == " G" {
            let whole = unit.is_empty() && value.fract() == 0.0;
            return if whole { format!("{value:.0}") } else { format!("{}{unit}", three_digits(value)) };
        }
        value /= 1000.0;
    }
    format!("{value}")
}

fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// Writes how long ago something was, in the largest whole unit.
pub(crate) fn age(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// Writes the time of day, UTC, with milliseconds.
pub(crate) fn time_of_day(unix_ns: u64) -> String {
    let ms = unix_ns / 1_000_000 % 86_400_000;
    let (seconds, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Says how many of something there are.
pub(crate) fn several(count: usize, one: &str) -> String {
    match (count, one.strip_suffix('y')) {
        (1, _) => format!("1 {one}"),
        (count, Some(stem)) => format!("{count} {stem}ies"),
        (count, None) => format!("{count} {one}s"),
    }
}

/// Returns the time, unix milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let check = |found: String, expected: &str| assert_eq!(found, expected);
        check(bytes(0), "0 B");
        check(bytes(1023), "1023 B");
        check(bytes(1024), "1.00 KiB");
        check(bytes(64 << 10), "64.0 KiB");
        check(bytes(1_048_000), "1.00 MiB");
        check(bytes(4 << 30), "4.00 GiB");
        check(bytes(u64::MAX), "16.0 EiB");
        check(nanoseconds(999), "999 ns");
        check(nanoseconds(123_456), "123 µs");
        check(nanoseconds(999_600), "1.00 ms");
        check(nanoseconds(90_000_000_000), "90.0 s");
        check(nanoseconds(u64::MAX), "18446744074 s");
        check(count(0.0), "0");
        check(count(12.0), "12");
        check(count(0.5), "0.50");
        check(count(1234.0), "1.23 k");
        check(count(18_000_000.0), "18.0 M");
    }

    #[test]
    fn times_are_short() {
        let check = |found: String, expected: &str| assert_eq!(found, expected);
        check(age(59_999), "59s");
        check(age(61_000), "1m");
        check(age(7_200_000), "2h");
        check(age(200_000_000), "2d");
        check(time_of_day(1_700_000_000_123_000_000), "22:13:20.123");
        check(several(1, "span"), "1 span");
        check(several(0, "span"), "0 spans");
        check(several(1, "entry"), "1 entry");
        check(several(2, "entry"), "2 entries");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c"), "a [2Jb c");
    }
}
