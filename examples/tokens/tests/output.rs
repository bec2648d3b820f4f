//! Runs the example as a reader would and checks what it prints.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn text_is_made_of_what_was_learnt() {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway-example-tokens")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let [learnt, made, sent, given_up] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };

    let source: Vec<&str> = include_str!("../../../ARCHITECTURE.md").split_whitespace().collect();
    assert_eq!(learnt, format!("{} words learnt", source.len()));
    assert_eq!(sent, "20 words sent, 20 received");
    assert_eq!(given_up, "an endless stream was given up after 100 words, and its writer knows");

    let made: Vec<&str> = made.strip_prefix("made: ").unwrap().split(' ').collect();
    assert_eq!(made.len(), 20);
    let pairs: BTreeSet<(&str, &str)> = source.windows(2).map(|pair| (pair[0], pair[1])).collect();
    // A walk jumps only where the text ends.
    let jumps = made.windows(2).filter(|pair| !pairs.contains(&(pair[0], pair[1]))).count();
    assert!(jumps <= 1, "{made:?}");
}
