//! What a call to a worker on the other end of a link costs, beside the floor of the same run: three processes that pass the
//! same bytes by the same system calls and do nothing else. `cargo bench -p ringway-links --bench remote [-- SECONDS [PART]]`,
//! where a part is `calls`, `throughput`, `bulk` or `interplay`.
//!
//! The engine, the remote worker and the caller are processes of their own, and so are the floor's: a caller that wakes a
//! relay by an `eventfd`, the relay that sends 64 bytes over TCP, and an echo at its end. Nothing spins in the floor.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be set up is of no use")]
#![expect(clippy::print_stdout, reason = "a measurement prints what it found")]

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringway::{CallOptions, Function, Message, Worker};
use ringway_access::issue::{Authority, ClientRequest};
use ringway_access::tls::{ClientCertificates, ServerTls};
use ringway_access::{Credentials, Doorkeeper, Grant};
use ringway_engine::{Engine, Otlp};
use ringway_link::driver::{DriverConfig, Path};
use ringway_links::{Links, Settings};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

/// A part of the measurement, and its name.
type Part = (&'static str, fn(Duration));

const PARTS: [Part; 4] =
    [("calls", calls), ("throughput", throughput), ("bulk", bulk), ("interplay", interplay)];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let text = |at: usize| arguments.get(at).map(String::as_str);
    match text(1) {
        Some("engine") => engine(text(2).unwrap(), text(3).unwrap(), text(4)),
        Some("remote") => remote(text(2).unwrap(), text(3)),
        Some("relay") => relay(text(2).unwrap(), text(3).unwrap(), text(4).unwrap()),
        Some("echo") => echo(),
        _ => {
            let seconds = arguments.iter().find_map(|argument| argument.parse::<f64>().ok()).unwrap_or(2.0);
            let time = Duration::from_secs_f64(seconds);
            let is_named = |name: &&Part| arguments.iter().any(|argument| argument == name.0);
            let all = !PARTS.iter().any(|part| is_named(&part));
            PARTS.iter().filter(|part| all || is_named(part)).for_each(|part| part.1(time));
        }
    }
}

/// A process of this program; it says something when it is ready, and ends with its standard input.
struct Process {
    child: Child,
    said: String,
}

