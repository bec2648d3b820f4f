//! A worker's process ends, and everybody hears of it: by its socket, or by its pidfd where a child holds the socket.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use ringway_protocol::control::{Change, EngineMessage, GoneCause};

use crate::client::{self, Client};

fn wait_for_death(watcher: &mut Client, id: ringway_protocol::WorkerId) {
    loop {
        if let EngineMessage::CatalogChange { changes, .. } = watcher.hear()
            && changes.contains(&Change::WorkerGone { id, cause: GoneCause::Died })
        {
            return;
        }
    }
}

#[test]
fn a_broken_connection_is_a_death() {
    let engine = client::engine();
    let mut watcher = Client::attach(engine.address(), "watcher");
    let mut victim = Client::attach(engine.address(), "victim");
    victim.register(&["victim::f"]);
    watcher.until(|catalog| client::sees(catalog, "victim::f"));
    let id = victim.id;
    drop(victim);
    wait_for_death(&mut watcher, id);
    assert!(!watcher.sees("victim::f"));
    assert_eq!(engine.counters().deaths, 1);
}

/// The process of [`a_dead_process_is_noticed_even_if_its_socket_lives`]: attaches, gives its socket to a child that
/// outlives it, and is killed.
#[test]
fn the_victim() {
    let Ok(address) = std::env::var("RINGWAY_TEST_VICTIM") else { return };
    let victim = Client::attach(&address, "victim");
    let socket = victim.stream.as_fd().try_clone_to_owned().unwrap();
    #[expect(clippy::zombie_processes, reason = "this process is killed before its child ends")]
    // The child's standard input is a second descriptor of the control socket.
    let child =
        Command::new("sleep").arg("600").stdin(Stdio::from(socket)).stdout(Stdio::null()).spawn().unwrap();
    println!("child {}", child.id());
    std::thread::sleep(std::time::Duration::from_secs(600));
}

#[test]
fn a_dead_process_is_noticed_even_if_its_socket_lives() {
    let engine = client::engine();
    let mut watcher = Client::attach(engine.address(), "watcher");
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "death::the_victim", "--nocapture"])
        .env("RINGWAY_TEST_VICTIM", engine.address())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    watcher.until(|catalog| catalog.workers.values().any(|worker| worker.name == "victim"));
    let output = process.stdout.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    let child = lines.find_map(|line| Some(line.unwrap().split_once("child ")?.1.trim().to_owned())).unwrap();
    let worker = watcher.catalog.workers.values().find(|worker| worker.name == "victim").unwrap();
    assert_eq!(worker.pid, process.id(), "the pid is the kernel's word");
    let id = worker.id;
    process.kill().unwrap();
    wait_for_death(&mut watcher, id);
    process.wait().unwrap();
    assert!(
        Command::new("kill").arg(child).status().unwrap().success(),
        "the child held the socket until now"
    );
}
