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

/// Names with the separator before each; none before the first. A name may be empty: `/a` is nothing, then `a`.
fn segments(topic: &str) -> impl Iterator<Item = (Option<char>, &str)> {
    let mut rest = Some((None, topic));
    std::iter::from_fn(move || {
        let (separator, text) = rest?;
        let end = text.find(['.', '/']);
        rest = end.map(|at| (text[at..].chars().next(), &text[at + 1..]));
        Some((separator, end.map_or(text, |at| &text[..at])))
    })
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
        let names: Vec<&str> = segments(text).map(|(_, name)| name).collect();
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
        for (separator, name) in segments(&self.text) {
            let next = found.next();
            if name == "#" {
                return next.is_none_or(|(found_separator, _)| found_separator == separator);
            }
            let Some((found_separator, found_name)) = next else { return false };
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
        check("#", "/begins/so", true);
        check("#", ".", true);
        check("*", "a", true);
        check("*", ".a", false);
        check("*/a", "/a", true);
        check("/#", "/a/b", true);
        check("/#", "a/b", false);
        check("a.#", "a.", true);
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

    /// As the README has it, letter by letter: which texts a pattern stands for, by trying all ways.
    fn naive(pattern: &str, topic: &str) -> bool {
        if pattern == topic || pattern == "#" {
            return true;
        }
        if let Some(before) = pattern.strip_suffix(".#").or_else(|| pattern.strip_suffix("/#")) {
            let separator = &pattern[before.len()..=before.len()];
            let ends = topic.match_indices(separator).map(|(at, _)| &topic[..at]);
            return ends.chain([topic]).any(|beginning| fits(before, beginning));
        }
        fits(pattern, topic)
    }

    /// Without `#`: as many names with the same separators, each the same or `*`.
    fn fits(pattern: &str, topic: &str) -> bool {
        let separators = |text: &str| text.matches(['.', '/']).collect::<String>();
        let names = pattern.split(['.', '/']).zip(topic.split(['.', '/']));
        separators(pattern) == separators(topic) && names.into_iter().all(|(a, b)| a == "*" || a == b)
    }

    fn text(names: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
        let separator = prop_oneof![3 => Just("."), 1 => Just("/")];
        let pieces = prop::collection::vec((separator, prop::sample::select(names)), 1..most);
        pieces.prop_map(|pieces| {
            let text: String = pieces.iter().flat_map(|(separator, name)| [*separator, *name]).collect();
            text[1..].to_owned()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn it_agrees_with_a_naive_reading(
            pattern in text(&["a", "b", "*", "", "a*"], 5),
            rest in prop_oneof![Just(""), Just(".#"), Just("/#")],
            topic in text(&["a", "b", "c", "", "*", "#"], 6),
        ) {
            let pattern = format!("{pattern}{rest}");
            prop_assume!(!pattern.is_empty() && !topic.is_empty());
            let found = Pattern::parse(&pattern).unwrap().matches(&topic);
            prop_assert_eq!(found, naive(&pattern, &topic), "{} {}", pattern, topic);
        }

        #[test]
        fn the_rest_of_nothing_is_everything(topic in "[a-c./#*]{1,12}") {
            prop_assert!(Pattern::parse("#").unwrap().matches(&topic), "{}", topic);
        }
    }
}
