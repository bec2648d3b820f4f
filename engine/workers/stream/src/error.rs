//! Why the worker did not start, and why a request was refused, in words for whoever sent it. Codes are those that iii's
//! clients know; each function brings its own for what the store says. It must not know how functions are called.

use ringway::{CallError, ErrorCode, Failure};
use ringway_store::StoreError;
use ringway_worker_kit::store_failure;
use serde_json::json;

use crate::place::Place;
use crate::record::Unreadable;

/// Why the worker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is out of bounds.
    #[error("configuration of the stream worker: {0}")]
    Config(String),
    /// The store cannot be read.
    #[error("the stream worker cannot read its store: {0}")]
    Store(String),
    /// The engine did not take the worker.
    #[error("the stream worker cannot attach: {0}")]
    Engine(#[from] CallError),
    /// The system gave no thread.
    #[error("the stream worker cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<Refusal> for StartError {
    fn from(refusal: Refusal) -> Self {
        Self::Store(refusal.to_string())
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "item `{item}` of group `{group}` is at version {found}, {wanted} was wanted (0 is for absent): read it again and \
         decide anew"
    )]
    Version { group: String, item: String, wanted: u64, found: u64 },
    #[error(
        "the value has {found} bytes, at most {max} are taken (value_bytes_max): keep it elsewhere, and its address here"
    )]
    TooLarge { found: u64, max: u64 },
    #[error("the value cannot be kept: {0}")]
    Value(#[from] ringway_worker_kit::text::Unreadable),
    #[error(
        "group `{group}` would have {found} {what}, at most {max} are taken ({setting}): delete some, give them a time to \
         live, or allow more"
    )]
    Full { group: String, what: &'static str, found: u64, max: u64, setting: &'static str },
    #[error(
        "{waiting} entries of group `{group}` are kept for triggers whose functions do not take them, no more are \
         (backlog_max is {max}): bring the function back, or remove its trigger"
    )]
    Backlog { group: String, waiting: u64, max: u64 },
    #[error("{what} cannot be read: {error}")]
    Unreadable { what: String, error: Unreadable },
    #[error("{0}")]
    Name(String),
    #[error(
        "commits of this group failed {0} times under this request: look at the disk and at the engine's log"
    )]
    Contended(usize),
    #[error("the stream worker is leaving: call again when it is back")]
    Leaving,
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Refusal {
    pub(crate) fn item(place: &Place, item: &str, error: Unreadable) -> Self {
        let (stream, group) = (&place.stream, &place.group);
        let what = format!("item `{item}` in group `{group}` of stream `{stream}`");
        Self::Unreadable { what, error }
    }

    pub(crate) fn of(place: &Place, what: &str, error: Unreadable) -> Self {
        let (stream, group) = (&place.stream, &place.group);
        Self::Unreadable { what: format!("{what} of group `{group}` of stream `{stream}`"), error }
    }

    /// As the caller will see it; `code` is that of the function for what has none of its own.
    pub(crate) fn into_failure(self, code: &str) -> Failure {
        let message = self.to_string();
        let own = |code: &str| CallError::new(ErrorCode::HandlerError, message.clone()).with_user_code(code);
        match self {
            Self::Version { group, item, wanted, found } => own("VERSION_MISMATCH")
                .with_details(json!({"group_id": group, "item_id": item, "wanted": wanted, "found": found}))
                .into(),
            Self::TooLarge { .. } => own("VALUE_TOO_LARGE").into(),
            Self::Full { found, max, setting, .. } => {
                own("GROUP_FULL").with_details(json!({"found": found, "max": max, "setting": setting})).into()
            }
            Self::Backlog { .. } => own("BACKLOG_FULL").into(),
            Self::Store(error) => store_failure(code, &error),
            _ => Failure::with_code(code, message),
        }
    }
}
