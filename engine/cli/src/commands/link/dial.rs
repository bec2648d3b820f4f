//! `ringway link test`: dials as a remote worker does, greets, and asks a few times whether the other end is there. What goes
//! wrong is said with what to do about it.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use clap::Args;
use ringway_access::credentials::CredentialsError;
use ringway_access::handshake::{ClockReading, Introduction, PeerKind};
use ringway_access::{Accepted, Credentials, DialError, Grant, LinkAddress, dial};
use ringway_ipc::clock::{now_ns, unix_ns};
use ringway_link::connection::Preparation;
use ringway_link::driver::{Driver, DriverConfig, Owner};
use ringway_link::fault::Ended;
use ringway_link::{Distance, News};
use ringway_protocol::{WorkerId, limits};
use serde_json::json;

use super::list::offset;
use super::new::host;
use crate::connection::WORKER_NAME;
use crate::failure::Failure;
use crate::output;
use crate::output::words::{nanoseconds, printable};

/// The variable that names the credentials file of a remote worker.
const CREDENTIALS_VARIABLE: &str = "RINGWAY_CREDENTIALS";

/// How long connection and greeting may take.
const DIAL_MAX: Duration = Duration::from_secs(10);
/// How often the other end is asked.
const PING_EVERY: Duration = Duration::from_millis(20);
/// How long it is asked after its first answer.
const ASK_FOR: Duration = Duration::from_millis(400);
/// How long it may take for its first answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    /// `ringway://HOST:PORT`, or a host with or without a port [default: as the credentials say]
    #[arg(id = "link", value_name = "ADDRESS", value_parser = host)]
    address: Option<LinkAddress>,
    /// The file that `ringway link new` wrote [default: `RINGWAY_CREDENTIALS`, else none]
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &TestArguments) -> Result<ExitCode, Failure> {
    let file = arguments.credentials.clone().or_else(|| {
        std::env::var_os(CREDENTIALS_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
    });
    let credentials = match &file {
        Some(file) => read(file)?,
        None => Credentials::default(),
    };
    let address = arguments.address.clone().or_else(|| credentials.address.clone()).ok_or_else(|| {
        Failure::usage("wanted an address to dial, found none here and none in the credentials")
            .hint("`ringway link test HOST:PORT --credentials FILE`")
    })?;
    let me = Introduction {
        kind: PeerKind::Worker,
        id: WorkerId::new(unix_ns() | 1),
        name: WORKER_NAME.to_owned(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let begun = Instant::now();
    let prepare = |socket: &TcpStream| Preparation::default().apply(socket);
    let dialled = dial(&address, &credentials, &me, &clocks, &prepare, begun + DIAL_MAX);
    let dialled = dialled.map_err(|error| explain(&error, &address, &credentials, file.as_deref()))?;
    let took = begun.elapsed();
    let is_encrypted = dialled.tls.is_some();
    let driver = Driver::start(DriverConfig { ping_every: PING_EVERY, ..DriverConfig::default() })?;
    let (ended, over) = mpsc::channel();
    let link = driver.add(dialled.socket.into(), dialled.tls, Arc::new(Ear(ended)));
    let measured = measure(&over, || link.distance());
    link.close();
    let distance = measured.map_err(|why| {
        let failure =
            Failure::error(format_args!("{address} let this end in, and then: {}", printable(&why)));
        failure.hint("its log says why: `RINGWAY_LOG=info ringway up`")
    })?;
    let answer = Answer {
        address,
        accepted: dialled.accepted,
        is_encrypted,
        took,
        distance,
        path: driver.path().as_str(),
    };
    if arguments.json {
        output::json(&answer.json())?;
    } else {
        output::text(&answer.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> Result<Credentials, Failure> {
    Credentials::from_file(file).map_err(|error| match error {
        // It names the file, and what to do.
        CredentialsError::File(error) => Failure::error(error),
        error => {
            let failure = Failure::error(format_args!("{}: {error}", file.display()));
            failure.hint("`ringway link new` writes such files; the engine's own keys are none")
        }
    })
}

fn clocks() -> ClockReading {
    ClockReading { monotonic_ns: now_ns(), unix_ms: unix_ns() / 1_000_000 }
}

/// Hears that the link is over.
struct Ear(Sender<String>);

impl Owner for Ear {
    fn news(&self, _news: News) {}

    fn over(&self, why: &Ended) {
        // Nobody listens any more where this end has closed it.
        let _closed = self.0.send(why.to_string());
    }
}

/// Waits until the other end has answered a number of times.
fn measure(over: &mpsc::Receiver<String>, distance: impl Fn() -> Distance) -> Result<Distance, String> {
    let begun = Instant::now();
    let mut first = None;
    loop {
        match over.recv_timeout(PING_EVERY) {
            Ok(why) => return Err(why),
            Err(RecvTimeoutError::Disconnected) => return Err("the link was let go".to_owned()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let found = distance();
        if found.round_trip_ns > 0 && first.get_or_insert_with(Instant::now).elapsed() >= ASK_FOR {
            return Ok(found);
        }
        if first.is_none() && begun.elapsed() >= ANSWER_MAX {
            return Err(format!("no answer for {} s", ANSWER_MAX.as_secs()));
        }
    }
}

/// What was found out.
struct Answer {
    address: LinkAddress,
    accepted: Accepted,
    is_encrypted: bool,
    took: Duration,
    distance: Distance,
    path: &'static str,
}

impl Answer {
    fn text(&self) -> String {
        let Self { address, accepted, is_encrypted, took, distance, path } = self;
        let (server, grant) = (&accepted.server, &accepted.grant);
        let took = nanoseconds(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let kind = match server.kind {
            PeerKind::Engine => "engine",
            PeerKind::Worker => "worker",
        };
        let mut text = format!("{address} is the {kind} `{}`, release {}\n", server.name, server.release);
        let facts = [
            ("connected in", took),
            ("encrypted", if *is_encrypted { "yes, TLS 1.3" } else { "no" }.to_owned()),
            ("round trip", format!("{}, by {path}", nanoseconds(distance.round_trip_ns))),
            ("its clock", format!("{} to this one's", offset(distance.offset_ns))),
            ("may call", patterns(grant.call.iter().map(ringway_access::grant::Pattern::as_str))),
            ("may offer", patterns(grant.offer.iter().map(ringway_access::grant::Pattern::as_str))),
            ("triggers", patterns(grant.triggers.iter().map(ringway_access::grant::Pattern::as_str))),
            ("namespaces", patterns(grant.namespaces.iter().map(ringway_access::grant::Pattern::as_str))),
        ];
        for (name, value) in facts {
            text.push_str(&format!("  {name:<14}{value}\n"));
        }
        // The other end wrote some of it.
        text.lines().map(|line| printable(line) + "\n").collect()
    }

    fn json(&self) -> serde_json::Value {
        let Self { address, accepted, is_encrypted, took, distance, path } = self;
        let grant: &Grant = &accepted.grant;
        json!({
            "address": address,
            "server": accepted.server,
            "connect_ns": u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            "encrypted": is_encrypted,
            "round_trip_ns": distance.round_trip_ns,
            "offset_ns": distance.offset_ns,
            "path": path,
            "grant": grant,
        })
    }
}

fn patterns<'a>(found: impl Iterator<Item = &'a str>) -> String {
    let found: Vec<&str> = found.collect();
    if found.is_empty() { "nothing".to_owned() } else { found.join(", ") }
}

/// Says what is wrong, and what to do about it.
fn explain(
    error: &DialError,
    address: &LinkAddress,
    credentials: &Credentials,
    file: Option<&Path>,
) -> Failure {
    let text = printable(&error.to_string());
    match error {
        DialError::Refused(refused) => {
            let failure = Failure::with_exit(&text, refused.code.exit_code());
            hint_of_refusal(&text, file).into_iter().fold(failure, Failure::hint)
        }
        DialError::Connect { source, .. } => {
            let exit = if source.kind() == std::io::ErrorKind::TimedOut {
                limits::EXIT_TIMEOUT
            } else {
                limits::EXIT_ERROR
            };
            Failure::with_exit(&text, exit).hint(hint_of_network(source.kind(), address))
        }
        _ => {
            let failure = Failure::error(&text);
            hint_of_greeting(&text, credentials.tls.is_some()).into_iter().fold(failure, Failure::hint)
        }
    }
}

fn hint_of_refusal(text: &str, file: Option<&Path>) -> Option<String> {
    let found = [
        (
            "which is not a loopback address",
            if file.is_some() {
                "the credentials have no token, or no `[tls]`: make new ones with `ringway link new`"
            } else {
                "`--credentials FILE` names the file that `ringway link new` wrote"
            },
        ),
        ("expired", "make a new one with `ringway link new`, or look at the clocks of both hosts"),
        (
            "known issuer",
            "the engine's `links.issuers` has another key than the one that `ringway link new` printed",
        ),
        ("was revoked", "make a new one with `ringway link new`"),
        (
            "found neither",
            if file.is_some() {
                "these credentials hold no token"
            } else {
                "`--credentials FILE` names the file that `ringway link new` wrote"
            },
        ),
        ("handshake with its key", "the token and the key of the credentials were made apart: make new ones"),
    ];
    found.iter().find(|(part, _)| text.contains(part)).map(|(_, hint)| (*hint).to_owned())
}

fn hint_of_network(kind: std::io::ErrorKind, address: &LinkAddress) -> String {
    use std::io::ErrorKind;
    match kind {
        ErrorKind::ConnectionRefused => format!(
            "the host is there and nobody listens at port {}: does the engine run, and does its `links.listen` say so? An \
             engine that listens at 127.0.0.1 is reached from its own host alone",
            address.port()
        ),
        ErrorKind::TimedOut => {
            "nothing came back: is it the right host, and does a firewall let this port through?".to_owned()
        }
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            "there is no way to this host from here".to_owned()
        }
        _ => format!("is `{}` the name of the host?", address.host()),
    }
}

fn hint_of_greeting(text: &str, has_tls: bool) -> Option<&'static str> {
    let found = [
        (
            "BadSignature",
            "its certificate was signed by another authority than the one in the credentials: they were made in another folder, or somebody stands in between",
        ),
        (
            "UnknownIssuer",
            "its certificate was signed by another authority than the one in the credentials: they were made in another folder, or somebody stands in between",
        ),
        (
            "NotValidForName",
            "its certificate is for other hosts: dial the one that `ringway link new --host` named, or make a certificate for this one",
        ),
        (
            "not valid for name",
            "its certificate is for other hosts: dial the one that `ringway link new --host` named, or make a certificate for this one",
        ),
        (
            "ApplicationVerificationFailure",
            "its certificate is not the one that the credentials have under `pin`",
        ),
        (
            "certificate expired",
            "the engine's certificate has expired: move its two files away, and `ringway link new` makes new ones; or the clock here is wrong",
        ),
        (
            "Expired",
            "the engine's certificate has expired: move its two files away, and `ringway link new` makes new ones; or the clock here is wrong",
        ),
        ("CertificateRequired", "the engine wants a certificate of the client"),
        (
            "InvalidContentType",
            "whoever listens there does not speak TLS: is `links.tls` set there, and is it the right port?",
        ),
        (
            "corrupt message",
            "whoever listens there does not speak TLS: is `links.tls` set there, and is it the right port?",
        ),
        (
            "[15, 03",
            "the engine speaks TLS and these credentials have none: `--credentials FILE` names the file that `ringway link new` wrote",
        ),
        ("begin with", "whoever listens there is no engine's link: is it the right port?"),
        ("did not say so", "whoever listens there is no engine's link: is it the right port?"),
        ("deadline", "the connection was taken and nothing was said: is it the right port?"),
    ];
    let hint = found.iter().find(|(part, _)| text.contains(part)).map(|(_, hint)| *hint);
    // An alert of TLS is shorter than the beginning of a challenge.
    if !has_tls && text.contains("in the middle of a challenge") {
        return Some(
            "the engine speaks TLS and these credentials have none: `--credentials FILE` names the file that `ringway link new` wrote",
        );
    }
    let cut = ["eof", "end of file", "closed the connection", "broke", "reset"];
    hint.or_else(|| {
        let was_cut = cut.iter().any(|part| text.to_lowercase().contains(part));
        was_cut.then_some(if has_tls {
            "the other end hung up: perhaps it does not speak TLS, or has too many links; its log says why"
        } else {
            "the other end hung up: perhaps it speaks TLS and these credentials have none; its log says why"
        })
    })
}
