//! The parts that hold documents: search, and replicas that read. They know one corpus; they must not know questions.

use std::time::Instant;

use ringway::{Failure, Function, Message};

use super::{Service, WorkerError};
use crate::corpus::{Corpus, ReadRequest};
use crate::report::AgentReport;
use crate::search::{Library, SearchRequest};
use crate::setup::Setup;

pub(crate) const SEARCH: &str = "docs::search";
pub(crate) const READ: &str = "docs::read";
pub(crate) const REPORT: &str = "docs::report";
pub(crate) const PING: &str = "docs::ping";
/// The small call over the rings as bytes, which are sent back.
pub(crate) const PING_BYTES: &str = "docs::ping_bytes";

fn corpus(setup: &Setup) -> Result<Corpus, WorkerError> {
    Ok(match &setup.input {
        Some(folder) => Corpus::folder(folder, setup.documents)?,
        None => Corpus::cargo_registry(setup.documents)?,
    })
}

pub(super) fn search(service: &mut Service, setup: &Setup) -> Result<(), WorkerError> {
    let library = Library::build(corpus(setup)?, setup.index_time_max())?;
    let report = AgentReport::new(library.corpus(), library.report().clone());
    let work = service.work();
    service.both(SEARCH, "finds documents that hold words", move |_, request: SearchRequest| {
        let began = Instant::now();
        let reply = library.search(&request)?;
        tracing::info!(query = request.query, hits = reply.hits.len(), "searched");
        work.did(began, 0);
        Ok(reply)
    });
    service.function(REPORT, "what was found and indexed", move |_, ()| Ok(report.clone()));
    service.both(PING, "sends a number back", |_, number: u64| Ok(number));
    service.push(
        Function::raw(PING_BYTES, |_, request| Ok(Message::bytes(request.body())))
            .description("sends bytes back")
            .inline(),
    );
    Ok(())
}

pub(super) fn read(service: &mut Service, setup: &Setup) -> Result<(), WorkerError> {
    let corpus = corpus(setup)?;
    let work = service.work();
    service.both(READ, "reads lines of a document", move |_, request: ReadRequest| {
        let began = Instant::now();
        let passage = corpus.read(&request).map_err(|error| {
            tracing::warn!(%error, "not read");
            Failure::from(error)
        })?;
        tracing::info!(document = passage.name, first = passage.first_line, last = passage.last_line, "read");
        work.did(began, passage.text.len() as u64);
        Ok(passage)
    });
    Ok(())
}
