//! What a connection may do: what its authentication granted, and the rules of its listener. Decisions over plain data; it
//! must not know connections.

use std::collections::BTreeMap;

use ringway::protocol::naming::NAMESPACE_DEFAULT;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{Expose, Rbac};

/// What every client needs in order to be one.
const INFRASTRUCTURE: &[&str] = &[
    "engine::channels::create",
    "engine::workers::register",
    "engine::log::info",
    "engine::log::warn",
    "engine::log::error",
    "engine::log::debug",
    "engine::log::trace",
    "engine::baggage::get",
    "engine::baggage::set",
    "engine::baggage::get_all",
];

/// What an authentication function grants. Without one, everything.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Granted {
    #[serde(deserialize_with = "or_default")]
    namespaces: BTreeMap<String, Vec<String>>,
    #[serde(deserialize_with = "or_default")]
    allowed_functions: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    forbidden_functions: Vec<String>,
    allowed_trigger_types: Option<Vec<String>>,
    allow_trigger_type_registration: bool,
    allow_function_registration: bool,
    pub(crate) context: Value,
    pub(crate) function_registration_prefix: Option<String>,
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Default for Granted {
    /// What an authentication function grants that says nothing.
    fn default() -> Self {
        Self {
            namespaces: BTreeMap::new(),
            allowed_functions: Vec::new(),
            forbidden_functions: Vec::new(),
            allowed_trigger_types: None,
            allow_trigger_type_registration: false,
            allow_function_registration: true,
            context: Value::Object(Map::new()),
            function_registration_prefix: None,
        }
    }
}

/// Whether a call is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is.
    Allow,
    /// It is not; why, in iii's words.
    Deny(String),
    /// Only the function's metadata can tell.
    ByMetadata,
}

impl Granted {
    /// What a connection may do where nobody asks who it is.
    pub(crate) fn everything() -> Self {
        Self { allow_trigger_type_registration: true, ..Self::default() }
    }

    /// Reads the answer of an authentication function.
    pub(crate) fn read(answer: &Value) -> Result<Self, String> {
        if !answer.is_object() {
            return Err("the authentication function did not answer with an object".to_owned());
        }
        Self::deserialize(answer)
            .map_err(|error| format!("the answer of the authentication function does not fit: {error}"))
    }

    /// Whether it may be in a namespace.
    pub(crate) fn may_be_in(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains_key(namespace)
    }

    pub(crate) const fn may_register_functions(&self) -> bool {
        self.allow_function_registration
    }

    pub(crate) const fn may_register_trigger_types(&self) -> bool {
        self.allow_trigger_type_registration
    }

    pub(crate) fn may_bind(&self, trigger_type: &str) -> bool {
        self.allowed_trigger_types
            .as_ref()
            .is_none_or(|types| types.iter().any(|known| known == trigger_type))
    }

    /// An id as it is registered: under the connection's prefix, if it has one.
    pub(crate) fn prefixed(&self, id: &str) -> String {
        match self.function_registration_prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
            Some(prefix) => format!("{prefix}::{id}"),
            None => id.to_owned(),
        }
    }

    /// Whether a function may be called: the first thing that says so or not decides. `metadata` is what is known of it.
    pub(crate) fn decide(
        &self,
        rules: Option<&Rbac>,
        namespace: &str,
        function: &str,
        metadata: Option<&Value>,
    ) -> Decision {
        if self.forbidden_functions.iter().any(|id| id == function) {
            return Decision::Deny(denial(function, "remove from rbac.forbidden_functions"));
        }
        let listed = self.namespaces.get(namespace).into_iter().flatten();
        let allowed =
            namespace == NAMESPACE_DEFAULT && self.allowed_functions.iter().any(|id| id == function);
        if allowed
            || listed.into_iter().any(|pattern| fits(pattern, function))
            || INFRASTRUCTURE.contains(&function)
        {
            return Decision::Allow;
        }
        let Some(rules) = rules else { return Decision::Allow };
        let mut by_metadata = false;
        for rule in &rules.expose_functions {
            match exposes(rule, namespace, function, metadata) {
                Decision::Allow => return Decision::Allow,
                Decision::ByMetadata => by_metadata = true,
                Decision::Deny(_) => {}
            }
        }
        if by_metadata && metadata.is_none() {
            return Decision::ByMetadata;
        }
        Decision::Deny(denial(function, "add to rbac.expose_functions"))
    }
}

fn denial(function: &str, what_to_do: &str) -> String {
    format!("function '{function}' not allowed ({what_to_do})")
}

