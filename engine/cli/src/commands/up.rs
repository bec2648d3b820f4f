//! `ringway up`: an engine and its built-in workers in this process, until a signal.
//!
//! - `policy`: the file that says who may call what;
//! - `settings`: what `ringway.yaml` says, and where everything durable is;
//! - `watch`: when that file has changed;
//! - `reload`: what happens then.

mod policy;
mod reload;
mod settings;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ringway_config::engine::Zone;
use ringway_config::{EngineSettings, Settings};
use ringway_engine::{
    Engine, EngineBuilder, StartError, StopSignals, raise_file_limit, run_until_signal_then,
};

use ringway_workers::Workers;
use tracing_subscriber::EnvFilter;

use self::policy::PolicyFile;
use self::reload::{Followed, Reload};
use crate::arguments::{Place, duration};
use crate::failure::Failure;
use crate::output::words::several;
use crate::output::{self, Paint, Terminal};

/// Exit code of an engine that a second signal stopped at once, to which the signal's number is added.
const EXIT_SIGNAL: i32 = 128;

/// The variable that says what the engine logs, in the words of tracing's `EnvFilter`.
const LOG_VARIABLE: &str = "RINGWAY_LOG";

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// A further control socket, whose workers are in a zone of their own: they are reached through the engine, which
    /// copies and checks every call
    #[arg(long = "zone", value_name = "NAME=ADDRESS", value_parser = zone_socket)]
    zones: Vec<Zone>,
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

fn zone_socket(text: &str) -> Result<Zone, String> {
    match text.split_once('=') {
        Some((zone, address)) if !zone.is_empty() && !address.is_empty() => {
            Ok(Zone { name: zone.to_owned(), address: address.to_owned(), users: Vec::new() })
        }
        _ => Err(format!("wanted NAME=ADDRESS, such as sandbox=/run/sandbox.sock, found `{text}`")),
    }
}

pub(crate) fn run(place: &Place, arguments: &UpArguments) -> Result<ExitCode, Failure> {
    start_logging();
    let file = settings::file(arguments.config.as_deref());
    // Watched before it is read, so that no change is missed and nothing is read twice.
    let followed = file.as_deref().map(Followed::start);
    let settings = settings::read(file.as_deref())?;
    let place = &settings::place(place, &settings);
    let policy = arguments.policy.as_deref().map(PolicyFile::read).transpose()?.unwrap_or_default();
    let mut joined = policy.with(&settings.engine)?;
    joined.zones.extend_from_slice(&arguments.zones);
    joined.export_telemetry &= !arguments.no_otlp;
    if let Err(error) = raise_file_limit() {
        tracing::warn!(%error, "cannot raise the limit on open files; many workers may not fit");
    }
    let signals = StopSignals::catch()?;
    let engine = start(settings::builder(place, &joined))?;
    // Workers end before their engine, whatever goes wrong from here on.
    let workers = start_workers(place, arguments, &engine, &settings)?;
    say_what_runs(place, arguments, &engine, &joined, &policy);
    if let Some(workers) = &workers {
        output::note(&format!("  everything durable is in {}", workers.place()));
        for words in workers.words() {
            output::note(&format!("  {words}"));
        }
    }
    let reload = Reload::new(followed, settings, policy, &engine, workers.as_ref());
    reload.run_while(|| {
        let drain = || arguments.drain.unwrap_or_else(|| reload.drain());
        let end = || workers.iter().for_each(Workers::shut_down);
        run_until_signal_then(&engine, signals, drain, end, stop_at_once);
    });
    output::note("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Ends the process as a second signal wants it. What was acknowledged is on disk, and the lock of the store goes with the
/// process.
#[expect(clippy::exit, reason = "threads that wait for calls to end are not to be waited for")]
fn stop_at_once(signal: i32) {
    output::note("stopped at once, by a second signal");
    std::process::exit(EXIT_SIGNAL + signal);
}

/// Finds what would keep `ringway up` from starting with a file, beyond what is wrong with the file itself.
pub(super) fn check(place: &Place, settings: &Settings) -> Result<(), StartError> {
    settings::builder(&settings::place(place, settings), &settings.engine).check()
}

fn say_what_runs(
    place: &Place,
    arguments: &UpArguments,
    engine: &Engine,
    joined: &EngineSettings,
    policy: &PolicyFile,
) {
    let terminal = Terminal::of_stderr();
    let address = engine.address();
    output::note(&format!(
        "ringway {} runs at {}",
        env!("CARGO_PKG_VERSION"),
        terminal.paint(Paint::Bold, address)
    ));
    for Zone { name, address, .. } in &joined.zones {
        output::note(&format!("  zone {name} attaches at {address}"));
    }
    if let Some(path) = &arguments.policy {
        let rules = several(policy.rule_count(), "rule");
        output::note(&format!("  {rules} on who may call what, from {}", path.display()));
    }
    output::note(&connect_words(place, address));
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
    let found = workers.report();
    for damage in &found.damage {
        output::note(&format!("warning: {damage}"));
    }
    for path in &found.open_to_others {
        output::note(&format!("warning: {}", open_to_others(path)));
    }
    Ok(Some(workers))
}

/// What to do about a path of the store that other users can open.
fn open_to_others(path: &Path) -> String {
    let (found, path) = (if path.is_dir() { "look into" } else { "read" }, path.display());
    format!("other users may {found} {path}: `chmod go= {path}` ends that")
}

fn start(builder: EngineBuilder) -> Result<Engine, Failure> {
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
        let zone = Zone { name: "box".to_owned(), address: "@box".to_owned(), users: Vec::new() };
        assert_eq!(zone_socket("box=@box"), Ok(zone));
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
        let start = |place: &Place, zones: Vec<Zone>| {
            let settings = EngineSettings { zones, export_telemetry: false, ..EngineSettings::default() };
            start(settings::builder(place, &settings))
        };
        let failure = start(&place, Vec::new()).unwrap_err().text();
        let directory = folder.join("x");
        for part in [&*address, &*directory.to_string_lossy(), "make it", "another address"] {
            assert!(failure.contains(part), "{part} in {failure}");
        }
        let place =
            Place { address: Some(format!("@ringway-up-{}", std::process::id())), ..Place::default() };
        let zones = vec![zone_socket(&format!("box={address}")).unwrap()];
        assert!(start(&place, zones).is_err());
        assert!(!folder.exists(), "nothing was made");
    }
}
