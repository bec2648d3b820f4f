//! Which topics a subscription wants. Topics are cut into segments at `.` and `/`; `*` stands for one segment, and `#`, at the
//! end, for any number of them, none included. It must not know who publishes.

use ringway::{CallError, ErrorCode};

/// The longest topic or pattern, in bytes.
pub const TOPIC_BYTES_MAX: usize = 1024;

/// What a subscription wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    /// Whether there are wildcards in it; without, it is one topic.
    wild: bool,
}

/// Segments, each with the separator before it; none before the first.
fn segments(topic: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(topic);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = text.char_indices().skip(1).find(|(_, c)| matches!(c, '.' | '/')).map(|(at, _)| at);
        let (segment, after) = end.map_or((text, None), |at| (&text[..at], Some(&text[at..])));
        rest = after;
        Some(segment)
    })
}

/// A segment's separator and name.
fn parts(segment: &str) -> (Option<char>, &str) {
    match segment.chars().next() {
        Some(separator @ ('.' | '/')) => (Some(separator), &segment[1..]),
        _ => (None, segment),
    }
}

impl Pattern {
    /// Reads a topic, perhaps with wildcards.
    pub(crate) fn parse(text: &str) -> Result<Self, CallError> {
        let wrong = |message: String| Err(CallError::new(ErrorCode::InvalidRegistration, message));
        if text.is_empty() {
            return wrong(
                "`topic` of a subscription is empty; a topic such as `orders.created` is wanted".to_owned(),
            );
        }
        if text.len() > TOPIC_BYTES_MAX {
            return wrong(format!("`topic` has {} bytes, at most {TOPIC_BYTES_MAX} are taken", text.len()));
        }
        let names: Vec<&str> = segments(text).map(|segment| parts(segment).1).collect();
        let rest = names.iter().position(|name| *name == "#");
        if rest.is_some_and(|at| at + 1 < names.len()) {
            return wrong(format!(
                "`#` in the topic `{text}` stands for the rest, so nothing may come after it"
            ));
        }
        let wild = rest.is_some() || names.contains(&"*");
        Ok(Self { text: text.to_owned(), wild })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The one topic that is wanted, if it is one.
    pub(crate) fn exact(&self) -> Option<&str> {
        (!self.wild).then_some(self.text.as_str())
    }

    pub(crate) fn matches(&self, topic: &str) -> bool {
        if self.text == topic || !self.wild {
            return self.text == topic;
        }
        let mut found = segments(topic);
        for wanted in segments(&self.text) {
            let (separator, name) = parts(wanted);
            if name == "#" {
                return found.next().is_none_or(|next| parts(next).0 == separator);
            }
            let Some(next) = found.next() else { return false };
            let (found_separator, found_name) = parts(next);
            if separator != found_separator || (name != "*" && name != found_name) {
                return false;
            }
        }
        found.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn topics_match_as_said() {
        let check = |pattern: &str, topic: &str, expected: bool| {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(topic), expected, "{pattern} {topic}");
        };
        check("orders", "orders", true);
        check("orders", "orders.new", false);
        check("a.b", "a/b", false);
        check("a.*", "a.b", true);
        check("a.*", "a", false);
        check("a.*", "a.b.c", false);
        check("a.*", "a/b", false);
        check("a/*/c", "a/b/c", true);
        check("*.c", "b.c", true);
        check("a.#", "a", true);
        check("a.#", "a.b", true);
        check("a.#", "a.b/c", true);
        check("a.#", "ab", false);
        check("a.#", "a/b", false);
        check("#", "anything/at.all", true);
        check("a.*.#", "a.b", true);
        check("a.*.#", "a", false);
        // Whoever wants a topic by its very name gets it.
        check("c#", "c#", true);
        check("a.*", "a.*", true);
        check("a*", "ab", false);
        check(".a", ".a", true);
        check("a..b", "a..b", true);
        check("a.*.b", "a..b", true);
    }

    #[test]
    fn a_wrong_pattern_is_refused() {
        for (pattern, words) in [("", "empty"), ("a.#.b", "the rest"), (&"x".repeat(2000), "2000 bytes")] {
            let error = Pattern::parse(pattern).unwrap_err();
            assert!(error.message.contains(words), "{pattern}: {error}");
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_naive_reading(
            pattern in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("*")], 1..4),
            rest in any::<bool>(),
            topic in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..5),
        ) {
            let mut text = pattern.join(".");
            if rest {
                text.push_str(".#");
            }
            let length = if rest { topic.len() >= pattern.len() } else { topic.len() == pattern.len() };
            let expected = length && pattern.iter().zip(&topic).all(|(wanted, found)| *wanted == "*" || wanted == found);
            prop_assert_eq!(Pattern::parse(&text).unwrap().matches(&topic.join(".")), expected);
        }
    }
}
