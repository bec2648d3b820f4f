//! The arrows between crates, as ARCHITECTURE.md draws them: a table of who may name whom, held against what cargo
//! says. A new arrow is a change of architecture and begins with a change of this table. It must not know why an
//! arrow is allowed; that stands in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};

use ringway_tests::repository;
use serde_json::Value;

/// Each crate with those of ours that it may name, outside its tests.
const ARROWS: &[(&str, &[&str])] = &[
    ("ringway-ipc", &[]),
    ("ringway-protocol", &[]),
    // The frames of channels, over a socket: so it knows both what moves them and what they mean.
    ("ringway-link", &["ringway-ipc", "ringway-protocol"]),
    ("ringway-access", &["ringway-protocol"]),
    ("ringway", &["ringway-ipc", "ringway-link", "ringway-protocol", "ringway-access"]),
    ("ringway-engine-core", &["ringway-protocol"]),
    ("ringway-telemetry", &["ringway-protocol"]),
    ("ringway-store", &[]),
    ("ringway-store-nats", &["ringway-store"]),
    ("ringway-worker-kit", &["ringway", "ringway-store"]),
    // For tests alone: no row names it.
    ("ringway-worker-bed", &["ringway", "ringway-engine", "ringway-store", "ringway-worker-kit"]),
    ("ringway-worker-queue", &["ringway", "ringway-protocol", "ringway-store", "ringway-worker-kit"]),
    ("ringway-worker-cron", &["ringway", "ringway-protocol", "ringway-store", "ringway-worker-kit"]),
    ("ringway-worker-pubsub", &["ringway", "ringway-protocol", "ringway-store", "ringway-worker-kit"]),
    ("ringway-worker-blob", &["ringway", "ringway-store", "ringway-worker-kit"]),
    ("ringway-worker-http", &["ringway", "ringway-store", "ringway-worker-kit", "ringway-worker-listen"]),
    ("ringway-update-ops", &[]),
    ("ringway-worker-state", &["ringway", "ringway-store", "ringway-worker-kit", "ringway-update-ops"]),
    ("ringway-worker-stream", &["ringway", "ringway-store", "ringway-worker-kit", "ringway-update-ops"]),
    (
        "ringway-engine",
        &["ringway-ipc", "ringway-protocol", "ringway", "ringway-engine-core", "ringway-telemetry"],
    ),
    ("ringway-config", &[]),
    // Variables in values mean what they mean in the file.
    (
        "ringway-worker-configuration",
        &["ringway", "ringway-protocol", "ringway-store", "ringway-worker-kit", "ringway-config"],
    ),
    ("ringway-worker-http-functions", &["ringway", "ringway-store", "ringway-worker-kit"]),
    ("ringway-worker-listen", &[]),
    ("ringway-worker-stream-socket", &["ringway", "ringway-worker-listen"]),
    ("ringway-iii", &["ringway", "ringway-worker-listen"]),
    // It attaches as remote workers, by the control protocol itself.
    ("ringway-links", &["ringway-ipc", "ringway-link", "ringway-protocol", "ringway-access"]),
    // Who one is towards a NATS server, the store's crate has said already.
    ("ringway-links-nats", &["ringway-links", "ringway-protocol", "ringway-store-nats"]),
    // The one place that names every built-in worker.
    (
        "ringway-workers",
        &[
            "ringway",
            "ringway-store",
            "ringway-store-nats",
            "ringway-config",
            "ringway-iii",
            "ringway-access",
            "ringway-link",
            "ringway-links",
            "ringway-links-nats",
            "ringway-worker-blob",
            "ringway-worker-configuration",
            "ringway-worker-cron",
            "ringway-worker-http",
            "ringway-worker-http-functions",
            "ringway-worker-pubsub",
            "ringway-worker-queue",
            "ringway-worker-state",
            "ringway-worker-stream",
            "ringway-worker-stream-socket",
        ],
    ),
    // The demo is an engine, its workers and what they cost, in one program.
    (
        "ringway-demo",
        &[
            "ringway",
            "ringway-telemetry",
            "ringway-engine",
            "ringway-config",
            "ringway-workers",
            "ringway-bench",
        ],
    ),
    (
        "ringway-bench",
        &[
            "ringway-ipc",
            "ringway-protocol",
            "ringway",
            "ringway-engine",
            "ringway-config",
            "ringway-workers",
        ],
    ),
    (
        "ringway-cli",
        &[
            "ringway-ipc",
            "ringway-link",
            "ringway-access",
            "ringway-protocol",
            "ringway",
            "ringway-telemetry",
            "ringway-engine",
            "ringway-config",
            "ringway-store",
            "ringway-workers",
            "ringway-demo",
            "ringway-bench",
        ],
    ),
    ("ringway-power", &[]),
    ("xtask", &[]),
    // The engine that lets each example run with one command.
    ("ringway-example-stage", &["ringway-engine"]),
];

