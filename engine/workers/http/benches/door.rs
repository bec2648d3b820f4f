//! What the front door costs: requests each second to a function of another process, beside a bare axum handler, with one
//! route and with ten thousand; and how long ten thousand routes take to register. Run it by
//! `cargo bench -p ringway-worker-http --bench door [-- SECONDS]`; it needs `wrk`. Engine and front door are one process, as
//! they are in use, the function's worker another, the bare handler a third.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark ends where it fails, and tells on the terminal"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ringway::{Function, Message, Worker};
use ringway_worker_bed::{Bed, bind};
use ringway_worker_http::{Config, Http};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

/// That of the `ringway` program; the bare handler has it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUTES: usize = 10_000;

/// Connections that do nothing.
const IDLE: usize = 10_000;

/// Connections that do harm, of each kind.
const HARMFUL: usize = 100;

/// Those who harm: connections that do nothing, heads that come byte by byte, bodies without an end, clients that ask for much
/// and read nothing.
const SIEGES: [&str; 4] = ["idle", "slow-head", "oversize", "unread"];

/// Bytes of the answer that nobody reads.
const MUCH_BYTES: usize = 1 << 20;

/// A process of this program in another role.
struct Role {
    child: Child,
    told: BufReader<std::process::ChildStdout>,
}

impl Role {
    fn start(role: &str, arguments: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program)
            .arg(role)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        Self { child, told }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Its standard input ends with this, and so does it.
        drop(self.child.stdin.take());
        let _ended = self.child.wait();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bare"] => bare(),
        ["function", address] => function(address),
        ["siege", address, kinds] => siege(address, kinds),
        [] => measure(5),
        [seconds] => measure(seconds.parse().unwrap()),
        _ => println!("wanted is nothing, or a number of seconds"),
    }
}

fn measure(seconds: u64) {
    // Idle connections are to stay for as long as is measured.
    let settings = json!({"port": 0, "admin": {"enabled": false}, "header_timeout_ms": 600_000, "body_timeout_ms": 600_000});
    let config: Config = serde_json::from_value(settings).unwrap();
    let mut bed = Bed::new("http", "routes", move |address, store, clock| {
        Http::start_with(address, store, config.clone(), clock)
    });
    bed.start();
    let mut bare = Role::start("bare", &[]);
    let bare_url = format!("http://{}/hello", bare.line());
    let mut function = Role::start("function", &[&bed.address]);
    assert_eq!(function.line(), "ready");
    let url = format!("http://{}/hello", bed.worker().address());
    // What is compiled and mapped only once is so before anything is counted.
    for url in [&bare_url, &url] {
        wrk(url, 1);
    }
    // By turns, so that what else the machine does meets both.
    let (mut floor, mut one) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        floor.push(wrk(&bare_url, seconds));
        one.push(wrk(&url, seconds));
    }
    let (floor, one) = (median(floor), median(one));
    println!("bare axum handler:              {floor}");
    println!("function, one route:            {one}, {:.1} % of bare", 100.0 * one.rate / floor.rate);
    for kinds in SIEGES.iter().map(|kind| (*kind).to_owned()).chain([SIEGES.join(",")]) {
        let mut siege = Role::start("siege", &[&bed.worker().address().to_string(), &kinds]);
        println!("{}", siege.line());
        let besieged = median((0..3).map(|_| wrk(&url, seconds)).collect());
        let times = besieged.p99_ms / one.p99_ms;
        println!("besieged, {kinds:<21} {besieged}, p99 {times:.2} times that of peace");
    }
    function.say("routes");
    println!("{ROUTES} routes registered: {}", function.line());
    let last = format!("http://{}/bench/{}/7", bed.worker().address(), ROUTES - 1);
    let (mut many, mut among) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        many.push(wrk(&url, seconds));
        among.push(wrk(&last, seconds));
    }
    let (many, among) = (median(many), median(among));
    println!("the same among {ROUTES}:       {many}, {:.1} % of one route", 100.0 * many.rate / one.rate);
    println!("the last of {ROUTES}, params:   {among}, {:.1} % of one route", 100.0 * among.rate / one.rate);
}

/// What a run told.
#[derive(Debug, Clone, Copy)]
struct Told {
    /// Requests each second.
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>9.0} requests/s, p50 {:.2} ms, p99 {:.2} ms", self.rate, self.p50_ms, self.p99_ms)
    }
}

