//! `${VAR}` and `${VAR:-default}` in texts. Put in after the file was taken apart, so that a value can never become a key
//! or another line. It must not know what the texts are for.

use std::collections::BTreeMap;

use serde_json::Value;

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

/// Why a text cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unexpanded {
    /// There is no such variable, and no default.
    Unset { name: String, before: usize },
    /// What follows `${` is no variable.
    Malformed { found: String, before: usize },
}

/// Puts variables into a text; `None` where there are none. `$${` stands for `${`. With `:-` the default also stands for
/// an empty variable, as in a shell; `${VAR:default}` is iii's form.
pub(crate) fn expand(text: &str, variables: &Variables) -> Result<Option<Expanded>, Unexpanded> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut alone = false;
    while let Some(at) = rest.find("${") {
        let before = text.len() - rest.len() + at;
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let found = || inner.chars().take(30).collect::<String>();
        let before = text[..before].chars().count();
        let Some(end) = inner.find('}') else {
            return Err(Unexpanded::Malformed { found: found(), before });
        };
        let (name, default) = parts(&inner[..end]);
        if !is_name(name) {
            return Err(Unexpanded::Malformed { found: found(), before });
        }
        let value = match (variables.get(name), default) {
            (Some(""), Some((true, default))) => default,
            (Some(value), _) => value,
            (None, Some((_, default))) => default,
            (None, None) => return Err(Unexpanded::Unset { name: name.to_owned(), before }),
        };
        out.push_str(value);
        rest = &inner[end + 1..];
        alone = before == 0 && rest.is_empty();
    }
    out.push_str(rest);
    Ok(Some(Expanded { text: out, alone }))
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

/// The name, and the default with whether it stands for an empty variable too.
fn parts(inner: &str) -> (&str, Option<(bool, &str)>) {
    match inner.split_once(':') {
        None => (inner, None),
        Some((name, default)) => match default.strip_prefix('-') {
            Some(default) => (name, Some((true, default))),
            None => (name, Some((false, default))),
        },
    }
}

fn is_name(text: &str) -> bool {
    let first = text.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
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
