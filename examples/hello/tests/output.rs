//! Runs the example as a reader would and checks what it prints.

#![forbid(unsafe_code)]

use std::process::Command;

#[test]
fn it_greets_everybody() {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway-example-hello")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = "\
by name:   Hello, Ada! Hello, Ada!
processes: two
by handle: Hello, Grace!
by handle: Hello, Edsger!
with JSON: Hello, Barbara!
an error:  handler_error (too_often) from `greet::hello`: three times is enough
";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
