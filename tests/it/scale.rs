//! Many workers and many functions: everything can be called from everywhere, what is new is known everywhere soon, and
//! an engine that is killed under all of it gets everybody back. Times are printed, not asserted.

use std::time::{Duration, Instant};

use ringway::protocol::control::Catalog;
use ringway::{Sampler, Worker};
use ringway_ipc::clock::now_ns;
use ringway_tests::effort;
use ringway_tests::figures::Times;
use ringway_tests::local;
use ringway_tests::member::Member;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(300);
const PROCESSES: usize = 4;
const FUNCTIONS: usize = 50;

/// Two hundred when asked for rounds; a fifth of that in the ordinary run, which is not optimised.
fn workers() -> usize {
    if effort::rounds(1) > 1 { 200 } else { 40 }
}

fn functions(catalog: &Catalog) -> usize {
    catalog.functions.iter().filter(|function| function.id.as_str().starts_with("fleet")).count()
}

struct Fleet {
    address: String,
    engine: Member,
    members: Vec<Member>,
    caller: Worker,
}

impl Fleet {
    /// Attaches all workers, over several processes, and waits until the catalog is whole.
    fn start() -> Self {
        let address = local::address();
        let engine = Member::start(&["engine", &address]);
        let caller = Worker::builder("caller").address(&address).sampler(Sampler::never()).connect().unwrap();
        let begun = Instant::now();
        let (workers_each, functions_each) = ((workers() / PROCESSES).to_string(), FUNCTIONS.to_string());
        let members: Vec<Member> = (0..PROCESSES)
            .map(|number| {
                Member::spawn(
                    &["fleet", &address, &format!("fleet{number}"), &workers_each, &functions_each],
                    &[],
                )
            })
            .collect();
        members.iter().for_each(|member| drop(member.hear("ready")));
        assert!(caller.wait_until(PATIENCE, |catalog| functions(catalog) == workers() * FUNCTIONS));
        println!(
            "{} workers with {FUNCTIONS} functions each attached in {:.2} s",
            workers(),
            begun.elapsed().as_secs_f64()
        );
        Self { address, engine, members, caller }
    }

    /// Registers one more function in the first process, and measures until every worker could call it.
    fn spread(&mut self, number: u64, times: &mut Times) {
        let id = format!("fleet0::new-{number}");
        for member in &mut self.members {
            member.say(&format!("await {id}"));
        }
        // The first process takes its orders one after the other, so the function comes from a worker of its own.
        let worker =
            Worker::builder("newcomer").address(&self.address).sampler(Sampler::never()).connect().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        worker.register(ringway::Function::json(&id, |_, number: u64| Ok(number + 1))).unwrap();
        let registered = now_ns();
        for member in &mut self.members {
            let heard = member.hear("callable");
            heard.split(' ').for_each(|at| times.add(at.parse::<u64>().unwrap().saturating_sub(registered)));
        }
        // And it can be: every worker calls it.
        for member in &mut self.members {
            member.ask(&format!("call {id}"), "called");
        }
    }
}

#[test]
fn a_new_function_is_callable_everywhere() {
    let mut fleet = Fleet::start();
    let mut times = Times::default();
    for round in 0..effort::rounds(3) {
        fleet.spread(round, &mut times);
    }
    println!("from the return of register to callable, at each of {} workers: {times}", workers());
    // One of each worker's functions, from one caller: two hundred channels.
    let begun = Instant::now();
    for process in 0..PROCESSES {
        for worker in 0..workers() / PROCESSES {
            let id = format!("fleet{process}::w{worker}-f{}", (worker * 7) % FUNCTIONS);
            assert_eq!(fleet.caller.trigger_json(&id, &json!(1)).unwrap(), json!(2));
        }
    }
    println!("the first call to each of {} workers: {:.2} s", workers(), begun.elapsed().as_secs_f64());
}

/// The engine is killed while all of them are attached and one of them is called, and starts again.
#[test]
fn the_engine_restarts_under_load() {
    let mut fleet = Fleet::start();
    let ids: Vec<String> = (0..PROCESSES).map(|process| format!("fleet{process}::w3-f3")).collect();
    for id in &ids {
        fleet.caller.trigger_json(id, &json!(1)).unwrap();
    }
    for round in 0..effort::rounds(2).min(50) {
        let stop = std::sync::atomic::AtomicBool::new(false);
        let caller = fleet.caller.clone();
        let (ids, stopped) = (&ids, &stop);
        std::thread::scope(|scope| {
            let calls = scope.spawn(move || {
                let mut calls = 0u64;
                while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    for id in ids {
                        assert_eq!(caller.trigger_json(id, &json!(calls)).unwrap(), json!(calls + 1));
                        calls += 1;
                    }
                }
                calls
            });
            std::thread::sleep(Duration::from_millis(50));
            fleet.engine.kill_and_wait();
            std::thread::sleep(Duration::from_millis(100));
            let begun = Instant::now();
            fleet.engine = Member::start(&["engine", &fleet.address]);
            // A newcomer learns from the new engine alone who has come back.
            let fresh =
                Worker::builder("fresh").address(&fleet.address).sampler(Sampler::never()).connect().unwrap();
            assert!(fresh.wait_until(PATIENCE, |catalog| functions(catalog) >= workers() * FUNCTIONS));
            let back = begun.elapsed();
            assert_eq!(functions(&fresh.catalog()), workers() * FUNCTIONS, "each function exactly once");
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            println!(
                "round {round}: everybody was back {:.2} s after the new engine was started; {} calls meanwhile",
                back.as_secs_f64(),
                calls.join().unwrap()
            );
        });
        assert!(fleet.caller.wait_until(PATIENCE, |catalog| functions(catalog) == workers() * FUNCTIONS));
    }
}
