//! What is known of the server and of the other engines, for people: written by the thread with the connection, read by whoever
//! asks. It must not know what engines offer.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use ringway_protocol::WorkerId;

/// Links over NATS at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsStatus {
    /// The servers that were named, without user and password.
    pub servers: String,
    /// The project.
    pub project: String,
    /// The server that it is connected to, by its name and version; none while there is no connection.
    pub server: Option<String>,
    /// Why there is no connection, as far as that is known.
    pub why_not: Option<String>,
    /// The other engines, by their ids.
    pub engines: Vec<EngineStatus>,
}

/// Another engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineStatus {
    /// Its id.
    pub id: WorkerId,
    /// What it is called.
    pub name: String,
    /// Nothing is heard of it.
    pub silent: bool,
    /// There is a link to it.
    pub linked: bool,
}

/// Where the thread writes.
#[derive(Debug)]
pub(crate) struct Board {
    servers: String,
    project: String,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    server: Option<String>,
    /// What was heard of the connection last.
    said: Option<String>,
    engines: BTreeMap<WorkerId, EngineStatus>,
}

impl Board {
    pub(crate) fn new(servers: String, project: String) -> Self {
        Self { servers, project, now: Mutex::default() }
    }

    pub(crate) fn read(&self) -> NatsStatus {
        let now = self.now.lock();
        NatsStatus {
            servers: self.servers.clone(),
            project: self.project.clone(),
            server: now.server.clone(),
            why_not: now.said.clone().filter(|_| now.server.is_none()),
            engines: now.engines.values().cloned().collect(),
        }
    }

    pub(crate) fn connected(&self, server: String) {
        let mut now = self.now.lock();
        (now.server, now.said) = (Some(server), None);
    }

    pub(crate) fn disconnected(&self) {
        let mut now = self.now.lock();
        (now.server, now.said) = (None, Some("the connection ended".to_owned()));
    }

    /// Notes what was said of the connection; false if the same was said before.
    pub(crate) fn said(&self, what: &str) -> bool {
        let mut now = self.now.lock();
        if now.said.as_deref() == Some(what) {
            return false;
        }
        now.said = Some(what.to_owned());
        true
    }

    pub(crate) fn met(&self, id: WorkerId, name: &str) {
        let mut now = self.now.lock();
        let entry = || EngineStatus { id, name: String::new(), silent: false, linked: false };
        let engine = now.engines.entry(id).or_insert_with(entry);
        engine.silent = false;
        if engine.name != name {
            name.clone_into(&mut engine.name);
        }
    }

    pub(crate) fn silent(&self, id: WorkerId, silent: bool) {
        if let Some(engine) = self.now.lock().engines.get_mut(&id) {
            engine.silent = silent;
        }
    }

    pub(crate) fn linked(&self, id: WorkerId, linked: bool) {
        if let Some(engine) = self.now.lock().engines.get_mut(&id) {
            engine.linked = linked;
        }
    }

    pub(crate) fn gone(&self, id: WorkerId) {
        self.now.lock().engines.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_news_once_and_no_reason_while_there_is_a_connection() {
        let board = Board::new("nats://a".to_owned(), "p".to_owned());
        assert!(board.said("refused"));
        assert!(!board.said("refused"));
        assert_eq!(board.read().why_not.as_deref(), Some("refused"));
        board.connected("s".to_owned());
        assert!(board.said("slow") && !board.said("slow"));
        assert_eq!((board.read().server.as_deref(), board.read().why_not), (Some("s"), None));
        board.disconnected();
        assert_eq!(
            (board.read().server, board.read().why_not.as_deref()),
            (None, Some("the connection ended"))
        );
    }

    #[test]
    fn engines_come_fall_silent_and_go() {
        let board = Board::new(String::new(), String::new());
        let id = WorkerId::new(7);
        board.linked(id, true);
        assert!(board.read().engines.is_empty());
        board.met(id, "a");
        board.linked(id, true);
        board.silent(id, true);
        let expected = EngineStatus { id, name: "a".to_owned(), silent: true, linked: true };
        assert_eq!(board.read().engines, [expected]);
        board.met(id, "b");
        assert!(!board.read().engines[0].silent && board.read().engines[0].name == "b");
        board.gone(id);
        assert!(board.read().engines.is_empty());
    }
}
