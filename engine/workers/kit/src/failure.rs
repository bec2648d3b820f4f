//! What a caller hears when the store refuses. It must not know what was to be stored.

use ringway::{CallError, ErrorCode, Failure};
use ringway_store::StoreError;

/// An error with the worker's own code for what failed, such as `SET_ERROR`; the text is the store's, which says what was
/// wanted, what was found and what to do. A full queue is `busy`, since trying again helps.
#[must_use]
pub fn store_failure(code: &str, error: &StoreError) -> Failure {
    let kind = match error {
        StoreError::Busy { .. } => ErrorCode::Busy,
        StoreError::TooLarge { .. } => ErrorCode::PayloadTooLarge,
        _ => ErrorCode::HandlerError,
    };
    Failure::from(CallError::new(kind, error.to_string()).with_user_code(code))
}
