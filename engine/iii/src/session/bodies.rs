//! Calls whose caller opened streams, as the front door of HTTP does: what streams in goes to the client through a channel,
//! what the client writes into another streams out, and the payload names both, as iii's HTTP triggers do. What the client
//! returns counts before what it writes, as long as nothing of a body was sent. It must not know HTTP.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, Either};
use ringway::{CallError, Context, Encoding, ErrorCode, HandlerResult, Message, StreamReader, StreamWriter};
use serde::Deserialize;

use super::Session;
use super::requests::{Answer, Asking};
use crate::channels::{Item, Lent, Lost, Reader, Writer};
use crate::protocol::{ErrorBody, is_null};

/// How long the rest of an answer may be on its way when the function that writes it has failed: the two come by different
/// connections.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Texts that set status and headers before a body begins; one of each is what SDKs send.
const CONTROLS_MAX: usize = 64;

/// The channels of a call: the ends that are used here, and the channels themselves.
#[derive(Debug)]
pub(super) struct Bodies {
    request: Writer,
    response: Reader,
    lent: [Lent; 2],
}

impl Bodies {
    fn new(session: &Session) -> HandlerResult<Self> {
        let channels = &session.place.shared.channels;
        let full = |error: crate::channels::CreateError| CallError::new(ErrorCode::Busy, error.to_string());
        let (to_read, request) = channels.lend_reader().map_err(full)?;
        let (to_write, response) = channels.lend_writer().map_err(full)?;
        Ok(Self { request, response, lent: [to_read, to_write] })
    }

    /// The fields of a payload that name them.
    fn fields(&self) -> HandlerResult<String> {
        let [to_read, to_write] = &self.lent;
        let text = |lent: &Lent| serde_json::to_string(lent.end());
        Ok(format!("\"request_body\":{},\"response\":{}", text(to_read)?, text(to_write)?))
    }
}

/// A call that is under way, and its channels.
pub(super) type Begun = (Asking, Bodies);

impl Session {
    /// Passes a call with streams on to the client.
    pub(super) fn serve_streams(
        self: &Arc<Self>,
        names: (&str, &str),
        context: &Context,
        message: &Message,
    ) -> HandlerResult<Begun> {
        let bodies = Bodies::new(self)?;
        let asking = self.serve(names, context, message, Some(&bodies.fields()?))?;
        Ok((asking, bodies))
    }
}

/// Waits until the client has answered, by a value or through its channel.
pub(super) async fn answered(
    begun: HandlerResult<Begun>,
    input: StreamReader,
    output: StreamWriter,
) -> HandlerResult<Message> {
    let (asking, Bodies { request, response, lent: _lent }) = begun?;
    let answer = pin!(asking.answer());
    let (relay, feed) = (pin!(relay(answer, &response, output)), pin!(feed(input, request)));
    match future::select(relay, feed).await {
        Either::Left((answered, _)) => answered,
        Either::Right(((), relay)) => relay.await,
    }
}

/// Hands what streams in on to the client, as fast as that reads. A client that reads none of it, or not all, may.
async fn feed(input: StreamReader, request: Writer) {
    loop {
        let item = match future::select(pin!(request.lost()), pin!(input.recv_async())).await {
            Either::Left(_) => return,
            Either::Right((item, _)) => item,
        };
        match item {
            Ok(Some(message)) => {
                let item = Item::Binary(Bytes::copy_from_slice(message.body()));
                drop(message);
                if request.send(item).await.is_err() {
                    return;
                }
            }
            Ok(None) => return request.finish(),
            Err(error) => return request.break_off(error.to_string()),
        }
    }
}

/// What comes next: what the function returned, or a message of its channel.
enum News {
    Returned(Answer),
    Written(Result<Option<Item>, Lost>),
}

