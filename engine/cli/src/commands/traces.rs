//! `ringway traces`: recent traces from the engine's store; one of them as a waterfall, with where the time of each hop went.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ringway_protocol::naming;
use ringway_telemetry::waterfall::{Style, read, render};
use serde_json::{Value, json};

use super::{is_question, list, number, word};
use crate::arguments::{Place, duration};
use crate::connection::{Connection, Tracing};
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::words::{nanoseconds, printable, time_of_day, unix_ms};
use crate::output::{self, Terminal};

#[derive(Debug, Args)]
pub(crate) struct TracesArguments {
    /// The trace to draw, or the beginning of its id; `last` for the latest
    id: Option<String>,
    /// Only traces in which this function was called; FN* for all that begin so
    #[arg(long, short, value_name = "FN")]
    function: Option<String>,
    /// Only traces in which something failed
    #[arg(long)]
    errors: bool,
    /// Only traces that took at least so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    slower_than: Option<Duration>,
    /// Only traces that began within this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
    /// Also those that began with a question to the engine, as every command asks some
    #[arg(long, short)]
    all: bool,
    /// How many
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20)]
    limit: usize,
    /// Draw with plain characters only
    #[arg(long)]
    ascii: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Columns of a waterfall that nobody's terminal limits.
const WIDTH_UNSEEN: usize = 140;
/// How many traces are looked through for the beginning of an id.
const SEARCHED_MAX: usize = 100_000;

