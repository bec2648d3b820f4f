//! `${VAR}` and `${VAR:-default}` in texts. Put in after the file was taken apart, so that a value can never become a key
//! or another line. It must not know what the texts are for.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::limits::{NESTED_MAX, TEXT_BYTES_MAX};
use crate::scalar::{self, Scalar};

/// Where variables come from.
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Those of this process. Those that are no UTF-8 count as not set.
    #[must_use]
    pub fn process() -> Self {
        let texts = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self(texts.collect())
    }

    /// These alone, for tests and for programs with settings of their own.
    #[must_use]
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.keys().map(String::as_str)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// A text after variables were put in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// The text is nothing but one variable.
    pub(crate) alone: bool,
}

/// Why a text cannot be expanded. `before` counts the characters in front of what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unexpanded {
    /// There is no such variable, and no default.
    Unset { name: String, before: usize },
    /// What follows `${` is no variable.
    Malformed { found: String, before: usize },
    /// A limit is passed.
    TooMuch { limit: String, before: usize },
}

/// Puts variables into a text; `None` where there are none. `$${` stands for `${`. With `:-` the default also stands for
/// an empty variable, as in a shell; `${VAR:default}` is iii's form. A default may hold variables itself, which are looked
/// for only where the default is used.
pub(crate) fn expand(text: &str, variables: &Variables) -> Result<Option<Expanded>, Unexpanded> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut expansion =
        Expansion { text, at: 0, variables, out: String::with_capacity(text.len()), alone: false };
    expansion.read(0, true)?;
    Ok(Some(Expanded { text: expansion.out, alone: expansion.alone }))
}

/// A text on its way to the one that is meant.
struct Expansion<'a> {
    text: &'a str,
    /// How far it is read, in bytes.
    at: usize,
    variables: &'a Variables,
    out: String,
    alone: bool,
}

impl<'a> Expansion<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Reads to the end; in a default, which lies in `depth` variables, up to the brace that ends it. What is not `used` is
    /// read and left out.
    fn read(&mut self, depth: usize, used: bool) -> Result<(), Unexpanded> {
        loop {
            let rest = self.rest();
            let plain = rest.find(|c| c == '$' || (c == '}' && depth > 0)).unwrap_or(rest.len());
            self.put(&rest[..plain], used)?;
            self.at += plain;
            let rest = &rest[plain..];
            if rest.is_empty() || rest.starts_with('}') {
                return Ok(());
            }
            if rest.starts_with("$${") {
                self.put("${", used)?;
                self.at += 3;
            } else if rest.starts_with("${") {
                let begins = self.at == 0;
                self.variable(depth, used)?;
                self.alone = begins && self.rest().is_empty();
            } else {
                self.put("$", used)?;
                self.at += 1;
            }
        }
    }

    /// Reads `${NAME}`, or that with a default.
    fn variable(&mut self, depth: usize, used: bool) -> Result<(), Unexpanded> {
        let begin = self.at;
        self.at += 2;
        let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let name = &self.rest()[..self.rest().bytes().take_while(of_name).count()];
        self.at += name.len();
        let value = self.variables.get(name);
        let (mark, default) = match self.rest() {
            rest if rest.starts_with(":-") => (2, value.is_none_or(str::is_empty)),
            rest if rest.starts_with(':') => (1, value.is_none()),
            _ => (0, false),
        };
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.malformed(begin));
        }
        if mark > 0 {
            if depth >= NESTED_MAX {
                let limit = format!("variables lie in the defaults of more than {NESTED_MAX} others");
                return Err(Unexpanded::TooMuch { limit, before: self.before(begin) });
            }
            self.at += mark;
            self.read(depth + 1, used && default)?;
        }
        if !self.rest().starts_with('}') {
            return Err(self.malformed(begin));
        }
        self.at += 1;
        match value {
            _ if default => Ok(()),
            Some(value) => self.put(value, used),
            None if used => Err(Unexpanded::Unset { name: name.to_owned(), before: self.before(begin) }),
            None => Ok(()),
        }
    }

    fn put(&mut self, text: &str, used: bool) -> Result<(), Unexpanded> {
        if !used {
            return Ok(());
        }
        if self.out.len() + text.len() > TEXT_BYTES_MAX {
            let limit = format!("with its variables put in, this has more than {TEXT_BYTES_MAX} bytes");
            return Err(Unexpanded::TooMuch { limit, before: self.before(self.at) });
        }
        self.out.push_str(text);
        Ok(())
    }

    fn malformed(&self, begin: usize) -> Unexpanded {
        let found = self.text[begin + 2..].chars().take(30).collect();
        Unexpanded::Malformed { found, before: self.before(begin) }
    }

    fn before(&self, at: usize) -> usize {
        self.text[..at].chars().count()
    }
}

/// Why a value cannot be read as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpandError {
    /// There is no such variable, and no default.
    #[error("the variable `{0}` is not set; set it for the engine, or write `${{{0}:-DEFAULT}}`")]
    Unset(String),
    /// What follows `${` is no variable.
    #[error(
        "wanted `${{NAME}}` or `${{NAME:-DEFAULT}}`, found `${{{0}`; write `$${{` where no variable is meant"
    )]
    Malformed(String),
    /// A limit is passed.
    #[error("{0}, which is the limit")]
    TooMuch(String),
}

