//! The ways a call, a registration or an attach can end badly. Every SDK, the command line and the
//! engine's faces show these codes under the same names; each has a page `docs/errors/CODE.md`. It must
//! not know who raised an error or how it travelled.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::WorkerId;
use crate::limits;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $status:literal, $text:literal;)+) => {
        /// What went wrong, in one stable word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant = $status,)+
        }

        impl ErrorCode {
            /// Every code, in the order of their status numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the stable name of the code.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Returns the code of a reply's status number; none for 0 (success) and for numbers that a
            /// newer peer may send.
            #[must_use]
            pub const fn from_status(status: u32) -> Option<Self> {
                match status { $($status => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

codes! {
    /// No such function, worker, trigger or trace.
    NotFound = 1, "not_found";
    /// The handle names an earlier registration of the function; resolve it again.
    StaleHandle = 2, "stale_handle";
    /// The caller may not call this function.
    Forbidden = 3, "forbidden";
    /// The deadline passed before the reply came.
    DeadlineExceeded = 4, "deadline_exceeded";
    /// The caller gave the call up.
    Cancelled = 5, "cancelled";
    /// The callee's process ended, or its channel closed, before it replied.
    WorkerGone = 6, "worker_gone";
    /// A queue is full: the ring, the callee's pool, or the caller's table of calls in flight.
    Busy = 7, "busy";
    /// The handler returned an error of its own.
    HandlerError = 8, "handler_error";
    /// The handler panicked; the worker lives on.
    HandlerPanicked = 9, "handler_panicked";
    /// The request could not be decoded or does not fit what the function takes.
    InvalidRequest = 10, "invalid_request";
    /// The callee does not take, or the caller cannot read, this encoding.
    UnsupportedEncoding = 11, "unsupported_encoding";
    /// The payload is larger than a limit allows.
    PayloadTooLarge = 12, "payload_too_large";
    /// The arena has reached its limit, or the system gave no more memory.
    OutOfMemory = 13, "out_of_memory";
    /// A peer sent something that the protocol does not allow; the channel was closed.
    ProtocolViolation = 14, "protocol_violation";
    /// No engine answers at the control address.
    EngineUnavailable = 15, "engine_unavailable";
    /// Another worker holds this id, and one of the two wants it alone.
    RegistrationConflict = 16, "registration_conflict";
    /// The registration itself is wrong: id, index, schema or a limit.
    InvalidRegistration = 17, "invalid_registration";
    /// The worker is finishing its work and takes no new calls.
    Draining = 18, "draining";
    /// The two sides speak different versions of the protocol.
    IncompatibleVersion = 19, "incompatible_version";
    /// The other end closed the stream.
    StreamClosed = 20, "stream_closed";
}

/// The status number of a reply that is no error.
pub const STATUS_OK: u32 = 0;

impl ErrorCode {
    /// Returns the status number that a reply frame carries for this code.
    #[must_use]
    pub const fn status(self) -> u32 {
        self as u32
    }

    /// Returns the exit code of the command line: 1 error, 2 usage, 3 not found, 4 refused, 124 timeout.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::NotFound => limits::EXIT_NOT_FOUND,
            Self::InvalidRequest | Self::InvalidRegistration => limits::EXIT_USAGE,
            Self::Forbidden => limits::EXIT_REFUSED,
            Self::DeadlineExceeded => limits::EXIT_TIMEOUT,
            _ => limits::EXIT_ERROR,
        }
    }

    /// Says whether the same call may succeed a little later without any change by the caller.
    /// Whether the work may have been done already is another question: see [`CallError::started`].
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::StaleHandle | Self::WorkerGone | Self::Busy | Self::EngineUnavailable | Self::Draining
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted an error code such as `not_found`, found `{found}`")]
pub struct ParseErrorCodeError {
    /// The text that was found.
    pub found: String,
}

impl FromStr for ErrorCode {
    type Err = ParseErrorCodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let code = Self::ALL.iter().copied().find(|code| code.as_str() == text);
        code.ok_or_else(|| ParseErrorCodeError { found: text.to_owned() })
    }
}

/// Whether the callee may have begun the work of a call that ended with `worker_gone`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Started {
    /// The handler never ran: the call may be sent to another replica.
    No,
    /// The handler may have run, in part or wholly: repeat only what is idempotent.
    Maybe,
}

/// How a call, a registration or an attach failed. The same fields in every language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub struct CallError {
    /// What went wrong, in one stable word.
    pub code: ErrorCode,
    /// What was wanted, what was found, what to do.
    #[serde(default)]
    pub message: String,
    /// The function that was called, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The handler's own code, for `handler_error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_code: Option<String>,
    /// Anything that a program may want to read: the handler's own, or ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Value>>,
    /// Whether the callee may have begun, for `worker_gone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Started>,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.as_str())?;
        if let Some(code) = &self.user_code {
            write!(f, " ({code})")?;
        }
        if let Some(function) = &self.function {
            write!(f, " from `{function}`")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        match self.started {
            Some(Started::No) => f.write_str(" (the callee never started it)"),
            Some(Started::Maybe) => f.write_str(" (the callee may have started it)"),
            None => Ok(()),
        }
    }
}