pub(crate) fn run(place: &Place, arguments: &TracesArguments) -> Result<ExitCode, Failure> {
    let connection = Connection::open(place, Tracing::Never)?;
    if let Some(id) = &arguments.id {
        return draw(&connection, &full_id(&connection, id, arguments)?, arguments);
    }
    let answer = listing(&connection, arguments, arguments.limit)?;
    if arguments.json {
        output::json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let traces = list(&answer, "traces");
    if traces.is_empty() {
        output::note(
            "no such traces are held; calls are traced unless OTEL_TRACES_SAMPLER says otherwise where they begin",
        );
    } else {
        output::text(&table(traces).render(Terminal::of_stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks for traces; leaves questions to the engine out, unless they are wanted or named.
fn listing(connection: &Connection, arguments: &TracesArguments, limit: usize) -> Result<Value, Failure> {
    if arguments.all || arguments.function.is_some() {
        return connection.ask(naming::TRACES_LIST, &question(arguments, limit));
    }
    let mut asked = limit.saturating_mul(4).clamp(100, SEARCHED_MAX);
    loop {
        let mut answer = connection.ask(naming::TRACES_LIST, &question(arguments, asked))?;
        let Some(traces) = answer.get_mut("traces").and_then(Value::as_array_mut) else { return Ok(answer) };
        let is_everything = traces.len() < asked || asked >= SEARCHED_MAX;
        traces.retain(|trace| !is_question(word(trace, "root")));
        if traces.len() >= limit || is_everything {
            traces.truncate(limit);
            return Ok(answer);
        }
        asked = asked.saturating_mul(8).min(SEARCHED_MAX);
    }
}

fn question(arguments: &TracesArguments, limit: usize) -> Value {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    json!({
        "function": arguments.function,
        "status": arguments.errors.then_some("error"),
        "min_duration_ms": arguments.slower_than.map_or(0, ms),
        "start_time": arguments.since.map(|since| unix_ms().saturating_sub(ms(since))),
        "limit": limit,
    })
}

fn table(traces: &[Value]) -> Table {
    let mut table = Table::new(&["TRACE", "BEGAN", ">TOOK", ">SPANS", ">WORKERS", "OUTCOME", "FUNCTION"]);
    for trace in traces {
        let outcome = match (number(trace, "live"), number(trace, "errors")) {
            (0, 0) => "ok".to_owned(),
            (0, 1) => "1 error".to_owned(),
            (0, errors) => format!("{errors} errors"),
            (_, 0) => "running".to_owned(),
            (_, errors) => format!("running, {errors} failed"),
        };
        table.row([
            word(trace, "trace_id").to_owned(),
            time_of_day(number(trace, "start_unix_ns")),
            nanoseconds(number(trace, "duration_ns")),
            number(trace, "spans").to_string(),
            number(trace, "workers").to_string(),
            outcome,
            word(trace, "root").to_owned(),
        ]);
    }
    table
}

/// Finds the trace that is meant by `last` or by the beginning of its id.
fn full_id(connection: &Connection, id: &str, arguments: &TracesArguments) -> Result<String, Failure> {
    if id.parse::<ringway::TraceId>().is_ok() {
        return Ok(id.to_owned());
    }
    let limit = if id == "last" { 1 } else { SEARCHED_MAX };
    let answer = if id == "last" {
        listing(connection, arguments, limit)?
    } else {
        connection.ask(naming::TRACES_LIST, &question(arguments, limit))?
    };
    pick(list(&answer, "traces"), id)
}

fn pick(traces: &[Value], id: &str) -> Result<String, Failure> {
    let ids = traces.iter().map(|trace| word(trace, "trace_id"));
    let found: Vec<&str> =
        ids.filter(|known| id == "last" || known.starts_with(&id.to_lowercase())).collect();
    match found.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] if id == "last" => Err(Failure::not_found("no trace is held")),
        [] => {
            let failure =
                Failure::not_found(format_args!("no trace that is held begins with `{}`", printable(id)));
            Err(failure.hint("`ringway traces` lists them; the oldest make room for new ones"))
        }
        several => {
            let failure =
                Failure::usage(format_args!("{} traces begin with `{}`", several.len(), printable(id)));
            Err(failure.hint("type more of the id"))
        }
    }
}

fn draw(connection: &Connection, id: &str, arguments: &TracesArguments) -> Result<ExitCode, Failure> {
    let tree = connection.ask(naming::TRACES_TREE, &json!({ "trace_id": id }))?;
    if arguments.json {
        output::json(&tree)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (trace, anchor) = read::trace(tree)
        .map_err(|problem| Failure::error(format_args!("the engine's answer cannot be drawn: {problem}")))?;
    let terminal = Terminal::of_stdout();
    let width = if terminal.interactive { terminal.width } else { WIDTH_UNSEEN };
    output::text(&render(&trace, anchor, Style { width, colour: terminal.colour, ascii: arguments.ascii }))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_found_by_the_beginning_of_their_id() {
        let traces = [json!({"trace_id": "ab12"}), json!({"trace_id": "ab34"}), json!({"trace_id": "ff00"})];
        assert_eq!(pick(&traces, "AB1").as_deref(), Ok("ab12"));
        assert_eq!(pick(&traces[..1], "last").as_deref(), Ok("ab12"));
        assert!(pick(&traces, "ab").unwrap_err().text().contains("2 traces begin with `ab`"));
        assert!(pick(&traces, "77").unwrap_err().text().contains("no trace"));
        assert!(pick(&[], "last").is_err());
    }

    #[test]
    fn questions_to_the_engine_are_told_from_work() {
        let check = |root: &str, expected: bool| assert_eq!(is_question(root), expected, "{root}");
        check("engine::functions::info", true);
        check("function 0 of worker 477b259c45955597", true);
        check("docs::search", false);
        check("function 3 of worker 477b259c45955597", false);
    }

    #[test]
    fn a_trace_is_one_line() {
        let trace = json!({
            "trace_id": "ab12", "root": "agents::researcher", "worker": "agent", "start_unix_ns": 1_700_000_000_123_000_000_u64,
            "duration_ns": 1_500_000, "outcome": "error", "spans": 9, "live": 0, "errors": 2, "workers": 3,
        });
        let found = table(&[trace]).render(Terminal { interactive: true, colour: false, width: 120 });
        let expected = "\
            TRACE  BEGAN            TOOK  SPANS  WORKERS  OUTCOME   FUNCTION\n\
            ab12   22:13:20.123  1.50 ms      9        3  2 errors  agents::researcher\n";
        assert_eq!(found, expected, "\n{found}");
    }
}
