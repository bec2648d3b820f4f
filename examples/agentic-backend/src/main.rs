//! Agents in three languages over one engine: starts everything, asks for one report over HTTP, and prints the one trace of
//! what happened. `cargo agents` installs what it needs and runs it; with `--stay` everything goes on until Ctrl-C.
//!
//! - `play`: what happens, in order, and what is printed of it;
//! - `cast`: the processes, and waiting for them;
//! - `scrape`: `web::scrape`, the worker in Rust. The others are in `typescript` and `python`.

#![forbid(unsafe_code)]

mod cast;
mod play;
mod scrape;

use std::ffi::OsString;

fn main() -> anyhow::Result<()> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match words.iter().filter_map(|word| word.to_str()).collect::<Vec<_>>().as_slice() {
        [] => play::run(false),
        ["--stay"] => play::run(true),
        ["scrape"] => scrape::serve(),
        ["keep", ..] => cast::keep(&words[1..]),
        other => anyhow::bail!("wanted nothing or --stay, found {}", other.join(" ")),
    }
}
