//! Functions that are asked before and after a route's own. One that is asked before lets the request go on, perhaps with
//! something for those behind it, or answers itself; one that is asked after may change the answer. Whatever else one says,
//! an error, nothing at all, ends the request: what stands in the way to keep others out must not fail open. It must not
//! know what they are for.

use bytes::Bytes;
use hyper::HeaderMap;
use ringway::{CallError, ErrorCode, Handle, Message};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::auth::Identity;
use crate::call;
use crate::exchange::Exchange;
use crate::problem::{Code, Problem};
use crate::request::{Asked, Text};
use crate::response::Answer;

/// What one says.
#[derive(Debug, Deserialize)]
struct Said<'a> {
    action: String,
    /// For `respond`, and after the function for `continue` too.
    #[serde(default, borrow)]
    response: Option<&'a RawValue>,
    /// What those behind it see.
    #[serde(default)]
    context: Map<String, Value>,
}

/// Asks some before the function. An answer is that of the one that answered itself.
///
/// # Errors
/// One failed, took too long, or said what it may not.
pub(crate) async fn before(
    functions: &[Handle],
    exchange: &Exchange<'_>,
    asked: &Asked<'_>,
    identity: Option<&Identity>,
    context: &mut Map<String, Value>,
) -> Result<Option<Answer>, Box<Problem>> {
    for function in functions {
        let mut text = Text::with_capacity(512);
        text.raw("{\"phase\":\"preHandler\",\"request\":{");
        asked.write(&mut text)?;
        if let Some(identity) = identity {
            text.raw(",\"auth\":").value(&identity.told());
        }
        text.raw("},\"context\":").value(context).raw("}");
        let reply = ask(function, exchange, &text.into_bytes()).await?;
        let said = read(function, &reply)?;
        context.extend(said.context);
        match said.action.as_str() {
            "continue" => {}
            "respond" => return answer(function, said.response).map(Some),
            other => return Err(odd(function, &format!("its action is `{other}`"))),
        }
    }
    Ok(None)
}

/// Asks those that come after the function, the route's first.
///
/// # Errors
/// As [`before`].
pub(crate) async fn after(
    exchange: &Exchange<'_>,
    mut answer_now: Answer,
    mut context: Map<String, Value>,
) -> Result<Answer, Box<Problem>> {
    for function in exchange.route.after.iter().chain(&exchange.door.after) {
        let mut text = Text::with_capacity(512 + answer_now.body.len());
        text.raw("{\"phase\":\"postHandler\",\"request\":{");
        exchange.asked().write(&mut text)?;
        text.raw("},\"response\":{\"status_code\":").raw(answer_now.status.as_str()).raw(",\"headers\":");
        write_headers(&mut text, &answer_now.headers);
        match std::str::from_utf8(&answer_now.body) {
            Ok(body) if serde_json::from_str::<&RawValue>(body).is_ok() => text.raw(",\"body\":").raw(body),
            Ok(body) => text.raw(",\"body\":").text(body),
            Err(_) => text.raw(",\"body\":null"),
        };
        text.raw("},\"context\":").value(&context).raw("}");
        let reply = ask(function, exchange, &text.into_bytes()).await?;
        let said = read(function, &reply)?;
        context.extend(said.context);
        match (said.action.as_str(), said.response) {
            ("continue", None) => {}
            ("continue" | "respond", response) => answer_now = answer(function, response)?,
            (other, _) => return Err(odd(function, &format!("its action is `{other}`"))),
        }
    }
    Ok(answer_now)
}

fn write_headers(text: &mut Text, headers: &HeaderMap) {
    text.raw("{");
    for (at, name) in headers.keys().enumerate() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        text.raw(if at == 0 { "" } else { "," }).text(name.as_str()).raw(":").text(&values.join(", "));
    }
    text.raw("}");
}

async fn ask(function: &Handle, exchange: &Exchange<'_>, text: &[u8]) -> Result<Message, Box<Problem>> {
    let message = call::message(&exchange.door.worker, text);
    call::call(function, &message, &exchange.options()).await.map_err(|error| failed(function, &error))
}

fn failed(function: &Handle, error: &CallError) -> Box<Problem> {
    tracing::warn!(target: "ringway", middleware = function.id(), %error, "middleware failed");
    if error.code == ErrorCode::DeadlineExceeded {
        return Problem::new(Code::MiddlewareTimeout, "there was no answer in the time that this route has");
    }
    Problem::new(Code::MiddlewareFailed, "what happened is in the log")
}

fn odd(function: &Handle, what: &str) -> Box<Problem> {
    let wanted = "wanted is {\"action\":\"continue\"} or {\"action\":\"respond\",\"response\":{…}}";
    tracing::warn!(target: "ringway", middleware = function.id(), "middleware says what it may not: {what}; {wanted}");
    Problem::new(Code::MiddlewareFailed, "what happened is in the log")
}

fn read<'a>(function: &Handle, reply: &'a Message) -> Result<Said<'a>, Box<Problem>> {
    serde_json::from_slice(reply.body()).map_err(|error| odd(function, &error.to_string()))
}

fn answer(function: &Handle, response: Option<&RawValue>) -> Result<Answer, Box<Problem>> {
    let response = response.ok_or_else(|| odd(function, "it answers without a `response`"))?;
    Answer::of_json(Bytes::copy_from_slice(response.get().as_bytes()), None)
}
