//! What one engine's knowledge of all the others takes, as a process grows that has nothing else: each part in a process of its
//! own, since memory that was given back is taken again and not seen.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use ringway_engine_core::{Config, Core, Credentials, Event, Policy, Zones};
use ringway_protocol::WorkerId;
use ringway_protocol::control::{
    Catalog, CatalogFunction, Change, FunctionSpec, Hello, Limits, Register, Remote, WorkerMessage,
};

use crate::world::{function, worker, worker_id};

const PARTS: [(&str, &str); 4] = [
    ("core", "the engine's core: workers, functions, the view of a zone"),
    ("peers", "what the peers keep: offered, and registered"),
    ("catalog", "a catalog as every attached worker has it (and the links' own watch)"),
    ("welcome", "the same as JSON: what the engine's welcome carries to whoever attaches"),
];

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

pub(crate) fn print(hosts: usize, functions: usize) {
    println!("memory: | what | MB | seconds to make |");
    for (part, what) in PARTS {
        let own = std::env::current_exe().unwrap_or_else(|error| panic!("{error}"));
        let of = [hosts.to_string(), functions.to_string()];
        let told = Command::new(own).arg(part).args(of).output().unwrap_or_else(|error| panic!("{error}"));
        print!("| {what} | {}", String::from_utf8_lossy(&told.stdout));
    }
    let mut live = catalog(hosts, functions);
    let begun = Instant::now();
    for index in 0..100 {
        let function = function(worker_id(index % hosts.max(1)), 1, 9);
        let revision = live.revision.wrapping_add(1);
        live.apply(revision, &[Change::FunctionAdded { function }]).unwrap_or_else(|error| panic!("{error}"));
    }
    println!("a change of such a catalog takes {:.1} us", begun.elapsed().as_secs_f64() * 1e6 / 100.0);
}

/// Makes a part, in a process that was started for it; false if there is no such part.
pub(crate) fn make(part: &str, hosts: usize, functions: usize) -> bool {
    match part {
        "core" => measured(|| core(hosts, functions)),
        "peers" => measured(|| {
            let all = |host: usize| -> BTreeMap<u32, CatalogFunction> {
                let count = u32::try_from(functions).unwrap_or(0);
                (1..=count).map(|index| (index, function(worker_id(host), index, 0))).collect()
            };
            (0..hosts).map(|host| (all(host), all(host))).collect::<Vec<_>>()
        }),
        "catalog" => measured(|| catalog(hosts, functions)),
        "welcome" => {
            let catalog = catalog(hosts, functions);
            measured(|| serde_json::to_vec(&catalog).unwrap_or_default());
        }
        // The last table alone.
        "joining" => crate::joining::print(hosts, functions),
        _ => return false,
    }
    true
}

fn measured<T>(make: impl FnOnce() -> T) {
    let (before, begun) = (resident(), Instant::now());
    let made = black_box(make());
    let (grown, took) = (resident().saturating_sub(before), begun.elapsed());
    println!("{:.1} | {:.2} |", grown as f64 / 1e6, took.as_secs_f64());
    drop(made);
}

fn catalog(hosts: usize, functions: usize) -> Catalog {
    Catalog {
        workers: (0..hosts).map(|host| worker(worker_id(host))).collect(),
        functions: (0..hosts)
            .flat_map(|host| {
                let count = u32::try_from(functions).unwrap_or(0);
                (1..=count).map(move |index| function(worker_id(host), index, 0))
            })
            .collect(),
        ..Catalog::default()
    }
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
        // As links attach workers of other engines.
        hello.catalog = false;
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
