//! What `ringway.yaml` says to an engine that is about to start, and where everything durable is. It must not know what
//! happens when the file changes.

use std::path::{Path, PathBuf};

use ringway::address::{AddressOrigin, control_address};
use ringway::protocol::control::Limits;
use ringway_config::engine::StoreKind;
use ringway_config::settings::FILE_NAME;
use ringway_config::{EngineSettings, Settings, Variables, engine};
use ringway_engine::{Action, Engine, EngineBuilder, Otlp, Pattern, Policy, Rule, ZoneSocket};
use ringway_telemetry::store::StoreLimits;
use ringway_workers::sections;

use crate::arguments::Place;
use crate::failure::Failure;
use crate::output;

/// The file that is named, or the usual one if it is there.
pub(super) fn file(named: Option<&Path>) -> Option<PathBuf> {
    let usual = Path::new(FILE_NAME);
    named.or_else(|| usual.is_file().then_some(usual)).map(Path::to_owned)
}

/// Reads the file, or what holds without one. What is wrong with it is told as a whole.
pub(super) fn read(file: Option<&Path>) -> Result<Settings, Failure> {
    let Some(file) = file else {
        return Settings::defaults(&sections()).map_err(Failure::error);
    };
    let settings = Settings::read(file, &sections(), &Variables::process()).map_err(|problems| {
        let hint =
            format!("`ringway config check {}` says the same without starting anything", file.display());
        Failure::usage(problems).hint(hint)
    })?;
    for warning in &settings.warnings {
        output::note(&format!("warning: {warning}"));
    }
    Ok(settings)
}

/// Which engine is meant: what was typed goes before what the file says.
pub(super) fn place(typed: &Place, settings: &Settings) -> Place {
    let EngineSettings { address, project, .. } = &settings.engine;
    if typed.address.is_some() || typed.project.is_some() {
        return typed.clone();
    }
    Place { address: address.clone(), project: project.clone() }
}

/// An engine as these settings want it, at the place that is meant.
pub(super) fn builder(place: &Place, settings: &EngineSettings) -> EngineBuilder {
    let mut builder = Engine::builder();
    // Without an address the engine looks where workers look.
    if let Some(address) = &place.address {
        builder = builder.address(address);
    }
    if let Some(project) = &place.project {
        builder = builder.project(project);
    }
    for zone in &settings.zones {
        let users = zone.users.clone();
        builder = builder.zone_socket(ZoneSocket { users, ..ZoneSocket::new(&zone.name, &zone.address) });
    }
    for user in &settings.users {
        builder = builder.user_zone(user.uid, &user.zone);
    }
    builder = builder.policy(policy(&settings.rules));
    let (found, usual) = (&settings.limits, Limits::default());
    builder = builder.limits(Limits {
        json_bytes_max: found.message_bytes_max.unwrap_or(usual.json_bytes_max),
        functions_max: found.functions_max.unwrap_or(usual.functions_max),
        triggers_max: found.triggers_max.unwrap_or(usual.triggers_max),
        channels_max: found.channels_max.unwrap_or(usual.channels_max),
    });
    if let Some(bytes) = found.queued_bytes_max {
        builder = builder.queued_bytes_max(bytes);
    }
    let (found, usual) = (&settings.telemetry, StoreLimits::default());
    builder = builder.store_limits(StoreLimits {
        spans_max: found.spans_max.unwrap_or(usual.spans_max),
        span_bytes_max: found.span_bytes_max.unwrap_or(usual.span_bytes_max),
        logs_max: found.logs_max.unwrap_or(usual.logs_max),
        log_bytes_max: found.log_bytes_max.unwrap_or(usual.log_bytes_max),
    });
    if settings.export_telemetry { builder } else { builder.otlp(Otlp::Off) }
}

/// Where everything durable goes.
pub(super) struct Kept {
    /// A folder, which a store elsewhere does not use.
    pub(super) folder: PathBuf,
    /// The settings with the project of this engine.
    pub(super) settings: Settings,
    /// What to do where it cannot be opened.
    pub(super) hint: &'static str,
}

/// Where everything durable goes, and for which project.
pub(super) fn kept(place: &Place, typed: Option<&Path>, settings: &Settings) -> Result<Kept, Failure> {
    let mut settings = settings.clone();
    // What is named after the project, on NATS, is so however the project was named.
    settings.engine.project = project(place).or(settings.engine.project);
    if settings.engine.store.kind == StoreKind::Embedded {
        let hint =
            "`--data FOLDER` or `engine.data_folder` names another folder; `--no-workers` runs without one";
        return Ok(Kept { folder: data_folder(place, typed, &settings)?, settings, hint });
    }
    if let Some(folder) = typed {
        let text = format!(
            "wanted a folder for a store in a folder, found `--data {}` and `engine.store.kind: nats`",
            folder.display()
        );
        return Err(Failure::usage(text).hint("leave one of them out"));
    }
    let hint = "`engine.store` in ringway.yaml says where NATS is; `--no-workers` runs without a store";
    Ok(Kept { folder: PathBuf::new(), settings, hint })
}

