//! Runs the example as a reader would and checks what it prints.

#![forbid(unsafe_code)]

use std::process::Command;

#[test]
fn the_picture_is_lent_and_never_copied() {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway-example-tensors")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = "\
least 0.000, greatest 1.000, mean 0.500
camera  lent 16 MiB, copied 0 bytes
gate    lent 16 MiB, copied 0 bytes
meter   lent  0 MiB, copied 0 bytes
a dark one: handler_error (too_dark) from `picture::check`: the first row is dark
";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
