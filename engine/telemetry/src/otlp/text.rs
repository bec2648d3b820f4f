//! Small text formats of the OTLP exporter: `key=value` lists with percent coding, and HTTP dates.
//!
//! Used by the configuration and by the retry rule. This file must not know what the keys mean.

use std::time::Duration;

/// Splits `a=1,b=2` into decoded pairs, and returns beside them the parts that are no pair.
pub(super) fn parse_pairs(text: &str) -> (Vec<(String, String)>, Vec<String>) {
    let mut pairs = Vec::new();
    let mut bad = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                pairs.push((percent_decode(key.trim()), percent_decode(value.trim())));
            }
            _ => bad.push(part.to_owned()),
        }
    }
    (pairs, bad)
}

/// Decodes `%20` and the like; a `%` that starts no code stays as it is.
pub(super) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex_value(*high) << 4 | hex_value(*low));
                rest = after;
            }
            _ => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}

/// Reads a `Retry-After` header: a number of seconds, or a date compared with `now_unix_s`.
pub(super) fn parse_retry_after(value: &str, now_unix_s: u64) -> Option<Duration> {
    let value = value.trim();
    let seconds = match value.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => parse_http_date(value)?.saturating_sub(now_unix_s),
    };
    Some(Duration::from_secs(seconds))
}

/// Reads the preferred HTTP date form, `Sun, 06 Nov 1994 08:49:37 GMT`, as unix seconds.
fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let mut parts = date.split(' ');
    let day: u64 = parts.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month_name = parts.next()?;
    let month = MONTHS.iter().position(|name| *name == month_name)?;
    let year: u64 = parts.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock =
        parts.next()?.split(':').map(|part| part.parse::<u64>().ok().filter(|value| *value <= 60));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if parts.next()? != "GMT" || parts.next().is_some() {
        return None;
    }
    Some(
        ((days_to_year(year) + days_to_month(year, month) + day - 1) * 24 + hour) * 3600
            + minute * 60
            + second,
    )
}

fn days_to_year(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

fn days_to_month(year: u64, month: usize) -> u64 {
    const LENGTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let leap_day = u64::from(leap && month > 1);
    LENGTHS.iter().take(month).sum::<u64>() + leap_day
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_split_and_decoded() {
        let check = |text: &str, pairs: &[(&str, &str)], bad: &[&str]| {
            let expected: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(
                parse_pairs(text),
                (expected, bad.iter().map(|b| (*b).to_owned()).collect()),
                "{text}"
            );
        };
        check("", &[], &[]);
        check("api-key=a%20b%3D, x = y=z ,", &[("api-key", "a b="), ("x", "y=z")], &[]);
        check("lonely,=v,a=%zz%", &[("a", "%zz%")], &["lonely", "=v"]);
        check("a=%C3%A9%ff", &[("a", "é\u{fffd}")], &[]);
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_retry_after(text, 784_111_770), expected.map(Duration::from_secs), "{text}");
        };
        check("7", Some(7));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(7));
        check("Sun, 06 Nov 1984 08:49:37 GMT", Some(0));
        check("Tue, 29 Feb 2000 00:00:00 GMT", Some(951_782_400 - 784_111_770));
        check("Sun, 06 Nov 1994 08:49:37 CET", None);
        check("soon", None);
        check("-1", None);
        check("Sun, 99 Nov 1994 08:49:37 GMT", None);
    }
}