/// Packages on which nothing may depend, not even a test; they may name anything.
const LEAVES: &[&str] = &[
    "ringway-benches",
    "ringway-tests",
    "ringway-cli",
    "xtask",
    "ringway-example-hello",
    "ringway-example-tokens",
    "ringway-example-tensors",
    "ringway-example-replicas",
    "ringway-example-embedded",
    "ringway-example-agentic-backend",
];

/// Outside crates that only some of ours may name, outside their tests.
const OUTSIDE: &[(&str, &[&str])] = &[
    // Raw memory has one door. The safe calls of rustix may be used where processes and machines are looked at.
    ("libc", &["ringway-ipc", "ringway-link"]),
    (
        "rustix",
        &[
            "ringway-ipc",
            "ringway-link",
            "ringway-links",
            "ringway",
            "ringway-store",
            "ringway-engine",
            "ringway-config",
            "ringway-bench",
            "ringway-demo",
            "ringway-worker-cron",
            "ringway-worker-listen",
        ],
    ),
    // A file system of the tests' own is mounted and taken away.
    ("nix", &["ringway-power"]),
    ("fuser", &["ringway-power"]),
    ("memmap2", &[]),
    ("shared_memory", &["ringway-ipc"]),
    ("io-uring", &["ringway-link", "ringway-cli"]),
    // No crate that users add brings a runtime; one store and the faces do, on threads of their own.
    (
        "tokio",
        &[
            "ringway-store-nats",
            "ringway-links-nats",
            "ringway-worker-http",
            "ringway-worker-http-functions",
            "ringway-worker-listen",
            "ringway-worker-stream-socket",
            "ringway-iii",
        ],
    ),
    ("async-nats", &["ringway-store-nats", "ringway-links-nats"]),
    (
        "axum",
        &["ringway-worker-http", "ringway-worker-listen", "ringway-worker-stream-socket", "ringway-iii"],
    ),
    (
        "hyper",
        &[
            "ringway-worker-http",
            "ringway-worker-http-functions",
            "ringway-worker-listen",
            "ringway-worker-stream-socket",
            "ringway-iii",
        ],
    ),
    ("ring", &["ringway-access", "ringway-worker-http", "ringway-worker-http-functions"]),
    (
        "tokio-tungstenite",
        &["ringway-worker-http", "ringway-worker-listen", "ringway-worker-stream-socket", "ringway-iii"],
    ),
    ("tokio-rustls", &["ringway-worker-http", "ringway-worker-http-functions"]),
    ("tonic", &[]),
    ("mio", &["ringway-link", "ringway-links", "ringway", "ringway-engine"]),
    // What an engine says to others leaves from few places: spans, the keys of tokens; what its users ask for, from
    // `http-functions`.
    ("ureq", &["ringway-telemetry", "ringway-worker-http"]),
    ("prost", &["ringway-telemetry"]),
    ("opentelemetry-proto", &["ringway-telemetry"]),
    // What is kept is kept in one place.
    ("redb", &["ringway-store"]),
    ("crossbeam-skiplist", &["ringway-store"]),
    // Faces.
    ("clap", &["ringway-cli", "ringway-bench"]),
    ("ratatui", &["ringway-cli"]),
    ("anyhow", &["ringway-cli", "ringway-demo", "ringway-bench", "ringway-example-stage"]),
    ("toml", &["ringway-access", "ringway-cli"]),
    ("notify", &["ringway-cli"]),
    ("saphyr-parser", &["ringway-config"]),
    ("tantivy", &["ringway-demo"]),
];

/// Crates that are plain data and rules: the whole list of what they may use.
const PURE: &[(&str, &[&str])] = &[
    ("ringway-protocol", &["schemars", "serde", "serde_json", "thiserror"]),
    ("ringway-engine-core", &["ringway-protocol", "serde", "serde_json", "thiserror"]),
];

