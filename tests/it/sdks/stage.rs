//! A real engine, `ringway up` with a file of settings, and all actors connected to it. What anybody of them says goes to
//! files, which are shown when a test fails. It must not know what is tested.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringway::{Sampler, Worker};
use ringway_tests::{local, repository};
use serde_json::{Value, json};

use super::native;

/// How long what must happen may take. Machines that test are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The actors on published SDKs, by the names that they are given.
pub(crate) const ACTORS: [&str; 7] = ["npm022", "pypi022", "pypi025", "rs023", "rs024", "rs025", "rs026"];

/// The actor in a page, in a browser.
pub(crate) const PAGE: &str = "page022";

/// The native worker's name.
pub(crate) const NATIVE: &str = "native";

/// Functions that every actor has; the last that it registers are among them.
const FUNCTIONS: [&str; 10] =
    ["identity", "echo", "add", "note", "noted", "relay", "bind", "unbind", "stream_answer", "body"];

/// Ports of an engine that is killed and comes back where it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    iii: u16,
    pub(crate) streams: u16,
    pub(crate) http: u16,
}

/// An engine, its actors, a native worker, and a client that asks all of them.
pub(crate) struct Stage {
    address: String,
    folder: tempfile::TempDir,
    pub(crate) ports: Ports,
    engine: Child,
    actors: Vec<(&'static str, Child)>,
    pub(crate) client: Worker,
    _native: Worker,
}

/// A native worker that waits for its engine.
pub(crate) fn attach(address: &str, name: &str) -> Worker {
    Worker::builder(name)
        .address(address)
        .wait_for_engine()
        .attach_timeout(PATIENCE)
        .default_timeout(Some(PATIENCE))
        .sampler(Sampler::always())
        .connect()
        .expect("the engine takes a worker")
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

impl Stage {
    /// Starts the engine and all actors, and waits until everything is registered.
    pub(crate) fn new() -> Self {
        Self::with(&ACTORS)
    }

    /// Starts the engine and some actors.
    pub(crate) fn with(actors: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = local::address();
        let ports = Ports { iii: free_port(), streams: free_port(), http: free_port() };
        write_settings(folder.path(), ports);
        let engine = start_engine(&address, folder.path());
        let client = attach(&address, "oracle");
        let native = native::start(&address, NATIVE);
        let mut stage = Self { address, folder, ports, engine, actors: Vec::new(), client, _native: native };
        for actor in actors {
            stage.start_actor(actor);
        }
        stage.wait_for_all();
        stage
    }

    /// Everybody who has the functions of an actor, the native worker last.
    pub(crate) fn everybody(&self) -> Vec<&'static str> {
        self.sdks().into_iter().chain([NATIVE]).collect()
    }

    /// The actors on iii's SDKs.
    pub(crate) fn sdks(&self) -> Vec<&'static str> {
        self.actors.iter().map(|(name, _)| *name).collect()
    }

    pub(crate) fn start_actor(&mut self, name: &'static str) {
        if name == PAGE {
            return self.open_page("127.0.0.1", name);
        }
        let url = self.iii();
        let mut command = program(name);
        command.args([&url, name]).env("OTEL_SERVICE_NAME", name).env_remove("OTEL_ENABLED");
        for variable in ["III_NAMESPACE", "III_WORKER_NAME", "III_TOKEN"] {
            command.env_remove(variable);
        }
        // Python 0.22 sends its spans there, whatever address it is given.
        command.env("III_URL", &url);
        self.start(name, command);
    }

    /// Where iii's SDKs connect.
    fn iii(&self) -> String {
        format!("ws://127.0.0.1:{}", self.ports.iii)
    }

