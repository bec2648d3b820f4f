//! A real engine that joins a real server, at which many others say what they offer: how long until a worker here knows all of
//! it, and what that takes. The others are one connection that speaks for all of them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringway::Worker;
use ringway_engine::{Engine, Otlp, raise_file_limit};
use ringway_links::{Links, Settings};
use ringway_links_nats::message::Message;
use ringway_links_nats::{NatsLinks, NatsSettings};
use ringway_protocol::control::Change;
use ringway_protocol::{FunctionId, WorkerId};
use ringway_store_nats::testing::Server;

use crate::world::{function, worker, worker_id};

const LONGEST: Duration = Duration::from_secs(600);

const EVERY: Duration = Duration::from_secs(5);

const CHANGES: u32 = 50;

/// The process that is measured.
pub(crate) fn run_engine(server: &str, address: &str) {
    raise_file_limit().unwrap_or_else(|error| panic!("{error}"));
    let engine = Engine::builder().address(address).otlp(Otlp::Off).start();
    let engine = engine.unwrap_or_else(|error| panic!("{error}"));
    let links =
        Links::start(engine.address(), Settings { name: "measured".to_owned(), ..Settings::default() });
    let links = links.unwrap_or_else(|error| panic!("{error}"));
    let mut settings = NatsSettings::new("sizing", "measured");
    settings.servers = vec![server.to_owned()];
    let _joined = NatsLinks::start(&links, settings).unwrap_or_else(|error| panic!("{error}"));
    std::thread::sleep(LONGEST * 2);
}

/// What a process has in memory, in bytes, and the seconds of processor that it has used.
fn of_process(pid: u32) -> (u64, f64) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let resident = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024;
    let stat = read("stat");
    let after = stat.rsplit(')').next().unwrap_or_default();
    // Of what stands behind the name, user and system time are the 12th and 13th.
    let ticks: u64 =
        after.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    (resident, ticks as f64 / 100.0)
}

pub(crate) fn print(hosts: usize, functions: usize) {
    let server = Server::with("", "off");
    let address = format!("@ringway-sizing-{}", std::process::id());
    let own = std::env::current_exe().unwrap_or_else(|error| panic!("{error}"));
    let started = Command::new(own).args(["engine", &server.url(), &address]).stdout(Stdio::null()).spawn();
    let mut child = started.unwrap_or_else(|error| panic!("{error}"));
    std::thread::sleep(Duration::from_secs(1));
    let attached = Worker::builder("looks").address(&address).connect();
    let looks = attached.unwrap_or_else(|error| panic!("{error}"));
    let (before, _) = of_process(child.id());
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("{error}"));
    let wanted = hosts * functions;
    let known =
        || looks.catalog().functions.iter().filter(|known| known.id.as_str().starts_with("service_")).count();
    let (took, changes) = runtime.block_on(async {
        let client = async_nats::connect(server.url()).await.unwrap_or_else(|error| panic!("{error}"));
        for host in 0..hosts {
            say(&client, &offer(host, functions)).await;
        }
        let mut beat_at = Instant::now() + EVERY;
        while known() < wanted {
            if begun.elapsed() > LONGEST {
                return (None, Vec::new());
            }
            if Instant::now() > beat_at {
                beat_at += EVERY;
                for host in 0..hosts {
                    say(&client, &here(host)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let took = begun.elapsed();
        let mut changes = Vec::new();
        let after = u32::try_from(functions).unwrap_or(0) + 1;
        for (index, sequence) in (after..after + CHANGES).zip(2..) {
            changes.push(change(&client, &looks, index, sequence).await);
        }
        (Some(took), changes)
    });
    let (resident, seconds) = of_process(child.id());
    let took = took.map_or_else(
        || format!("not in {LONGEST:?}: {} of {wanted}", known()),
        |took| format!("{:.1} s", took.as_secs_f64()),
    );
    let mut changes: Vec<f64> = changes.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    changes.sort_by(f64::total_cmp);
    let (median, most) = (changes.get(changes.len() / 2), changes.last());
    println!(
        "a real engine: | hosts | all known after | processor | MB before | MB after | a change, median | most |"
    );
    println!(
        "| {hosts} | {took} | {seconds:.1} s | {:.0} | {:.0} | {:.1} ms | {:.1} ms |\n",
        before as f64 / 1e6,
        resident as f64 / 1e6,
        median.copied().unwrap_or(f64::NAN),
        most.copied().unwrap_or(f64::NAN),
    );
    drop(looks);
    drop(child.kill());
    drop(child.wait());
}

/// How long one change takes from the host that makes it to a worker here.
async fn change(client: &async_nats::Client, looks: &Worker, index: u32, sequence: u64) -> Duration {
    let mut added = function(worker_id(0), index, 0);
    let id = format!("change::number_{sequence}");
    added.id = FunctionId::new(&id).unwrap_or_else(|error| panic!("{error}"));
    let changes = vec![Change::FunctionAdded { function: added }];
    let begun = Instant::now();
    say(client, &Message::Changes { engine: engine(0), run: 1, sequence, changes }).await;
    looks.wait_for(&id, LONGEST).unwrap_or_else(|error| panic!("{error}"));
    begun.elapsed()
}

async fn say(client: &async_nats::Client, message: &Message) {
    let subject = "ringway.sizing.catalog";
    if let Err(error) = client.publish(subject, message.encode().into()).await {
        panic!("{error}");
    }
    client.flush().await.unwrap_or_else(|error| panic!("{error}"));
}

fn engine(host: usize) -> WorkerId {
    WorkerId::new(0x4000_0000_0000_0000 + host as u64)
}

fn offer(host: usize, functions: usize) -> Message {
    let id = worker_id(host);
    let all = (1..).take(functions).map(|index| Change::FunctionAdded { function: function(id, index, 0) });
    Message::State {
        engine: engine(host),
        name: format!("host-{host}"),
        run: 1,
        sequence: 1,
        part: 0,
        last: true,
        every_ms: 5000,
        changes: std::iter::once(Change::WorkerAdded { worker: worker(id) }).chain(all).collect(),
    }
}

fn here(host: usize) -> Message {
    Message::Here { engine: engine(host), name: format!("host-{host}"), run: 1, sequence: 1, every_ms: 5000 }
}
