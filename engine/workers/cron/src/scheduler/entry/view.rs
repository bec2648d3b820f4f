//! An entry as callers of `cron::list` see it. It must not change anything.

use super::Entry;
use crate::config::Bound;
use crate::delivery::rfc3339;
use crate::functions::JobView;

impl Entry {
    /// The job as callers see it.
    pub(in crate::scheduler) fn view(&self, id: &str) -> JobView {
        let Bound { schedule, config: _ } = &self.binding.config;
        let next = if self.is_paused() { None } else { self.job.next_slot(&self.binding.config) };
        JobView {
            id: id.to_owned(),
            expression: schedule.expression().to_owned(),
            timezone: schedule.zone().to_owned(),
            function_id: self.binding.function_id.clone(),
            next: next.map(|slot| rfc3339(slot.saturating_mul(1000))),
            last: self.last.map(|slot| rfc3339(slot.saturating_mul(1000))),
            paused: self.is_paused(),
            running: self.running + usize::from(self.claiming),
            waiting: self.job.waiting() + self.repeats.len(),
            fired: self.fired,
            skipped: self.job.left_out.skipped,
            missed: self.job.left_out.missed,
            interrupted: self.interrupted,
            last_error: self.last_error.clone(),
            problem: self.problem.clone(),
        }
    }
}
