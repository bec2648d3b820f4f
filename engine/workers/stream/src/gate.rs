//! Who may subscribe: the functions of `stream:join` triggers are asked, and one that refuses, fails or says something else
//! keeps the subscriber out. Those of `stream:leave` are told when he has gone. It must not know what subscribers are given.

use std::sync::Weak;
use std::time::Duration;

use ringway::{CallOptions, Failure, HandlerResult, Worker};
use ringway_worker_kit::{Bindings, Delivered, deliver_async};
use serde_json::{Value, json};

use crate::core::Core;
use crate::place::Place;
use crate::trigger::Filter;

/// The triggers that are asked and told.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) join: Bindings<Filter>,
    pub(crate) leave: Bindings<Filter>,
}

/// Somebody who wants to be told of a group, or of one item.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    pub(crate) subscription_id: String,
    pub(crate) place: Place,
    pub(crate) item: Option<String>,
    pub(crate) context: Value,
}

impl Subscriber {
    fn payload(&self) -> Value {
        json!({
            "subscription_id": self.subscription_id,
            "stream_name": self.place.stream,
            "group_id": self.place.group,
            "id": self.item,
            "context": self.context,
        })
    }

    fn concerns(&self, filter: &Filter) -> bool {
        filter.covers(&self.place) && filter.wants(self.item.as_deref())
    }
}

fn refused(why: &str) -> Failure {
    Failure::with_code(
        "STREAM_UNAUTHORIZED",
        format!("the subscription was refused: {why}; ask whoever binds `stream:join` for this stream"),
    )
}

/// What the answer of a function that was asked means.
fn read(function: &str, answer: &Value) -> HandlerResult<()> {
    match answer {
        Value::Null => Ok(()),
        answer if answer.get("unauthorized") == Some(&Value::Bool(false)) => Ok(()),
        answer if answer.get("unauthorized") == Some(&Value::Bool(true)) => {
            Err(refused(&format!("`{function}` does not allow it")))
        }
        other => Err(refused(&format!(
            "`{function}` answered {other}, nothing or an object with `unauthorized` was wanted"
        ))),
    }
}

/// Asks every function that wants to be asked.
pub(crate) async fn ask(core: &Weak<Core>, worker: &Worker, subscriber: &Subscriber) -> HandlerResult<()> {
    let (bindings, timeout_ms) = match core.upgrade() {
        Some(core) => (core.gate.join.all(), core.config.delivery_timeout_ms),
        None => return Err(refused("the stream worker is leaving")),
    };
    let payload = subscriber.payload();
    for binding in bindings.iter().filter(|binding| subscriber.concerns(&binding.config)) {
        let options = CallOptions::new().timeout(Duration::from_millis(timeout_ms));
        match deliver_async(worker, binding, &payload, options).await {
            Ok(Delivered::Skipped) => {}
            Ok(Delivered::Answered(answer)) => read(&binding.function_id, &answer)?,
            Err(error) => {
                return Err(refused(&format!("`{}` could not say yes: {error}", binding.function_id)));
            }
        }
    }
    Ok(())
}

/// Tells every function that wants to know when this is dropped.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) core: Weak<Core>,
    pub(crate) worker: Worker,
    pub(crate) subscriber: Subscriber,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else { return };
        let bindings = core.gate.leave.all();
        if !bindings.iter().any(|binding| self.subscriber.concerns(&binding.config)) {
            return;
        }
        let timeout = Duration::from_millis(core.config.delivery_timeout_ms);
        let (worker, subscriber) = (self.worker.clone(), self.subscriber.clone());
        core.spawner.spawn(async move {
            let payload = subscriber.payload();
            for binding in bindings.iter().filter(|binding| subscriber.concerns(&binding.config)) {
                let told = deliver_async(&worker, binding, &payload, CallOptions::new().timeout(timeout)).await;
                if let Err(error) = told {
                    tracing::warn!(trigger = binding.id, %error, "a function was not told that a subscriber has gone");
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nothing_and_a_clear_no_let_in() {
        for yes in [json!(null), json!({"unauthorized": false})] {
            assert!(read("f", &yes).is_ok(), "{yes}");
        }
        for no in [
            json!({"unauthorized": true}),
            json!({"unauthorised": true}),
            json!({"unauthorized": "false"}),
            json!({}),
            json!(true),
            json!("ok"),
            json!([]),
        ] {
            let error = read("f", &no).unwrap_err().into_error();
            assert_eq!(error.user_code.as_deref(), Some("STREAM_UNAUTHORIZED"), "{no}");
        }
    }
}
