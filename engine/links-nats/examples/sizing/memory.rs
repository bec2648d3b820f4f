//! What one engine's knowledge of all the others takes, as the process grows.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use ringway_engine_core::{Config, Core, Credentials, Event, Policy, Zones};
use ringway_protocol::WorkerId;
use ringway_protocol::control::{
    Catalog, CatalogFunction, Change, FunctionSpec, Hello, Limits, Register, Remote, WorkerMessage,
};

use crate::world::{function, worker, worker_id};

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

fn measured<T>(what: &str, make: impl FnOnce() -> T) -> T {
    let (before, begun) = (resident(), Instant::now());
    let made = black_box(make());
    let (grown, took) = (resident().saturating_sub(before), begun.elapsed());
    println!("| {what} | {:.1} | {:.2} |", grown as f64 / 1e6, took.as_secs_f64());
    made
}

pub(crate) fn print(hosts: usize, functions: usize) {
    println!("memory: | what | MB | seconds to make |");
    let core =
        measured("the engine's core: workers, functions, the view of a zone", || core(hosts, functions));
    let known = measured("what the peers keep: offered, and registered", || {
        let all = |host: usize| -> BTreeMap<u32, CatalogFunction> {
            let count = u32::try_from(functions).unwrap_or(0);
            (1..=count).map(|index| (index, function(worker_id(host), index, 0))).collect()
        };
        (0..hosts).map(|host| (all(host), all(host))).collect::<Vec<_>>()
    });
    let catalog =
        measured("a catalog as every attached worker has it (and the links' own watch)", || Catalog {
            workers: (0..hosts).map(|host| worker(worker_id(host))).collect(),
            functions: (0..hosts)
                .flat_map(|host| {
                    let count = u32::try_from(functions).unwrap_or(0);
                    (1..=count).map(move |index| function(worker_id(host), index, 0))
                })
                .collect(),
            ..Catalog::default()
        });
    let json = measured("the same as JSON: what the engine's welcome carries to whoever attaches", || {
        serde_json::to_vec(&catalog).unwrap_or_default()
    });
    println!("the welcome has {:.1} MB", json.len() as f64 / 1e6);
    let mut live = catalog.clone();
    let begun = Instant::now();
    for index in 0..100 {
        let function = function(worker_id(index % hosts.max(1)), 1, 9);
        let revision = live.revision.wrapping_add(1);
        live.apply(revision, &[Change::FunctionAdded { function }]).unwrap_or_else(|error| panic!("{error}"));
    }
    println!("a change of such a catalog takes {:.1} us", begun.elapsed().as_secs_f64() * 1e6 / 100.0);
    drop(black_box((core, known, catalog, json)));
}

fn core(hosts: usize, functions: usize) -> Core {
    let mut core = Core::new(Config {
        engine_id: WorkerId::new(1),
        engine_pid: 1,
        engine_version: "sizing".to_owned(),
        unix_anchor_ms: 0,
        zones: Zones::new(0),
        policy: Policy::new(Vec::new()),
        limits: Limits::default(),
    });
    for host in 0..hosts {
        let connection = host as u64 + 1;
        let credentials = Credentials { uid: 0, pid: 7, engine: false };
        drop(core.handle(0, Event::Opened { connection, credentials }));
        let id = WorkerId::new(worker_id(host));
        let mut hello = Hello::new(id, format!("worker-{host}"), 7);
        hello.remote = Some(Remote {
            identity: format!("engine:{host:016x}"),
            host: format!("host-{host}"),
            round_trip_us: 500,
        });
        let message = WorkerMessage::Hello(Box::new(hello));
        drop(core.handle(0, Event::Message { connection, message }));
        let count = u32::try_from(functions).unwrap_or(0);
        let functions = (1..=count).map(|index| {
            let function = function(id.get(), index, 0);
            FunctionSpec { encodings: function.encodings, ..FunctionSpec::new(function.id, index) }
        });
        let register = Register { request: 1, functions: functions.collect(), ..Register::default() };
        let message = WorkerMessage::Register(register);
        drop(core.handle(0, Event::Message { connection, message }));
    }
    core
}
