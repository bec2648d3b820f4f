//! Attaching to the engine that is meant, as a worker that serves nothing. Used by every command but `up`.

use std::time::Duration;

use ringway::{CallOptions, ErrorCode, Sampler, WaitMode, Worker};
use serde_json::{Value, json};

use crate::arguments::Place;
use crate::failure::Failure;

/// The name under which the command line attaches.
pub(crate) const WORKER_NAME: &str = "ringway-cli";

/// How long the engine may take to answer a question about itself.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// How calls of a command are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracing {
    /// As the `OTEL_` variables say.
    Environment,
    /// Not at all: looking at things should not change what is seen.
    Never,
}

/// An attached command.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) worker: Worker,
}

impl Connection {
    /// Attaches.
    pub(crate) fn open(place: &Place, tracing: Tracing) -> Result<Self, Failure> {
        let mut builder = Worker::builder(WORKER_NAME)
            .description("the ringway command")
            .wait_mode(WaitMode::Efficient)
            .without_reconnect()
            .threads(2)
            .default_timeout(None);
        if tracing == Tracing::Never {
            builder = builder.sampler(Sampler::never());
        }
        if let Some(address) = &place.address {
            builder = builder.address(address);
        }
        if let Some(project) = &place.project {
            builder = builder.project(project);
        }
        Ok(Self { worker: builder.connect()? })
    }

    /// Asks the engine something.
    pub(crate) fn ask(&self, function: &str, input: &Value) -> Result<Value, Failure> {
        let options = CallOptions::new().timeout(ANSWER_TIME_MAX);
        Ok(self.worker.trigger_json_with(function, input, &options)?)
    }

    /// Asks the engine about one function; none where it, or the engine's answer to that, is not there.
    pub(crate) fn describe(&self, function: &str) -> Result<Option<Value>, Failure> {
        let options = CallOptions::new().timeout(ANSWER_TIME_MAX);
        let input = json!({ "function_id": function });
        match self.worker.trigger_json_with(ringway_protocol::naming::FUNCTIONS_INFO, &input, &options) {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.code == ErrorCode::NotFound => Ok(None),
            // What may not be called is not described either; it is the call that was refused.
            Err(mut error) if error.code == ErrorCode::Forbidden => {
                error.function = Some(function.to_owned());
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the ids of all functions that can be called, each once.
    pub(crate) fn function_ids(&self) -> Vec<String> {
        let functions = self.worker.catalog().functions;
        let mut ids: Vec<_> = functions.iter().map(|function| function.id.to_string()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}
