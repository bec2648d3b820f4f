//! `ringway shm`: who holds which segments, how many blocks of them are in use, and which peers hold leases.

use std::collections::HashMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{inspect, list, number, word};
use crate::arguments::Place;
use crate::connection::{Connection, Tracing};
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::words::{bytes, printable, several};
use crate::output::{self, Paint, Terminal};

#[derive(Debug, Args)]
pub(crate) struct ShmArguments {
    /// Only this worker (name or id)
    worker: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(place: &Place, arguments: &ShmArguments) -> Result<ExitCode, Failure> {
    let connection = Connection::open(place, Tracing::Never)?;
    let mut reports = inspect::reports(&connection)?;
    if let Some(wanted) = &arguments.worker {
        reports
            .workers
            .retain(|report| [word(report, "name"), word(report, "worker_id")].contains(&wanted.as_str()));
        reports.silent.retain(|(name, _)| name == wanted);
        if reports.workers.is_empty() && reports.silent.is_empty() {
            let failure = Failure::not_found(format_args!("no worker is named `{}`", printable(wanted)));
            return Err(failure.hint("`ringway workers` lists them"));
        }
    }
    if arguments.json {
        let silent: Vec<Value> =
            reports.silent.iter().map(|(name, error)| json!({"name": name, "error": error})).collect();
        output::json(&json!({ "workers": reports.workers, "silent": silent }))?;
    } else {
        if reports.workers.is_empty() && reports.silent.is_empty() {
            output::note("no worker is attached that could hold anything");
        }
        output::text(&draw(&reports.workers, &names(&connection), Terminal::of_stdout()))?;
        for (name, error) in &reports.silent {
            output::note(&printable(&format!("{name} did not answer: {error}")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn names(connection: &Connection) -> HashMap<String, String> {
    let workers = connection.worker.catalog().workers;
    workers.into_iter().map(|worker| (worker.id.to_string(), worker.name)).collect()
}

/// Draws what every worker holds: its arena, then its channels with the leases of their peers.
fn draw(reports: &[Value], names: &HashMap<String, String>, terminal: Terminal) -> String {
    let mut text = String::new();
    for report in reports {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&arena(report, terminal));
        let mut table =
            Table::new(&["  CHANNEL", "PEER", ">LEASES", ">LENT", ">SEGMENTS MAPPED", ">RING", ">IN FLIGHT"]);
        for channel in list(report, "channels") {
            let peer = word(channel, "peer");
            let role = if word(channel, "role") == "caller" { "  calls" } else { "  serves" };
            table.row([
                role.to_owned(),
                names.get(peer).map_or_else(|| peer.to_owned(), |name| format!("{name} {peer}")),
                number(channel, "leases").to_string(),
                bytes(number(channel, "lent_bytes")),
                format!(
                    "{} ({})",
                    number(channel, "segments_mapped"),
                    bytes(number(channel, "segments_mapped_bytes"))
                ),
                bytes(number(channel, "ring_bytes")),
                number(channel, "in_flight").to_string(),
            ]);
        }
        if !table.is_empty() {
            text.push_str(&table.render(terminal));
        }
    }
    text
}

fn arena(report: &Value, terminal: Terminal) -> String {
    let arena = report.get("arena").unwrap_or(&Value::Null);
    let name = terminal.paint(Paint::Bold, &printable(word(report, "name")));
    let mut text = format!("{name} {} (process {})\n", word(report, "worker_id"), number(report, "pid"));
    let segments = list(arena, "segments");
    text.push_str(&format!(
        "  arena     {} in {}; {} in use in {}, {} free in {}\n",
        bytes(number(arena, "held_bytes")),
        several(segments.len(), "segment"),
        bytes(number(arena, "live_bytes")),
        several(usize::try_from(number(arena, "live_blocks")).unwrap_or(usize::MAX), "block"),
        bytes(number(arena, "free_bytes")),
        several(usize::try_from(number(arena, "free_blocks")).unwrap_or(usize::MAX), "block"),
    ));
    for segment in segments {
        let id = segment.get("id").map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
        text.push_str(&format!(
            "  segment   {} of {}\n",
            id.unwrap_or_default(),
            bytes(number(segment, "bytes"))
        ));
    }
    let passed = report.get("payload_bytes").unwrap_or(&Value::Null);
    text.push_str(&format!(
        "  payloads  {} lent, {} copied; {} loans, {} refused\n",
        bytes(number(passed, "lent")),
        bytes(number(passed, "copied")),
        number(arena, "loans"),
        number(arena, "failures"),
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_blocks_and_leases_are_shown() {
        let report = json!({
            "worker_id": "0a", "name": "reader", "pid": 42,
            "arena": {
                "segments": [{"id": 3, "bytes": 2_097_152}], "held_bytes": 2_097_152, "live_blocks": 1,
                "live_bytes": 1_048_576, "free_blocks": 1, "free_bytes": 1_048_576, "loans": 9, "failures": 0
            },
            "channels": [{
                "role": "caller", "peer": "0b", "in_flight": 1, "leases": 1, "lent_bytes": 1_048_576,
                "segments_mapped": 0, "segments_mapped_bytes": 0, "ring_bytes": 69_632
            }],
            "payload_bytes": {"lent": 4096, "copied": 0},
        });
        let names = HashMap::from([("0b".to_owned(), "cutter".to_owned())]);
        let found = draw(&[report], &names, Terminal { interactive: true, colour: false, width: 120 });
        let expected = "reader 0a (process 42)\n  \
              arena     2.00 MiB in 1 segment; 1.00 MiB in use in 1 block, 1.00 MiB free in 1 block\n  \
              segment   3 of 2.00 MiB\n  \
              payloads  4.00 KiB lent, 0 B copied; 9 loans, 0 refused\n  \
              CHANNEL  PEER       LEASES      LENT  SEGMENTS MAPPED      RING  IN FLIGHT\n  \
              calls    cutter 0b       1  1.00 MiB          0 (0 B)  68.0 KiB          1\n";
        assert_eq!(found, expected, "\n{found}");
    }
}
