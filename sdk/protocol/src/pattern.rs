//! Texts in which `*` stands for any run of characters, the empty one included: what the engine's policy and the grants of
//! links name workers and functions by.

use serde::{Deserialize, Serialize};

/// A pattern for names and ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Default for Pattern {
    fn default() -> Self {
        Self("*".to_owned())
    }
}

impl Pattern {
    /// Makes a pattern.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether the pattern is one star.
    #[must_use]
    pub fn matches_all(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte == b'*')
    }

    /// Says whether a text matches. Costs at most pattern × text steps.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == text };
        let Some(mut text) = text.strip_prefix(first) else { return false };
        let Some((middle, last)) = rest.rsplit_once('*') else { return text.ends_with(rest) };
        for part in middle.split('*') {
            match text.find(part) {
                Some(place) => text = &text[place + part.len()..],
                None => return false,
            }
        }
        text.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plainest matcher: try every length for each star.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            Some((byte, rest)) => text.first() == Some(byte) && naive(rest, &text[1..]),
        }
    }

    #[test]
    fn a_pattern_matches_what_the_plain_matcher_does() {
        let all = |letters: &[u8], len: u32| -> Vec<String> {
            let count = letters.len();
            (0..=len)
                .flat_map(|len| {
                    (0..count.pow(len)).map(move |mut number| {
                        let digit = |_| {
                            let letter = letters[number % count];
                            number /= count;
                            char::from(letter)
                        };
                        (0..len).map(digit).collect()
                    })
                })
                .collect()
        };
        for pattern in all(b"ab*", 5) {
            for text in all(b"ab", 5) {
                let expected = naive(pattern.as_bytes(), text.as_bytes());
                assert_eq!(Pattern::new(&pattern).matches(&text), expected, "{pattern} {text}");
            }
        }
    }

    #[test]
    fn a_pattern_is_a_whole_id_or_has_stars() {
        let check = |pattern: &str, text: &str, matches: bool| {
            assert_eq!(Pattern::new(pattern).matches(text), matches, "{pattern} {text}");
        };
        check("orders::validate", "orders::validate", true);
        check("orders::validate", "orders::validate2", false);
        check("orders::validate", "orders::validat", false);
        check("orders::*", "orders::validate", true);
        check("orders::*", "orders::", true);
        check("orders::*", "orders", false);
        check("orders::*", "my-orders::validate", false);
        check("*", "", true);
        check("*", "engine::traces::clear", true);
        check("", "", true);
        check("", "a", false);
        check("*::read", "docs::read", true);
        check("*::read", "docs::readonly", false);
        check("ab*ba", "aba", false);
        check("é*", "é::x", true);
    }
}
