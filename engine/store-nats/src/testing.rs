//! A NATS server of a test's own: a real one, in a folder of its own, at a port that was free, synced before each
//! acknowledgement. Used by tests of this crate and of those above it.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::options::NatsOptions;

/// The variable that names the server's program.
pub const VARIABLE: &str = "RINGWAY_NATS_SERVER";

/// How long a server may take to come up, and a test waits for what must happen.
pub const SOON: Duration = Duration::from_secs(60);

/// A running server, or one that was killed. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    port: u16,
    further: String,
    jetstream: String,
    folder: tempfile::TempDir,
}

/// Finds the program: where the variable says, where `cargo verify` puts it, or on the path.
///
/// # Panics
/// If there is none, with words on how to get one.
#[must_use]
pub fn program() -> PathBuf {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return PathBuf::from(named);
    }
    let own = std::env::current_exe().unwrap_or_default();
    let kept = own.ancestors().map(|folder| folder.join("tools/bin/nats-server")).find(|path| path.is_file());
    let found = kept.unwrap_or_else(|| PathBuf::from("nats-server"));
    let answers = Command::new(&found).arg("--version").stdout(Stdio::null()).status().is_ok();
    assert!(
        answers,
        "wanted the program nats-server, found none in target/tools/bin nor on the path: `cargo nats` installs it, \
         or set {VARIABLE} to where it is"
    );
    found
}

impl Server {
    /// Starts one.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::with("", "")
    }

    /// Starts one with further lines in its settings, and in those of `JetStream`; without `JetStream` if that is `off`.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn with(further: &str, jetstream: &str) -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("wanted a folder, found: {error}"));
        let (further, jetstream) = (further.to_owned(), jetstream.to_owned());
        let mut server = Self { child: None, port: 0, further, jetstream, folder };
        server.restart();
        server
    }

    /// Starts it again, at the same port and over the same folder.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn restart(&mut self) {
        self.kill();
        let folder = self.folder.path().display().to_string();
        let settings = self.folder.path().join("server.conf");
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let jetstream = match self.jetstream.as_str() {
            "off" => String::new(),
            more => format!("jetstream {{ store_dir: \"{folder}\", sync_interval: always\n{more}\n}}"),
        };
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nserver_name: test\nports_file_dir: \"{folder}\"\n{jetstream}\n{}\n",
            self.further
        );
        std::fs::write(&settings, text)
            .unwrap_or_else(|error| panic!("wanted to write settings, found: {error}"));
        let child = Command::new(program())
            .arg("--config")
            .arg(&settings)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("wanted a NATS server, found: {error}"));
        let child = self.child.insert(child);
        let mut said = BufReader::new(child.stderr.take().unwrap_or_else(|| panic!("it has no output")));
        let mut all = String::new();
        loop {
            let mut line = String::new();
            let read = said.read_line(&mut line).unwrap_or(0);
            assert!(read > 0, "wanted a NATS server, found that it ended:\n{all}");
            all.push_str(&line);
            if line.contains("Server is ready") {
                break;
            }
        }
        // Whoever reads nothing any more would stop it.
        std::thread::spawn(move || for _line in said.lines() {});
        if self.port == 0 {
            let ports = self.folder.path().join(format!("nats-server_{}.ports", child.id()));
            self.port = wait_for(|| port_in(&ports));
        }
        let port = self.port;
        wait_for(|| TcpStream::connect(("127.0.0.1", port)).ok());
    }

    /// Kills it, as by a crash of its machine's other processes: at once, with nothing written that was not.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Stops it where it is, so that it takes nothing and answers nothing until it is killed.
    ///
    /// # Panics
    /// If that cannot be done.
    pub fn freeze(&self) {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("wanted a running server, found none"));
        let sent = Command::new("kill").args(["-STOP", &child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "wanted to freeze the server, could not");
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// How a store of this name is opened here, with a log that is cut soon.
    #[must_use]
    pub fn options(&self, name: &str) -> NatsOptions {
        let mut options = NatsOptions::new(name);
        options.servers = vec![self.url()];
        options.gather = Duration::from_millis(20);
        options.keep = Duration::from_millis(200);
        options.patience = Duration::from_millis(200);
        options
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The port of the first address that a server has written down.
fn port_in(path: &Path) -> Option<u16> {
    let text = std::fs::read_to_string(path).ok()?;
    // With TLS it says `tls://`.
    let (_, rest) = text.split_once("://127.0.0.1:")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Waits until something is there.
///
/// # Panics
/// If it does not come.
pub fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < SOON, "waited {SOON:?} for what did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}
