//! What each worker says it holds, as the engine's `engine::memory::list` gathers it: no other worker may be asked by the
//! command line itself. Used by `shm` and `top`.

use ringway_protocol::naming;
use serde_json::{Value, json};

use super::{list, word};
use crate::connection::Connection;
use crate::failure::Failure;

/// Returns the workers' reports, in the order of their names, and what was said instead of a report.
pub(crate) fn reports(connection: &Connection) -> Result<Reports, Failure> {
    let mut reports = Reports::default();
    let answer = connection.ask(naming::MEMORY_LIST, &json!({}))?;
    for entry in list(&answer, "workers") {
        reports.take(entry);
    }
    let own = connection.worker.id().to_string();
    reports.workers.retain(|report| word(report, "worker_id") != own);
    let key = |report: &Value| (word(report, "name").to_owned(), word(report, "worker_id").to_owned());
    reports.workers.sort_by_key(key);
    Ok(reports)
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// Each report is what [`ringway::Worker::inspect`] returns.
    pub(crate) workers: Vec<Value>,
    /// Workers that did not answer, and why.
    pub(crate) silent: Vec<(String, String)>,
}

impl Reports {
    /// Takes an entry of the engine's answer: a worker with its report, or with the error that came instead.
    fn take(&mut self, entry: &Value) {
        match entry.get("memory") {
            Some(report) => self.workers.push(report.clone()),
            None => {
                let error = entry.get("error").unwrap_or(&Value::Null);
                let why = format!("{}: {}", word(error, "code"), word(error, "message"));
                self.silent.push((word(entry, "name").to_owned(), why));
            }
        }
    }
}
