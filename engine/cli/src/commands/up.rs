//! `ringway up`: an engine and its built-in workers in this process, until a signal.
//!
//! - `policy`: the file that says who may call what;
//! - `settings`: what `ringway.yaml` says, and where everything durable is;
//! - `reload`: what happens when that file changes.

mod policy;
mod reload;
mod settings;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ringway_config::Settings;
use ringway_engine::{Engine, Otlp, StartError, ZoneSocket, raise_file_limit, run_until_signal_then};
use ringway_workers::Workers;
use tracing_subscriber::EnvFilter;

use self::policy::PolicyFile;
use self::reload::Reload;
use crate::arguments::{Place, duration};
use crate::failure::Failure;
use crate::output::words::several;
use crate::output::{self, Paint, Terminal};

/// The variable that says what the engine logs, in the words of tracing's `EnvFilter`.
const LOG_VARIABLE: &str = "RINGWAY_LOG";

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// A further control socket, whose workers are in a zone of their own: they are reached through the engine, which
    /// copies and checks every call
    #[arg(long = "zone", value_name = "NAME=ADDRESS", value_parser = zone_socket)]
    zones: Vec<ZoneSocket>,
    /// Zones, users, and rules on who may call what: a TOML file, described in docs/policy.md
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// What the engine and its built-in workers are told [default: ./ringway.yaml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of everything durable [default: as the file says, else in the user's state directory]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Run without built-in workers, which keeps nothing
    #[arg(long)]
    no_workers: bool,
    /// How long workers may finish what they have begun when the engine is told to stop [default: as the file says, else
    /// 5s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    drain: Option<Duration>,
    /// Export no traces and logs, whatever the OTEL_ variables say
    #[arg(long)]
    no_otlp: bool,
}

fn zone_socket(text: &str) -> Result<ZoneSocket, String> {
    match text.split_once('=') {
        Some((zone, address)) if !zone.is_empty() && !address.is_empty() => {
            Ok(ZoneSocket::new(zone, address))
        }
        _ => Err(format!("wanted NAME=ADDRESS, such as sandbox=/run/sandbox.sock, found `{text}`")),
    }
}

