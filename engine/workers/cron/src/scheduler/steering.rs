//! What callers of `cron::*` ask of the jobs: to be shown, paused, resumed, run by hand. It must not know how those functions
//! are called.

use std::sync::Arc;

use async_channel::Receiver;
use ringway::{CallError, ErrorCode, Failure, HandlerResult, Worker};
use ringway_store::{Durability, StoreError};
use ringway_worker_kit::{Delivered, store_failure};
use serde_json::Value;

use super::entry::Entry;
use super::{Jobs, Running, Scheduler, retry_after};
use crate::delivery;
use crate::functions::JobView;

impl Scheduler {
    /// All jobs as they are now.
    pub(crate) fn list(self: &Arc<Self>) -> Vec<JobView> {
        let _next = self.turn(false);
        let jobs = self.jobs.lock();
        jobs.by_id.iter().filter(|(_, entry)| entry.live).map(|(id, entry)| entry.view(id)).collect()
    }

    /// Pauses or resumes a job; both are durable, and outlive the trigger. What is received is how that ended; it happens
    /// whether somebody receives it or not.
    pub(crate) fn pause(
        self: &Arc<Self>,
        id: &str,
        paused: bool,
    ) -> HandlerResult<Receiver<Result<(), StoreError>>> {
        let _next = self.turn(false);
        let mut jobs = self.jobs.lock();
        let now = self.clock.now();
        let entry = live(&mut jobs, id)?;
        if entry.is_changing() {
            let text = format!("a pause or resumption of `{id}` is being written down; try again when it is");
            return Err(CallError::new(ErrorCode::Busy, text).with_user_code("PAUSE_ERROR").into());
        }
        let batch = entry.begin_change(paused, now);
        let (tell, told) = async_channel::bounded(1);
        let (scheduler, job) = (Arc::clone(self), id.to_owned());
        let done = Box::new(move |outcome: Result<u64, StoreError>| {
            let spawner = scheduler.spawner.clone();
            spawner.spawn(async move {
                scheduler.paused(&job, outcome.as_ref().err());
                let _nobody_waits = tell.try_send(outcome.map(drop));
            });
        });
        if let Err(error) = self.store.submit(batch, Durability::Durable, done) {
            entry.end_change(Some(now + retry_after(&error)));
            jobs.look_at(id, Some(now));
            drop(jobs);
            self.clock.ring();
            return Err(store_failure("PAUSE_ERROR", &error));
        }
        Ok(told)
    }

    fn paused(&self, id: &str, error: Option<&StoreError>) {
        let mut jobs = self.jobs.lock();
        let now = self.clock.now();
        if let Some(entry) = jobs.by_id.get_mut(id) {
            entry.end_change(error.map(|error| now + retry_after(error)));
        }
        jobs.look_at(id, Some(now));
        drop(jobs);
        self.clock.ring();
    }

    /// Calls a job's function now, whatever its schedule says. It counts as running from now until the future has ended or
    /// is dropped.
    ///
    /// # Errors
    /// There is no such job.
    pub(crate) fn run_now(
        self: &Arc<Self>,
        worker: Worker,
        id: String,
    ) -> HandlerResult<impl Future<Output = Result<Delivered, CallError>> + Send + use<>> {
        let _next = self.turn(false);
        let (binding, now) = {
            let mut jobs = self.jobs.lock();
            let entry = live(&mut jobs, &id)?;
            entry.running += 1;
            (Arc::clone(&entry.binding), self.clock.now())
        };
        let running = Running { scheduler: Arc::clone(self), id };
        Ok(async move {
            let payload: Value = delivery::payload(&running.id, now, now);
            let outcome = delivery::deliver(&worker, &binding, &payload).await;
            drop(running);
            outcome
        })
    }

    /// As [`Scheduler::run_now`], without anybody who waits: how it ended shows in the list.
    ///
    /// # Errors
    /// There is no such job, or this worker ends.
    pub(crate) fn start_now(self: &Arc<Self>, id: &str) -> HandlerResult<()> {
        let Some(worker) = self.worker.lock().clone() else {
            return Err(Failure::with_code("LEAVING", "the cron worker ends, and starts nothing any more"));
        };
        let run = self.run_now(worker, id.to_owned())?;
        let (scheduler, id) = (Arc::clone(self), id.to_owned());
        self.spawner.spawn(async move {
            let outcome = run.await;
            if let Err(error) = &outcome {
                tracing::warn!(target: "ringway", job = id, %error, "a function that was run by hand failed");
            }
            if let Some(entry) = scheduler.jobs.lock().by_id.get_mut(&id) {
                entry.ran(outcome.err());
            }
        });
        Ok(())
    }
}

/// The job of a trigger that is bound.
fn live<'a>(jobs: &'a mut Jobs, id: &str) -> HandlerResult<&'a mut Entry> {
    jobs.by_id.get_mut(id).filter(|entry| entry.live).ok_or_else(|| {
        let text = format!("there is no cron trigger `{id}`; `cron::list` shows those that are bound");
        Failure::with_code("NOT_FOUND", text)
    })
}
