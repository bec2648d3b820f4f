//! Who calls, from which handler, and how many observers are behind it: what a callee is told of its caller. Between
//! clients it goes along directly; where a call goes by a ring it travels in the baggage, which nested calls of native workers
//! inherit, so that no circle over them goes unseen. It must not know how calls are made.

use ringway::Baggage;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::protocol::Frame;

/// The baggage entry that carries it; clients neither see nor set it.
pub(crate) const ENTRY: &str = "iii.observe";

/// What goes along with a call.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Hop {
    /// Who put it there, by UUID: what is said of the caller counts only for that one's own calls.
    #[serde(rename = "w")]
    by: String,
    /// The caller.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    caller: Option<Box<RawValue>>,
    /// How many observers there are between the first call and this one.
    #[serde(rename = "d", default)]
    pub(crate) depth: u32,
    /// The observer and the activation that the call is.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub(crate) activation: Option<(String, String)>,
}

impl Hop {
    /// Of a call of a worker; none where there is nothing to tell.
    pub(crate) fn new(
        by: &str,
        caller: Option<&str>,
        depth: u32,
        activation: Option<(String, String)>,
    ) -> Option<Self> {
        let caller = caller.and_then(|caller| RawValue::from_string(caller.to_owned()).ok());
        let something = caller.is_some() || depth > 0 || activation.is_some();
        something.then(|| Self { by: by.to_owned(), caller, depth, activation })
    }

    /// Puts it into baggage, in place of what somebody else put there. What is too long for baggage is told in part.
    pub(crate) fn put(mut self, baggage: &mut Baggage) {
        let said = |hop: &Self| serde_json::to_string(hop).unwrap_or_default();
        if baggage.set(ENTRY, &said(&self)).is_err() {
            self.caller = None;
            if baggage.set(ENTRY, &said(&self)).is_err() {
                tracing::debug!("the baggage of a call has no room to say how deep it is");
            }
        }
    }

    /// What came with a call of a worker.
    pub(crate) fn read(baggage: Option<&Baggage>, by: &str) -> Self {
        let said = baggage.and_then(|baggage| baggage.get(ENTRY));
        let hop: Self = said.and_then(|said| serde_json::from_str(said).ok()).unwrap_or_default();
        if hop.by == by { hop } else { Self { depth: hop.depth, ..Self::default() } }
    }

    /// The caller, as it was said.
    pub(crate) fn caller(&self) -> Option<&str> {
        self.caller.as_deref().map(RawValue::get)
    }
}

/// The caller as a callee is told: what the calling client says, and who it is by the word of this side.
pub(crate) fn stamped(said: Option<&str>, worker: &str, name: Option<&str>) -> String {
    let mut told = Frame::object(128).plain("worker_id", worker).maybe_text("worker_name", name);
    let said = said.and_then(|said| serde_json::from_str::<Map<String, Value>>(said).ok());
    for (field, value) in said.into_iter().flatten() {
        let known = match field.as_str() {
            "function_id" | "invocation_id" => value.is_string(),
            "parent" => value.is_object(),
            _ => false,
        };
        if known {
            told = told.json(&field, &value.to_string());
        }
    }
    told.end()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_calls_is_not_for_the_caller_to_say() {
        let said =
            r#"{"worker_id":"me","worker_name":"root","function_id":"a::f","invocation_id":"I","x":1}"#;
        let told: Value = serde_json::from_str(&stamped(Some(said), "W", Some("n"))).unwrap();
        assert_eq!(
            told,
            json!({ "worker_id": "W", "worker_name": "n", "function_id": "a::f", "invocation_id": "I" })
        );
        assert_eq!(stamped(None, "W", None), r#"{"worker_id":"W"}"#);
    }

    #[test]
    fn only_its_depth_outlives_the_call_that_it_was_put_into() {
        let mut baggage = Baggage::default();
        baggage.set("tenant", "acme").unwrap();
        let activation = Some(("o".to_owned(), "i".to_owned()));
        Hop::new("W", Some(r#"{"function_id":"a,b"}"#), 3, activation.clone()).unwrap().put(&mut baggage);
        let read = Baggage::parse(&baggage.format()).unwrap();
        let own = Hop::read(Some(&read), "W");
        assert_eq!((own.caller(), own.depth), (Some(r#"{"function_id":"a,b"}"#), 3));
        assert_eq!(own.activation, activation);
        let nested = Hop::read(Some(&read), "N");
        assert_eq!((nested.caller(), nested.depth, &nested.activation), (None, 3, &None));
        assert_eq!(Hop::read(None, "W").depth, 0);
        assert!(Hop::new("W", None, 0, None).is_none());
    }

    #[test]
    fn a_caller_too_long_for_baggage_is_left_out() {
        let long = format!(r#"{{"function_id":"{}"}}"#, "x".repeat(9000));
        let mut baggage = Baggage::default();
        Hop::new("W", Some(&long), 2, None).unwrap().put(&mut baggage);
        let read = Hop::read(Some(&baggage), "W");
        assert_eq!((read.caller(), read.depth), (None, 2));
    }
}
