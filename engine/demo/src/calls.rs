//! Calling the demo's functions without knowing what carries the call, so that one handler serves both the rings and
//! the Unix sockets it is compared with. Requests and replies are JSON, written where they are read. Used by the
//! workers and by the process that starts them. It must not know any function.

use std::io::{self, Cursor, Write};

use ringway::{CallError, Encoding, ErrorCode, Failure, HandlerResult, Message, Worker};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that fit a slot beside up to two descriptors of attachments; more lie in a block.
const SMALL_BYTES: usize = 128;
/// The first guess at how long a JSON text is that did not fit a slot.
const GUESS_BYTES: usize = 16 << 10;

/// A value that can write itself as JSON, whatever its type.
pub trait WriteJson {
    /// Writes the text.
    ///
    /// # Errors
    /// When the writer is full, or the value has no JSON form.
    fn write_json(&self, to: &mut dyn Write) -> serde_json::Result<()>;
}

impl<T: Serialize> WriteJson for T {
    fn write_json(&self, to: &mut dyn Write) -> serde_json::Result<()> {
        serde_json::to_writer(to, self)
    }
}

/// Takes the replies of [`Calls::all`]: the request's place, and the JSON text or why there is none.
pub type TakeReply<'a> = &'a mut dyn FnMut(usize, Result<&[u8], CallError>);

/// A way to call functions.
pub trait Calls {
    /// Calls a function once for each request, all at the same time, and gives each reply to `take` in order.
    fn all(&self, function: &str, requests: &[&dyn WriteJson], take: TakeReply<'_>);
}

/// Calls a function once.
///
/// # Errors
/// How the call ended otherwise, or what is wrong with its reply.
pub fn ask<Reply: DeserializeOwned>(
    calls: &dyn Calls,
    function: &str,
    request: &impl Serialize,
) -> HandlerResult<Reply> {
    let mut reply = Err(Failure::new("no reply was taken"));
    calls.all(function, &[request], &mut |_, text| reply = read(function, text));
    reply
}

/// Calls a function once for each request, all at the same time.
pub fn ask_all<Request: Serialize, Reply: DeserializeOwned>(
    calls: &dyn Calls,
    function: &str,
    requests: &[Request],
) -> Vec<HandlerResult<Reply>> {
    let mut replies = Vec::with_capacity(requests.len());
    let requests: Vec<&dyn WriteJson> = requests.iter().map(|request| request as &dyn WriteJson).collect();
    calls.all(function, &requests, &mut |_, text| replies.push(read(function, text)));
    replies
}

fn read<Reply: DeserializeOwned>(function: &str, text: Result<&[u8], CallError>) -> HandlerResult<Reply> {
    Ok(parse(text.map_err(Failure::from)?).map_err(|error| error.with_function(function))?)
}

/// Reads a JSON text.
///
/// # Errors
/// `invalid_request` where it does not fit the type.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(text)
        .map_err(|error| CallError::new(ErrorCode::InvalidRequest, format!("the JSON does not fit: {error}")))
}

/// Writes a value as JSON into a message: inside the slot where it fits, straight into a loan otherwise.
///
/// # Errors
/// `out_of_memory`, or `invalid_request` when the value has no JSON form.
pub fn json_message(worker: &Worker, value: &dyn WriteJson) -> Result<Message, CallError> {
    let mut small = [0; SMALL_BYTES];
    if let Some(length) = write_into(&mut small, value)? {
        return Ok(Message::new(Encoding::Json, &small[..length]));
    }
    let mut bytes = GUESS_BYTES;
    loop {
        let mut loan = worker.loan(bytes)?;
        if let Some(length) = write_into(&mut loan, value)? {
            loan.set_len(length);
            return Ok(Message::from_loan(Encoding::Json, loan));
        }
        bytes *= 4;
    }
}

/// Returns the length of the text, or nothing where the buffer is too small.
fn write_into(buffer: &mut [u8], value: &dyn WriteJson) -> Result<Option<usize>, CallError> {
    let mut to = Cursor::new(buffer);
    match value.write_json(&mut to) {
        Ok(()) => Ok(usize::try_from(to.position()).ok()),
        Err(error) if error.io_error_kind() == Some(io::ErrorKind::WriteZero) => Ok(None),
        Err(error) => Err(CallError::new(ErrorCode::InvalidRequest, error.to_string())),
    }
}

/// Calls over the rings.
#[derive(Debug, Clone)]
pub struct RingCalls {
    worker: Worker,
}

impl RingCalls {
    /// Makes calls as a worker.
    #[must_use]
    pub fn new(worker: &Worker) -> Self {
        Self { worker: worker.clone() }
    }
}

impl Calls for RingCalls {
    fn all(&self, function: &str, requests: &[&dyn WriteJson], take: TakeReply<'_>) {
        let handle = self.worker.handle(function);
        let mut give = |place, reply: Result<Message, CallError>| match reply {
            Ok(reply) => take(place, Ok(reply.body())),
            Err(error) => take(place, Err(error)),
        };
        if let [request] = requests {
            // One call alone is waited for at once, and is tried elsewhere by itself if its worker dies.
            return give(0, json_message(&self.worker, *request).and_then(|message| handle.call(&message)));
        }
        let begin = |request: &&dyn WriteJson| {
            let message = json_message(&self.worker, *request)?;
            let pending = handle.start(&message, &ringway::CallOptions::new())?;
            Ok((message, pending))
        };
        let begun: Vec<Result<_, CallError>> = requests.iter().map(begin).collect();
        for (place, begun) in begun.into_iter().enumerate() {
            let reply = begun.and_then(|(message, pending)| match pending.wait() {
                Err(error) if error.code == ErrorCode::WorkerGone => handle.call(&message),
                reply => reply,
            });
            give(place, reply);
        }
    }
}