/// Hands what the client writes on, until it returns a value or ends its channel.
async fn relay(
    mut answer: Pin<&mut impl Future<Output = Answer>>,
    response: &Reader,
    output: StreamWriter,
) -> HandlerResult<Message> {
    let (mut has_returned, mut has_begun, mut said) = (false, false, Vec::new());
    loop {
        let news = if has_returned {
            News::Written(response.recv().await)
        } else {
            match future::select(answer.as_mut(), pin!(response.recv())).await {
                Either::Left((answer, _)) => News::Returned(answer),
                Either::Right((item, _)) => News::Written(item),
            }
        };
        match news {
            News::Returned(Err(error)) if has_begun => return last_words(response, &output, error).await,
            News::Returned(answer) => {
                let value = answer.map_err(ErrorBody::into_failure)?;
                if !has_begun && !is_nothing(&value) {
                    return Ok(Message::from_vec(Encoding::Json, value));
                }
                has_returned = true;
            }
            News::Written(Ok(Some(Item::Binary(bytes)))) => {
                if !std::mem::replace(&mut has_begun, true) {
                    say(&output, &mut said).await?;
                }
                output.send_async(Message::bytes(&bytes)).await?;
            }
            // Kept until it is known whether it counts.
            News::Written(Ok(Some(Item::Text(text))))
                if !has_begun && said.len() < CONTROLS_MAX && is_control(&text) =>
            {
                said.push(text.as_bytes().to_vec());
            }
            // Other texts, and those that come too late, mean nothing.
            News::Written(Ok(Some(Item::Text(_)))) => {}
            News::Written(ended) if has_begun || has_returned => {
                ended.map_err(|lost| broken(&lost))?;
                say(&output, &mut said).await?;
                return Ok(nothing());
            }
            // The channel ended, well or badly, before there was a body: what counts is what the function returns.
            News::Written(ended) => {
                let value = answer.await.map_err(ErrorBody::into_failure)?;
                if is_nothing(&value) {
                    ended.map_err(|lost| broken(&lost))?;
                    say(&output, &mut said).await?;
                    return Ok(nothing());
                }
                return Ok(Message::from_vec(Encoding::Json, value));
            }
        }
    }
}

/// Hands on what the client said of status and headers.
async fn say(output: &StreamWriter, said: &mut Vec<Vec<u8>>) -> HandlerResult<()> {
    for text in said.drain(..) {
        output.send_async(Message::from_vec(Encoding::Json, text)).await?;
    }
    Ok(())
}

/// The function failed after its body had begun. If it had written all of it, the rest comes soon; otherwise the body breaks off.
async fn last_words(response: &Reader, output: &StreamWriter, error: ErrorBody) -> HandlerResult<Message> {
    loop {
        match tokio::time::timeout(LAST_WORDS, response.recv()).await {
            Ok(Ok(Some(Item::Binary(bytes)))) => output.send_async(Message::bytes(&bytes)).await?,
            Ok(Ok(Some(Item::Text(_)))) => {}
            Ok(Ok(None)) => return Ok(nothing()),
            Ok(Err(_)) | Err(_) => return Err(error.into_failure()),
        }
    }
}

fn nothing() -> Message {
    Message::from_vec(Encoding::Json, b"null".to_vec())
}

fn is_nothing(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(is_null)
}

fn broken(lost: &Lost) -> CallError {
    CallError::new(ErrorCode::StreamClosed, format!("the answer broke off: {lost}"))
}

/// Whether a text says how an answer is sent.
fn is_control(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Said<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
    }
    let said: Option<Said<'_>> = serde_json::from_str(text).ok();
    said.is_some_and(|said| matches!(&*said.kind, "set_status" | "set_headers"))
}

/// Puts fields into a payload that is an object.
///
/// # Errors
/// It is none.
pub(super) fn with_fields(payload: &str, fields: &str) -> HandlerResult<String> {
    let Some(open) = payload.strip_suffix('}').filter(|_| payload.starts_with('{')) else {
        let text = "a call with streams needs an object, in which `request_body` and `response` name them";
        return Err(ringway::Failure::invalid(text));
    };
    let open = open.trim_end();
    let comma = if open.len() > 1 { "," } else { "" };
    Ok(format!("{open}{comma}{fields}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_put_into_objects() {
        for (payload, expected) in
            [("{}", r#"{"a":1}"#), ("{ }", r#"{"a":1}"#), (r#"{"b":{}}"#, r#"{"b":{},"a":1}"#)]
        {
            assert_eq!(with_fields(payload, "\"a\":1").unwrap(), expected);
        }
        for payload in ["null", "[]", "\"{}\"", ""] {
            assert!(with_fields(payload, "\"a\":1").is_err(), "{payload}");
        }
    }

    #[test]
    fn texts_that_set_something_are_known() {
        assert!(is_control(r#"{"type":"set_status","status_code":202}"#));
        assert!(is_control(r#"{"headers":{},"type":"set_\u0068eaders"}"#));
        for text in ["", "null", "set_status", r#"{"type":"event"}"#, r#"{"kind":"set_status"}"#] {
            assert!(!is_control(text), "{text}");
        }
    }
}
