//! A pause or resumption on its way to the disk. Until it is there nothing of it shows and no slot is decided, so that one
//! that was refused has not happened. It must not know who asked.

use ringway_store::Batch;

use super::Entry;
use crate::job::{Job, Millis};

/// A pause or resumption that is not on disk yet.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) paused: bool,
    /// The job as it will be; `None` where it was so before, and goes on: what happens to it meanwhile counts.
    pub(super) job: Option<Job>,
}

impl Entry {
    /// Whether a pause or resumption is under way.
    pub(in crate::scheduler) fn is_changing(&self) -> bool {
        self.change.is_some()
    }

    /// Asks for a pause or resumption; gives what is to be written. What came before is not made up for.
    pub(in crate::scheduler) fn begin_change(&mut self, paused: bool, now: Millis) -> Batch {
        let job = (self.is_paused() != paused).then(|| {
            let mut job = self.job.clone();
            job.begin_at(now);
            job
        });
        self.change = Some(Change { paused, job });
        self.record(now)
    }

    /// It is on disk, or was refused; then what is on disk is to be written again, as others may have written it meanwhile.
    pub(in crate::scheduler) fn end_change(&mut self, refused: Option<Millis>) {
        let Some(Change { paused, job }) = self.change.take() else { return };
        if let Some(retry_at) = refused {
            (self.unwritten, self.retry_at) = (true, retry_at);
            return;
        }
        if self.is_paused() != paused {
            self.leave_interrupted();
        }
        if let Some(job) = job {
            self.job = job;
        }
        self.paused = Some(paused);
    }

    /// Passes over all that came before.
    pub(super) fn begin_at(&mut self, now: Millis) {
        self.job.begin_at(now);
        if let Some(Change { job: Some(job), .. }) = &mut self.change {
            job.begin_at(now);
        }
    }
}
