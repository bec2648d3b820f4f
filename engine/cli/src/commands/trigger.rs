//! `ringway trigger`: calls one function. The reply goes to standard output, everything else to standard error.
//!
//! - `values`: what `key=value` means;
//! - `schema`: reading the JSON Schema of a request;
//! - `convert`: texts to values, by the schema where there is one;
//! - `enqueue`: the call goes to a queue;
//! - `help`: `FN --help`, a page made from the live schema.

mod convert;
mod enqueue;
mod help;
mod schema;
mod values;

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory};
use ringway::{CallError, CallOptions, Encoding, ErrorCode, Message, StreamCall};
use serde_json::Value;

use self::enqueue::EnqueueOptions;
use self::schema::Schema;
use super::word;
use crate::arguments::{Arguments, Place, duration};
use crate::connection::{Connection, Tracing};
use crate::failure::Failure;
use crate::output::{self, Terminal};
use crate::suggest::closest;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct TriggerArguments {
    /// The function's id, such as `orders::validate`
    #[arg(value_name = "FN")]
    function: Option<String>,
    /// Fields of the request: `key=value`, `outer.inner=value`, `list[]=item`. Numbers, true, false, null, "text" and JSON
    /// mean themselves, anything else is text. A function that takes no object gets one plain VALUE
    #[arg(value_name = "KEY=VALUE")]
    fields: Vec<String>,
    /// The whole request as JSON; from a file with @FILE, from standard input with -
    #[arg(long, value_name = "TEXT|@FILE|-", conflicts_with = "fields", allow_hyphen_values = true)]
    json: Option<String>,
    /// The reply must come within this time (500ms, 2s, 1m)
    #[arg(long, short, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// JSON that travels beside the request
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Do not wait for a reply
    #[arg(long)]
    void: bool,
    /// Repeating the call does no harm: try another worker if one dies during it
    #[arg(long)]
    idempotent: bool,
    #[command(flatten)]
    enqueue: EnqueueOptions,
    /// Show what the function takes and returns
    #[arg(long, short)]
    help: bool,
}

/// The most bytes of a request that are read from a file or from standard input.
const REQUEST_BYTES_MAX: u64 = 1 << 30;

