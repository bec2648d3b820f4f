//! Calling a function of a built-in worker on behalf of a command, with errors that say which worker it is that is not
//! there. It must not know what the functions do.

use std::time::Duration;

use ringway::{CallError, CallOptions, ErrorCode};
use serde_json::Value;

use crate::arguments::Place;
use crate::connection::{Connection, Tracing};
use crate::failure::Failure;
use crate::output;

/// How long a built-in worker may take. A change waits for the disk.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Calls a function of a worker.
pub(super) fn ask(place: &Place, worker: &str, function: &str, request: &Value) -> Result<Value, Failure> {
    let connection = Connection::open(place, Tracing::Environment)?;
    let options = CallOptions::new().timeout(ANSWER_TIME_MAX);
    let answer = connection.worker.trigger_json_with(function, request, &options);
    answer.map_err(|error| explain(error, worker))
}

/// An error of a call of a built-in worker; where it is not there, with what to do about that.
pub(super) fn explain(error: CallError, worker: &str) -> Failure {
    let missing = error.code == ErrorCode::NotFound && error.user_code.is_none();
    let failure = Failure::from(error);
    if !missing {
        return failure;
    }
    failure.hint(format_args!(
        "the built-in worker `{worker}` offers it; `ringway workers` shows whether it runs, and `workers.{worker}` in \
         ringway.yaml decides"
    ))
}

/// Writes an answer: as JSON where that is wanted, else as `table` draws it.
pub(super) fn show(
    answer: &Value,
    as_json: bool,
    table: impl FnOnce(&Value) -> String,
) -> Result<(), Failure> {
    if as_json { output::json(answer) } else { output::text(&table(answer)) }
}

/// Reads a value as it is typed: JSON where it is JSON, else a text; from a file with `@FILE`, from standard input with
/// `-`.
pub(super) fn typed_value(text: &str) -> Result<Value, Failure> {
    use std::io::Read;
    let unreadable = |from: &str, error: std::io::Error| {
        Failure::usage(format_args!("cannot read the value from {from}: {error}"))
    };
    let read = if text == "-" {
        let mut read = String::new();
        std::io::stdin()
            .lock()
            .read_to_string(&mut read)
            .map_err(|error| unreadable("standard input", error))?;
        read
    } else if let Some(path) = text.strip_prefix('@') {
        std::fs::read_to_string(path).map_err(|error| unreadable(path, error))?
    } else {
        return Ok(serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)));
    };
    serde_json::from_str(&read)
        .map_err(|problem| Failure::usage(format_args!("wanted JSON in what {text} names: {problem}")))
}

/// A value in a cell of a table: a text as it is, anything else as JSON, nothing for nothing.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_json_or_texts() {
        let check = |text: &str, expected: Value| assert_eq!(typed_value(text), Ok(expected), "{text}");
        check("5", json!(5));
        check("{\"a\":1}", json!({"a": 1}));
        check("\"5\"", json!("5"));
        check("hello", json!("hello"));
        check("{a", json!("{a"));
        assert!(typed_value("@/nowhere/at/all").unwrap_err().text().contains("/nowhere/at/all"));
    }
}
