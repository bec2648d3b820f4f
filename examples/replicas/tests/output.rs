//! Runs the example as a reader would and checks what it prints.

#![forbid(unsafe_code)]

use std::process::Command;

#[test]
fn no_call_is_lost() {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway-example-replicas")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = "\
3 replicas
one joined
one drained and left
one was killed
1200 calls, 1200 answers
every replica had its share
not idempotent: worker_gone (it may have been started)
";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
