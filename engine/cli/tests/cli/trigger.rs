//! `ringway trigger`.

use std::io::Write;
use std::process::Stdio;

use crate::host::{Host, Ran, address, ringway};

#[test]
fn results_go_to_standard_output() {
    let host = Host::start();
    host.run(&["trigger", "calc::add", "a=2", "b=-5"]).prints("-3\n");
    host.run(&["trigger", "calc::add", "--json", r#"{"a":1,"b":2}"#]).prints("3\n");
    host.run(&["call", "calc::add", "a=1", "b=1", "note=7"]).prints("2\n");
    host.run(&["trigger", "hello::greet", "Ringway"]).prints("\"Hello, Ringway!\"\n");
    host.run(&["trigger", "hello::greet", "a=b"]).prints("\"Hello, a=b!\"\n");
    host.run(&["trigger", "meta::echo", "--metadata", r#"{"who":"me"}"#]).prints("{\"who\":\"me\"}\n");
    host.run(&["trigger", "calc::add", "a=1", "b=1", "--void"]).prints("");
    assert_eq!(host.run(&["trigger", "raw::bytes"]).bytes, b"\x00\xffraw");
}

#[test]
fn requests_come_from_files_and_standard_input() {
    let host = Host::start();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(br#"{"a": 40, "b": 2}"#).unwrap();
    let from_file = format!("@{}", file.path().display());
    host.run(&["trigger", "calc::add", "--json", &from_file]).prints("42\n");
    host.run(&["trigger", "calc::add", "--json", "@/nowhere/at/all"])
        .fails(2, &["cannot read", "/nowhere/at/all"]);
    host.run(&["trigger", "calc::add", "--json", "{"]).fails(2, &["wanted JSON"]);
}

#[test]
fn wrong_requests_exit_with_2() {
    let host = Host::start();
    host.run(&["trigger", "calc::add", "a=two", "b=1"])
        .fails(2, &["`a`: wanted integer, found `two`", "--help"]);
    host.run(&["trigger", "calc::add", "a=2"]).fails(2, &["`b` is missing (integer)"]);
    let wrong = host.run(&["trigger", "calc::add", "a=2", "b=two"]);
    wrong.fails(2, &["`b`: wanted integer, found `two`"]);
    assert!(!wrong.err.contains("missing"), "{}", wrong.err);
    host.run(&["trigger", "calc::add", "a=2", "b=1", "noet=x"]).fails(2, &["did you mean `note`?"]);
    // The callee's own check is the one that counts.
    host.run(&["trigger", "calc::add", "--json", r#"{"a":"x"}"#]).fails(2, &["invalid_request"]);
    host.run(&["trigger"]).fails(2, &["id of a function"]);
    host.run(&["trigger", "calc::add", "--timeout", "soon"]).fails(2, &["500ms"]);
}

#[test]
fn functions_that_are_not_there_exit_with_3() {
    let host = Host::start();
    host.run(&["trigger", "calc::ad", "a=1"])
        .fails(3, &["no worker offers `calc::ad`", "did you mean `calc::add`?"]);
    host.run(&["trigger", "calc::ad", "--help"]).fails(3, &["did you mean `calc::add`?"]);
}

#[test]
fn calls_that_fail_say_how() {
    let host = Host::start();
    host.run(&["trigger", "calc::fail"]).fails(1, &["handler_error", "no_luck", "not today"]);
    host.run(&["trigger", "calc::slow", "--timeout", "50ms"]).fails(124, &["deadline_exceeded"]);
}

#[test]
fn without_an_engine_the_error_says_what_to_do() {
    let nowhere = address();
    let ran = Ran::of(ringway().args(["--address", &nowhere, "trigger", "a::b"]));
    ran.fails(1, &["engine_unavailable", &nowhere, "ringway up"]);
}

#[test]
fn help_is_made_from_the_live_schema() {
    let host = Host::start();
    let ran = host.run(&["trigger", "calc::add", "--help"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for words in [
        "Adds two numbers.",
        "a=<integer> b=<integer> [FIELD=VALUE]...",
        "(required) The first number",
        "tester",
    ] {
        assert!(ran.out.contains(words), "`{words}` is not in\n{}", ran.out);
    }
    let own = host.run(&["trigger", "--help"]);
    assert!(own.out.contains("--timeout"), "{}", own.out);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let host = Host::start();
    let mut child = ringway()
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    drop(host);
}
