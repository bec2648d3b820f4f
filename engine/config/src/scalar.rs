//! What a plain word of YAML means: the core schema of YAML 1.2, in which `no` and `1:30` are texts. Used by the tree and
//! wherever a variable stands alone. It must not know where a word stands.

use serde_json::Number;

/// A value that is no list and no map.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
}

/// Reads a word that stands without quotes.
pub(crate) fn plain(word: &str) -> Scalar {
    match word {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "true" | "True" | "TRUE" => Scalar::Bool(true),
        "false" | "False" | "FALSE" => Scalar::Bool(false),
        _ => number(word).map_or_else(|| Scalar::Text(word.to_owned()), Scalar::Number),
    }
}

fn number(word: &str) -> Option<Number> {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    if let Some(digits) = word.strip_prefix("0x") {
        return u64::from_str_radix(unsigned(digits)?, 16).ok().map(Number::from);
    }
    if let Some(digits) = word.strip_prefix("0o") {
        return u64::from_str_radix(unsigned(digits)?, 8).ok().map(Number::from);
    }
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let plain = word.strip_prefix('+').unwrap_or(word);
        let whole =
            plain.parse::<u64>().map(Number::from).or_else(|_| plain.parse::<i64>().map(Number::from));
        return whole.ok().or_else(|| plain.parse().ok().and_then(Number::from_f64));
    }
    // Rust reads `inf` and `nan` as numbers too, YAML does not.
    let of_numbers = |byte: u8| byte.is_ascii_digit() || b".eE+-".contains(&byte);
    let begins = digits.bytes().next().is_some_and(|byte| byte.is_ascii_digit() || byte == b'.');
    if !begins || !digits.bytes().all(of_numbers) || !digits.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    word.parse().ok().and_then(Number::from_f64)
}

/// `from_str_radix` takes a sign; YAML does not here.
fn unsigned(digits: &str) -> Option<&str> {
    digits.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(digits)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn words_mean_what_yaml_says() {
        let check = |word: &str, expected: Value| {
            let found = match plain(word) {
                Scalar::Null => Value::Null,
                Scalar::Bool(value) => value.into(),
                Scalar::Number(value) => value.into(),
                Scalar::Text(value) => value.into(),
            };
            assert_eq!(found, expected, "{word}");
        };
        check("", Value::Null);
        check("~", Value::Null);
        check("True", json!(true));
        check("no", json!("no"));
        check("12", json!(12));
        check("+7", json!(7));
        check("-7", json!(-7));
        check("0x1F", json!(31));
        check("0o17", json!(15));
        check("0x+1", json!("0x+1"));
        check("007", json!(7));
        check("1.5", json!(1.5));
        check(".5", json!(0.5));
        check("1e3", json!(1000.0));
        check("18446744073709551615", json!(u64::MAX));
        check("18446744073709551616", json!(18_446_744_073_709_551_616.0));
        for text in [".inf", "inf", "nan", "1.2.3", "1:30", "-", "+", ".", "e5", "1_000", "5s", "2024-01-01"]
        {
            check(text, json!(text));
        }
    }
}