/// The project of this engine, if it has one.
fn project(place: &Place) -> Option<String> {
    place
        .project
        .clone()
        .or_else(|| std::env::var("RINGWAY_PROJECT").ok())
        .filter(|project| !project.is_empty())
}

/// Rules as the engine takes them.
pub(super) fn policy(rules: &[engine::Rule]) -> Policy {
    let action = |action| match action {
        engine::Action::Allow => Action::Allow,
        engine::Action::Deny => Action::Deny,
    };
    let pattern = |text: &Option<String>| text.as_deref().map(Pattern::new).unwrap_or_default();
    let rules = rules.iter().map(|rule| Rule {
        action: action(rule.action),
        function: Pattern::new(&rule.function),
        from_zone: pattern(&rule.from_zone),
        caller: pattern(&rule.caller),
        to_zone: pattern(&rule.to_zone),
    });
    Policy::new(rules.collect())
}

/// Where everything durable is: what was typed, what the file says, or a folder of this engine's own among the user's.
fn data_folder(place: &Place, typed: Option<&Path>, settings: &Settings) -> Result<PathBuf, Failure> {
    if let Some(folder) = typed.map(Path::to_owned).or_else(|| settings.data_folder()) {
        return Ok(folder);
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let states =
        variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    let Some(states) = states else {
        return Err(Failure::error(
            "wanted a folder for everything durable, found neither XDG_STATE_HOME nor HOME",
        )
        .hint("name one with `--data FOLDER`, or in ringway.yaml as `engine.data_folder`"));
    };
    let project = project(place);
    let address = control_address(place.address.as_deref(), place.project.as_deref());
    let named = matches!(address.origin(), AddressOrigin::Explicit | AddressOrigin::SocketVariable);
    let name = match project {
        _ if named => format!("at {}", plain(address.as_str())),
        Some(project) => plain(&project),
        None => "default".to_owned(),
    };
    Ok(states.join("ringway").join(name))
}

/// A text as one name in a folder, and different texts as different ones. No project's name has the blank that sets engines
/// at an address of their own apart.
fn plain(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        // One dot is this folder, and two the one above.
        let dot = byte == b'.' && !name.is_empty();
        if byte.is_ascii_alphanumeric() || b"-_@".contains(&byte) || dot {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_goes_before_the_file() {
        let text = "engine: {project: shop, data_folder: /somewhere}";
        let settings = Settings::parse("x", text, &sections(), &Variables::default()).unwrap();
        assert_eq!(place(&Place::default(), &settings).project.as_deref(), Some("shop"));
        let typed = Place { address: Some("@here".to_owned()), ..Place::default() };
        assert_eq!(place(&typed, &settings).project, None);
        let folder = data_folder(&typed, None, &settings).ok();
        assert_eq!(folder, Some(PathBuf::from("/somewhere")));
        let folder = data_folder(&typed, Some(Path::new("/other")), &settings).ok();
        assert_eq!(folder, Some(PathBuf::from("/other")));
    }

    #[test]
    fn a_store_on_nats_has_the_name_of_the_project_and_no_folder() {
        let parse = |text: &str| Settings::parse("x", text, &sections(), &Variables::default()).unwrap();
        let name = |place: &Place, settings: &Settings| {
            let engine = kept(place, None, settings).ok()?.settings.engine;
            engine.store.name.or(engine.project)
        };
        let shop = Place { project: Some("shop".to_owned()), ..Place::default() };
        assert_eq!(name(&shop, &parse("engine: {store: {kind: nats}}")).as_deref(), Some("shop"));
        assert_eq!(name(&shop, &parse("engine: {store: {kind: nats, name: n}}")).as_deref(), Some("n"));
        let failure =
            kept(&shop, Some(Path::new("/d")), &parse("engine: {store: {kind: nats}}")).err().unwrap();
        assert!(failure.text().contains("--data /d"), "{}", failure.text());
        assert!(kept(&shop, Some(Path::new("/d")), &parse("")).is_ok());
    }

    #[test]
    fn texts_become_names_that_differ() {
        let check = |text: &str, expected: &str| assert_eq!(plain(text), expected);
        check("shop", "shop");
        check("@a/b", "@a%2fb");
        check("@a%2fb", "@a%252fb");
        check("..", "%2e.");
        check("../../etc", "%2e.%2f..%2fetc");
        check("shop 1.2", "shop%201.2");
        check("a/../b", "a%2f..%2fb");
        check("é", "%c3%a9");
    }

    #[test]
    fn a_project_stays_in_the_folder_of_states() {
        let place = Place { project: Some("../../elsewhere".to_owned()), ..Place::default() };
        let settings = Settings::defaults(&sections()).unwrap();
        let folder = data_folder(&place, None, &settings).unwrap();
        assert!(folder.parent().unwrap().ends_with("ringway"), "{}", folder.display());
        let above = |part: std::path::Component<'_>| part == std::path::Component::ParentDir;
        assert!(!folder.components().any(above), "{}", folder.display());
    }
}
