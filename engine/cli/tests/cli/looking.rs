//! The commands that read.

use std::time::Duration;

use serde_json::Value;

use crate::host::{Host, Ran};

/// Spans and logs reach the engine a little after the call: asks until the answer is there.
fn until(host: &Host, arguments: &[&str], there: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..200 {
        let found = host.run(arguments);
        if let Ok(found) = serde_json::from_str::<Value>(&found.out)
            && there(&found)
        {
            return found;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("{arguments:?} never showed it: {:?}", host.run(arguments));
}

fn contains(ran: &Ran, expected: &[&str]) {
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for expected in expected {
        assert!(ran.out.contains(expected), "`{expected}` is not in\n{}", ran.out);
    }
}

#[test]
fn functions_are_listed_and_described() {
    let host = Host::start();
    let list = host.run(&["functions", "--json"]).json();
    let ids: Vec<&str> = list["functions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|function| function["function_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["calc::add", "calc::fail", "calc::slow", "hello::greet", "meta::echo", "raw::bytes"]);
    contains(&host.run(&["functions", "numbers"]), &["calc::add", "Adds two numbers."]);
    contains(
        &host.run(&["functions", "calc::add"]),
        &["Adds two numbers.", "\"properties\"", "REPLICA", "tester"],
    );
    contains(&host.run(&["functions", "--all"]), &["engine::functions::list"]);
    host.run(&["functions", "calc::ads"]).fails(3, &["did you mean `calc::add`?"]);
    host.run(&["functions", "--worker", "testre"]).fails(3, &["did you mean `tester`?"]);
    contains(&host.run(&["functions", "--worker", "tester"]), &["calc::add"]);
}

#[test]
fn workers_are_listed_without_the_command_itself() {
    let host = Host::start();
    let ran = host.run(&["workers"]);
    contains(&ran, &["tester", "engine", &std::process::id().to_string()]);
    assert!(!ran.out.contains("ringway-cli"), "{}", ran.out);
    contains(&host.run(&["workers", "tester"]), &["process", "calc::add"]);
    host.run(&["workers", "testre"]).fails(3, &["did you mean `tester`?"]);
}

#[test]
fn a_traced_call_is_listed_and_drawn() {
    let host = Host::start();
    host.run_with(&["trigger", "calc::add", "a=2", "b=3"], &[("OTEL_TRACES_SAMPLER", "always_on")])
        .prints("5\n");
    let complete = |found: &Value| {
        let trace = found["traces"].get(0);
        trace.is_some_and(|trace| trace["spans"].as_u64() >= Some(2) && trace["live"] == 0)
    };
    let list = until(&host, &["traces", "--function", "calc::add", "--json"], complete);
    let id = list["traces"][0]["trace_id"].as_str().unwrap();
    assert_eq!(list["traces"][0]["root"], "calc::add");
    contains(&host.run(&["traces", &id[..12]]), &[id, "calc::add", "tester"]);
    contains(&host.run(&["traces", "last", "--ascii", "--function", "calc::add"]), &["calc::add"]);
    assert_eq!(host.run(&["traces", id, "--json"]).json()["trace_id"], id);
    host.run(&["traces", "zz"]).fails(3, &["no trace"]);
    // The command asked the engine about the function first; that is shown when it is wanted.
    let roots = |arguments: &[&str]| -> Vec<String> {
        let found = host.run(arguments).json();
        let traces = found["traces"].as_array().unwrap();
        traces.iter().map(|trace| trace["root"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(roots(&["traces", "--json"]), ["calc::add"]);
    assert!(roots(&["traces", "--json", "--all"]).contains(&"engine::functions::info".to_owned()));
}

#[test]
fn memory_is_shown_by_worker() {
    let host = Host::start();
    let loan = host.worker.loan(1 << 20).unwrap();
    let found = host.run(&["shm", "--json"]).json();
    let names: Vec<&str> =
        found["workers"].as_array().unwrap().iter().map(|report| report["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"tester") && !names.contains(&"ringway-cli"), "{names:?}");
    contains(&host.run(&["shm", "tester"]), &["tester", "1.00 MiB in use in 1 block"]);
    drop(loan);
    host.run(&["shm", "nobody"]).fails(3, &["no worker is named `nobody`"]);
}

#[test]
fn colour_is_used_when_it_is_asked_for() {
    let host = Host::start();
    let is_painted = |ran: &Ran| ran.out.contains('\u{1b}');
    assert!(!is_painted(&host.run(&["workers"])));
    assert!(is_painted(&host.run(&["workers", "--colour", "always"])));
    assert!(!is_painted(&host.run(&["workers", "--colour", "never"])));
    let complaint = host.run(&["--colour=always", "workers", "--jsno"]);
    assert!(complaint.code == Some(2) && complaint.err.contains('\u{1b}'), "{}", complaint.err);
}

#[test]
fn top_wants_a_terminal_or_json() {
    let host = Host::start();
    host.run(&["top"]).fails(2, &["wanted a terminal", "--json"]);
    let sample = host.run(&["top", "--json", "--every", "100ms"]).json();
    assert_eq!(sample["functions"], 6);
    assert_eq!(sample["workers"][0]["name"], "tester");
}

#[test]
fn logs_are_shown_with_their_fields() {
    use tracing_subscriber::layer::SubscriberExt;
    let subscriber = tracing_subscriber::registry().with(ringway::layer());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let host = Host::start();
    host.run_with(&["trigger", "calc::add", "a=7", "b=3"], &[("OTEL_TRACES_SAMPLER", "always_on")])
        .prints("10\n");
    // One line is one JSON document.
    let log = until(&host, &["logs", "adding", "-n", "1", "--json"], |log| log["message"] == "adding");
    // Which of the workers in this process it is booked to, the engine's own or the tester, is the layer's business.
    assert_eq!(log["fields"]["a"], 7);
    contains(&host.run(&["logs", "adding", "--level", "info"]), &["info", "adding a=7"]);
    let none = host.run(&["logs", "--level", "error", "adding"]);
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""));
}
