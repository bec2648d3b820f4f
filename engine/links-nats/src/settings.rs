//! What links over NATS are told. Filled by whoever runs an engine. It must not know a settings file.

use std::time::Duration;

use ringway_store_nats::access::all_told;
use ringway_store_nats::options::SERVER;
use ringway_store_nats::{Identity, Tls};

use crate::limits::IDLE_MAX;

/// See the module.
#[derive(Clone)]
pub struct NatsSettings {
    /// Addresses of servers of one cluster.
    pub servers: Vec<String>,
    /// Engines of one project see each other: 1 to 64 letters, digits, `-` or `_`.
    pub project: String,
    /// What this engine is called, for people.
    pub name: String,
    /// Who we are.
    pub identity: Identity,
    /// How the connection is kept from others.
    pub tls: Tls,
    /// What other engines are told of, and may call: patterns of functions of this engine. Empty: nothing.
    pub offer: Vec<String>,
    /// What of theirs may be called from here: patterns of functions. Empty: nothing.
    pub call: Vec<String>,
    /// How long a link may carry no channel before it is closed; the next call opens another.
    pub idle_max: Duration,
}

impl NatsSettings {
    /// As they are for a project with a server on this machine, where everything is offered and may be called.
    #[must_use]
    pub fn new(project: &str, name: &str) -> Self {
        Self {
            servers: vec![SERVER.to_owned()],
            project: project.to_owned(),
            name: name.to_owned(),
            identity: Identity::Nobody,
            tls: Tls::default(),
            offer: vec!["*".to_owned()],
            call: vec!["*".to_owned()],
            idle_max: IDLE_MAX,
        }
    }

    /// The servers in words, without user and password.
    #[must_use]
    pub fn servers_told(&self) -> String {
        all_told(&self.servers)
    }
}

impl std::fmt::Debug for NatsSettings {
    /// Without what addresses may say of user and password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { servers: _, project, name, identity, tls, offer, call, idle_max } = self;
        f.debug_struct("NatsSettings")
            .field("servers", &self.servers_told())
            .field("project", project)
            .field("name", name)
            .field("identity", identity)
            .field("tls", tls)
            .field("offer", offer)
            .field("call", call)
            .field("idle_max", idle_max)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_told() {
        let mut settings = NatsSettings::new("p", "n");
        settings.servers = vec!["nats://me:secret@host:1".to_owned(), "u:secret@third".to_owned()];
        assert_eq!(settings.servers_told(), "nats://host:1, nats://third");
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
