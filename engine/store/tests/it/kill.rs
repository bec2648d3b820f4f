//! A process that commits and is killed at random: what it said to be committed is there, whole, and nothing is half.

use std::path::Path;
use std::time::Duration;

use ringway_store::testing::dice::{Dice, rounds};
use ringway_store::testing::killed::{self, Acknowledged};

use crate::tools::open;

const FOLDER: &str = "RINGWAY_STORE_CHILD";

/// Pairs of each writer that are not removed.
const KEPT: u64 = 200;

/// The child's life. Does nothing without its folder, as when all tests are run.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let (store, report) = open(Path::new(&folder));
    assert_eq!(report.damage, []);
    killed::live(&store, KEPT, |_| 300);
}

#[test]
fn what_was_acknowledged_survives_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (mut dice, mut acknowledged) = (Dice::of_environment(), Acknowledged::default());
    for round in 0..rounds(12) {
        let life = Duration::from_millis(40 + dice.below(200));
        acknowledged.by_child("kill::child", (FOLDER, folder.path().as_os_str()), life);
        let (store, report) = open(folder.path());
        assert_eq!(report.damage, [], "round {round}");
        acknowledged.assert_kept(&store, KEPT, &format!("round {round}"));
        assert_eq!(store.verify(), []);
        if dice.below(3) == 0 {
            store.close().unwrap();
        } else {
            store.abandon();
        }
    }
    println!("{} commits acknowledged", acknowledged.total);
    assert!(acknowledged.total > 0, "no child lived long enough to commit");
}
