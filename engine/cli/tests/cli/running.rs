//! `ringway up`, `doctor`, `completions`, and what is typed wrongly.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use crate::host::{Ran, address, ringway};

/// Ends a child that a failed test leaves.
struct Killed(Child);

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
    let mut line = String::new();
    words.read_line(&mut line).unwrap();
    assert!(line.contains(address), "{line}");

    let pid = engine.0.id().to_string();
    let second = Ran::of(ringway().args(["--address", address, "up"]));
    second.fails(1, &["another engine is running", &pid]);
    let workers = Ran::of(ringway().args(["--address", address, "workers", "--json"]));
    assert_eq!(workers.json()["workers"][0]["name"], "engine");

    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(engine.0.wait().unwrap().success());
    let mut rest = String::new();
    words.read_to_string(&mut rest).unwrap();
    assert!(rest.contains(&format!("RINGWAY_SOCKET={address}")) && rest.ends_with("stopped\n"), "{rest}");
    assert!(!std::path::Path::new(address).exists());
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
