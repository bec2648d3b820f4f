//! What a store on NATS is told: where the server is, who we are, under which name things are kept. Filled by whoever runs
//! an engine. It must not know a settings file.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::access::all_told;

/// Where the server is when none is named.
pub const SERVER: &str = "nats://127.0.0.1:4222";

/// How we say who we are.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Identity {
    /// Not at all, or as the address says.
    #[default]
    Nobody,
    /// A file of credentials, as `nsc` writes it.
    Credentials(PathBuf),
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Token(String),
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("Nobody"),
            Self::Credentials(path) => f.debug_tuple("Credentials").field(path).finish(),
            Self::Password { user, .. } => {
                f.debug_struct("Password").field("user", user).finish_non_exhaustive()
            }
            Self::Token(_) => f.debug_struct("Token").finish_non_exhaustive(),
        }
    }
}

/// How the connection is kept from others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// No server without TLS.
    pub required: bool,
    /// Certificates of those who sign the server's, beside those that the system trusts.
    pub roots: Option<PathBuf>,
    /// A certificate of ours, and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// How a store uses its server.
#[derive(Clone)]
pub struct NatsOptions {
    /// Addresses of servers of one cluster.
    pub servers: Vec<String>,
    /// What the names of stream, bucket and subjects are made of.
    pub name: String,
    /// Who we are.
    pub identity: Identity,
    /// How the connection is kept from others.
    pub tls: Tls,
    /// On how many servers of a cluster everything is.
    pub replicas: usize,
    /// How long commits wait for a server that is away before they are refused.
    pub patience: Duration,
    /// How long changes are gathered before the bucket gets them.
    pub gather: Duration,
    /// How long the log keeps what the bucket has: longer than the server takes to sync (`sync_interval`, two minutes
    /// unless it is set), so that a server that loses power has it in one place or the other.
    pub keep: Duration,
    /// Batches that may wait.
    pub waiting_max: usize,
}

impl fmt::Debug for NatsOptions {
    /// Without what addresses may say of user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { servers: _, name, identity, tls, replicas, patience, gather, keep, waiting_max } = self;
        f.debug_struct("NatsOptions")
            .field("servers", &all_told(&self.servers))
            .field("name", name)
            .field("identity", identity)
            .field("tls", tls)
            .field("replicas", replicas)
            .field("patience", patience)
            .field("gather", gather)
            .field("keep", keep)
            .field("waiting_max", waiting_max)
            .finish()
    }
}

impl NatsOptions {
    /// As they are for a store of this name, at a server of this machine.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            servers: vec![SERVER.to_owned()],
            name: name.to_owned(),
            identity: Identity::Nobody,
            tls: Tls::default(),
            replicas: 1,
            patience: Duration::from_secs(5),
            gather: Duration::from_millis(500),
            keep: Duration::from_secs(300),
            waiting_max: ringway_store::limits::WAITING_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_told() {
        let mut options = NatsOptions::new("x");
        options.servers =
            vec!["nats://me:secret@host:1".to_owned(), "tls://other".to_owned(), "u:p@third".to_owned()];
        assert_eq!(all_told(&options.servers), "nats://host:1, tls://other, nats://third");
        let password = Identity::Password { user: "me".to_owned(), password: "secret".to_owned() };
        let all = format!("{options:?}");
        assert!(all.contains("third"), "{all}");
        for told in [all, format!("{password:?}"), format!("{:?}", Identity::Token("secret".to_owned()))] {
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
