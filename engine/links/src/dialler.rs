//! Dials another engine, and again whenever the link is over. One thread for each. Used by [`crate::links`]. It must not know
//! what links are for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use ringway_access::handshake::{Introduction, PeerKind};
use ringway_access::{Credentials, Dialled, Grant, dial};
use ringway_link::connection::Preparation;

use ringway_protocol::WorkerId;

use crate::door::clocks;
use crate::gateway::{Arrival, Command, Shared};
use crate::limits;
use crate::settings::PeerSettings;
use crate::watch::random;

/// How often a wait looks whether all is to end.
const STEP: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Dialler {
    pub(crate) settings: PeerSettings,
    pub(crate) credentials: Credentials,
    pub(crate) connection: Preparation,
    pub(crate) me: Introduction,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Dialler {
    /// Runs until it is told to stop.
    pub(crate) fn run(self) {
        let mut pause = limits::PAUSE_MIN;
        let mut told = String::new();
        let mut engine = None;
        while !self.stop.load(Ordering::Acquire) {
            // It may have dialled this one meanwhile, and one link is enough.
            if engine.is_some_and(|engine| self.is_linked(engine)) {
                std::thread::sleep(STEP);
                continue;
            }
            let begun = Instant::now();
            match dial(
                &self.settings.address,
                &self.credentials,
                &self.me,
                &clocks,
                &|socket| self.connection.apply(socket),
                begun + limits::HANDSHAKE_MAX,
            ) {
                Ok(dialled) => {
                    told.clear();
                    engine = Some(dialled.accepted.server.id);
                    self.link(dialled);
                    if begun.elapsed() > limits::PAUSE_MAX {
                        pause = limits::PAUSE_MIN;
                    }
                    self.rest(Instant::now(), pause);
                }
                Err(error) => {
                    let text = error.to_string();
                    // The same is said once.
                    if text == told {
                        tracing::debug!(address = %self.settings.address, error = text, "still no link");
                    } else {
                        tracing::warn!(address = %self.settings.address, error = text, "no link to another engine; trying again");
                        told = text;
                    }
                    // One that waited for long has had its pause.
                    self.rest(begun, pause);
                }
            }
            pause = (pause * 2).min(limits::PAUSE_MAX);
        }
    }

    fn is_linked(&self, engine: WorkerId) -> bool {
        self.shared.known.lock().values().any(|known| known.is_engine && known.id == engine)
    }

    /// Hands the link over and waits for its end.
    fn link(&self, dialled: Dialled) {
        let Dialled { socket, tls, accepted, .. } = dialled;
        let host = match socket.peer_addr() {
            Ok(host) => host,
            Err(error) => return tracing::debug!(%error, "the link was cut at once"),
        };
        if accepted.server.kind != PeerKind::Engine {
            return tracing::warn!(address = %self.settings.address, "there is no engine at the other end");
        }
        // What this engine offers is what the other one may call here, and the other way round.
        let mut grant = Grant::default().with_namespaces(&["*"]);
        for pattern in &self.settings.offer {
            grant = grant.with_call(pattern);
        }
        for pattern in &self.settings.call {
            grant = grant.with_offer(pattern);
        }
        let (over, ended) = sync_channel(0);
        self.shared.tell(Command::Arrived(Box::new(Arrival {
            socket: socket.into(),
            tls: tls.map(Box::new),
            introduction: accepted.server,
            identity: None,
            grant,
            expires_s: None,
            host,
            over: Some(over),
        })));
        while !self.stop.load(Ordering::Acquire) {
            match ended.recv_timeout(STEP) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Waits since then a quarter more or less than told, so that many who lost the same engine do not come back at once.
    fn rest(&self, since: Instant, pause: Duration) {
        let share = 750 + u32::try_from(random() % 500).unwrap_or(0);
        let until = since + pause * share / 1000;
        while !self.stop.load(Ordering::Acquire) && Instant::now() < until {
            std::thread::sleep(STEP.min(until.saturating_duration_since(Instant::now())));
        }
    }
}