pub(crate) fn run(place: &Place, arguments: &TriggerArguments) -> Result<ExitCode, Failure> {
    let Some(function) = arguments.function.as_deref() else {
        return without_function(arguments.help);
    };
    let connection = Connection::open(place, Tracing::Environment)?;
    let info = connection.describe(function)?;
    if arguments.help {
        let info = info.ok_or_else(|| unknown_function(&connection, function))?;
        output::text(&help::page(&info, Terminal::of_stdout()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_offered = connection.worker.catalog().functions.iter().any(|offered| *offered.id == *function);
    // A queue waits for a function that is not there yet.
    if info.is_none() && !is_offered && !arguments.enqueue.is_wanted() {
        return Err(unknown_function(&connection, function));
    }
    let request = request(arguments, info.as_ref(), function)?;
    if arguments.enqueue.is_wanted() {
        return enqueue::run(&connection, function, &request, &arguments.enqueue, arguments.timeout);
    }
    let options = options(arguments)?;
    call(&connection, function, &request, &options, arguments.void, streams_out(info.as_ref()))
        .map_err(|error| explain(&connection, function, error))?;
    Ok(ExitCode::SUCCESS)
}

fn without_function(help: bool) -> Result<ExitCode, Failure> {
    if help {
        let mut command = Arguments::command();
        let page = command.find_subcommand_mut("trigger").map(|trigger| trigger.render_help().to_string());
        output::text(&page.unwrap_or_default())?;
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::usage("wanted the id of a function").hint("`ringway functions` lists them"))
}

fn unknown_function(connection: &Connection, function: &str) -> Failure {
    let ids = connection.function_ids();
    let failure = Failure::not_found(format_args!("no worker offers `{function}`"));
    failure
        .did_you_mean(closest(function, ids.iter().map(String::as_str)))
        .hint("`ringway functions` lists what is offered")
}

/// Makes the request of what was typed.
fn request(arguments: &TriggerArguments, info: Option<&Value>, function: &str) -> Result<Value, Failure> {
    if let Some(text) = &arguments.json {
        let text = read_json_text(text)?;
        return serde_json::from_str(&text)
            .map_err(|problem| Failure::usage(format_args!("wanted JSON after --json: {problem}")));
    }
    let schema = info.and_then(|info| info.get("request_schema")).filter(|schema| !schema.is_null());
    convert::request(&arguments.fields, schema.map(Schema::new)).map_err(|problems| {
        let mut failure =
            Failure::usage(format_args!("the request does not fit `{function}`: {}", problems[0]));
        for problem in &problems[1..] {
            failure = failure.hint(format_args!("also: {problem}"));
        }
        failure
            .hint(format_args!("`ringway trigger {function} --help` shows its fields; --json sends anything"))
    })
}

fn read_json_text(text: &str) -> Result<String, Failure> {
    let failed = |from: &str, error: std::io::Error| {
        Failure::usage(format_args!("cannot read the request from {from}: {error}"))
    };
    let mut read = String::new();
    if text == "-" {
        let mut input = std::io::stdin().lock().take(REQUEST_BYTES_MAX);
        input.read_to_string(&mut read).map_err(|error| failed("standard input", error))?;
    } else if let Some(path) = text.strip_prefix('@') {
        let file = std::fs::File::open(path).map_err(|error| failed(path, error))?;
        file.take(REQUEST_BYTES_MAX).read_to_string(&mut read).map_err(|error| failed(path, error))?;
    } else {
        return Ok(text.to_owned());
    }
    Ok(read)
}

fn options(arguments: &TriggerArguments) -> Result<CallOptions, Failure> {
    let mut options = CallOptions::new().timeout(arguments.timeout);
    if let Some(text) = &arguments.metadata {
        let value = serde_json::from_str(text)
            .map_err(|problem| Failure::usage(format_args!("wanted JSON after --metadata: {problem}")))?;
        options = options.metadata(value);
    }
    if arguments.idempotent {
        options = options.idempotent();
    }
    Ok(options)
}

fn streams_out(info: Option<&Value>) -> bool {
    info.and_then(|info| info.get("streams_out")) == Some(&Value::Bool(true))
}

/// Why a call did not do what it should: its own end, or that the reply could not be written.
enum Ended {
    Call(CallError),
    Here(Failure),
}

impl From<CallError> for Ended {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

fn call(
    connection: &Connection,
    function: &str,
    request: &Value,
    options: &CallOptions,
    void: bool,
    streams: bool,
) -> Result<(), Ended> {
    let request = Message::json(request).map_err(ringway::Failure::into_error)?;
    let handle = connection.worker.handle(function);
    if void {
        return Ok(handle.send(&request, options)?);
    }
    if streams {
        let stream = handle.stream(&request, options)?;
        return show_stream(stream);
    }
    Ok(show(&handle.call_with(&request, options)?)?)
}

/// Writes each item as it comes, one on a line, and the reply at the end where there is one.
fn show_stream(mut stream: StreamCall) -> Result<(), Ended> {
    stream.finish();
    while let Some(item) = stream.recv()? {
        show(&item)?;
    }
    let reply = stream.end()?;
    if !reply.body().is_empty() {
        show(&reply)?;
    }
    Ok(())
}

/// Writes a reply: JSON as JSON, bytes as they are, nothing for nothing. What lies beside it is counted on standard error.
fn show(reply: &Message) -> Result<(), Failure> {
    match reply.encoding() {
        Encoding::None => {}
        Encoding::Json => match serde_json::from_slice::<Value>(reply.body()) {
            Ok(value) => output::json(&value)?,
            Err(problem) => {
                return Err(Failure::error(format_args!(
                    "the reply is no JSON, though it says so: {problem}"
                )));
            }
        },
        _ => {
            let mut out = std::io::stdout().lock();
            out.write_all(reply.body())?;
            out.flush()?;
        }
    }
    for attachment in reply.attachments() {
        let bytes = output::words::bytes(attachment.payload().len());
        output::note(&format!(
            "attachment: {bytes}, {} of shape {:?}",
            attachment.dtype(),
            attachment.shape()
        ));
    }
    Ok(())
}

fn explain(connection: &Connection, function: &str, ended: Ended) -> Failure {
    let error = match ended {
        Ended::Call(error) => error,
        Ended::Here(failure) => return failure,
    };
    let code = error.code;
    let details = error.details.clone();
    let mut failure = Failure::from(error);
    if let Some(details) = details {
        failure = failure.hint(format_args!("details: {details}"));
    }
    match code {
        ErrorCode::NotFound => {
            let ids = connection.function_ids();
            failure
                .did_you_mean(closest(function, ids.iter().map(String::as_str).filter(|id| *id != function)))
        }
        ErrorCode::InvalidRequest => {
            failure.hint(format_args!("`ringway trigger {function} --help` shows what it takes"))
        }
        _ => failure,
    }
}

/// Returns a function's id as an answer of the engine names it.
fn function_id(info: &Value) -> &str {
    word(info, "function_id")
}
