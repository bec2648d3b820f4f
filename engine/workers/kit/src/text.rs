//! JSON as text: whether those who are given it can read it, without reading it into memory, because a parser may check text
//! that it could not read; and the one text of a value, whatever the order of its keys. Used before something is kept, or known by its text.
//! It must not know what the text says.

use std::cell::Cell;
use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Levels of arrays and objects in a value. Deeper text can be checked, but not read by most parsers.
pub const DEPTH_MAX: usize = 120;

/// Names of fields that begin so are not read as names: of an object with one `serde_json` makes something else, if it can.
const RESERVED: &str = "$serde_json::private::";

/// Whether a field of this name is read as one.
///
/// # Errors
/// What is wrong with the name, for whoever sent it.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.starts_with(RESERVED) {
        return Err(format!("no field has a name that begins with `{RESERVED}`: choose another"));
    }
    Ok(())
}

/// Why a text should not be kept as JSON: whoever is given it could not read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// It has more than [`DEPTH_MAX`] levels.
    Deep,
    /// What a parser says: it is no JSON, or has a number that is too large for any, half a pair of surrogates, or the name of
    /// a field that is none.
    Json(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deep => write!(
                f,
                "it is nested more than {DEPTH_MAX} levels deep, which most parsers do not read: make it flatter"
            ),
            Self::Json(error) => write!(f, "no parser reads it: {error}"),
        }
    }
}

impl std::error::Error for Unreadable {}

/// Looks whether every parser with the usual limits can read this text. Reads all of it once, and keeps nothing.
///
/// # Errors
/// [`Unreadable`].
pub fn check(text: &[u8]) -> Result<(), Unreadable> {
    let deep = Cell::new(false);
    let mut parser = serde_json::Deserializer::from_slice(text);
    let read = Reader { left: DEPTH_MAX, deep: &deep }.deserialize(&mut parser).and_then(|()| parser.end());
    read.map_err(|error| if deep.get() { Unreadable::Deep } else { Unreadable::Json(error.to_string()) })
}

/// Reads a value of so many levels, and forgets it.
struct Reader<'a> {
    left: usize,
    deep: &'a Cell<bool>,
}

impl Reader<'_> {
    fn below<E: de::Error>(&self) -> Result<Self, E> {
        self.deep.set(self.left == 0);
        let left = self.left.checked_sub(1).ok_or_else(|| E::custom("too many levels"))?;
        Ok(Self { left, deep: self.deep })
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.below()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key_seed(Name)?.is_some() {
            fields.next_value_seed(self.below()?)?;
        }
        Ok(())
    }
}

/// Reads the name of a field.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<(), E> {
        check_name(name).map_err(E::custom)
    }
}

/// The text of a value with the keys of its objects in order, so that equal values have equal texts.
#[must_use]
pub fn sorted(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            let field = |(name, value): (&String, &Value)| {
                format!("{}:{}", Value::from(name.as_str()), sorted(value))
            };
            format!("{{{}}}", fields.into_iter().map(field).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_strings() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let check = |text: &str| check(text.as_bytes());
        assert_eq!(check(&deep(DEPTH_MAX)), Ok(()));
        assert_eq!(check(&deep(DEPTH_MAX + 1)), Err(Unreadable::Deep));
        assert_eq!(check(&deep(10_000)), Err(Unreadable::Deep));
        assert_eq!(check(&format!("{{\"a\":{}}}", deep(DEPTH_MAX))), Err(Unreadable::Deep));
        assert_eq!(check(&format!("[\"\\\"{}\"]", "[{".repeat(DEPTH_MAX))), Ok(()));
        assert_eq!(check(&format!("[{}]", vec!["[]"; DEPTH_MAX + 1].join(","))), Ok(()));
    }

    #[test]
    fn what_is_let_through_can_be_read() {
        for text in [
            "1e308",
            "-0",
            "18446744073709551616",
            r#""\ud83d\ude00""#,
            r#"{"a":[null,true,1.5,"b"],"c":{}}"#,
        ] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
        // The last two are JSON by the letter (RFC 8259), and no value that Rust, among others, could hold.
        for text in ["", "{", "[1,]", "1 2", "nul", "\"\t\"", "[1e309]", r#"{"a\ud800":1}"#] {
            assert!(matches!(check(text.as_bytes()), Err(Unreadable::Json(_))), "{text}");
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let text = r#"{"$serde_json::private::RawValue": "{}"}"#;
        // This is why: it is no object with a field any more.
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), serde_json::json!({}));
        for text in [text, r#"[{"\u0024serde_json::private::RawValue": 1}]"#] {
            let refused = check(text.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains("no field has a name"), "{refused}");
        }
        assert_eq!(check(br#"{"a": "$serde_json::private::RawValue"}"#), Ok(()));
    }

    proptest::proptest! {
        /// Whatever this lets through a parser reads, and the other way round but for depth.
        #[test]
        fn checks_agree_with_the_parser(text in "[\\[\\]{}\",:0-9eE.+\\-a\\\\ud8 ]{0,24}") {
            proptest::prop_assert_eq!(check(text.as_bytes()).is_ok(), serde_json::from_str::<Value>(&text).is_ok());
        }
    }

    #[test]
    fn equal_values_have_one_text() {
        let read = |text: &str| sorted(&serde_json::from_str(text).unwrap());
        let text = r#"{"a":[1,{"x":null,"y":"\""}],"b":{}}"#;
        assert_eq!(read(text), text);
        assert_eq!(read(r#"{"b":{},"a":[1,{"y":"\"","x":null}]}"#), text);
        assert_ne!(read("[1,2]"), read("[2,1]"));
    }
}