/// One crate naming another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: String,
    only_for_tests: bool,
}

#[test]
fn arrows_point_one_way() {
    let metadata = repository::metadata(&["--no-deps"]).unwrap();
    let (crates, arrows) = arrows(&metadata);
    let complaints = complaints(&crates, &arrows);
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The crates of the workspace and everything that they name.
fn arrows(metadata: &Value) -> (BTreeSet<String>, BTreeSet<Arrow>) {
    let mut crates = BTreeSet::new();
    let mut arrows = BTreeSet::new();
    for package in list(&metadata["packages"]) {
        let from = text(&package["name"]);
        crates.insert(from.clone());
        for dependency in list(&package["dependencies"]) {
            let only_for_tests = dependency["kind"] == "dev";
            arrows.insert(Arrow { from: from.clone(), to: text(&dependency["name"]), only_for_tests });
        }
    }
    (crates, arrows)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What is wrong, in words that name both ends.
fn complaints(crates: &BTreeSet<String>, arrows: &BTreeSet<Arrow>) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let outside: BTreeMap<&str, &[&str]> = OUTSIDE.iter().copied().collect();
    let pure: BTreeMap<&str, &[&str]> = PURE.iter().copied().collect();
    let mut wrong = Vec::new();
    for name in crates {
        if !allowed.contains_key(name.as_str()) && !LEAVES.contains(&name.as_str()) {
            wrong.push(format!("{name} is not in the table of arrows (tests/it/layering.rs)"));
        }
    }
    for Arrow { from, to, only_for_tests } in arrows {
        let (from, to) = (from.as_str(), to.as_str());
        let ours = crates.contains(to);
        if ours && LEAVES.contains(&to) {
            wrong.push(format!("{from} may not depend on {to}: nothing does"));
        }
        if *only_for_tests {
            continue;
        }
        let among = |names: Option<&&[&str]>, name: &str| names.is_none_or(|names| names.contains(&name));
        if ours && !among(allowed.get(from), to) {
            wrong.push(format!("{from} may not depend on {to}"));
        }
        let free = LEAVES.contains(&from) && !allowed.contains_key(from);
        if !ours && !free && !among(outside.get(to), from) {
            wrong.push(format!("{from} may not depend on {to}, which is for {:?}", outside[to]));
        }
        if !among(pure.get(from), to) {
            wrong.push(format!("{from} is pure and may not depend on {to}"));
        }
    }
    wrong
}

#[test]
fn a_planted_arrow_is_reported() {
    let metadata = repository::metadata(&["--no-deps"]).unwrap();
    let check = |from: &str, to: &str, only_for_tests: bool, expected: Option<&str>| {
        let (crates, mut arrows) = arrows(&metadata);
        let before = complaints(&crates, &arrows);
        arrows.insert(Arrow { from: from.to_owned(), to: to.to_owned(), only_for_tests });
        let after = complaints(&crates, &arrows);
        let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        match expected {
            Some(words) => assert!(new.iter().any(|line| line.contains(words)), "{from} → {to}: {new:?}"),
            None => assert!(new.is_empty(), "{from} → {to}: {new:?}"),
        }
    };
    check(
        "ringway-ipc",
        "ringway-engine-core",
        false,
        Some("ringway-ipc may not depend on ringway-engine-core"),
    );
    check("ringway-ipc", "ringway-protocol", false, Some("may not depend on ringway-protocol"));
    check("ringway", "ringway-engine", false, Some("ringway may not depend on ringway-engine"));
    check("ringway", "ringway-engine", true, None);
    check("ringway", "ringway-tests", true, Some("nothing does"));
    check("ringway-worker-cron", "ringway-worker-bed", false, Some("may not depend on ringway-worker-bed"));
    check("ringway-engine", "tokio", false, Some("may not depend on tokio"));
    check("ringway-engine", "tokio", true, None);
    check("ringway-engine-core", "mio", false, Some("pure"));
    check("ringway-tests", "tokio", false, None);
}

#[test]
fn a_crate_without_a_row_is_reported() {
    let crates = BTreeSet::from(["ringway-new".to_owned()]);
    let complaints = complaints(&crates, &BTreeSet::new());
    assert_eq!(complaints, ["ringway-new is not in the table of arrows (tests/it/layering.rs)"]);
}