pub(crate) fn run(place: &Place, arguments: &UpArguments) -> Result<ExitCode, Failure> {
    start_logging();
    let (file, settings) = settings::read(arguments.config.as_deref())?;
    let place = &settings::place(place, &settings);
    let policy = arguments.policy.as_deref().map(PolicyFile::read).transpose()?.unwrap_or_default();
    let sockets: Vec<(String, String)> = policy
        .sockets()
        .chain(settings.engine.zones.iter().map(|zone| (zone.name.as_str(), zone.address.as_str())))
        .chain(arguments.zones.iter().map(|zone| (zone.zone.as_str(), zone.address.as_str())))
        .map(|(zone, address)| (zone.to_owned(), address.to_owned()))
        .collect();
    let rules = policy.rules().to_vec();
    if let Err(error) = raise_file_limit() {
        tracing::warn!(%error, "cannot raise the limit on open files; many workers may not fit");
    }
    let engine = start(place, arguments, policy, &settings)?;
    // Workers end before their engine, whatever goes wrong from here on.
    let workers = start_workers(place, arguments, &engine, &settings)?;
    let terminal = Terminal::of_stderr();
    let address = engine.address();
    output::note(&format!(
        "ringway {} runs at {}",
        env!("CARGO_PKG_VERSION"),
        terminal.paint(Paint::Bold, address)
    ));
    for (zone, address) in &sockets {
        output::note(&format!("  zone {zone} attaches at {address}"));
    }
    if let Some(path) = &arguments.policy {
        output::note(&format!(
            "  {} on who may call what, from {}",
            several(rules.len(), "rule"),
            path.display()
        ));
    }
    output::note(&connect_words(place, address));
    if let Some(workers) = &workers {
        output::note(&format!("  everything durable is in {}", workers.place()));
    }
    let reload = Reload::new(file, settings, rules, &engine, workers.as_ref());
    reload.run_while(|| {
        run_until_signal_then(&engine, || {
            workers.iter().for_each(Workers::shut_down);
            arguments.drain.unwrap_or_else(|| reload.drain())
        })
    })?;
    output::note("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Starts the built-in workers.
fn start_workers(
    place: &Place,
    arguments: &UpArguments,
    engine: &Engine,
    settings: &Settings,
) -> Result<Option<Workers>, Failure> {
    if arguments.no_workers {
        return Ok(None);
    }
    let kept = settings::kept(place, arguments.data.as_deref(), settings)?;
    let started = Workers::start(engine.address(), &kept.folder, &kept.settings);
    let workers = started.map_err(|error| Failure::error(error).hint(kept.hint))?;
    for damage in &workers.report().damage {
        output::note(&format!("warning: something in {} was damaged: {damage:?}", workers.place()));
    }
    Ok(Some(workers))
}

fn start(
    place: &Place,
    arguments: &UpArguments,
    policy: PolicyFile,
    settings: &Settings,
) -> Result<Engine, Failure> {
    let mut builder = settings::apply(policy.apply(Engine::builder(), &settings.engine)?, &settings.engine);
    // Without an address the engine looks where workers look.
    if let Some(address) = &place.address {
        builder = builder.address(address);
    }
    if let Some(project) = &place.project {
        builder = builder.project(project);
    }
    if arguments.no_otlp {
        builder = builder.otlp(Otlp::Off);
    }
    for zone in &arguments.zones {
        builder = builder.zone_socket(zone.clone());
    }
    builder.start().map_err(|error| {
        let is_taken = matches!(error, StartError::Bind(_));
        let failure = Failure::from(error);
        if !is_taken {
            return failure;
        }
        failure.hint(
            "`--project NAME` runs a second engine beside another; `ringway workers` shows who is attached",
        )
    })
}

/// Says how to reach the engine: nothing to do where everybody looks, else the variable or option to set.
fn connect_words(place: &Place, address: &str) -> String {
    let usual = ringway::address::control_address(None, None);
    let reach = if usual.as_str() == address {
        "  workers and `ringway` commands of this user find it without being told".to_owned()
    } else if let (Some(project), None) = (&place.project, &place.address) {
        format!("  reach it with RINGWAY_PROJECT={project}, or `ringway --project {project} …`")
    } else {
        format!("  reach it with RINGWAY_SOCKET={address}, or `ringway --address {address} …`")
    };
    format!("{reach}\n  Ctrl-C stops it; channels between workers stay open")
}

fn start_logging() {
    let filter = EnvFilter::builder()
        .with_env_var(LOG_VARIABLE)
        .with_default_directive(tracing::level_filters::LevelFilter::WARN.into())
        .from_env_lossy();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(Terminal::of_stderr().colour)
        .finish();
    // A second one in the same process is no reason not to run.
    let _already = tracing::subscriber::set_global_default(subscriber);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_named_with_an_address() {
        assert_eq!(zone_socket("box=@box"), Ok(ZoneSocket::new("box", "@box")));
        for wrong in ["box", "=@box", "box=", ""] {
            assert!(zone_socket(wrong).unwrap_err().contains("NAME=ADDRESS"), "{wrong}");
        }
    }

    #[test]
    fn unusual_addresses_are_told() {
        let place = Place { address: Some("@here".to_owned()), ..Place::default() };
        let found = connect_words(&place, "@here");
        assert!(found.contains("RINGWAY_SOCKET=@here"), "{found}");
        let place = Place { project: Some("shop".to_owned()), ..Place::default() };
        let found = connect_words(&place, "/somewhere/shop.sock");
        assert!(found.contains("--project shop"), "{found}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_not_made() {
        let folder = std::env::temp_dir().join(format!("ringway-up-{}", std::process::id()));
        let address = folder.join("x/y.sock").to_string_lossy().into_owned();
        let place = Place { address: Some(address.clone()), ..Place::default() };
        let settings = Settings::defaults(&ringway_workers::sections()).unwrap();
        let arguments = |zones| UpArguments {
            zones,
            policy: None,
            config: None,
            data: None,
            no_workers: true,
            drain: None,
            no_otlp: true,
        };
        let start = |place: &Place, zones| start(place, &arguments(zones), PolicyFile::default(), &settings);
        let failure = start(&place, Vec::new()).unwrap_err().text();
        let directory = folder.join("x");
        for part in [&*address, &*directory.to_string_lossy(), "make it", "another address"] {
            assert!(failure.contains(part), "{part} in {failure}");
        }
        let place =
            Place { address: Some(format!("@ringway-up-{}", std::process::id())), ..Place::default() };
        let zones = vec![ZoneSocket::new("box", &address)];
        assert!(start(&place, zones).is_err());
        assert!(!folder.exists(), "nothing was made");
    }
}
