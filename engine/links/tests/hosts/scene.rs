//! The hosts and what runs on them: three engines, each linked to the others, with a worker each; and a host without an
//! engine, whose workers dial. It must not know what is tried with them.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringway_access::Grant;
use ringway_access::issue::{Authority, ClientRequest};
use serde::de::DeserializeOwned;

use crate::net::Net;
use crate::part::{CONGESTION, ENGINE, Part, VARIABLE};

/// How long an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const PORT: u16 = 49_135;

/// Hosts with an engine.
pub(crate) const ENGINES: usize = 3;
/// The host without.
pub(crate) const OUTSIDE: usize = 3;
/// The engine with the queue.
pub(crate) const QUEUE: usize = 1;
/// How far the clocks of the hosts are ahead of this machine's.
pub(crate) const AHEAD_S: [u64; ENGINES + 1] = [0, 1_000, 50_000, 7_000];

/// A process on a host. It ends when this is dropped.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    answers: Receiver<(String, String)>,
    host: usize,
    part: Part,
}

impl Process {
    /// Starts it, without waiting until it is ready.
    fn spawn(net: &Net, host: usize, part: Part) -> Self {
        let mut command = net.program(host, AHEAD_S[host]);
        command.arg(std::env::current_exe().unwrap());
        command.args(["--exact", "part::plays_its_part", "--nocapture", "--test-threads", "1"]);
        command.env(VARIABLE, serde_json::to_string(&part).unwrap());
        // What Linux has by default, whatever this machine was set to.
        let congestion = std::env::var(CONGESTION).unwrap_or_else(|_| "cubic".to_owned());
        command.env(CONGESTION, congestion);
        if let Ok(folder) = std::env::var("RINGWAY_LOG_FOLDER") {
            let path = Path::new(&folder).join(Self::name_of(&part));
            command.stderr(OpenOptions::new().create(true).append(true).open(path).unwrap());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((word, rest)) = line.strip_prefix('@').and_then(|line| line.split_once(' ')) {
                    // Nobody may be listening any more; the pipe is read to its end all the same.
                    drop(sender.send((word.to_owned(), rest.to_owned())));
                }
            }
        });
        Self { child, input, answers, host, part }
    }

    fn name_of(part: &Part) -> &str {
        match part {
            Part::Engine { name, .. } | Part::Worker { name, .. } => name,
        }
    }

    pub(crate) fn name(&self) -> &str {
        Self::name_of(&self.part)
    }

    pub(crate) fn say(&mut self, order: &str) {
        writeln!(self.input, "{order}").unwrap();
    }

    pub(crate) fn hear<T: DeserializeOwned>(&self, word: &str) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = self.answers.recv_timeout(left);
            let (found, rest) =
                answer.unwrap_or_else(|error| panic!("wanted `{word}` of {}: {error}", self.name()));
            if found == word {
                return serde_json::from_str(&rest).unwrap();
            }
        }
    }

    pub(crate) fn ask<T: DeserializeOwned>(&mut self, order: &str) -> T {
        self.say(order);
        self.hear(order.split(' ').next().unwrap())
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, after it was killed.
    pub(crate) fn restart(&mut self, net: &Net) {
        *self = Self::spawn(net, self.host, self.part.clone());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _dead_already = self.child.kill();
        let _not_ours_to_judge = self.child.wait();
    }
}

/// See the module. What runs goes before what it runs on.
pub(crate) struct Scene {
    pub(crate) engines: Vec<Process>,
    /// `a`, `b` and `c` on the hosts with an engine; `d` and `clerk` dial from outside.
    pub(crate) workers: Vec<Process>,
    pub(crate) net: Net,
    folder: tempfile::TempDir,
}

fn write_private(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

impl Scene {
    pub(crate) fn new() -> Self {
        let net = Net::new(ENGINES + 1);
        let folder = tempfile::tempdir().unwrap();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let authority = Authority::new("hosts", now_s, DAY).unwrap();
        let credentials = |name: &str| -> PathBuf {
            let wanted = ClientRequest {
                name,
                grant: Grant::everything(),
                address: None,
                server_name: None,
                pin: None,
                with_certificate: false,
                lifetime: DAY,
            };
            let path = folder.path().join(name);
            write_private(&path, &authority.client(&wanted, now_s).unwrap().credentials);
            path
        };
        let engine = |host: usize| {
            let (name, address) = (format!("engine-{host}"), Net::address(host));
            let files = authority.server(&name, &[&address], now_s, DAY).unwrap();
            // The first two dial each other at the same time; the third is not dialled by anybody.
            let dialled = (0..ENGINES).filter(|other| *other < host || (host, *other) == (0, 1));
            let peers = dialled.map(|other| {
                let shown = credentials(&format!("{name}-to-{other}"));
                (format!("ringway://{}:{PORT}", Net::address(other)), shown)
            });
            Part::Engine {
                name: name.clone(),
                listen: format!("{address}:{PORT}"),
                certificate: files.certificate,
                key: files.key,
                issuer: authority.issuer().public().to_string(),
                peers: peers.collect(),
                queue: (host == QUEUE).then(|| folder.path().join("queue")),
            }
        };
        let engines: Vec<Process> =
            (0..ENGINES).map(|host| Process::spawn(&net, host, engine(host))).collect();
        for engine in &engines {
            let path: String = engine.hear("ready");
            println!("{} is ready; bytes go by {path}", engine.name());
        }
        let worker = |name: &str, host: usize, dials: Option<usize>| {
            let part = Part::Worker {
                name: name.to_owned(),
                address: dials.map_or_else(
                    || ENGINE.to_owned(),
                    |host| format!("ringway://{}:{PORT}", Net::address(host)),
                ),
                credentials: dials.map(|_| credentials(name)),
                journal: (name == "c").then(|| folder.path().join("journal")),
                enqueues: name == "clerk",
            };
            Process::spawn(&net, host, part)
        };
        let workers = vec![
            worker("a", 0, None),
            worker("b", 1, None),
            worker("c", 2, None),
            worker("d", OUTSIDE, Some(2)),
            worker("clerk", OUTSIDE, Some(QUEUE)),
        ];
        for worker in &workers {
            let _id: String = worker.hear("ready");
        }
        Self { engines, workers, net, folder }
    }

    pub(crate) fn worker(&mut self, name: &str) -> &mut Process {
        self.workers.iter_mut().find(|worker| worker.name() == name).unwrap()
    }

    /// The jobs that were done, in order.
    pub(crate) fn journal(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.folder.path().join("journal")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        whole.map(|line| line.parse().unwrap()).collect()
    }
}
