//! Calls of functions from the threads that read and write, which must not be held up. It must not know what is called.

use std::time::Duration;

use ringway::{CallError, CallOptions, Encoding, ErrorCode, Handle, Message, StreamCall, Worker};

/// A message of JSON, written where the function will read it.
pub(crate) fn message(worker: &Worker, text: &[u8]) -> Message {
    /// Less than this travels with the call itself.
    const INLINE_BYTES: usize = 192;
    if text.len() > INLINE_BYTES
        && let Ok(mut loan) = worker.loan(text.len())
    {
        loan.copy_from_slice(text);
        return Message::from_loan(Encoding::Json, loan);
    }
    Message::new(Encoding::Json, text)
}

/// Calls and waits for the answer; dropped, it gives the call up. Where nobody serves the function yet, the engine is asked,
/// on a thread that may wait.
pub(crate) async fn call(
    handle: &Handle,
    message: &Message,
    options: &CallOptions,
) -> Result<Message, CallError> {
    if handle.replicas() > 0 {
        return handle.call_async_with(message, options).await;
    }
    let (handle, message, options) = (handle.clone(), message.clone(), options.clone());
    waiting(move || handle.start(&message, &options)).await?.await
}

/// Begins a call with streams.
pub(crate) async fn stream(
    handle: &Handle,
    message: Message,
    options: CallOptions,
) -> Result<StreamCall, CallError> {
    if handle.replicas() > 0 {
        return handle.stream(&message, &options);
    }
    let handle = handle.clone();
    waiting(move || handle.stream(&message, &options)).await
}

/// Whether a function has streams of which the catalog has only just heard, perhaps; none if it has not.
pub(crate) async fn awaited(handle: &Handle, worker: &Worker) -> Option<(bool, bool)> {
    /// How long the news of a function may be on its way.
    const NEWS_MAX: Duration = Duration::from_millis(50);
    let (waiter, id) = (worker.clone(), handle.id().to_owned());
    let waited = tokio::task::spawn_blocking(move || waiter.wait_for(&id, NEWS_MAX).is_ok());
    if waited.await.unwrap_or(false) { handle.streams() } else { None }
}

async fn waiting<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CallError> + Send + 'static,
) -> Result<T, CallError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(CallError::new(ErrorCode::Cancelled, error.to_string())))
}
