//! Many workers with many functions: everybody ends up with the same catalog.

use crate::client::{self, Client};

const WORKERS: usize = 200;
const FUNCTIONS: usize = 50;

#[test]
fn two_hundred_workers_see_ten_thousand_functions() {
    ringway_engine::raise_file_limit().unwrap();
    let engine = client::engine();
    let mut workers: Vec<Client> =
        (0..WORKERS).map(|at| Client::attach(engine.address(), &format!("w{at}"))).collect();
    for (at, worker) in workers.iter_mut().enumerate() {
        let names: Vec<String> = (0..FUNCTIONS).map(|function| format!("w{at}::f{function}")).collect();
        worker.ask_to_register(&names.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let (readers, skimmers) = workers.split_at_mut(5);
    for reader in &mut *readers {
        reader.until(|catalog| catalog.functions.len() == WORKERS * FUNCTIONS);
        assert_eq!(reader.catalog.workers.len(), WORKERS);
    }
    // All others have been told the same number of changes; reading them all would take longer than telling them.
    let revision = readers[0].catalog.revision;
    assert!(readers.iter().all(|reader| reader.catalog.revision == revision));
    for skimmer in skimmers {
        skimmer.skim(revision);
    }
    workers.truncate(1);
    workers[0].until(|catalog| catalog.functions.len() == FUNCTIONS);
    assert_eq!(engine.counters().deaths, WORKERS as u64 - 1);
}
