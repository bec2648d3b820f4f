//! Why the worker did not start, and why a request was refused, in words for whoever sent it. Codes are those that iii's
//! clients know; each function brings its own for what the store says. It must not know how functions are called.

use ringway::{CallError, ErrorCode, Failure};
use ringway_store::StoreError;
use ringway_worker_kit::store_failure;
use serde_json::json;

/// Why the worker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is out of bounds.
    #[error("configuration of the state worker: {0}")]
    Config(String),
    /// The store cannot be read.
    #[error("the state worker cannot read its store: {0}")]
    Store(#[from] StoreError),
    /// The engine did not take the worker.
    #[error("the state worker cannot attach: {0}")]
    Engine(#[from] CallError),
    /// The system gave no thread.
    #[error("the state worker cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(
        "operation {number}: key `{key}` in scope `{scope}` is at revision {found}, {wanted} was wanted: read it again \
         and decide anew"
    )]
    Revision { number: usize, scope: String, key: String, wanted: u64, found: u64 },
    #[error(
        "the value has {found} bytes, at most {max} are taken (value_bytes_max): keep it elsewhere, and its address here"
    )]
    TooLarge { found: u64, max: u64 },
    #[error("the value cannot be kept: {0}")]
    Value(#[from] ringway_worker_kit::text::Unreadable),
    #[error("the value is raw bytes, update operations are for JSON: set it as a whole")]
    Binary,
    #[error("{0}")]
    Unreadable(String),
    #[error(
        "{waiting} events wait for functions of `state` triggers, at most {max} may (outbox_entries_max); the oldest is \
         for {oldest}: bring that function back; what it does not take is set aside after {retention_ms} ms \
         (retention_ms)"
    )]
    OutboxFull { waiting: usize, max: usize, oldest: String, retention_ms: u64 },
    #[error(
        "others changed the same keys {0} times before this request could: send fewer such requests at once"
    )]
    Contended(usize),
    #[error("the state worker is leaving: call again when it is back")]
    Leaving,
    #[error(transparent)]
    Store(StoreError),
}

impl WriteError {
    /// As the caller will see it; `code` is that of the function for what has none of its own.
    pub(crate) fn into_failure(self, code: &str) -> Failure {
        let message = self.to_string();
        match self {
            Self::Revision { number, scope, key, wanted, found } => {
                let details = json!({
                    "op_index": number, "scope": scope, "key": key, "wanted": wanted, "found": found,
                });
                CallError::new(ErrorCode::HandlerError, message)
                    .with_user_code("REVISION_MISMATCH")
                    .with_details(details)
                    .into()
            }
            Self::TooLarge { .. } => Failure::with_code("VALUE_TOO_LARGE", message),
            Self::Store(error) => store_failure(code, &error),
            _ => Failure::with_code(code, message),
        }
    }
}
