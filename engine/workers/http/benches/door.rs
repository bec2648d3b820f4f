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

const ROUTES: usize = 10_000;

/// Connections that do nothing.
const IDLE: usize = 10_000;

/// Connections that do harm, of three kinds.
const HARMFUL: usize = 300;

/// A process of this program in another role.
struct Role {
    child: Child,
    told: BufReader<std::process::ChildStdout>,
}

impl Role {
    fn start(role: &str, argument: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program)
            .args([role, argument])
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
        ["bare", _] => bare(),
        ["function", address] => function(address),
        ["siege", address] => siege(address),
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
    let mut bare = Role::start("bare", "");
    let bare_url = format!("http://{}/hello", bare.line());
    let mut function = Role::start("function", &bed.address);
    assert_eq!(function.line(), "ready");
    let url = format!("http://{}/hello", bed.worker().address());
    // What is compiled and mapped only once is so before anything is counted.
    for url in [&bare_url, &url] {
        wrk(url, 1);
    }
    let floor = [wrk(&bare_url, seconds), wrk(&bare_url, seconds)];
    let one = [wrk(&url, seconds), wrk(&url, seconds)];
    function.say("routes");
    let registered = function.line();
    println!("{ROUTES} routes registered: {registered}");
    let many = [wrk(&url, seconds), wrk(&url, seconds)];
    let last = format!("http://{}/bench/{}/7", bed.worker().address(), ROUTES - 1);
    let among = [wrk(&last, seconds), wrk(&last, seconds)];
    let mut siege = Role::start("siege", &bed.worker().address().to_string());
    println!("{}", siege.line());
    let besieged = [wrk(&url, seconds), wrk(&url, seconds)];
    drop(siege);
    let best = |found: &[f64]| found.iter().copied().fold(0.0, f64::max);
    let (floor, one, many, among) = (best(&floor), best(&one), best(&many), best(&among));
    let besieged = best(&besieged);
    println!("bare axum handler:            {floor:>9.0} requests/s");
    println!("function, one route:          {one:>9.0} requests/s, {:.1} % of bare", 100.0 * one / floor);
    println!("the same among {ROUTES}:     {many:>9.0} requests/s, {:.1} % of one route", 100.0 * many / one);
    println!(
        "the last of {ROUTES}, params: {among:>9.0} requests/s, {:.1} % of one route",
        100.0 * among / one
    );
    println!(
        "while it is besieged:         {besieged:>9.0} requests/s, {:.1} % of one route",
        100.0 * besieged / one
    );
}

/// Requests each second, by `wrk` with 64 connections.
fn wrk(url: &str, seconds: u64) -> f64 {
    let duration = format!("-d{seconds}s");
    let ran = Command::new("wrk").args(["-t1", "-c64", &duration, "--latency", url]).output();
    let text = String::from_utf8(ran.expect("`wrk` is wanted: apt-get install wrk").stdout).unwrap();
    assert!(!text.contains("Non-2xx"), "{text}");
    let line = |name: &str| {
        text.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    println!("{url}: {} requests/s, p50 {}, p99 {}", line("Requests/sec:"), line("50%"), line("99%"));
    line("Requests/sec:").parse().unwrap()
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
    bind(&worker, "hello", "http", "bench::hello", json!({"api_path": "/hello"})).unwrap();
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

/// Those who harm: idle connections, heads that come byte by byte, bodies that are too long, clients that never read.
fn siege(address: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let open = async || tokio::net::TcpStream::connect(address).await;
        let mut idle = Vec::new();
        while idle.len() < IDLE
            && let Ok(stream) = open().await
        {
            idle.push(stream);
        }
        let harm = async |number: usize| {
            let Ok(mut stream) = open().await else { return };
            let head: &[u8] = match number % 3 {
                0 => b"GET /hello HTTP/1.1\r\nx: ",
                1 => b"POST /hello HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n",
                _ => b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n",
            };
            let _refused = stream.write_all(head).await;
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                if number % 3 < 2 && stream.write_all(b"a").await.is_err() {
                    return;
                }
            }
        };
        println!("besieged by {} idle connections and {HARMFUL} others", idle.len());
        let harming = futures_util::future::join_all((0..HARMFUL).map(harm));
        let ends = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        tokio::select! {
            _ = harming => std::future::pending::<()>().await,
            _ = ends => {}
        }
    });
}
