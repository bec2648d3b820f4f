//! Checks that names, numbers, JSON and pages of the error codes agree.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

#[test]
fn names_numbers_and_json_agree() {
    for (place, &code) in ErrorCode::ALL.iter().enumerate() {
        assert_eq!(code.status() as usize, place + 1, "status numbers have no gaps");
        assert_eq!(ErrorCode::from_status(code.status()), Some(code));
        assert_eq!(code.as_str().parse::<ErrorCode>(), Ok(code));
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
    }
    assert_eq!(ErrorCode::from_status(STATUS_OK), None);
    assert_eq!(ErrorCode::from_status(u32::MAX), None);
    assert!("Not_Found".parse::<ErrorCode>().is_err());
}

/// Texts in the sources of engine and built-in workers that look like codes and are none.
const NO_CODES: &[&str] = &[
    "ANY",
    "CARGO_PKG_VERSION",
    "DELETE",
    "FORMAT",
    "GET",
    "HEAD",
    "JWT",
    "III_NAMESPACE_GRACE_MS",
    "JWT",
    "LOCK",
    "LOGS",
    "MTRC",
    "OPTIONS",
    "OTLP",
    "PATCH",
    "POST",
    "PUT",
    "NATS",
    "QUERY",
    "RINGWAY_ROUNDS",
    "RINGWAY_SEED",
    "RINGWAY_SIM_SEED",
    "RINGWAY_SIM_STEPS",
    "RWBACKUP",
    "TRACE",
    "UPPERCASE",
    "UTC",
    "attempts_failed",
];

/// The codes that the built-in workers and the engine give beside ours, as they stand in the sources.
fn worker_codes() -> BTreeSet<String> {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engine");
    let mut found = BTreeSet::new();
    for folder in ["workers", "server/src", "core/src", "store/src", "iii/src"] {
        gather(&engine.join(folder), &mut found);
    }
    assert!(found.len() > 30, "the sources are not where they were: {found:?}");
    found
}

fn gather(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            gather(&path, found);
        }
        if path.extension().is_none_or(|ending| ending != "rs") || path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let shipped = text.split("\n#[cfg(test)]").next().unwrap();
        let lines = shipped.lines().filter(|line| !line.trim_start().starts_with("//"));
        // Every second piece between quotes is a text; an escaped quote only makes pieces that are no codes.
        let texts = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
        found.extend(texts.filter(|text| looks_like_a_code(text)).map(str::to_owned));
    }
}

fn looks_like_a_code(text: &str) -> bool {
    let of =
        |allowed: fn(u8) -> bool| text.len() > 2 && text.bytes().all(|byte| byte == b'_' || allowed(byte));
    let shouted = of(|byte| byte.is_ascii_uppercase());
    let ended =
        of(|byte| byte.is_ascii_lowercase()) && (text.ends_with("_error") || text.ends_with("_failed"));
    (shouted || ended) && !text.starts_with('_') && !NO_CODES.contains(&text)
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    // What differs in its letters only is the same page: not every file system tells the two apart.
    let ours: BTreeSet<String> = ErrorCode::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    let theirs = worker_codes().into_iter().filter(|code| !ours.contains(&code.to_lowercase()));
    let codes: BTreeSet<String> = ours.iter().cloned().chain(theirs).collect();
    let listed = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for code in &codes {
        let page = std::fs::read_to_string(folder.join(format!("{code}.md")))
            .unwrap_or_else(|error| panic!("docs/errors/{code}.md: {error}"));
        assert!(page.starts_with(&format!("# {code}\n")), "{code}.md opens with its code");
        for part in ["## What happened", "## What to try"] {
            assert!(page.contains(part), "{code}.md lacks `{part}`");
        }
        assert!(listed.contains(&format!("[`{code}`]({code}.md)")), "README.md does not list {code}");
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".md").unwrap();
        assert!(stem == "README" || codes.contains(stem), "{name} is the page of no code");
    }
}

#[test]
fn exit_codes_are_those_of_the_command_line() {
    let check = |code: ErrorCode, exit: u8| assert_eq!(code.exit_code(), exit, "{code}");
    check(ErrorCode::HandlerError, 1);
    check(ErrorCode::InvalidRequest, 2);
    check(ErrorCode::NotFound, 3);
    check(ErrorCode::Forbidden, 4);
    check(ErrorCode::DeadlineExceeded, 124);
    check(ErrorCode::Busy, 1);
}

#[test]
fn an_error_survives_the_wire() {
    let error = CallError::worker_gone(WorkerId::new(7), Started::Maybe)
        .with_function("orders::validate")
        .with_details(serde_json::json!({"attempt": 2}));
    assert_eq!(CallError::from_wire(error.code.status(), &error.to_json()), error);
    let text = error.to_string();
    assert!(
        text.contains("worker_gone")
            && text.contains("orders::validate")
            && text.contains("may have started")
    );
}

#[test]
fn the_status_outweighs_the_body() {
    let check = |status: u32, body: &[u8], code: ErrorCode| {
        assert_eq!(CallError::from_wire(status, body).code, code);
    };
    check(3, br#"{"code":"busy","message":"x"}"#, ErrorCode::Forbidden);
    check(3, b"\xff\x00", ErrorCode::Forbidden);
    check(999, br#"{"code":"busy"}"#, ErrorCode::Busy);
    check(999, b"", ErrorCode::ProtocolViolation);
}

#[test]
fn the_innermost_function_stays() {
    let error = CallError::cancelled().with_function("inner::f").with_function("outer::g");
    assert_eq!(error.function.as_deref(), Some("inner::f"));
}
