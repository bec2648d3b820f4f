//! What can be typed after `ringway`. Only words and their meaning; the commands do the work.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::{
    backup, config, cron, demo, doctor, errors, functions, link, logs, queue, shm, state, stream, top,
    traces, trigger, up, workers,
};

/// Call functions of any process on this host, and see what they do.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 error, 2 wrong usage, 3 not found, 4 refused, 124 timeout; 130 or 143 where a \
                        second signal stopped `up` at once."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// When to use colour; `auto` is on a terminal, unless `NO_COLOR` is set
    #[arg(long, alias = "color", global = true, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    pub(crate) colour: ColorChoice,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// Reads the words of a command line, the program's name first. Help and complaints are in colour as the words say.
    pub(crate) fn read(words: &[OsString]) -> Result<Self, clap::Error> {
        let command = Self::command().color(colour_asked_for(words));
        let mut matches = command.try_get_matches_from(words)?;
        Self::from_arg_matches_mut(&mut matches)
    }
}

/// Finds `--colour` in words that may not be understood otherwise, since complaints about them have colours too.
fn colour_asked_for(words: &[OsString]) -> ColorChoice {
    let words: Vec<&str> =
        words.iter().map_while(|word| word.to_str()).take_while(|word| *word != "--").collect();
    let mut values = words.iter().enumerate().filter_map(|(at, word)| match word.split_once('=') {
        Some(("--colour" | "--color", value)) => Some(value),
        None if ["--colour", "--color"].contains(word) => words.get(at + 1).copied(),
        _ => None,
    });
    values.next_back().and_then(|value| value.parse().ok()).unwrap_or(ColorChoice::Auto)
}

/// Which engine is meant.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Place {
    /// The engine's control socket: a path, or @NAME for one without a file [default: `RINGWAY_SOCKET`, else the
    /// project's socket in the user's runtime directory]
    #[arg(long, global = true, value_name = "ADDRESS", help_heading = "Which engine")]
    pub(crate) address: Option<String>,
    /// The project, which tells several engines of one user apart [default: `RINGWAY_PROJECT`, else `default`]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Which engine")]
    pub(crate) project: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an engine until a signal
    Up(up::UpArguments),
    /// Call a function
    #[command(visible_alias = "call")]
    Trigger(trigger::TriggerArguments),
    /// List functions, or describe one
    #[command(visible_alias = "fn")]
    Functions(functions::FunctionsArguments),
    /// List workers
    Workers(workers::WorkersArguments),
    /// List traces, or draw one as a waterfall
    Traces(traces::TracesArguments),
    /// Show what workers logged
    Logs(logs::LogsArguments),
    /// Watch workers, calls and memory as they change
    Top(top::TopArguments),
    /// Show who holds which segment, block and lease
    Shm(shm::ShmArguments),
    /// Read and write what is kept in scopes and keys
    #[command(subcommand)]
    State(state::StateCommand),
    /// Read and write items of streams, and read, follow and add to their logs
    #[command(subcommand)]
    Stream(stream::StreamCommand),
    /// Look at queues, put things in, hold them, and see to dead letters
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Look at what is due when, run it now, hold it
    #[command(subcommand)]
    Cron(cron::CronCommand),
    /// Let workers and engines of other hosts in: make keys and tokens, see who is linked, try a link out
    #[command(subcommand)]
    Link(link::LinkCommand),
    /// Check ringway.yaml, or write its schema
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Say what an error code means and what to try
    Errors(errors::ErrorsArguments),
    /// Take, check and restore backups of everything durable
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Check what this machine allows, and what to do about what it does not
    Doctor(doctor::DoctorArguments),
    /// Measure calls beside what the machine itself takes
    Bench(ringway_bench::BenchArgs),
    /// Run two real jobs over several processes, and show what they cost
    Demo(demo::DemoArguments),
    /// A worker of the demo, started by it
    #[command(name = demo::WORKER, hide = true, disable_help_flag = true)]
    DemoWorker {
        /// Which, and where
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORD")]
        arguments: Vec<OsString>,
    },
    /// Write a completion script for a shell to standard output
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Says what was wrong with the arguments, or shows the help that was asked for.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    // Nobody is left to be told when the terminal is gone.
    let _closed = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Reads a duration: a number with `ns`, `us`, `ms`, `s`, `m` or `h`; seconds without.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wanted = || format!("wanted a time such as 500ms, 2s or 1m, found `{text}`");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wanted())?;
    let seconds = match unit.trim() {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wanted()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wanted())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn colour_is_found_in_any_words() {
        let check = |line: &str, expected: ColorChoice| {
            assert_eq!(colour_asked_for(&words(line)), expected, "{line}");
        };
        check("ringway functions", ColorChoice::Auto);
        check("ringway --colour never functions", ColorChoice::Never);
        check("ringway functons --colour=always", ColorChoice::Always);
        check("ringway functions --color always", ColorChoice::Always);
        check("ringway functions --colour", ColorChoice::Auto);
        check("ringway functions --colour green", ColorChoice::Auto);
        check("ringway trigger f -- --colour=always", ColorChoice::Auto);
        assert_eq!(
            Arguments::read(&words("ringway workers --colour never")).unwrap().colour,
            ColorChoice::Never
        );
        assert!(Arguments::read(&words("ringway workers --colour green")).is_err());
    }

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text).ok().map(|time| time.as_nanos()), expected.map(u128::from), "{text}");
        };
        check("2", Some(2_000_000_000));
        check("1.5s", Some(1_500_000_000));
        check("500ms", Some(500_000_000));
        check("20us", Some(20_000));
        check("1m", Some(60_000_000_000));
        check("", None);
        check("ms", None);
        check("-1s", None);
        check("3 weeks", None);
        check("99999999999999999999h", None);
    }

    #[test]
    fn a_mistyped_command_gets_a_suggestion() {
        let error = Arguments::try_parse_from(["ringway", "functons"]).unwrap_err();
        assert!(error.to_string().contains("functions"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
