//! `ringway link`: remote workers and other engines. Makes what a new link wants, takes tokens back, shows the links of a
//! running engine, and tries one out.
//!
//! - `directory`: the files of an authority, its servers and its clients;
//! - `new`: makes them, and says what to write where;
//! - `list`: who is linked;
//! - `dial`: tries a link out, and says in plain words what is wrong with it.

mod dial;
mod directory;
mod list;
mod new;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use self::directory::{DIRECTORY, Directory};
use crate::arguments::Place;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum LinkCommand {
    /// Make keys, certificates and a token for a remote worker or another engine, and print what to write where
    New(new::NewArguments),
    /// Take a token back: engines close its links and let nobody in by it
    Revoke {
        /// The token's id, as `link new` and `link list` show it
        #[arg(value_name = "TOKEN_ID")]
        token: String,
        /// Where `link new` wrote
        #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
        directory: PathBuf,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// List the links of the running engine
    List {
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Dial an engine as a remote worker would: say what it grants and how far away it is, or what is wrong
    Test(dial::TestArguments),
}

pub(crate) fn run(place: &Place, command: &LinkCommand) -> Result<ExitCode, Failure> {
    match command {
        LinkCommand::New(arguments) => new::run(arguments),
        LinkCommand::Revoke { token, directory, json } => revoke(token, directory, *json),
        LinkCommand::List { json } => list::run(place, *json),
        LinkCommand::Test(arguments) => dial::run(arguments),
    }
}

fn revoke(token: &str, directory: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let directory = Directory::open(directory)?;
    let was_new = directory.revoke(token)?;
    let file = directory.revoked();
    if as_json {
        output::json(&json!({ "token": token, "file": file, "was_revoked_before": !was_new }))?;
    } else {
        let words = if was_new { "is revoked" } else { "was revoked before" };
        output::text(&format!("{token} {words}\n"))?;
        output::note(&format!(
            "engines that read {} as `links.revoked` know it within two seconds",
            file.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
