//! Bit rot under the workers: a flipped bit anywhere in the folder of a closed store. The workers start, what was damaged is
//! told and set aside, everything is served, and what was mended stays so. It must not know how the store is laid out.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ringway::Worker;
use ringway_config::Settings;
use ringway_engine::Engine;
use ringway_tests::dice::Dice;
use ringway_tests::{effort, local};
use ringway_workers::{Workers, sections};
use serde_json::json;

use super::scene::answered;

const KEYS: u32 = 200;

fn start(folder: &Path) -> (Workers, Engine, Worker) {
    let engine = local::engine_at();
    let settings = Settings::defaults(&sections()).unwrap();
    let workers = Workers::start(engine.address(), folder, &settings).unwrap();
    let client = Worker::builder("client").address(engine.address()).connect().unwrap();
    (workers, engine, client)
}

/// Ends everything and waits until the store is closed: a call that has not ended holds it a little longer.
fn end((workers, engine, client): (Workers, Engine, Worker), folder: &Path) {
    workers.shut_down();
    drop((client, workers, engine));
    File::open(folder.join("LOCK")).unwrap().lock().unwrap();
}

fn value(key: u32) -> String {
    format!("the value of {key}, ").repeat(1 + key as usize % 20)
}

fn fill(folder: &Path) {
    let running = start(folder);
    for key in 0..KEYS {
        let request = json!({ "scope": "s", "key": key.to_string(), "value": value(key) });
        answered(&running.2, "state::set", &request);
    }
    end(running, folder);
}

#[track_caller]
fn everything_is_served(client: &Worker) {
    for key in 0..KEYS {
        let found = answered(client, "state::get", &json!({ "scope": "s", "key": key.to_string() }));
        assert_eq!(found, json!(value(key)), "key {key}");
    }
    assert_eq!(answered(client, "store::verify", &json!({}))["damage"], json!([]));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Flips one bit of a file; any byte is as likely as any other.
fn flip(path: &Path, dice: &mut Dice) -> u64 {
    let file: File = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let at = dice.below(file.metadata().unwrap().len());
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 << dice.below(8);
    file.write_all_at(&byte, at).unwrap();
    at
}

#[test]
fn a_flipped_bit_is_told_and_set_aside_and_everything_is_served() {
    let seed = effort::seed();
    println!("RINGWAY_SEED={seed}");
    let (mut dice, rounds) = (Dice::new(seed), effort::rounds(12));
    let folder = tempfile::tempdir().unwrap();
    let (whole, copy) = (folder.path().join("whole"), folder.path().join("copy"));
    fill(&whole);
    let mut told = 0;
    for round in 0..rounds {
        fs::create_dir(&copy).unwrap();
        for path in files(&whole) {
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        let before = files(&copy);
        // Each file in its turn, so that small ones are hit too; one that holds nothing cannot rot.
        let some: Vec<_> = before.iter().filter(|path| fs::metadata(path).unwrap().len() > 0).collect();
        let path = some[usize::try_from(round).unwrap_or(0) % some.len()];
        let at = flip(path, &mut dice);
        let running = start(&copy);
        everything_is_served(&running.2);
        let aside = files(&copy).into_iter().find(|path| !before.contains(path));
        let report = format!("{:?}", running.0.report().damage);
        if let Some(aside) = &aside {
            assert!(report.contains(aside.to_str().unwrap()), "{} byte {at}: {report}", path.display());
        } else {
            assert_eq!(report, "[]", "{} byte {at}: told, and nothing is set aside", path.display());
        }
        told += u32::from(aside.is_some());
        end(running, &copy);
        let running = start(&copy);
        assert_eq!(running.0.report().damage, [], "what was mended stays so");
        everything_is_served(&running.2);
        end(running, &copy);
        fs::remove_dir_all(&copy).unwrap();
    }
    println!(
        "summary: {rounds} flips in a closed store under the workers, {told} told and set aside, nothing lost"
    );
    assert!(told > 0, "no flip was noticed");
}