fn exposes(rule: &Expose, namespace: &str, function: &str, metadata: Option<&Value>) -> Decision {
    let no = || Decision::Deny(String::new());
    let rule = match rule {
        Expose::Pattern(pattern) if namespace == NAMESPACE_DEFAULT && fits(pattern, function) => {
            return Decision::Allow;
        }
        Expose::Pattern(_) => return no(),
        Expose::Rule(rule) => rule,
    };
    if rule.namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT) != namespace {
        return no();
    }
    match (&rule.pattern, &rule.metadata, metadata) {
        (Some(pattern), ..) if fits(pattern, function) => Decision::Allow,
        (None, Some(_), None) => Decision::ByMetadata,
        (None, Some(wanted), Some(found)) if wanted.iter().all(|(key, value)| has(found, key, value)) => {
            Decision::Allow
        }
        _ => no(),
    }
}

/// Whether metadata has a value; a text `match("…")` is a pattern for texts.
fn has(metadata: &Value, key: &str, wanted: &Value) -> bool {
    let Some(found) = metadata.get(key) else { return false };
    match (wanted.as_str().and_then(pattern_in), found.as_str()) {
        (Some(pattern), Some(text)) => matches(pattern, text),
        _ => found == wanted,
    }
}

/// The pattern in `match("…")`.
fn pattern_in(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("match(")?.strip_suffix(')')?.trim();
    let quoted = |quote| inner.strip_prefix(quote)?.strip_suffix(quote);
    quoted('"').or_else(|| quoted('\''))
}

/// Whether a pattern, bare or in `match("…")`, fits an id.
fn fits(pattern: &str, id: &str) -> bool {
    matches(pattern_in(pattern).unwrap_or(pattern), id)
}

/// Whether a pattern fits a text; `*` stands for any run of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(expose: Value) -> Rbac {
        serde_json::from_value(json!({ "expose_functions": expose })).unwrap()
    }

    #[test]
    fn patterns_fit() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        };
        check("a::b", "a::b", true);
        check("a::b", "a::bc", false);
        check("a::*", "a::b::c", true);
        check("*", "", true);
        check("*::get", "state::get", true);
        check("a*b*c", "a1b2c", true);
        check("a*b*c", "abc", true);
        check("a*bc", "abcbc", true);
        check("a*a", "a", false);
        check("match(\"api::*\")", "api::x", true);
        check("match('api::*')", "web::x", false);
    }

    #[test]
    fn the_first_word_decides() {
        let granted = |answer: Value| Granted::read(&answer).unwrap();
        let exposed = rules(json!(["match(\"api::*\")", {"match": "n::*", "namespace": "n"},
            {"metadata": {"public": true}}, {"metadata": {"team": "match(\"core*\")"}}]));
        let check =
            |answer: Value, namespace: &str, function: &str, metadata: Option<Value>, expected: &str| {
                let found =
                    match granted(answer).decide(Some(&exposed), namespace, function, metadata.as_ref()) {
                        Decision::Allow => "allow".to_owned(),
                        Decision::ByMetadata => "metadata".to_owned(),
                        Decision::Deny(words) => words,
                    };
                assert!(found.contains(expected), "{function}: {found}");
            };
        check(json!({}), "default", "api::x", None, "allow");
        check(json!({}), "other", "api::x", None, "add to rbac.expose_functions");
        check(json!({}), "n", "n::x", None, "allow");
        check(
            json!({"forbidden_functions": ["api::x"]}),
            "default",
            "api::x",
            None,
            "remove from rbac.forbidden",
        );
        check(json!({"allowed_functions": ["z::x"]}), "default", "z::x", None, "allow");
        check(json!({"allowed_functions": ["z::x"]}), "n", "z::x", None, "add to");
        check(json!({"namespaces": {"n": ["m::*"]}}), "n", "m::x", None, "allow");
        check(json!({"namespaces": null}), "default", "engine::workers::register", None, "allow");
        check(json!({}), "default", "z::x", None, "metadata");
        check(json!({}), "default", "z::x", Some(json!({"public": true})), "allow");
        check(json!({}), "default", "z::x", Some(json!({"team": "core-1"})), "allow");
        check(json!({}), "default", "z::x", Some(Value::Null), "function 'z::x' not allowed (add to");
        assert_eq!(Granted::everything().decide(None, "default", "z::x", None), Decision::Allow);
    }

    #[test]
    fn what_is_not_granted_is_not_had() {
        let granted = Granted::read(&json!({"allowed_trigger_types": ["cron"], "namespaces": {"blue": []},
            "function_registration_prefix": "acme"}))
        .unwrap();
        assert!(granted.may_bind("cron") && !granted.may_bind("http"));
        assert!(granted.may_be_in("blue") && !granted.may_be_in("default"));
        assert!(granted.may_register_functions() && !granted.may_register_trigger_types());
        assert_eq!(granted.prefixed("a::b"), "acme::a::b");
        assert!(Granted::read(&Value::Null).is_err() && Granted::read(&json!({"namespaces": 3})).is_err());
        assert!(Granted::everything().may_register_trigger_types() && Granted::everything().may_be_in("x"));
    }
}
