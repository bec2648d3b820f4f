//! `ringway up`, `doctor`, `completions`, and what is typed wrongly.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::host::{Ran, address, ringway};
use crate::settings::Up;

/// Ends a child that a failed test leaves.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn one_engine_runs_at_an_address_until_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let address = directory.path().join("engine.sock");
    let address = address.to_str().unwrap();
    let started =
        ringway().args(["--address", address, "up"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut engine = Killed(started.unwrap());
    let mut words = BufReader::new(engine.0.stderr.take().unwrap());
    let mut said = String::new();
    // It warns first where another engine of this machine has the usual port.
    while !said.contains(address) {
        assert!(words.read_line(&mut said).unwrap() > 0, "{said}");
    }

    let pid = engine.0.id().to_string();
    let second = Ran::of(ringway().args(["--address", address, "up"]));
    second.fails(1, &["another engine is running", &pid]);
    let workers = Ran::of(ringway().args(["--address", address, "workers", "--json"]));
    let workers = workers.json();
    let names: Vec<_> = workers["workers"].as_array().unwrap().iter().map(|worker| &worker["name"]).collect();
    assert!(
        names.iter().any(|name| *name == "engine") && names.iter().any(|name| *name == "configuration"),
        "{names:?}"
    );

    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(engine.0.wait().unwrap().success());
    let mut rest = String::new();
    words.read_to_string(&mut rest).unwrap();
    assert!(rest.contains(&format!("RINGWAY_SOCKET={address}")) && rest.ends_with("stopped\n"), "{rest}");
    assert!(!std::path::Path::new(address).exists());
}

/// Waits until an engine takes nobody in any more, which is the first thing it does when it stops.
fn wait_for_closed_doors(address: &str) {
    let probe = || ringway::Worker::builder("probe").address(address).without_reconnect().connect();
    while probe().is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn workers_finish_while_everything_still_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(&["--data", "data", "--drain", "1h"], folder.path());
    let address = up.address.clone();
    let connect = |name: &str| ringway::Worker::builder(name).address(&address).connect().unwrap();
    let (worker, client) = (connect("worker"), connect("client"));
    let (begun, begins) = std::sync::mpsc::channel();
    let (own, doors) = (worker.clone(), address.clone());
    let finish = move |_: &ringway::Context, (): ()| {
        begun.send(()).unwrap();
        wait_for_closed_doors(&doors);
        let request = serde_json::json!({"scope": "s", "key": "k", "value": "kept"});
        Ok(own.trigger_json("state::set", &request)?)
    };
    worker.register(ringway::Function::json("slow::finish", finish).pooled()).unwrap();
    let call = std::thread::spawn(move || {
        client.wait_for("slow::finish", Duration::from_secs(30)).unwrap();
        client.trigger_json("slow::finish", &serde_json::Value::Null)
    });
    begins.recv().unwrap();
    up.signal("-TERM");
    let answer = call.join().unwrap().unwrap();
    assert_eq!(answer["new_value"], "kept");
    up.hear("stopped");
    assert!(up.engine.0.wait().unwrap().success());
    let up = Up::start(&["--data", "data"], folder.path());
    up.run(&["state", "get", "s", "k"]).prints("\"kept\"\n");
    up.stop();
}

#[test]
fn a_second_signal_ends_an_engine_at_once() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let folder = tempfile::tempdir().unwrap();
        let mut up = Up::start(&["--data", "data", "--drain", "1h"], folder.path());
        let connect = |name: &str| ringway::Worker::builder(name).address(&up.address).connect().unwrap();
        let (worker, client) = (connect("worker"), connect("client"));
        let (begun, begins) = std::sync::mpsc::channel();
        let stay = move |context: &ringway::Context, (): ()| {
            begun.send(()).unwrap();
            while !context.is_cancelled() {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        };
        worker.register(ringway::Function::json("slow::stay", stay).pooled()).unwrap();
        client.wait_for("slow::stay", Duration::from_secs(30)).unwrap();
        let caller = client.clone();
        let call = std::thread::spawn(move || caller.trigger_json("slow::stay", &serde_json::Value::Null));
        begins.recv().unwrap();
        up.signal("-TERM");
        wait_for_closed_doors(&up.address);
        up.signal(signal);
        up.hear("stopped at once");
        assert_eq!(up.engine.0.wait().unwrap().code(), Some(code));
        client.shut_down();
        assert!(call.join().unwrap().is_err());
    }
}

#[test]
fn rules_of_a_file_decide_who_may_call() {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.toml");
    let rule =
        |words: &str| std::fs::write(&policy, format!("[[rule]]\naction = \"deny\"\n{words}\n")).unwrap();
    rule("caller = \"ringway-cli\"\nfunction = \"vault::*\"");
    let address = address();
    let up = |policy: &std::path::Path| {
        let mut command = ringway();
        command.args(["--address", &address, "up", "--policy"]).arg(policy);
        command
    };
    let mut engine = Killed(up(&policy).stderr(Stdio::piped()).spawn().unwrap());
    let mut words = BufReader::new(engine.0.stderr.take().unwrap());
    // It may have to say first that another engine has a port.
    let mut said = String::new();
    while !said.contains("1 rule on who may call what") {
        assert!(words.read_line(&mut said).unwrap() > 0, "{said}");
    }

    let worker = |name: &str| ringway::Worker::builder(name).address(&address).connect().unwrap();
    let (keeper, friend) = (worker("keeper"), worker("friend"));
    let open = ringway::Function::json("vault::open", |_, (): ()| Ok("open"));
    let look = ringway::Function::json("door::look", |_, (): ()| Ok("closed"));
    keeper.register_all(vec![open, look]).unwrap();
    let trigger = |function: &str| Ran::of(ringway().args(["--address", &address, "trigger", function]));
    trigger("vault::open").fails(4, &["forbidden", "`vault::open`"]);
    trigger("door::look").prints("\"closed\"\n");
    friend.wait_for("vault::open", std::time::Duration::from_secs(10)).unwrap();
    assert_eq!(friend.trigger_json("vault::open", &serde_json::Value::Null).unwrap(), "open");

    rule("funktion = \"x\"");
    Ran::of(&mut up(&policy)).fails(2, &["policy.toml", "line 3", "funktion", "docs/policy.md"]);
    Ran::of(&mut up(&directory.path().join("none.toml"))).fails(2, &["none.toml", "No such file"]);
}

#[test]
fn doctor_finds_what_is_there() {
    let ran = Ran::of(ringway().args(["--address", &address(), "doctor", "--json"]));
    let found: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let result = |check: &str| {
        let findings = found["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["check"] == check).unwrap()["result"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(result("seals"), "ok");
    assert_eq!(result("kernel"), "ok");
    assert_eq!(result("engine"), "warn");
    let failed = found["failed"].as_u64().unwrap();
    assert_eq!(ran.code, Some(i32::from(failed > 0)));
}

#[test]
fn shells_learn_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = Ran::of(ringway().args(["completions", shell]));
        assert!(ran.code == Some(0) && ran.out.contains("trigger"), "{shell}: {}", ran.err);
    }
}

#[test]
fn mistyped_commands_get_a_suggestion() {
    let ran = Ran::of(ringway().arg("tirgger"));
    ran.fails(2, &["trigger"]);
    let ran = Ran::of(ringway().args(["workers", "--jsno"]));
    ran.fails(2, &["--json"]);
}
