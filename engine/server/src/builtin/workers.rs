//! A worker says what it is called and what it is, after it has attached: what iii's clients do on every connection.

use std::sync::Arc;

use ringway::{Failure, Function};
use ringway_engine_core::{Announcement, Event};
use ringway_protocol::naming;
use serde_json::json;

use super::{answer, read};
use crate::shared::Shared;

pub(super) fn register(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::WORKERS_REGISTER, |shared, context, input| {
        let announcement: Announcement = read(input)?;
        let worker = context.caller();
        shared.core.read().check_announcement(worker, &announcement)?;
        let announced = Event::WorkerAnnounced { worker, announcement: Box::new(announcement) };
        if shared.settle(announced) {
            Ok(json!({ "success": true }))
        } else {
            Err(Failure::with_code("ENGINE_STOPS", "the engine stops"))
        }
    })
    .description("sets the name and the description of the worker that calls it")
}
