//! What `ringway.yaml` says to an engine that is about to start, and where everything durable is. It must not know what
//! happens when the file changes.

use std::path::{Path, PathBuf};

use ringway::address::{AddressOrigin, control_address};
use ringway::protocol::control::Limits;
use ringway_config::engine::StoreKind;
use ringway_config::settings::FILE_NAME;
use ringway_config::{EngineSettings, Settings, Variables};
use ringway_engine::{EngineBuilder, Otlp, ZoneSocket};
use ringway_telemetry::store::StoreLimits;
use ringway_workers::sections;

use crate::arguments::Place;
use crate::failure::Failure;
use crate::output;

/// Reads the file that is named, or the usual one if it is there; with its path. What is wrong with it is told before the
/// error, so that all of it is seen at once.
pub(super) fn read(named: Option<&Path>) -> Result<(Option<PathBuf>, Settings), Failure> {
    let usual = Path::new(FILE_NAME);
    let file = named.or_else(|| usual.is_file().then_some(usual));
    let Some(file) = file else {
        return Ok((None, Settings::defaults(&sections()).map_err(Failure::error)?));
    };
    let settings = Settings::read(file, &sections(), &Variables::process()).map_err(|problems| {
        let hint =
            format!("`ringway config check {}` says the same without starting anything", file.display());
        Failure::usage(problems).hint(hint)
    })?;
    for warning in &settings.warnings {
        output::note(&format!("warning: {warning}"));
    }
    Ok((Some(file.to_owned()), settings))
}

/// Which engine is meant: what was typed goes before what the file says.
pub(super) fn place(typed: &Place, settings: &Settings) -> Place {
    let EngineSettings { address, project, .. } = &settings.engine;
    if typed.address.is_some() || typed.project.is_some() {
        return typed.clone();
    }
    Place { address: address.clone(), project: project.clone() }
}

/// Says to an engine what the file says of it, but for who may call what.
pub(super) fn apply(mut builder: EngineBuilder, settings: &EngineSettings) -> EngineBuilder {
    for zone in &settings.zones {
        let users = zone.users.clone();
        builder = builder.zone_socket(ZoneSocket { users, ..ZoneSocket::new(&zone.name, &zone.address) });
    }
    for user in &settings.users {
        builder = builder.user_zone(user.uid, &user.zone);
    }
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
    /// The settings with the name of this engine's store.
    pub(super) settings: Settings,
    /// What to do where it cannot be opened.
    pub(super) hint: &'static str,
}

/// Where everything durable goes, and under which name.
pub(super) fn kept(place: &Place, typed: Option<&Path>, settings: &Settings) -> Result<Kept, Failure> {
    let mut settings = settings.clone();
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
    settings.engine.store.name = settings.engine.store.name.or_else(|| project(place));
    let hint = "`engine.store` in ringway.yaml says where NATS is; `--no-workers` runs without a store";
    Ok(Kept { folder: PathBuf::new(), settings, hint })
}

/// The project of this engine, if it has one.
fn project(place: &Place) -> Option<String> {
    place.project.clone().or_else(|| std::env::var("RINGWAY_PROJECT").ok())
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
    let name =
        if named { file_name(address.as_str()) } else { project.unwrap_or_else(|| "default".to_owned()) };
    Ok(states.join("ringway").join(name))
}

/// An address as the name of a folder that no project has: engines at different addresses keep apart.
fn file_name(address: &str) -> String {
    let mut name = "at ".to_owned();
    for byte in address.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte) {
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
            kept(place, None, settings).ok().and_then(|kept| kept.settings.engine.store.name)
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
    fn addresses_become_names_that_differ() {
        assert_eq!(file_name("@a/b"), "at @a%2fb");
        assert_ne!(file_name("@a%2fb"), file_name("@a/b"));
    }
}