impl Process {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments).envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        Self { child, said: said.trim().to_owned() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

fn until_left_alone() {
    let mut rest = Vec::new();
    drop(std::io::stdin().read_to_end(&mut rest));
}

fn path_named(word: &str) -> Path {
    if word == Path::Uring.as_str() { Path::Uring } else { Path::Epoll }
}

/// An engine with links, with TLS and tokens if there is a directory for their files.
fn engine(address: &str, path: &str, directory: Option<&str>) {
    let engine = Engine::builder().address(address).otlp(Otlp::Off).start().unwrap();
    let mut settings = Settings {
        name: "bench".to_owned(),
        listen: Some(([127, 0, 0, 1], 0).into()),
        driver: DriverConfig { path: path_named(path), ..DriverConfig::default() },
        ..Settings::default()
    };
    let mut doorkeeper = Doorkeeper::default().with_open_loopback(Grant::everything());
    if let Some(directory) = directory {
        let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let day = Duration::from_secs(86_400);
        let authority = Authority::new("bench", now_s, day).unwrap();
        let server = authority.server("bench", &["127.0.0.1"], now_s, day).unwrap();
        settings.tls = Some(
            ServerTls::from_pem(&server.certificate, &server.key, ClientCertificates::NotAsked).unwrap(),
        );
        doorkeeper = doorkeeper.with_issuer(authority.issuer().public());
        let request = ClientRequest {
            name: "remote",
            grant: Grant::everything(),
            address: None,
            server_name: None,
            pin: None,
            with_certificate: false,
            lifetime: day,
        };
        let client = authority.client(&request, now_s).unwrap();
        let file = std::path::Path::new(directory).join("credentials");
        ringway_access::file::write_private(&file, &client.credentials).unwrap();
    }
    settings.doorkeeper = Arc::new(doorkeeper);
    let links = Links::start(address, settings).unwrap();
    println!("{}", links.address().unwrap());
    until_left_alone();
    drop(links);
    drop(engine);
}

fn remote(address: &str, credentials: Option<&str>) {
    let credentials = credentials.map(|file| Credentials::from_file(file.as_ref()).unwrap());
    let worker = Worker::builder("remote").address(format!("ringway://{address}"));
    let worker = worker.credentials(credentials.unwrap_or_default()).connect().unwrap();
    worker
        .register_all(vec![
            Function::raw("bench::echo", |_, request| Ok(Message::bytes(request.body()))).inline(),
            Function::raw("bench::sink", |_, request| {
                black_box(request.body().first());
                Ok(Message::empty())
            })
            .inline(),
        ])
        .unwrap();
    println!("ready");
    until_left_alone();
    worker.shut_down();
}

/// The floor's relay: woken by one `eventfd`, wakes by another, and sends what it is woken for over TCP.
fn relay(wake: &str, woken: &str, address: &str) {
    let fd = |number: &str| {
        let number: RawFd = number.parse().unwrap();
        ringway_links_bench::adopt(number)
    };
    let (wake, woken) = (fd(wake), fd(woken));
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    println!("ready");
    let mut word = [0; 8];
    let mut bytes = [7; 64];
    loop {
        let mut fds = [PollFd::new(&wake, PollFlags::IN), PollFd::new(&socket, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        let (asked, answered) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if asked {
            if rustix::io::read(&wake, &mut word).is_err() || u64::from_ne_bytes(word) > 1 << 32 {
                return;
            }
            socket.write_all(&bytes).unwrap();
        }
        if answered {
            if socket.read_exact(&mut bytes).is_err() {
                return;
            }
            rustix::io::write(&woken, &1u64.to_ne_bytes()).unwrap();
        }
    }
}

fn echo() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_nodelay(true).unwrap();
    let mut bytes = [0; 64];
    loop {
        let mut fds = [PollFd::new(&socket, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        if socket.read_exact(&mut bytes).is_err() {
            return;
        }
        socket.write_all(&bytes).unwrap();
    }
}

mod ringway_links_bench {
    use super::{FromRawFd, OwnedFd, RawFd};

    #[expect(unsafe_code, reason = "a descriptor that was inherited has no owner yet")]
    pub(super) fn adopt(number: RawFd) -> OwnedFd {
        // SAFETY: the parent made it for this process alone, says its number once, and nothing here has it.
        unsafe { OwnedFd::from_raw_fd(number) }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(10_000_000_000, 3).unwrap()
}

fn micros(found: &Histogram<u64>, quantile: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds for people")]
    let nanos = found.value_at_quantile(quantile) as f64;
    nanos / 1000.0
}

fn round_trips(time: Duration, mut once: impl FnMut()) -> Histogram<u64> {
    (0..200).for_each(|_| once());
    let mut found = histogram();
    let until = Instant::now() + time;
    while Instant::now() < until {
        let start = Instant::now();
        once();
        found.saturating_record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    found
}

fn floor(time: Duration) -> Histogram<u64> {
    let echo = Process::start(&["echo"], &[]);
    // Not closed by exec: the relay is to have them.
    let (wake, woken) =
        (eventfd(0, EventfdFlags::empty()).unwrap(), eventfd(0, EventfdFlags::empty()).unwrap());
    let numbers = (wake.as_raw_fd().to_string(), woken.as_raw_fd().to_string());
    let relay = Process::start(&["relay", &numbers.0, &numbers.1, &echo.said], &[]);
    let mut word = [0; 8];
    let found = round_trips(time, || {
        rustix::io::write(&wake, &1u64.to_ne_bytes()).unwrap();
        poll(&mut [PollFd::new(&woken, PollFlags::IN)], None).unwrap();
        rustix::io::read(&woken, &mut word).unwrap();
    });
    rustix::io::write(&wake, &(1u64 << 40).to_ne_bytes()).unwrap();
    drop(relay);
    found
}

/// An engine, a remote worker and a caller.
struct Stage {
    caller: Worker,
    _remote: Process,
    _engine: Process,
    _directory: Option<tempfile::TempDir>,
}

impl Stage {
    fn open(path: Path, sealed: bool, wait: &str) -> Self {
        let address = format!("@ringway-remote-bench-{}-{}-{sealed}", std::process::id(), path.as_str());
        let directory = sealed.then(|| tempfile::tempdir().unwrap());
        let file = directory.as_ref().map(|directory| directory.path().join("credentials"));
        let mut arguments = vec!["engine", &address, path.as_str()];
        arguments.extend(directory.as_ref().and_then(|directory| directory.path().to_str()));
        let environment = [("RINGWAY_LINK_PATH", path.as_str()), ("RINGWAY_WAIT", wait)];
        let engine = Process::start(&arguments, &environment);
        let mut arguments = vec!["remote", &engine.said];
        arguments.extend(file.as_ref().and_then(|file| file.to_str()));
        let remote = Process::start(&arguments, &environment);
        let mode = ringway::WaitMode::parse(wait).unwrap_or_default();
        let caller = Worker::builder("caller").address(&address).wait_mode(mode).connect().unwrap();
        caller.wait_for("bench::sink", Duration::from_secs(10)).unwrap();
        Self { caller, _remote: remote, _engine: engine, _directory: directory }
    }
}

fn calls(time: Duration) {
    println!("A call of 64 B to a worker at the other end of a link, loopback TCP, three processes; µs.\n");
    println!("| | p50 | p99 | × floor (p50) |\n|---|--:|--:|--:|");
    let floor_found = floor(time);
    let base = micros(&floor_found, 0.5);
    println!("| floor: eventfd, TCP, eventfd | {base:.1} | {:.1} | 1.00 |", micros(&floor_found, 0.99));
    for wait in ["efficient", "balanced"] {
        for path in [Path::Epoll, Path::Uring] {
            for sealed in [false, true] {
                let stage = Stage::open(path, sealed, wait);
                let handle = stage.caller.handle("bench::echo");
                let request = Message::bytes(&[7; 64]);
                let found = round_trips(time, || drop(black_box(handle.call(&request).unwrap())));
                let tls = if sealed { ", TLS" } else { "" };
                let half = micros(&found, 0.5);
                println!(
                    "| {}{tls}, {wait} | {half:.1} | {:.1} | {:.2} |",
                    path.as_str(),
                    micros(&found, 0.99),
                    half / base
                );
            }
        }
    }
}

/// Rounds of each way in turns; medians count.
const ROUNDS: usize = 3;

fn throughput(time: Duration) {
    println!(
        "\n64 calls of 64 B in flight, two processes on loopback TCP, calls a second; median of {ROUNDS}.\n"
    );
    println!("| | k/s | × tonic |\n|---|--:|--:|");
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        rates[0].push(tonic(time));
        rates[1].push(in_flight(Path::Epoll, time));
        rates[2].push(in_flight(Path::Uring, time));
    }
    let [tonic, epoll, uring] = rates.map(|mut of| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    });
    println!("| gRPC: tonic, one thread a process | {tonic:.1} | 1.00 |");
    for (path, rate) in [(Path::Epoll, epoll), (Path::Uring, uring)] {
        println!("| {} | {rate:.1} | {:.2} |", path.as_str(), rate / tonic);
    }
}

/// The rate of tonic, in a process built from a workspace of its own: the product depends on no gRPC.
fn tonic(time: Duration) -> f64 {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/links/Cargo.toml");
    let seconds = time.as_secs_f64().to_string();
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.args(["run", "--release", "--quiet", "--manifest-path", manifest, "--"]);
    command.args(["stream", "--only", "tonic", "--runs", "1", "--no-pin", "--seconds", &seconds]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let row = said.lines().find(|line| line.contains("tonic"));
    let rate = row.and_then(|row| row.split('|').nth(2)).and_then(|rate| rate.trim().parse().ok());
    rate.unwrap_or_else(|| {
        panic!("cargo run --manifest-path {manifest} printed no row of tonic: {said}\n{errors}")
    })
}

fn in_flight(path: Path, time: Duration) -> f64 {
    let stage = Stage::open(path, false, "balanced");
    let handle = stage.caller.handle("bench::echo");
    let request = Message::bytes(&[7; 64]);
    let mut pipeline = handle.pipeline();
    let begun = Instant::now();
    let mut ended = 0.0;
    while begun.elapsed() < time {
        while pipeline.in_flight() < 64 {
            pipeline.submit(&request).unwrap();
        }
        drop(black_box(pipeline.recv().unwrap().unwrap()));
        ended += 1.0;
    }
    ended / begun.elapsed().as_secs_f64() / 1000.0
}

/// A bare loop: 16 MiB one way by blocking calls of 1 MiB, eight bytes back.
fn bare_bulk(time: Duration) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sink = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut bytes = vec![0; 16 << 20];
        while socket.read_exact(&mut bytes).is_ok() {
            socket.write_all(&[1; 8]).unwrap();
        }
    });
    let mut socket = TcpStream::connect(address).unwrap();
    let bytes = vec![7; 16 << 20];
    let mut back = [0; 8];
    let rate = gigabytes(time, || {
        bytes.chunks(1 << 20).for_each(|piece| socket.write_all(piece).unwrap());
        socket.read_exact(&mut back).unwrap();
    });
    drop(socket);
    sink.join().unwrap();
    rate
}

fn gigabytes(time: Duration, mut once: impl FnMut()) -> f64 {
    (0..4).for_each(|_| once());
    let begun = Instant::now();
    let mut rounds = 0.0;
    while begun.elapsed() < time {
        once();
        rounds += 1.0;
    }
    rounds * f64::from(16 << 20) / begun.elapsed().as_secs_f64() / 1e9
}

fn bulk(time: Duration) {
    println!("\nPayloads of 16 MiB, one at a time, GB/s.\n");
    println!("| | GB/s | × floor |\n|---|--:|--:|");
    let base = bare_bulk(time);
    println!("| floor: send and recv of 1 MiB | {base:.2} | 1.00 |");
    for path in [Path::Epoll, Path::Uring] {
        let stage = Stage::open(path, false, "balanced");
        let handle = stage.caller.handle("bench::sink");
        let mut loan = stage.caller.loan(16 << 20).unwrap();
        loan.fill(7);
        let request = Message::from_loan(ringway::Encoding::Bytes, loan);
        let rate = gigabytes(time, || drop(handle.call(&request).unwrap()));
        println!("| {} | {rate:.2} | {:.2} |", path.as_str(), rate / base);
    }
}

fn interplay(time: Duration) {
    println!("\nCalls of 64 B while 1 GiB is on its way, µs.\n");
    println!("| | p50 | p99 | p99 without | × | GB/s meanwhile |\n|---|--:|--:|--:|--:|--:|");
    for path in [Path::Epoll, Path::Uring] {
        let stage = Stage::open(path, false, "balanced");
        let handle = stage.caller.handle("bench::echo");
        let request = Message::bytes(&[7; 64]);
        let alone = round_trips(time, || drop(black_box(handle.call(&request).unwrap())));
        let sink = stage.caller.handle("bench::sink");
        let loan = stage.caller.loan(1 << 30).unwrap();
        let large = Message::from_loan(ringway::Encoding::Bytes, loan);
        let mut beside = histogram();
        let (begun, mut rounds) = (Instant::now(), 0.0);
        while begun.elapsed() < 2 * time {
            let pending = sink.start(&large, &CallOptions::new()).unwrap();
            let done = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    drop(pending.wait().unwrap());
                    done.store(true, std::sync::atomic::Ordering::Release);
                });
                while !done.load(std::sync::atomic::Ordering::Acquire) {
                    let start = Instant::now();
                    drop(black_box(handle.call(&request).unwrap()));
                    beside.saturating_record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
                }
            });
            rounds += 1.0;
        }
        let rate = rounds * f64::from(1 << 30) / begun.elapsed().as_secs_f64() / 1e9;
        let (with, without) = (micros(&beside, 0.99), micros(&alone, 0.99));
        let half = micros(&beside, 0.5);
        let times = with / without;
        println!("| {} | {half:.1} | {with:.1} | {without:.1} | {times:.2} | {rate:.2} |", path.as_str());
    }
}
