//! `ringway link list`: who is linked to the running engine, and which engines it sees by NATS, as its function `links::list`
//! says.

use std::process::ExitCode;

use ringway::{CallOptions, ErrorCode};
use ringway_access::utc;
use serde_json::{Value, json};

use crate::arguments::Place;
use crate::commands::{list, number, word};
use crate::connection::{Connection, Tracing};
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::words::{bytes, nanoseconds, printable};
use crate::output::{self, Terminal};

/// What the engine answers with.
const FUNCTION: &str = "links::list";

pub(super) fn run(place: &Place, as_json: bool) -> Result<ExitCode, Failure> {
    let connection = Connection::open(place, Tracing::Never)?;
    let options = CallOptions::new().timeout(std::time::Duration::from_secs(10));
    let answer = connection.worker.trigger_json_with(FUNCTION, &json!({}), &options).map_err(|error| {
        if error.code != ErrorCode::NotFound {
            return Failure::from(error);
        }
        let failure = Failure::not_found("this engine has no links: its ringway.yaml has no section `links`");
        failure.hint("`ringway link new` makes what a link wants, and prints the section")
    })?;
    if as_json {
        output::json(&answer)?;
    } else {
        output::text(&render(&answer, Terminal::of_stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(answer: &Value, terminal: Terminal) -> String {
    let links = heading(answer) + &table(list(answer, "links")).render(terminal);
    match answer.get("nats").filter(|nats| nats.is_object()) {
        Some(nats) => links + "\n" + &server(nats) + &engines(list(nats, "engines")).render(terminal),
        None => links,
    }
}

/// The NATS server, and what is wrong with it.
fn server(nats: &Value) -> String {
    let (project, servers) = (word(nats, "project"), word(nats, "servers"));
    let state = match word(nats, "server") {
        "" => format!("not connected: {}", word(nats, "why_not")),
        server => format!("connected to {server}"),
    };
    printable(&format!("project {project} by NATS at {servers}, {state}")) + "\n"
}

fn engines(engines: &[Value]) -> Table {
    let mut table = Table::new(&["ENGINE", "ID", "STATE", "LINK"]);
    for engine in engines {
        let is = |key: &str| engine.get(key).and_then(Value::as_bool).unwrap_or_default();
        table.row([
            word(engine, "name").to_owned(),
            word(engine, "engine").to_owned(),
            if is("heard") { "there" } else { "silent" }.to_owned(),
            if is("linked") { "open" } else { "-" }.to_owned(),
        ]);
    }
    table
}

fn heading(answer: &Value) -> String {
    let place = match word(answer, "address") {
        "" => "dialled by nobody: `links.listen` is not set".to_owned(),
        address => format!("dialled at ringway://{address}"),
    };
    let why = match word(answer, "why_not_io_uring") {
        "" => String::new(),
        why => format!(", not by io_uring: {why}"),
    };
    printable(&format!("{place}, bytes go by {}{why}", word(answer, "path"))) + "\n"
}

fn table(links: &[Value]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "KIND",
        "ID",
        "HOST",
        ">ROUND TRIP",
        ">CLOCK",
        ">FRAMES IN",
        ">OUT",
        ">BYTES IN",
        ">OUT",
        ">CHANNELS",
        "TOKEN",
        "UNTIL",
    ]);
    for link in links {
        let far = number(link, "round_trip_ns");
        let clock = link.get("offset_ns").and_then(Value::as_i64).unwrap_or_default();
        let until = link.get("expires_s").and_then(Value::as_u64);
        table.row([
            word(link, "name").to_owned(),
            word(link, "kind").to_owned(),
            word(link, "worker").to_owned(),
            word(link, "host").to_owned(),
            if far == 0 { "-".to_owned() } else { nanoseconds(far) },
            if far == 0 { "-".to_owned() } else { offset(clock) },
            number(link, "frames_in").to_string(),
            number(link, "frames_out").to_string(),
            bytes(number(link, "bytes_in")),
            bytes(number(link, "bytes_out")),
            number(link, "channels").to_string(),
            link.get("token").and_then(Value::as_str).unwrap_or("-").to_owned(),
            until.map_or_else(|| "-".to_owned(), utc),
        ]);
    }
    table
}

/// How far the other clock is ahead.
pub(super) fn offset(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "+" };
    format!("{sign}{}", nanoseconds(ns.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Terminal = Terminal { interactive: true, colour: false, width: 200 };

    #[test]
    fn engines_by_nats_stand_below() {
        let mut answer = json!({
            "address": null, "path": "epoll", "links": [],
            "nats": {
                "servers": "nats://127.0.0.1:4222", "project": "shop", "server": "one, version 2.12.1", "why_not": null,
                "engines": [
                    {"name": "a", "engine": "0a", "heard": true, "linked": true},
                    {"name": "b", "engine": "0b", "heard": false, "linked": false},
                ],
            },
        });
        let found = render(&answer, WIDE);
        let expected = "\
            project shop by NATS at nats://127.0.0.1:4222, connected to one, version 2.12.1\n\
            ENGINE  ID  STATE   LINK\n\
            a       0a  there   open\n\
            b       0b  silent  -\n";
        assert_eq!(found.split_once("\n\n").map(|(_, below)| below), Some(expected), "\n{found}");
        answer["nats"]["server"] = Value::Null;
        answer["nats"]["why_not"] = json!("refused");
        assert!(render(&answer, WIDE).contains("nats://127.0.0.1:4222, not connected: refused\n"));
    }

    #[test]
    fn a_link_is_one_line() {
        let answer = json!({
            "address": "127.0.0.1:49135", "path": "epoll", "why_not_io_uring": "not permitted",
            "links": [
                {"name": "edge-7", "kind": "worker", "worker": "00ff", "host": "10.0.0.7:3", "round_trip_ns": 120_000,
                 "offset_ns": -1_500_000, "frames_in": 7, "frames_out": 8, "bytes_in": 2048, "bytes_out": 100, "channels": 2,
                 "token": "0a", "expires_s": 0},
                {"name": "b", "kind": "engine", "worker": "01", "host": "10.0.0.8:4", "token": null, "expires_s": null},
            ],
        });
        let found = render(&answer, WIDE);
        let expected = "\
            dialled at ringway://127.0.0.1:49135, bytes go by epoll, not by io_uring: not permitted\n\
            NAME    KIND    ID    HOST        ROUND TRIP     CLOCK  FRAMES IN  OUT  BYTES IN    OUT  CHANNELS  TOKEN  UNTIL\n\
            edge-7  worker  00ff  10.0.0.7:3      120 µs  -1.50 ms          7    8  2.00 KiB  100 B         2  0a     1970-01-01 00:00:00 UTC\n\
            b       engine  01    10.0.0.8:4           -         -          0    0       0 B    0 B         0  -      -\n";
        assert_eq!(found, expected, "\n{found}");
    }
}
