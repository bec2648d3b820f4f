//! What clients say and are told, as JSON. What is said is iii's `join` and `leave`, with a number to go on behind; what is told
//! is iii's object around each event, with its number, and beside it errors and answers. It must not know sockets.

use ringway::CallError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Bytes of a name that a client gives.
const NAME_BYTES_MAX: usize = 1024;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// To be told of a group, or of one item.
    Join(Join),
    /// To be told no more.
    Leave {
        /// Of which subscription.
        subscription_id: String,
    },
    /// Whether anybody is there: pages cannot send pings of the protocol.
    Ping,
}

/// What a client wants to be told of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    /// What the client calls it.
    pub subscription_id: String,
    /// The stream.
    pub stream_name: String,
    /// The group.
    pub group_id: String,
    /// One item of it alone.
    #[serde(default)]
    pub id: Option<String>,
    /// The last event seen: what came after it is wanted, and no snapshot.
    #[serde(default)]
    pub after_sequence: Option<u64>,
}

#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Leave {
    subscription_id: String,
}

/// Why a message is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FrameError(String);

impl Asked {
    /// Reads a message.
    ///
    /// # Errors
    /// [`FrameError`] says what was wanted.
    pub fn read(text: &str) -> Result<Self, FrameError> {
        let wrong = |error: serde_json::Error| FrameError(format!("a message of JSON was wanted: {error}"));
        let frame: Frame = serde_json::from_str(text).map_err(wrong)?;
        let unfit = |error: serde_json::Error| FrameError(format!("`data` of `{}`: {error}", frame.kind));
        let asked = match frame.kind.as_str() {
            "join" => Self::Join(Join::deserialize(&frame.data).map_err(unfit)?),
            "leave" => {
                let Leave { subscription_id } = Leave::deserialize(&frame.data).map_err(unfit)?;
                Self::Leave { subscription_id }
            }
            "ping" => Self::Ping,
            other => {
                let other = &other[..other.floor_char_boundary(40)];
                return Err(FrameError(format!("`type` is `{other}`; join, leave or ping was wanted")));
            }
        };
        asked.within_limits()
    }

    fn within_limits(self) -> Result<Self, FrameError> {
        let names: Vec<&str> = match &self {
            Self::Join(join) => {
                let id = join.id.as_deref().unwrap_or_default();
                vec![&join.subscription_id, &join.stream_name, &join.group_id, id]
            }
            Self::Leave { subscription_id } => vec![subscription_id],
            Self::Ping => Vec::new(),
        };
        match names.iter().find(|name| name.len() > NAME_BYTES_MAX) {
            Some(name) => {
                Err(FrameError(format!("a name has {} bytes, {NAME_BYTES_MAX} are allowed", name.len())))
            }
            None => Ok(self),
        }
    }
}

/// What is told where something cannot be done; the subscription that it is about, if there is one.
#[must_use]
pub fn error(subscription_id: Option<&str>, code: &str, message: &str) -> String {
    let mut told = json!({"type": "error", "error": {"code": code, "message": message}});
    if let Some(id) = subscription_id {
        told["subscriptionId"] = id.into();
    }
    told.to_string()
}

/// The code and the words of a failed call.
pub(crate) fn failed(join: &Join, failure: &CallError) -> String {
    let code = failure.user_code.as_deref().unwrap_or(failure.code.as_str());
    error(Some(&join.subscription_id), code, &failure.message)
}

/// What is told where a function of `stream:join` did not let a client in, as iii does it.
pub(crate) fn unauthorized(join: &Join, now_ms: u64) -> String {
    json!({
        "type": "stream", "timestamp": now_ms, "streamName": join.stream_name, "groupId": join.group_id, "id": join.id,
        "event": {"type": "unauthorized"}, "subscriptionId": join.subscription_id,
    })
    .to_string()
}

/// What is told to a client that goes on behind a number: that it will.
pub(crate) fn resumed(join: &Join) -> String {
    let (id, after) = (&join.subscription_id, join.after_sequence);
    json!({"type": "subscribed", "data": {"subscriptionId": id, "afterSequence": after}}).to_string()
}

/// What is told to one who asked whether anybody is there.
pub(crate) const PONG: &str = r#"{"type":"pong"}"#;

/// What of a message of `stream::subscribe` has to be known to pass it on.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Told {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The number of the event.
    #[serde(default)]
    pub(crate) sequence: Option<u64>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn joins_and_leaves_are_read_as_iii_writes_them() {
        let join = r#"{"type":"join","data":{"subscriptionId":"s1","streamName":"chat","groupId":"room"}}"#;
        let expected = Join {
            subscription_id: "s1".to_owned(),
            stream_name: "chat".to_owned(),
            group_id: "room".to_owned(),
            id: None,
            after_sequence: None,
        };
        assert_eq!(Asked::read(join), Ok(Asked::Join(expected.clone())));
        let more = r#"{"data":{"subscriptionId":"s1","streamName":"chat","groupId":"room","id":"i","afterSequence":7,"x":1},"type":"join"}"#;
        let expected = Join { id: Some("i".to_owned()), after_sequence: Some(7), ..expected };
        assert_eq!(Asked::read(more), Ok(Asked::Join(expected)));
        let leave = r#"{"type":"leave","data":{"subscriptionId":"s1","streamName":"chat","groupId":"room","id":null}}"#;
        assert_eq!(Asked::read(leave), Ok(Asked::Leave { subscription_id: "s1".to_owned() }));
        assert_eq!(Asked::read(r#"{"type":"ping"}"#), Ok(Asked::Ping));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |text: &str, words: &str| {
            let error = Asked::read(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        };
        check("", "JSON");
        check("[]", "JSON");
        check("{}", "type");
        check(r#"{"type":"shout"}"#, "join, leave or ping");
        check(r#"{"type":"join"}"#, "`data` of `join`");
        check(r#"{"type":"join","data":{"subscriptionId":"a","streamName":"b"}}"#, "groupId");
        check(
            r#"{"type":"join","data":{"subscriptionId":"a","streamName":"b","groupId":"c","afterSequence":-1}}"#,
            "-1",
        );
        check(
            &format!(r#"{{"type":"leave","data":{{"subscriptionId":"{}"}}}}"#, "x".repeat(2000)),
            "2000 bytes",
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", kind in "(join|leave|ping|é{60})") {
            let _read = Asked::read(&text);
            let _read = Asked::read(&format!(r#"{{"type":"{kind}","data":{text}}}"#));
        }
    }
}