/// The middle of several runs, in each figure.
fn median(told: Vec<Told>) -> Told {
    let middle = |figure: fn(&Told) -> f64| {
        let mut figures: Vec<f64> = told.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Told {
        rate: middle(|told| told.rate),
        p50_ms: middle(|told| told.p50_ms),
        p99_ms: middle(|told| told.p99_ms),
    }
}

/// Requests each second, by `wrk` with 64 connections.
fn wrk(url: &str, seconds: u64) -> Told {
    let duration = format!("-d{seconds}s");
    let ran = Command::new("wrk").args(["-t1", "-c64", &duration, "--latency", url]).output();
    let text = String::from_utf8(ran.expect("`wrk` is wanted: apt-get install wrk").stdout).unwrap();
    assert!(!text.contains("Non-2xx"), "{text}");
    let line = |name: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(name));
        found.unwrap_or_else(|| panic!("no `{name}` in {text}")).trim().to_owned()
    };
    let ms = |name: &str| {
        let told = line(name);
        let at = told.find(|letter: char| letter.is_ascii_alphabetic()).unwrap();
        let (number, unit) = told.split_at(at);
        let factor = [("us", 0.001), ("ms", 1.0), ("s", 1000.0)].into_iter().find(|known| known.0 == unit);
        number.parse::<f64>().unwrap() * factor.unwrap_or_else(|| panic!("{told}")).1
    };
    let told = Told { rate: line("Requests/sec:").parse().unwrap(), p50_ms: ms("50%"), p99_ms: ms("99%") };
    println!("  {url}: {told}");
    told
}

/// A handler that does what the function does, and nothing else.
fn bare() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let handler = async || ([("content-type", "application/json")], "{\"hello\":\"world\"}");
        let router = axum::Router::new().route("/hello", axum::routing::get(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let ends = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        tokio::select! {
            served = axum::serve(listener, router) => served.unwrap(),
            _ = ends => {}
        }
    });
}

/// A worker with a function that answers at once.
fn function(address: &str) {
    let worker = Worker::builder("bench").address(address).connect().unwrap();
    let answer = |_: &ringway::Context, _: &ringway::Request<'_>| {
        Ok(Message::new(ringway::Encoding::Json, b"{\"hello\":\"world\"}"))
    };
    worker.register(Function::raw("bench::hello", answer).inline()).unwrap();
    let much = |_: &ringway::Context, _: &ringway::Request<'_>| Ok(Message::bytes(&vec![b'a'; MUCH_BYTES]));
    worker.register(Function::raw("bench::much", much)).unwrap();
    bind(&worker, "hello", "http", "bench::hello", json!({"api_path": "/hello"})).unwrap();
    bind(&worker, "much", "http", "bench::much", json!({"api_path": "/much"})).unwrap();
    let upload = json!({"api_path": "/upload", "http_method": "POST", "body_bytes_max": 65_536});
    bind(&worker, "upload", "http", "bench::hello", upload).unwrap();
    println!("ready");
    for line in std::io::stdin().lines() {
        if line.unwrap() == "routes" {
            let begun = Instant::now();
            for number in 0..ROUTES {
                let config = json!({"api_path": format!("/bench/{number}/:id")});
                bind(&worker, &format!("r{number}"), "http", "bench::hello", config).unwrap();
            }
            println!("{:?}, one after the other", begun.elapsed());
        }
    }
}

/// Does harm of some kinds, until its standard input ends.
fn siege(address: &str, kinds: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut idle = Vec::new();
        if kinds.contains("idle") {
            while idle.len() < IDLE {
                // The system's queue of connections may be full for a moment.
                match tokio::net::TcpStream::connect(address).await {
                    Ok(stream) => idle.push(stream),
                    Err(error) => panic!("after {} idle connections: {error}", idle.len()),
                }
            }
        }
        let harmful: Vec<&str> = kinds.split(',').filter(|kind| *kind != "idle").collect();
        println!("besieged by {} idle connections, and {HARMFUL} of each of {harmful:?}", idle.len());
        let all = harmful.iter().flat_map(|kind| (0..HARMFUL).map(|number| harm(address, kind, number)));
        let harming = async {
            futures_util::future::join_all(all).await;
            std::future::pending::<()>().await;
        };
        let ends = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        tokio::select! {
            () = harming => {}
            _ = ends => {}
        }
    });
}

/// One who does harm, who comes again when sent away.
async fn harm(address: &str, kind: &str, number: usize) {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
    let (head, more): (Vec<u8>, &[u8]) = match kind {
        "slow-head" => (b"GET /hello HTTP/1.1\r\nx: ".to_vec(), b"a"),
        "oversize" => (
            b"POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            &[b'a'; 4096],
        ),
        _ => (b"GET /much HTTP/1.1\r\nhost: a\r\n\r\n".repeat(16), b""),
    };
    // Not all at once.
    tokio::time::sleep(PAUSE * u32::try_from(number % 10).unwrap_or_default() / 10).await;
    loop {
        let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return };
        let mut sent = stream.write_all(&head).await;
        while sent.is_ok() {
            tokio::time::sleep(PAUSE).await;
            sent = if kind == "oversize" {
                let chunk = [format!("{:x}\r\n", more.len()).as_bytes(), more, b"\r\n"].concat();
                stream.write_all(&chunk).await
            } else {
                stream.write_all(more).await
            };
        }
        tokio::time::sleep(PAUSE).await;
    }
}
