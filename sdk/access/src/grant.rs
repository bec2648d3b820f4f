//! What a peer may do over its link: which functions it may call and offer, which trigger types it may use, in which
//! namespaces. Used by tokens, by the doorkeeper, and by whoever routes what comes over a link. It must not know who
//! the peer is.

use ringway_protocol::naming;
pub use ringway_protocol::pattern::Pattern;
use serde::{Deserialize, Serialize};

/// What a peer may do. The default, and every list that is left out, grants nothing.
///
/// A field that this version does not know is an error, since it may be a limit that would go unheard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The functions that it may register.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offer: Vec<Pattern>,
    /// The functions that it may call. `*` covers those of the engine too, as in a policy's rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub call: Vec<Pattern>,
    /// The trigger types that it may bind functions to, or provide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Pattern>,
    /// The namespaces in which all of this holds; left out: the default one.
    #[serde(default = "default_namespace")]
    pub namespaces: Vec<Pattern>,
}

fn default_namespace() -> Vec<Pattern> {
    vec![Pattern::new(naming::NAMESPACE_DEFAULT)]
}

impl Default for Grant {
    fn default() -> Self {
        Self { offer: Vec::new(), call: Vec::new(), triggers: Vec::new(), namespaces: default_namespace() }
    }
}

fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

impl Grant {
    /// Grants all that can be granted, in every namespace.
    #[must_use]
    pub fn everything() -> Self {
        let all = || vec![Pattern::new("*")];
        Self { offer: all(), call: all(), triggers: all(), namespaces: all() }
    }

    /// Adds functions that may be called.
    #[must_use]
    pub fn with_call(mut self, pattern: &str) -> Self {
        self.call.push(Pattern::new(pattern));
        self
    }

    /// Adds functions that may be registered.
    #[must_use]
    pub fn with_offer(mut self, pattern: &str) -> Self {
        self.offer.push(Pattern::new(pattern));
        self
    }

    /// Adds trigger types that may be used.
    #[must_use]
    pub fn with_trigger(mut self, pattern: &str) -> Self {
        self.triggers.push(Pattern::new(pattern));
        self
    }

    /// Sets the namespaces, in place of the default one.
    #[must_use]
    pub fn with_namespaces(mut self, patterns: &[&str]) -> Self {
        self.namespaces = patterns.iter().map(|pattern| Pattern::new(pattern)).collect();
        self
    }

    /// Says whether the peer may call a function.
    #[must_use]
    pub fn may_call(&self, namespace: &str, function: &str) -> bool {
        any(&self.namespaces, namespace) && any(&self.call, function)
    }

    /// Says whether the peer may register a function. Ids that only the engine may register are never granted.
    #[must_use]
    pub fn may_offer(&self, namespace: &str, function: &str) -> bool {
        !naming::is_reserved(function) && any(&self.namespaces, namespace) && any(&self.offer, function)
    }

    /// Says whether the peer may bind functions to a trigger type, or provide it.
    #[must_use]
    pub fn may_trigger(&self, namespace: &str, trigger_type: &str) -> bool {
        any(&self.namespaces, namespace) && any(&self.triggers, trigger_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_granted_by_default() {
        let nothing = Grant::default();
        for (namespace, id) in [("default", "orders::validate"), ("", ""), ("*", "*")] {
            assert!(!nothing.may_call(namespace, id));
            assert!(!nothing.may_offer(namespace, id));
            assert!(!nothing.may_trigger(namespace, id));
        }
        assert_eq!(serde_json::from_str::<Grant>("{}").unwrap(), nothing);
    }

    #[test]
    fn each_list_grants_its_own_thing_in_its_namespaces() {
        let grant = Grant::default().with_call("orders::*").with_offer("edge::*").with_trigger("cron");
        let check = |namespace: &str, id: &str, expected: (bool, bool, bool)| {
            let found = (
                grant.may_call(namespace, id),
                grant.may_offer(namespace, id),
                grant.may_trigger(namespace, id),
            );
            assert_eq!(found, expected, "{namespace} {id}");
        };
        check("default", "orders::validate", (true, false, false));
        check("default", "edge::read", (false, true, false));
        check("default", "cron", (false, false, true));
        check("other", "orders::validate", (false, false, false));
        check("other", "edge::read", (false, false, false));
        check("other", "cron", (false, false, false));
        let elsewhere = grant.clone().with_namespaces(&["tenant-*"]);
        assert!(elsewhere.may_call("tenant-7", "orders::validate"));
        assert!(!elsewhere.may_call("default", "orders::validate"));
    }

    #[test]
    fn nobody_is_granted_the_engines_own_ids() {
        let all = Grant::everything();
        assert!(all.may_offer("any", "orders::validate") && all.may_trigger("any", "cron"));
        assert!(all.may_call("any", naming::FUNCTIONS_LIST));
        assert!(!all.may_offer("default", naming::FUNCTIONS_LIST));
        assert!(!all.may_offer("default", naming::WORKER_INSPECT));
    }

    #[test]
    fn a_grant_survives_json_and_one_with_an_unknown_limit_is_refused() {
        let grant = Grant::default().with_call("a::*").with_namespaces(&["n"]);
        let text = serde_json::to_string(&grant).unwrap();
        assert_eq!(text, r#"{"call":["a::*"],"namespaces":["n"]}"#);
        assert_eq!(serde_json::from_str::<Grant>(&text).unwrap(), grant);
        assert!(serde_json::from_str::<Grant>(r#"{"call":["*"],"only_on_sundays":true}"#).is_err());
    }
}