    fn start(&mut self, name: &'static str, mut command: Command) {
        let log = open_log(self.folder.path(), name);
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("wanted to start {name}, found: {error}"));
        self.actors.push((name, child));
    }

    /// Opens the page of the actor in a browser of its own, from a host, all of which are this one.
    pub(crate) fn open_page(&mut self, host: &str, name: &'static str) {
        // A browser asks once.
        until("the server of pages", || {
            TcpStream::connect(("127.0.0.1", self.ports.http)).map_err(|error| json!(error.to_string()))
        });
        let origin = format!("http://{host}:{}", self.ports.http);
        let mut command = browser();
        command.arg(format!("--user-data-dir={}", self.folder.path().join(name).display()));
        command.args(["--host-resolver-rules=MAP *.example 127.0.0.1", "--remote-debugging-port=0"]);
        // A page has random numbers and the like only where it came safely, or from this host.
        command.arg(format!("--unsafely-treat-insecure-origin-as-secure={origin}"));
        command.arg(format!("{origin}/page/index.html?url={}&name={name}", self.iii()));
        self.start(name, command);
    }

    /// What an actor has said so far.
    pub(crate) fn said_by(&self, name: &str) -> String {
        let said = fs::read(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Kills an actor with SIGKILL.
    pub(crate) fn kill_actor(&mut self, name: &str) {
        let at = self.actors.iter().position(|(known, _)| *known == name).expect("an actor of that name");
        end(&mut self.actors.remove(at).1);
    }

    pub(crate) fn kill_engine(&mut self) {
        end(&mut self.engine);
    }

    /// Starts an engine that was killed, where it was.
    pub(crate) fn start_engine(&mut self) {
        self.engine = start_engine(&self.address, self.folder.path());
    }

    /// Waits until every actor that runs has registered everything.
    pub(crate) fn wait_for_all(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let missing = self.missing();
            if missing.is_empty() {
                return;
            }
            for (name, child) in &mut self.actors {
                if let Ok(Some(status)) = child.try_wait() {
                    panic!("{name} ended: {status}");
                }
            }
            assert!(Instant::now() < until, "wanted these functions, found none: {missing:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn missing(&self) -> Vec<String> {
        let known = self.client.catalog();
        let is_known = |id: &str| known.functions.iter().any(|function| function.id.as_str() == id);
        let wanted =
            self.everybody().into_iter().flat_map(|name| FUNCTIONS.map(|id| format!("{name}::{id}")));
        wanted.filter(|id| !id.starts_with(NATIVE) && !is_known(id)).collect()
    }

    /// A worker that is there for a moment.
    pub(crate) fn passing_worker(&self) -> Worker {
        Worker::builder("passing").address(&self.address).connect().expect("the engine takes a worker")
    }

    /// Calls a function of an actor.
    #[track_caller]
    pub(crate) fn ask(&self, name: &str, function: &str, data: &Value) -> Value {
        let id = format!("{name}::{function}");
        self.client.trigger_json(&id, data).unwrap_or_else(|error| panic!("{id} of {data}: {error:?}"))
    }

    /// Has an actor call a function; what came of it, as `ok` or as `error`.
    #[track_caller]
    pub(crate) fn call(&self, caller: &str, function: &str, data: &Value) -> Value {
        self.ask(caller, "call", &json!({ "function": function, "data": data }))
    }

    /// What an actor noted, of those notes that are wanted.
    pub(crate) fn notes(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let noted = self.ask(name, "noted", &json!({}));
        noted["notes"].as_array().into_iter().flatten().filter(|note| wanted(note)).cloned().collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for (_, child) in &mut self.actors {
            end(child);
        }
        end(&mut self.engine);
        if std::thread::panicking() {
            show_logs(self.folder.path());
        }
    }
}

/// Asks until something holds.
///
/// # Panics
/// When it does not within [`PATIENCE`], with what was found last.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, Value>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(found) => return found,
            Err(found) => assert!(Instant::now() < end, "wanted {what}, found {found:#}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn write_settings(folder: &Path, ports: Ports) {
    let Ports { iii, streams, http } = ports;
    let page = installed("tools/iii/page/index.html");
    let page = page.parent().unwrap_or(&page).display();
    let settings = format!(
        "workers:
  iii: {{ port: {iii}, origins: ['http://known.example:{http}'] }}
  stream-socket: {{ port: {streams} }}
  http: {{ port: {http}, admin: {{ enabled: false }}, static_files: [{{ path: /page, folder: '{page}' }}] }}
"
    );
    fs::write(folder.join("ringway.yaml"), settings).expect("settings");
}

fn start_engine(address: &str, folder: &Path) -> Child {
    let log = open_log(folder, "engine");
    let mut command = Command::new(repository::program("ringway").expect("the program is built"));
    command.args(["--address", address, "up", "--no-otlp", "--config"]).arg(folder.join("ringway.yaml"));
    command.arg("--data").arg(folder.join("data")).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a second handle")).stderr(log);
    command.spawn().expect("the engine starts")
}

fn open_log(folder: &Path, name: &str) -> File {
    let path = folder.join(format!("{name}.log"));
    File::options().create(true).append(true).open(path).expect("a file for what is said")
}

fn end(child: &mut Child) {
    let _ended_already = child.kill();
    let _not_ours_to_judge = child.wait();
}

/// The end of what everybody has said.
fn show_logs(folder: &Path) {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in files.filter(|path| path.extension().is_some_and(|ending| ending == "log")) {
        let said = fs::read(&path).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        eprintln!("--- {}", path.file_name().unwrap_or_default().to_string_lossy());
        lines[lines.len().saturating_sub(40)..].iter().for_each(|line| eprintln!("{line}"));
    }
}

/// A browser without windows. It may run as root here, since it opens no page but ours. What Debian has in the path is a
/// script, and killing that would leave the browser.
fn browser() -> Command {
    let names = ["/usr/lib/chromium/chromium-headless-shell", "chromium", "google-chrome"];
    let runs = |name: &&str| {
        let probe = Command::new(name).arg("--version").stdin(Stdio::null()).output();
        probe.is_ok_and(|output| output.status.success())
    };
    let name = names.into_iter().find(runs).unwrap_or_else(|| {
        panic!("wanted one of {names:?}, found none: install the Debian package chromium-headless-shell")
    });
    let mut command = Command::new(name);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]);
    command.args(["--disable-background-networking", "--enable-logging=stderr"]);
    command
}

/// The program of an actor, where `cargo sdks` puts it.
fn program(name: &str) -> Command {
    let sources = repository::root().join("tests/iii");
    let (program, script) = match name {
        "npm022" => (PathBuf::from("node"), Some(sources.join("node/actor.mjs"))),
        "pypi022" => (installed("tools/iii/python-0.22.1/bin/python"), Some(sources.join("python/actor.py"))),
        "pypi025" => (installed("tools/iii/python-0.25.0/bin/python"), Some(sources.join("python/actor.py"))),
        rust => (installed(&format!("iii/debug/{rust}")), None),
    };
    assert!(
        sources.join("node/node_modules").is_dir(),
        "npm's iii-sdk is not installed: `cargo sdks` does it"
    );
    let mut command = Command::new(program);
    command.args(script);
    command
}

/// A file below the folder in which cargo builds.
fn installed(path: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let found = test.ancestors().map(|folder| folder.join(path)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("wanted {path} in the folder of builds, found none: `cargo sdks` installs it")
    })
}
