//! The file behind `ringway up --policy`: who attaches in which zone, and who may call what. TOML; `docs/policy.md`
//! describes it. Only what the file says; the engine's library decides what it means.

use std::path::Path;

use ringway_config::EngineSettings;
use ringway_engine::{EngineBuilder, Policy, Rule, ZoneSocket};
use serde::Deserialize;

use crate::failure::Failure;

/// The most bytes of a file; one of this length was not written by hand.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All that the file says.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyFile {
    /// Control sockets of their own.
    #[serde(default, rename = "zone")]
    zones: Vec<Zone>,
    /// Users who attach at the main socket.
    #[serde(default, rename = "user")]
    users: Vec<User>,
    /// Rules, in order.
    #[serde(default, rename = "rule")]
    rules: Vec<Rule>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Zone {
    name: String,
    address: String,
    #[serde(default)]
    users: Vec<u32>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    uid: u32,
    zone: String,
}

impl PolicyFile {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let unusable = |problem: &dyn std::fmt::Display| {
            Failure::usage(format_args!("cannot use the policy {}: {problem}", path.display()))
        };
        let length = std::fs::metadata(path).map_err(|error| unusable(&error))?.len();
        if length > FILE_BYTES_MAX {
            return Err(unusable(&format_args!(
                "wanted a file of at most {FILE_BYTES_MAX} bytes, found {length}"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unusable(&error))?;
        Self::parse(&text).map_err(|problem| {
            unusable(&problem.trim_end()).hint("docs/policy.md describes the file, with an example")
        })
    }

    /// Reads the text of a file. Errors name the line and show it.
    fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for (number, rule) in (1..).zip(&file.rules) {
            if let Some((earlier, _)) =
                (1..).zip(&file.rules).find(|(earlier, other)| earlier < &number && same(other, rule))
            {
                return Err(format!(
                    "rule {number} never decides anything: rule {earlier} is for the same calls and comes first"
                ));
            }
        }
        Ok(file)
    }

    /// Says the same to an engine that is about to start, and after it what `ringway.yaml` says.
    pub(super) fn apply(
        self,
        mut builder: EngineBuilder,
        settings: &EngineSettings,
    ) -> Result<EngineBuilder, Failure> {
        for Zone { name, address, users } in self.zones {
            builder = builder.zone_socket(ZoneSocket { users, ..ZoneSocket::new(name, address) });
        }
        for User { uid, zone } in self.users {
            builder = builder.user_zone(uid, zone);
        }
        Ok(builder.policy(policy(&self.rules, settings)?))
    }

    /// Lists the sockets, each as zone and address.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (&str, &str)> {
        self.zones.iter().map(|zone| (zone.name.as_str(), zone.address.as_str()))
    }

    /// The rules, in order.
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// What the rules of a policy file and those of `ringway.yaml` say together; the file's come first.
pub(super) fn policy(first: &[Rule], settings: &EngineSettings) -> Result<Policy, Failure> {
    let mut rules = first.to_vec();
    for rule in &settings.rules {
        let rule: Rule = serde_json::from_value(serde_json::to_value(rule)?)?;
        if rules.iter().any(|earlier| same(earlier, &rule)) {
            let text = format!(
                "a rule under `engine.rules` never decides anything, one before it is for the same calls: {rule:?}"
            );
            return Err(Failure::usage(text));
        }
        rules.push(rule);
    }
    Ok(Policy::new(rules))
}

/// Whether two rules are for the same calls, whatever they do with them.
fn same(one: &Rule, other: &Rule) -> bool {
    let calls = |rule: &Rule| {
        (rule.from_zone.clone(), rule.caller.clone(), rule.to_zone.clone(), rule.function.clone())
    };
    calls(one) == calls(other)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ringway_engine::Action;

    use super::*;

    #[test]
    fn the_example_of_the_document_is_read() {
        let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.md");
        let page = std::fs::read_to_string(page).unwrap();
        let (_, rest) = page.split_once("```toml\n").unwrap();
        let (example, _) = rest.split_once("```").unwrap();
        let file = PolicyFile::parse(example).unwrap();
        let sandbox = Zone {
            name: "sandbox".to_owned(),
            address: "/run/ringway/sandbox.sock".to_owned(),
            users: vec![1001],
        };
        assert_eq!(file.zones, [sandbox]);
        assert_eq!(file.users, [User { uid: 33, zone: "web".to_owned() }]);
        let actions: Vec<Action> = file.rules.iter().map(|rule| rule.action).collect();
        assert_eq!(actions, [Action::Deny, Action::Allow, Action::Allow]);
        let policy = Policy::new(file.rules);
        assert!(!policy.allows("default", "guest-7", "default", "admin::stop"));
        assert!(policy.allows("default", "shop", "default", "admin::stop"));
        assert!(policy.allows("sandbox", "reader", "default", "docs::search"));
        assert!(!policy.allows("sandbox", "reader", "default", "orders::validate"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let check = |text: &str, expected: &[&str]| {
            let found = PolicyFile::parse(text).unwrap_err();
            for expected in expected {
                assert!(found.contains(expected), "`{expected}` is not in\n{found}");
            }
        };
        check("[[rule]]\naction = \"allow\"\nfunktion = \"x\"\n", &["line 3", "funktion", "`function`"]);
        check("[[rule]]\naction = \"maybe\"\nfunction = \"x\"\n", &["line 2", "maybe", "`allow`", "`deny`"]);
        check("[[rule]]\naction = \"deny\"\n", &["missing field `function`"]);
        check("[[rules]]\n", &["rules", "`rule`"]);
        check("[[zone]]\nname = \"a\"\n", &["missing field `address`"]);
        check("rule = 3\n", &["line 1"]);
        check("[[rule\n", &["line 1"]);
    }

    #[test]
    fn a_rule_that_decides_nothing_is_refused() {
        let text = "[[rule]]\naction = \"allow\"\nfunction = \"a::*\"\n\n[[rule]]\naction = \"deny\"\nfunction = \"a::*\"\n";
        assert!(PolicyFile::parse(text).unwrap_err().contains("rule 2 never decides anything: rule 1"));
    }

    #[test]
    fn an_empty_file_changes_nothing() {
        assert_eq!(PolicyFile::parse("# nothing yet\n"), Ok(PolicyFile::default()));
    }
}
