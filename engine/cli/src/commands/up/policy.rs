//! The file behind `ringway up --policy`: who attaches in which zone, and who may call what. TOML; `docs/policy.md`
//! describes it. Only what the file says, joined with what `ringway.yaml` says of the same; the engine's library decides
//! what it means.

use std::path::{Path, PathBuf};

use ringway_config::EngineSettings;
use ringway_config::engine::{Rule, User, Zone, idle_rules};
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
    /// Where it was read.
    #[serde(skip)]
    path: PathBuf,
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
        let read = Self::parse(&text).map_err(|problem| {
            unusable(&problem.trim_end()).hint("docs/policy.md describes the file, with an example")
        })?;
        Ok(Self { path: path.to_owned(), ..read })
    }

    /// Reads the text of a file. Errors name the line and show it.
    fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        match idle_rules(&file.rules).first() {
            Some((rule, earlier)) => Err(format!(
                "rule {} never decides anything: rule {} is for the same calls and comes first",
                rule + 1,
                earlier + 1
            )),
            None => Ok(file),
        }
    }

    /// What this file and `ringway.yaml` say together; this one comes first.
    pub(super) fn with(&self, settings: &EngineSettings) -> Result<EngineSettings, Failure> {
        let mut joined = settings.clone();
        joined.zones = [&*self.zones, &*settings.zones].concat();
        joined.users = [&*self.users, &*settings.users].concat();
        joined.rules = [&*self.rules, &*settings.rules].concat();
        let own = self.rules.len();
        match idle_rules(&joined.rules).into_iter().find(|(rule, earlier)| *rule >= own && *earlier < own) {
            Some((rule, earlier)) => Err(Failure::usage(format_args!(
                "rule {} under `engine.rules` never decides anything: rule {} of {} is for the same calls and comes first",
                rule - own + 1,
                earlier + 1,
                self.path.display()
            ))),
            None => Ok(joined),
        }
    }

    /// How many rules it has.
    pub(super) fn rule_count(&self) -> usize {
        self.rules.len()
    }
}

#[cfg(test)]
mod tests {
    use ringway_config::engine::Action;

    use super::*;
    use crate::commands::up::settings;

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
        let policy = settings::policy(&file.rules);
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
    fn a_rule_of_the_settings_that_decides_nothing_is_refused() {
        let text = "[[rule]]\naction = \"allow\"\nfunction = \"a::*\"\n";
        let file = PolicyFile { path: PathBuf::from("p.toml"), ..PolicyFile::parse(text).unwrap() };
        let rule = Rule {
            action: Action::Deny,
            function: "a::*".to_owned(),
            from_zone: None,
            caller: None,
            to_zone: None,
        };
        let other = Rule { caller: Some("x".to_owned()), ..rule.clone() };
        let settings = EngineSettings { rules: vec![other.clone(), rule], ..EngineSettings::default() };
        let failure = file.with(&settings).unwrap_err().text();
        assert!(
            failure.contains("rule 2 under `engine.rules`") && failure.contains("rule 1 of p.toml"),
            "{failure}"
        );
        let settings = EngineSettings { rules: vec![other], ..EngineSettings::default() };
        assert_eq!(file.with(&settings).unwrap().rules.len(), 2);
    }

    #[test]
    fn an_empty_file_changes_nothing() {
        assert_eq!(PolicyFile::parse("# nothing yet\n"), Ok(PolicyFile::default()));
    }
}
