//! What a catalog of many hosts costs: over a NATS server, and if all were linked to all. Prints the tables of docs/sizing.md.
//! The last of them wants the program `nats-server`, which `cargo nats` installs.
//!
//! `cargo run --release -p ringway-links-nats --example sizing [HOSTS [FUNCTIONS [SEED]]]`

#![expect(clippy::print_stdout, reason = "numbers are what it is for")]

mod joining;
mod memory;
mod world;

use std::time::Duration;

use ringway_protocol::control::Change;
use ringway_protocol::link::EngineLinkMessage;

use crate::world::{Traffic, World, function, worker, worker_id};

const LONGEST: Duration = Duration::from_secs(300);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let ["engine", server, address] = words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return joining::run_engine(server, address);
    }
    if let [part, hosts, functions] = words.as_slice()
        && memory::make(part, hosts.parse().unwrap_or(0), functions.parse().unwrap_or(0))
    {
        return;
    }
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let hosts = usize::try_from(arguments.next().unwrap_or(1000)).unwrap_or(1000);
    let functions = usize::try_from(arguments.next().unwrap_or(100)).unwrap_or(100);
    let seed = arguments.next().unwrap_or(1);
    println!("{hosts} hosts, {functions} functions each, seed {seed}\n");
    by_nats(hosts, functions, seed);
    by_links(hosts, functions);
    memory::print(hosts, functions);
    joining::print(hosts, functions);
}

fn by_nats(hosts: usize, functions: usize, seed: u64) {
    println!(
        "NATS: | what happens | until all know | messages published | delivered | MB published | MB delivered |"
    );
    let mut world = World::new(hosts, functions, seed);
    for host in 0..hosts {
        // All within a second.
        world.start(host);
        world.run(Duration::from_secs(1) / u32::try_from(hosts).unwrap_or(1));
    }
    let whole = world.run_until_whole(LONGEST);
    row(&mut world, "cold start of all, within 1 s", whole);

    world.run(Duration::from_secs(10));
    world.traffic = Traffic::default();
    world.run(Duration::from_secs(10));
    row(&mut world, "ten seconds in which nothing happens", Some(Duration::ZERO));

    let before = world.engine_of(hosts / 2);
    world.kill(hosts / 2);
    world.run(Duration::from_secs(3));
    world.traffic = Traffic::default();
    world.start(hosts / 2);
    let whole = world.run_until_whole(LONGEST);
    row(&mut world, "one host starts anew", whole);
    let unheard = world.run_until_unheard(before, LONGEST);
    row(&mut world, "what it was before counts as silent", unheard);

    churn(&mut world, hosts, functions);
    let whole = world.run_until_whole(LONGEST);
    row(&mut world, "a minute in which 1 % of the functions change", whole);

    world.split(Some(hosts / 2));
    churn(&mut world, hosts, functions);
    world.split(None);
    world.traffic = Traffic::default();
    let whole = world.run_until_whole(LONGEST);
    row(&mut world, "halves that were apart for a minute meet", whole);
    println!();
}

/// A minute in which 1 % of all functions are registered anew.
fn churn(world: &mut World, hosts: usize, functions: usize) {
    let changes = (hosts * functions).div_ceil(100);
    for _ in 0..changes {
        let host = usize::try_from(world.random.below(hosts as u64)).unwrap_or(0);
        world.change(host);
        world.run(Duration::from_secs(60) / u32::try_from(changes).unwrap_or(1));
    }
}

fn row(world: &mut World, what: &str, time: Option<Duration>) {
    let time = time.map_or_else(
        || format!("not in {LONGEST:?}: {} pairs behind", world.behind()),
        |time| format!("{:.2} s", time.as_secs_f64()),
    );
    let Traffic { published, published_bytes, delivered, delivered_bytes } =
        std::mem::take(&mut world.traffic);
    let (published_mb, delivered_mb) = (published_bytes as f64 / 1e6, delivered_bytes as f64 / 1e6);
    println!("| {what} | {time} | {published} | {delivered} | {published_mb:.1} | {delivered_mb:.0} |");
}

/// The same if every host were linked to every other, counted: each tells each of the others.
fn by_links(hosts: usize, functions: usize) {
    let id = worker_id(7);
    let all = (1..).take(functions).map(|index| Change::FunctionAdded { function: function(id, index, 0) });
    let changes = std::iter::once(Change::WorkerAdded { worker: worker(id) }).chain(all).collect();
    let bytes = |message: &EngineLinkMessage| serde_json::to_vec(message).map_or(0, |json| json.len() as u64);
    let offer = bytes(&EngineLinkMessage::Offer { reset: true, changes });
    let added = function(id, 1, 1);
    let removed = Change::FunctionRemoved {
        id: added.id.clone(),
        namespace: added.namespace.clone(),
        worker: added.worker,
        index: 1,
    };
    let changes = vec![removed, Change::FunctionAdded { function: added }];
    let change = bytes(&EngineLinkMessage::Offer { reset: false, changes });
    let (many, others) = (hosts as u64, hosts as u64 - 1);
    let links = many * others / 2;
    let churned = (many * functions as u64).div_ceil(100);
    println!("links: | what | messages | MB |");
    println!("| links in all, and of one host | {links} | {others} of one |");
    let row = |what: &str, messages: u64, each: u64| {
        println!("| {what} | {messages} | {:.1} |", (messages * each) as f64 / 1e6);
    };
    row("cold start: every offer to every other", many * others, offer);
    // A ping and its answer each way, every two seconds; 64 bytes each.
    row("ten seconds in which nothing happens: pings", links * 2 * 2 * 5, 64);
    row("one host starts anew", 2 * others, offer);
    row("a minute in which 1 % of the functions change", churned * others, change);
    println!("one offer: {offer} bytes; one change: {change} bytes\n");
}
