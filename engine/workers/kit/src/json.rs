//! Requests and replies in JSON whose bytes a function reads or makes itself, as what lies in the store passes without being
//! parsed. Used by workers that keep values. It must not know what is asked for.

use ringway::protocol::CallError;
use ringway::{Encoding, ErrorCode, Failure, HandlerResult, Message};
use serde::de::DeserializeOwned;

/// Reads a request in JSON. No body at all means that nothing was said, as `{}` does.
///
/// # Errors
/// The request is not JSON, or does not fit.
pub fn read<T: DeserializeOwned>(encoding: Encoding, body: &[u8]) -> HandlerResult<T> {
    expect(encoding)?;
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| unfit(&error))
}

/// Refuses what is neither JSON nor nothing.
///
/// # Errors
/// The request is something else.
pub fn expect(encoding: Encoding) -> HandlerResult<()> {
    match encoding {
        Encoding::Json | Encoding::None => Ok(()),
        other => {
            let text = format!("this function takes json, the request is {other}");
            Err(CallError::new(ErrorCode::UnsupportedEncoding, text).into())
        }
    }
}

/// What the caller is told whose request is JSON, but not as it is wanted.
#[must_use]
pub fn unfit(error: &serde_json::Error) -> Failure {
    Failure::invalid(format!("the request does not fit: {error}"))
}

/// A message of JSON that is there as text.
#[must_use]
pub fn message(text: &[u8]) -> Message {
    Message::new(Encoding::Json, text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_request_is_json_or_nothing() {
        let read = |encoding, body: &[u8]| read::<Value>(encoding, body);
        assert_eq!(read(Encoding::None, b"").unwrap(), json!({}));
        assert_eq!(read(Encoding::Json, b"[1]").unwrap(), json!([1]));
        let refused = read(Encoding::Bytes, b"{}").unwrap_err().to_string();
        assert!(refused.contains("takes json, the request is bytes"), "{refused}");
        assert!(read(Encoding::Json, b"{").is_err());
    }
}
