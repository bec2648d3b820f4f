//! Workers that serve. It must not know who calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ringway::protocol::naming::WORKERS_LIST;
use ringway::{Context, Function, Sampler, Worker};
use ringway_tests::service::{deaths, functions, tell};
use ringway_tests::victim;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt as _;

use super::Played;

/// Serves every function of `ringway_tests::service`, and says `ran NUMBER` for every call that is run.
pub(super) fn play(address: &str, prefix: &str, orders: &Receiver<String>) -> Played {
    let worker = Worker::builder(prefix).address(address).threads(8).connect()?;
    let mut all = functions(prefix, |call| tell(&format!("ran {call}")));
    all.extend(deaths(prefix));
    worker.register_all(all)?;
    tell(&format!("ready {}", worker.id()));
    wait_for_the_end(orders);
    Ok(())
}

/// Serves what a victim serves. From the order `call SEED` to the order `rest` it calls the functions of `target`, and then
/// tells what came of it.
pub(super) fn play_victim(address: &str, prefix: &str, target: &str, orders: &Receiver<String>) -> Played {
    let worker = Worker::builder(prefix).address(address).threads(8).connect()?;
    worker.register_all(victim::functions(prefix))?;
    // It asks the engine about names that it does not know, by a channel that stays. Whoever counts what it holds finds it
    // open from the beginning.
    worker.trigger_json(WORKERS_LIST, &Value::Null)?;
    tell(&format!("ready {}", worker.id()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut calling = None;
        for order in orders {
            match order.split_once(' ') {
                Some(("call", seed)) => {
                    let seed = seed.parse()?;
                    stop.store(false, Ordering::Relaxed);
                    let (worker, stop) = (&worker, &stop);
                    calling = Some(scope.spawn(move || victim::keep_calling(worker, target, seed, stop)));
                }
                _ => {
                    stop.store(true, Ordering::Relaxed);
                    if let Some(calls) = calling.take().and_then(|calling| calling.join().ok()) {
                        tell(&format!("calls {}", json!(calls)));
                    }
                }
            }
        }
        wait_for_the_end(orders);
        Ok(())
    })
}

/// Attaches many workers of so many functions each, and registers one more, `PREFIX::new-N`, at every order `new N`.
pub(super) fn play_fleet(
    address: &str,
    prefix: &str,
    workers: usize,
    per_worker: usize,
    orders: &Receiver<String>,
) -> Played {
    ringway_engine::raise_file_limit()?;
    let mut fleet = Vec::new();
    for number in 0..workers {
        let worker = Worker::builder(&format!("{prefix}-{number}"))
            .address(address)
            .sampler(Sampler::never())
            .threads(2)
            .attach_timeout(Duration::from_secs(60))
            .wait_for_engine()
            .connect()?;
        let all = (0..per_worker).map(|index| answer(&format!("{prefix}::w{number}-f{index}"))).collect();
        worker.register_all(all)?;
        fleet.push(worker);
    }
    tell("ready");
    for order in orders {
        match order.split_once(' ') {
            Some(("new", number)) => {
                fleet[0].register(answer(&format!("{prefix}::new-{number}")))?;
                tell(&format!("registered {}", ringway_ipc::clock::now_ns()));
            }
            Some(("await", id)) => await_everywhere(&fleet, id)?,
            Some(("call", id)) => {
                for worker in &fleet {
                    worker.trigger_json(id, &json!(1))?;
                }
                tell("called");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Says when each worker of the fleet could call a function. One thread for each waits for it.
fn await_everywhere(fleet: &[Worker], id: &str) -> Played {
    let (sender, times) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for worker in fleet {
            let sender = sender.clone();
            scope.spawn(move || {
                let found = worker.wait_for(id, Duration::from_secs(120));
                drop(sender.send(found.map(|()| ringway_ipc::clock::now_ns())));
            });
        }
        drop(sender);
        tell("awaiting");
    });
    let times: Result<Vec<u64>, _> = times.iter().collect();
    let times: Vec<String> = times?.iter().map(u64::to_string).collect();
    tell(&format!("callable {}", times.join(" ")));
    Ok(())
}

fn answer(id: &str) -> Function {
    Function::json(id, |_: &Context, number: u64| Ok(number + 1))
}

/// A stage of a chain over processes: logs, calls the next stage, logs again, and answers with the length of the rest.
pub(super) fn play_stage(address: &str, own: &str, next: &str, orders: &Receiver<String>) -> Played {
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(ringway::layer()))?;
    let worker = Worker::builder(own).address(address).sampler(Sampler::always()).connect()?;
    let next = (next != "-").then(|| format!("{next}::run"));
    worker.register(Function::json(&format!("{own}::run"), move |context: &Context, round: u64| {
        tracing::info!(target: "stage", round, "before");
        let below = match &next {
            Some(next) => context.worker().trigger_json(next, &json!(round))?,
            None => Value::Null,
        };
        tracing::warn!(target: "stage", round, "after");
        Ok(json!(below.as_u64().unwrap_or(0) + 1))
    }))?;
    tell("ready");
    wait_for_the_end(orders);
    Ok(())
}

fn wait_for_the_end(orders: &Receiver<String>) {
    while orders.recv().is_ok() {}
    std::thread::park();
}
