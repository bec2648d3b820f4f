//! Whether the running engine reaches the NATS server by which it sees other engines, as its function `links::list` says. An
//! engine that is told of none gives no line.

use std::time::Duration;

use ringway::CallOptions;
use ringway::address::control_address;
use ringway_ipc::packet::PacketStream;
use serde_json::{Value, json};

use super::finding::Finding;
use crate::arguments::Place;
use crate::commands::{list, word};
use crate::connection::{Connection, Tracing};
use crate::output::words::several;

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn check(place: &Place) -> Option<Finding> {
    let address = control_address(place.address.as_deref(), place.project.as_deref());
    // Where nobody answers, the line above says so; of an engine on another host this is none of ours.
    if address.is_link() || PacketStream::connect(address.as_str()).is_err() {
        return None;
    }
    let connection = Connection::open(place, Tracing::Never).ok()?;
    let options = CallOptions::new().timeout(PATIENCE);
    let answer = connection.worker.trigger_json_with("links::list", &json!({}), &options).ok()?;
    answer.get("nats").filter(|nats| nats.is_object()).map(judge)
}

fn judge(nats: &Value) -> Finding {
    let (servers, project) = (word(nats, "servers"), word(nats, "project"));
    let why_not = word(nats, "why_not");
    let refused = why_not.contains("authorization") || why_not.contains("nonce");
    match word(nats, "server") {
        "" => Finding::warn(
            "nats",
            format!("the engine is not connected to {servers}: {why_not}; it sees no other engine"),
            if refused {
                "`links.nats` in ringway.yaml says who the engine is there: set what the server knows, and start it again"
            } else {
                "start the server, or set `links.nats.servers` in ringway.yaml; the engine goes on trying"
            },
        ),
        server => {
            let engines = list(nats, "engines");
            let heard = engines.iter().filter(|engine| engine.get("heard") == Some(&json!(true))).count();
            let silent = match engines.len() - heard {
                0 => String::new(),
                silent => format!(", and {silent} that are silent"),
            };
            let others = several(heard, "other engine");
            Finding::ok(
                "nats",
                format!("connected to {server}; project {project} has {others} there{silent}"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Mark;
    use super::*;

    #[test]
    fn a_server_is_reached_or_it_is_said_what_to_do() {
        let check = |nats: &Value, mark: Mark, words: &str| {
            let found = judge(nats);
            let told = format!("{} {}", found.found, found.advice.unwrap_or_default());
            assert!(found.mark == mark && told.contains(words), "{told}");
        };
        let engines = json!([{"heard": true}, {"heard": true}, {"heard": false}]);
        let mut nats = json!({"servers": "nats://a", "project": "shop", "server": "one", "engines": engines});
        check(
            &nats,
            Mark::Ok,
            "connected to one; project shop has 2 other engines there, and 1 that are silent",
        );
        nats["server"] = Value::Null;
        nats["why_not"] = json!("IO error: Connection refused");
        check(&nats, Mark::Warn, "start the server, or set `links.nats.servers`");
        nats["why_not"] = json!("client error: nats: authorization violation");
        check(&nats, Mark::Warn, "set what the server knows");
    }
}