impl CallError {
    /// Makes an error of a code and a message.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), function: None, user_code: None, details: None, started: None }
    }

    /// Adds the function that was called, unless one is named already: the innermost name is the useful one.
    #[must_use]
    pub fn with_function(mut self, function: impl Into<String>) -> Self {
        self.function.get_or_insert_with(|| function.into());
        self
    }

    /// Adds details for programs to read.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// Adds the handler's own code.
    #[must_use]
    pub fn with_user_code(mut self, code: impl Into<String>) -> Self {
        self.user_code = Some(code.into());
        self
    }

    /// Says that no worker offers the function.
    #[must_use]
    pub fn function_not_found(function: &str) -> Self {
        let message =
            format!("no worker offers `{function}`; see `ringway functions`, or start the worker that does");
        Self::new(ErrorCode::NotFound, message).with_function(function)
    }

    /// Says that some other named thing does not exist.
    #[must_use]
    pub fn not_found(what: &str, name: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("no {what} `{name}` is known"))
    }

    /// Says that a handle is older than the function's registration.
    #[must_use]
    pub fn stale_handle(wanted: u16, found: u16) -> Self {
        let message = format!(
            "the handle is for registration {wanted}, the worker now has registration {found}; resolve the function again"
        );
        Self::new(ErrorCode::StaleHandle, message)
    }

    /// Says that a caller may not call a function.
    #[must_use]
    pub fn forbidden(function: &str, caller: &str) -> Self {
        let message =
            format!("`{caller}` may not call `{function}`; allow it by a rule in the engine's policy");
        Self::new(ErrorCode::Forbidden, message).with_function(function)
    }

    /// Says that the deadline passed.
    #[must_use]
    pub fn deadline_exceeded(timeout: Duration) -> Self {
        let message = format!(
            "no reply within {timeout:?}; allow more time, or look where it went in `ringway traces`"
        );
        Self::new(ErrorCode::DeadlineExceeded, message)
    }

    /// Says that the caller gave up.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(ErrorCode::Cancelled, "the caller gave the call up")
    }

    /// Says that the callee went away.
    #[must_use]
    pub fn worker_gone(worker: WorkerId, started: Started) -> Self {
        let mut error = Self::new(ErrorCode::WorkerGone, format!("worker {worker} ended before it replied"));
        error.started = Some(started);
        error
    }

    /// Says that a queue with a limit is full.
    #[must_use]
    pub fn busy(queue: &str, limit: u64) -> Self {
        let message = format!("{queue} is full at its limit of {limit}; send slower, or raise the limit");
        Self::new(ErrorCode::Busy, message)
    }

    /// Wraps a handler's own error.
    #[must_use]
    pub fn handler(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::HandlerError, message)
    }

    /// Says that a handler panicked, with the panic's own message.
    #[must_use]
    pub fn handler_panicked(message: &str) -> Self {
        Self::new(ErrorCode::HandlerPanicked, format!("the handler panicked: {message}"))
    }

    /// Says where a request could not be understood.
    #[must_use]
    pub fn invalid_request(place: &str, problem: impl fmt::Display) -> Self {
        let message = format!("cannot read the request at {place}: {problem}");
        let details = serde_json::json!({ "where": place });
        Self::new(ErrorCode::InvalidRequest, message).with_details(details)
    }

    /// Says that two sides share no encoding.
    #[must_use]
    pub fn unsupported_encoding(found: &str, accepted: &[&str]) -> Self {
        let message = format!("cannot take encoding `{found}`; this function takes {}", accepted.join(", "));
        Self::new(ErrorCode::UnsupportedEncoding, message)
    }

    /// Says that a payload is too large.
    #[must_use]
    pub fn payload_too_large(limit_name: &str, limit: u64, found: u64) -> Self {
        let message = format!("the payload has {found} bytes, {limit_name} allows {limit}");
        let details = serde_json::json!({ "limit": limit_name, "allowed": limit, "found": found });
        Self::new(ErrorCode::PayloadTooLarge, message).with_details(details)
    }

    /// Says that no memory was to be had.
    #[must_use]
    pub fn out_of_memory(problem: impl fmt::Display) -> Self {
        Self::new(
            ErrorCode::OutOfMemory,
            format!(
                "no memory for the payload: {problem}; drop views that are no longer needed, or raise the limit"
            ),
        )
    }

    /// Says that a peer broke the protocol.
    #[must_use]
    pub fn protocol_violation(problem: impl fmt::Display) -> Self {
        Self::new(
            ErrorCode::ProtocolViolation,
            format!("the peer broke the protocol: {problem}; its channel was closed"),
        )
    }

    /// Says that no engine answers.
    #[must_use]
    pub fn engine_unavailable(address: &str, problem: impl fmt::Display) -> Self {
        let message = format!(
            "no engine answers at `{address}` ({problem}); start one with `ringway up`, or set RINGWAY_SOCKET"
        );
        Self::new(ErrorCode::EngineUnavailable, message)
    }

    /// Says that an id is taken.
    #[must_use]
    pub fn registration_conflict(id: &str, holder: &str) -> Self {
        let message = format!(
            "`{id}` is held by `{holder}` and one of the two wants it alone; choose another id, or let both be replicas"
        );
        Self::new(ErrorCode::RegistrationConflict, message)
    }

    /// Says what is wrong with a registration.
    #[must_use]
    pub fn invalid_registration(problem: impl fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidRegistration, problem.to_string())
    }

    /// Says that a worker takes no new calls.
    #[must_use]
    pub fn draining(worker: &str) -> Self {
        Self::new(
            ErrorCode::Draining,
            format!("`{worker}` is finishing its work and takes no new calls; try again"),
        )
    }

    /// Says that versions differ.
    #[must_use]
    pub fn incompatible_version(wanted: u32, found: u32) -> Self {
        let message = format!(
            "wanted protocol version {wanted}, found {found}; use the same release of the engine and the SDK"
        );
        Self::new(ErrorCode::IncompatibleVersion, message)
    }

    /// Says that a stream's other end closed it.
    #[must_use]
    pub fn stream_closed() -> Self {
        Self::new(ErrorCode::StreamClosed, "the other end closed the stream")
    }

    /// Writes the body of an error frame.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads an error frame. The status decides the code; a body that cannot be read costs only the message,
    /// since a peer's bad body must not hide that the call failed.
    #[must_use]
    pub fn from_wire(status: u32, body: &[u8]) -> Self {
        let code = ErrorCode::from_status(status);
        match (serde_json::from_slice::<Self>(body), code) {
            (Ok(error), None) => error,
            (Ok(mut error), Some(code)) => {
                error.code = code;
                error
            }
            (Err(_), Some(code)) => Self::new(code, ""),
            (Err(_), None) => Self::new(
                ErrorCode::ProtocolViolation,
                format!("found the unknown status {status} in a reply"),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
