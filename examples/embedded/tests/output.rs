//! Runs the example as a reader would and checks what it prints.

#![forbid(unsafe_code)]

use std::process::Command;

#[test]
fn the_shop_sells_what_is_there() {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway-example-embedded")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = "rings left: 1, ropes left: 6\nrefused: wanted 2, 1 are left\n3 calls traced\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
