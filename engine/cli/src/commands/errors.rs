//! `ringway errors`: what a code means and what to try, from the pages of `docs/errors`, which are in the program. Needs no
//! engine.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;
use crate::output::words::printable;
use crate::suggest::closest;

include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

#[derive(Debug, Args)]
pub(crate) struct ErrorsArguments {
    /// The code, such as `worker_gone` or `QUEUE_FULL`; without one, all are listed
    code: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &ErrorsArguments) -> Result<ExitCode, Failure> {
    match &arguments.code {
        None if arguments.json => {
            output::json(&PAGES.iter().map(|&(code, page)| as_value(code, page)).collect::<Vec<_>>())?;
        }
        None => {
            let lines = PAGES.iter().map(|(code, page)| format!("{code:<24}{}\n", first_sentence(page)));
            output::text(&lines.collect::<String>())?;
        }
        Some(wanted) => {
            let (code, page) = page(wanted).ok_or_else(|| unknown(wanted))?;
            if arguments.json {
                output::json(&as_value(code, page))?;
            } else {
                output::text(page)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a code has a page of its own.
pub(crate) fn has_page(code: &str) -> bool {
    PAGES.iter().any(|(known, _)| *known == code)
}

/// The page of a code, as it is written or in other letters: `NOT_FOUND` means what `not_found` means.
fn page(wanted: &str) -> Option<(&'static str, &'static str)> {
    let exact = PAGES.iter().find(|(code, _)| *code == wanted);
    exact.or_else(|| PAGES.iter().find(|(code, _)| code.eq_ignore_ascii_case(wanted))).copied()
}

fn unknown(wanted: &str) -> Failure {
    let failure = Failure::not_found(format_args!("no error has the code `{}`", printable(wanted)));
    let failure = failure.did_you_mean(closest(wanted, PAGES.iter().map(|(code, _)| *code)));
    failure.hint("`ringway errors` lists them; a function may have codes of its own, which its author knows")
}

/// What stands under a heading.
fn part<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(heading).unwrap_or_default();
    rest.split_once("\n## ").map_or(rest, |(part, _)| part).trim()
}

fn first_sentence(page: &str) -> &str {
    let text = part(page, "## What happened");
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
}

fn as_value(code: &str, page: &str) -> Value {
    let tries: Vec<&str> = part(page, "## What to try").split("\n- ").collect();
    let tries: Vec<&str> = tries.iter().map(|line| line.trim_start_matches("- ").trim()).collect();
    json!({ "code": code, "happened": part(page, "## What happened"), "try": tries })
}

#[cfg(test)]
mod tests {
    use ringway_protocol::ErrorCode;

    use super::*;

    #[test]
    fn every_page_says_what_happened_and_what_to_try() {
        for (code, text) in PAGES {
            let told = as_value(code, text);
            assert!(told["happened"].as_str().is_some_and(|text| text.len() > 20), "{code}");
            assert!(
                told["try"].as_array().is_some_and(|tries| !tries[0].as_str().unwrap().is_empty()),
                "{code}"
            );
            assert!(!first_sentence(text).is_empty(), "{code}");
        }
        for code in ErrorCode::ALL {
            assert_eq!(page(code.as_str()).unwrap().0, code.as_str());
        }
    }

    #[test]
    fn codes_are_found_in_any_letters() {
        assert_eq!(page("QUEUE_FULL").unwrap().0, "QUEUE_FULL");
        assert_eq!(page("NOT_FOUND").unwrap().0, "not_found");
        assert_eq!(page("queue_full").unwrap().0, "QUEUE_FULL");
        assert_eq!(page("nothing_like_it"), None);
        assert!(unknown("QUEUE_FUL").text().contains("`QUEUE_FULL`"));
    }
}