/// Puts variables into every text of a value. A text that is nothing but one variable becomes what that means in YAML: a
/// number, true, false or nothing, where it is one.
///
/// # Errors
/// The first variable that cannot be put in.
pub fn expand_json(value: &Value, variables: &Variables) -> Result<Value, ExpandError> {
    Ok(match value {
        Value::String(text) => match expand(text, variables) {
            Ok(None) => Value::String(text.clone()),
            Ok(Some(Expanded { text, alone: false })) => Value::String(text),
            Ok(Some(Expanded { text, alone: true })) => match scalar::plain(&text) {
                Scalar::Null => Value::Null,
                Scalar::Bool(value) => Value::Bool(value),
                Scalar::Number(value) => Value::Number(value),
                Scalar::Text(value) => Value::String(value),
            },
            Err(Unexpanded::Unset { name, .. }) => return Err(ExpandError::Unset(name)),
            Err(Unexpanded::Malformed { found, .. }) => return Err(ExpandError::Malformed(found)),
            Err(Unexpanded::TooMuch { limit, .. }) => return Err(ExpandError::TooMuch(limit)),
        },
        Value::Array(items) => {
            items.iter().map(|item| expand_json(item, variables)).collect::<Result<_, _>>()?
        }
        Value::Object(fields) => {
            let expanded =
                fields.iter().map(|(key, value)| Ok((key.clone(), expand_json(value, variables)?)));
            Value::Object(expanded.collect::<Result<_, _>>()?)
        }
        other => other.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in() {
        let variables = Variables::of([("A", "x"), ("EMPTY", ""), ("TRICK", "${A}")]);
        let check = |text: &str, expected: Option<(&str, bool)>| {
            let found = expand(text, &variables).unwrap();
            let expected = expected.map(|(text, alone)| Expanded { text: text.to_owned(), alone });
            assert_eq!(found, expected, "{text}");
        };
        check("plain $A {A}", None);
        check("${A}", Some(("x", true)));
        check("${A}${A}", Some(("xx", false)));
        check("a ${A} b", Some(("a x b", false)));
        check("${NONE:-8080}", Some(("8080", true)));
        check("${NONE:8080}", Some(("8080", true)));
        check("${NONE:-}", Some(("", true)));
        check("${EMPTY}", Some(("", true)));
        check("${EMPTY:-y}", Some(("y", true)));
        check("${EMPTY:y}", Some(("", true)));
        check("${A:-y}", Some(("x", true)));
        // What a variable holds is not looked at again.
        check("${TRICK}", Some(("${A}", true)));
        check("$${A}", Some(("${A}", false)));
        check("$${A} ${A}", Some(("${A} x", false)));
        check("$$${A} $ $}", Some(("$${A} $ $}", false)));
        check("${A} $5 {}", Some(("x $5 {}", false)));
    }

    #[test]
    fn a_default_may_hold_variables() {
        let variables = Variables::of([("A", "x"), ("B", "y"), ("EMPTY", "")]);
        let check = |text: &str, expected: &str, alone: bool| {
            let found = expand(text, &variables).unwrap().unwrap();
            assert_eq!((found.text.as_str(), found.alone), (expected, alone), "{text}");
        };
        check("${NONE:-${B}}", "y", true);
        check("${NONE:${B}}", "y", true);
        check("${A:-${B}}", "x", true);
        check("${NONE:-<${EMPTY:-${B}}>}!", "<y>!", false);
        check("${NONE:-a}${NONE:-${A}}", "ax", false);
        check("${NONE:-{}", "{", true);
        check("${NONE:-$${B}", "${B", true);
        // A default that is not used needs none of its variables.
        check("${A:-${NONE}}", "x", true);
        let unset = Unexpanded::Unset { name: "NONE".to_owned(), before: 5 };
        assert_eq!(expand("${Z:-${NONE}}", &variables), Err(unset));
        let malformed = Unexpanded::Malformed { found: "B c}}".to_owned(), before: 5 };
        assert_eq!(expand("${A:-${B c}}", &variables), Err(malformed));
        assert!(matches!(expand("${A:-${B}", &variables), Err(Unexpanded::Malformed { before: 0, .. })));
        let deep = format!("{}{}", "${Z:-".repeat(200_000), "}".repeat(200_000));
        assert!(matches!(expand(&deep, &variables), Err(Unexpanded::TooMuch { .. })));
    }

    #[test]
    fn no_text_grows_beyond_the_limit() {
        let long = "x".repeat(1 << 17);
        let variables = Variables::of([("LONG", long.as_str())]);
        let found = expand(&"${LONG}".repeat(1000), &variables);
        assert!(matches!(found, Err(Unexpanded::TooMuch { before, .. }) if before > 0));
        assert!(expand(&"${LONG}".repeat(100), &variables).is_ok());
    }

    #[test]
    fn values_are_expanded_wherever_texts_are() {
        let variables = Variables::of([("P", "80")]);
        let value = serde_json::json!({"a": ["${P}", "x${P}"], "b": "${N:-true}", "${P}": 1});
        let expected = serde_json::json!({"a": [80, "x80"], "b": true, "${P}": 1});
        assert_eq!(expand_json(&value, &variables), Ok(expected));
        assert_eq!(expand_json(&"${N}".into(), &variables), Err(ExpandError::Unset("N".to_owned())));
    }

    #[test]
    fn what_cannot_be_put_in_is_told_with_its_place() {
        let variables = Variables::of([("A", "x")]);
        let unset = |name: &str, before| Unexpanded::Unset { name: name.to_owned(), before };
        assert_eq!(expand("é ${B}", &variables), Err(unset("B", 2)));
        assert_eq!(expand("${A}${B}", &variables), Err(unset("B", 4)));
        for text in ["${", "${}", "${A", "${1}", "${A B}", "${:-x}", "${é}"] {
            assert!(matches!(expand(text, &variables), Err(Unexpanded::Malformed { .. })), "{text}");
        }
    }
}
