//! Why a store on NATS could not be opened, in words for whoever runs the engine: what was wanted, what was found, what to
//! do.

use crate::access::SettingError;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The name cannot be that of a stream and a bucket.
    #[error(
        "wanted a name of 1 to {max} letters, digits, `-` or `_`, found `{found}`: name the store as \
         `engine.store.name`"
    )]
    Name {
        /// The name.
        found: String,
        /// How long it may be.
        max: usize,
    },
    /// An address of a server, a file of credentials or a certificate cannot be used.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// No server answers.
    #[error(
        "wanted a NATS server at {servers}, found: {reason}; start one (`nats-server --jetstream`), or name another as \
         `engine.store.servers`"
    )]
    Connect {
        /// Where one was looked for.
        servers: String,
        /// What happened.
        reason: String,
    },
    /// The server is too old.
    #[error("wanted NATS {wanted} or later at {servers}, found {found}: update the server")]
    Version {
        /// Where it is.
        servers: String,
        /// The oldest version that is used.
        wanted: String,
        /// Its version.
        found: String,
    },
    /// The server does not let this account use `JetStream`.
    #[error(
        "wanted JetStream at {servers}, found: {reason}; start the server with `--jetstream`, and enable it for this \
         account"
    )]
    JetStream {
        /// Where it is.
        servers: String,
        /// What it said.
        reason: String,
    },
    /// The server takes shorter messages than a part of a value.
    #[error(
        "wanted a server that takes messages of {wanted} bytes, found {found}: set its `max_payload` to 1MB"
    )]
    Payload {
        /// What is needed.
        wanted: usize,
        /// What it takes.
        found: usize,
    },
    /// A stream of that name is there, and would lose or refuse what is written to it.
    #[error(
        "the stream {stream} has {found}, wanted {wanted}: give the store another name, or mend the stream"
    )]
    Stream {
        /// Its name.
        stream: String,
        /// What is wrong with it.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// Another engine has the store.
    #[error(
        "{place} is in use by {holder}: stop that engine, or give this one another name (`engine.store.name`)"
    )]
    Locked {
        /// What is in use.
        place: String,
        /// Who has it, as it wrote itself down.
        holder: String,
    },
    /// The server did something else while the store was opened.
    #[error("{place} cannot be opened: {reason}")]
    Server {
        /// What was opened.
        place: String,
        /// What was found.
        reason: String,
    },
    /// The system gave no thread.
    #[error("the store's thread cannot be started: {0}")]
    Thread(std::io::Error),
}
