//! Who may call what: rules from a zone and a caller's name to function ids, the first that matches wins.
//! Without a matching rule a call within a zone is allowed and a call between zones is not, but for questions
//! to the engine whose answers hold only what the asking zone may see. It must not know who is attached.

use ringway_protocol::naming;
pub use ringway_protocol::pattern::Pattern;
use serde::{Deserialize, Serialize};

/// The engine's functions that every zone may call unless a rule forbids it: they answer with what the caller's zone may
/// see, or concern the caller alone. Only the engine can register these ids.
const OPEN_TO_ZONES: &[&str] = &[
    naming::FUNCTIONS_LIST,
    naming::FUNCTIONS_INFO,
    naming::WORKERS_LIST,
    naming::WORKERS_INFO,
    naming::WORKERS_REGISTER,
    naming::TRIGGERS_LIST,
    naming::TRIGGERS_INFO,
    naming::REGISTERED_TRIGGERS_LIST,
    naming::REGISTERED_TRIGGERS_INFO,
    naming::HEALTH,
    naming::MEMORY_LIST,
];

/// Says what holds where no rule matches.
fn allowed_without_rule(from_zone: &str, to_zone: &str, function: &str) -> bool {
    from_zone == to_zone || OPEN_TO_ZONES.contains(&function)
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The call is allowed.
    Allow,
    /// The call is refused.
    Deny,
}

/// One rule. A part that is left out matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What the rule does.
    pub action: Action,
    /// The caller's zone.
    #[serde(default)]
    pub from_zone: Pattern,
    /// The caller's name.
    #[serde(default)]
    pub caller: Pattern,
    /// The zone of the function's worker.
    #[serde(default)]
    pub to_zone: Pattern,
    /// The function's id.
    pub function: Pattern,
}

impl Rule {
    /// Makes a rule for calls from one zone, whoever calls there and wherever the function is.
    #[must_use]
    pub fn new(action: Action, from_zone: &str, function: &str) -> Self {
        Self {
            action,
            from_zone: Pattern::new(from_zone),
            caller: Pattern::default(),
            to_zone: Pattern::default(),
            function: Pattern::new(function),
        }
    }

    /// Narrows the rule to callers of some name.
    #[must_use]
    pub fn with_caller(mut self, caller: &str) -> Self {
        self.caller = Pattern::new(caller);
        self
    }
}

/// All rules, in order.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Policy {
    rules: Vec<Rule>,
}

impl Policy {
    /// Makes a policy of rules.
    #[must_use]
    pub const fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Says whether a caller may call a function.
    #[must_use]
    pub fn allows(&self, from_zone: &str, caller: &str, to_zone: &str, function: &str) -> bool {
        let matching = |rule: &&Rule| {
            rule.from_zone.matches(from_zone)
                && rule.to_zone.matches(to_zone)
                && rule.function.matches(function)
                && rule.caller.matches(caller)
        };
        let action = self.rules.iter().find(matching).map(|rule| rule.action);
        action.map_or_else(
            || allowed_without_rule(from_zone, to_zone, function),
            |action| action == Action::Allow,
        )
    }

    /// Says whether some caller of a zone may call a function, so that the zone's view shows it. A rule for
    /// some names only cannot hide anything from the others.
    #[must_use]
    pub fn shows(&self, from_zone: &str, to_zone: &str, function: &str) -> bool {
        for rule in &self.rules {
            let matching = rule.from_zone.matches(from_zone)
                && rule.to_zone.matches(to_zone)
                && rule.function.matches(function);
            match rule.action {
                Action::Allow if matching => return true,
                Action::Deny if matching && rule.caller.matches_all() => return false,
                _ => {}
            }
        }
        allowed_without_rule(from_zone, to_zone, function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::new(vec![
            Rule::new(Action::Deny, "*", "admin::drop").with_caller("web*"),
            Rule::new(Action::Allow, "sandbox", "docs::*").with_caller("reader"),
            Rule::new(Action::Deny, "default", "secret::*"),
        ])
    }

    #[test]
    fn the_first_rule_that_matches_wins() {
        let check = |from: &str, caller: &str, to: &str, function: &str, allowed: bool| {
            assert_eq!(
                policy().allows(from, caller, to, function),
                allowed,
                "{from} {caller} {to} {function}"
            );
        };
        check("default", "shop", "default", "orders::validate", true);
        check("default", "web-1", "default", "admin::drop", false);
        check("default", "shop", "default", "admin::drop", true);
        check("sandbox", "reader", "default", "docs::search", true);
        check("sandbox", "writer", "default", "docs::search", false);
        check("sandbox", "reader", "default", "orders::validate", false);
        check("default", "shop", "default", "secret::key", false);
        check("sandbox", "x", "sandbox", "secret::key", true);
    }

    #[test]
    fn questions_to_the_engine_are_open_unless_a_rule_forbids_them() {
        let check = |policy: &Policy, function: &str, allowed: bool| {
            assert_eq!(policy.allows("sandbox", "x", "default", function), allowed, "{function}");
            assert_eq!(policy.shows("sandbox", "default", function), allowed, "{function}");
        };
        for open in OPEN_TO_ZONES {
            assert!(naming::is_reserved(open), "{open} could be registered by others");
            check(&policy(), open, true);
            check(&Policy::new(vec![Rule::new(Action::Deny, "sandbox", "engine::*")]), open, false);
        }
        for closed in [
            naming::TRACES_LIST,
            naming::TRACES_CLEAR,
            naming::LOGS_LIST,
            naming::METRICS_LIST,
            naming::REGISTER_TRIGGER,
        ] {
            check(&policy(), closed, false);
            check(&Policy::new(vec![Rule::new(Action::Allow, "sandbox", "engine::*")]), closed, true);
        }
    }

    #[test]
    fn a_view_shows_what_somebody_may_call() {
        let check = |from: &str, to: &str, function: &str, shown: bool| {
            assert_eq!(policy().shows(from, to, function), shown, "{from} {to} {function}");
        };
        check("default", "default", "admin::drop", true);
        check("sandbox", "default", "docs::search", true);
        check("sandbox", "default", "orders::validate", false);
        check("default", "default", "secret::key", false);
    }

    #[test]
    fn rules_are_read_from_configuration() {
        let json = r#"[{"action":"allow","from_zone":"sandbox","function":"docs::*"}]"#;
        let read: Policy = serde_json::from_str(json).unwrap();
        assert_eq!(read, Policy::new(vec![Rule::new(Action::Allow, "sandbox", "docs::*")]));
        assert!(serde_json::from_str::<Policy>(r#"[{"action":"allow","funktion":"x"}]"#).is_err());
    }
}
