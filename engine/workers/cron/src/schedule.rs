//! When a job is due: an expression in a time zone, by the rules of Vixie's cron for clocks that are put forward and back.
//! Pure: an instant goes in, the next one comes out. It must not know jobs, clocks or stores.
//!
//! A zone's time is cut into stretches of one offset each, within which the wall clock is plain arithmetic. At a seam
//! - where the clock goes forward, a job with fixed times that has any in the missing piece is due once, right after it; a
//!   job with a `*` in hour or minute is due when the wall clock shows its time, and so never in that piece;
//! - where it goes back, a job with fixed times is not due again until the wall clock has caught up; one with a `*` is, as
//!   the wall clock shows.
//!
//! Shifts of more than three hours are corrections of the calendar, not of the season: nothing is made up for or left out.

use croner::errors::CronError;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::expression::{Expression, ExpressionError};

/// The longest shift that is made up for.
const SHIFT_MAX: SignedDuration = SignedDuration::from_hours(3);

/// No two offsets lie further apart.
const OFFSET_SPAN: SignedDuration = SignedDuration::from_hours(52);

/// Why there is no such schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The expression is wrong.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// There is no such time zone.
    #[error("`{0}` is no time zone: a name of the IANA database is wanted, such as `Europe/Berlin` or `UTC`")]
    Zone(String),
}

/// An expression in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    zone: TimeZone,
    zone_name: String,
    expression: Expression,
}

/// A piece of time during which the offset stays the same.
struct Stretch {
    /// Its first second, and the offset before; `None` where it began before all records.
    begun: Option<(Timestamp, Offset)>,
    offset: Offset,
    /// The first second after it.
    end: Option<Timestamp>,
}

impl Schedule {
    /// Reads an expression of five fields (minute, hour, day of the month, month, day of the week), six (seconds first) or
    /// seven (a year last), or a name such as `@hourly`, for a zone of the IANA database.
    ///
    /// # Errors
    /// Says what is wrong, and in which column.
    pub fn new(expression: &str, zone: &str) -> Result<Self, ScheduleError> {
        let parsed = Expression::parse(expression)?;
        let found = TimeZone::get(zone).map_err(|_| ScheduleError::Zone(zone.to_owned()))?;
        Ok(Self { text: expression.to_owned(), zone: found, zone_name: zone.to_owned(), expression: parsed })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.text
    }

    /// The time zone's name.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.zone_name
    }

    /// The first second after `after` at which the job is due; `None` if it is never due again. Costs some microseconds;
    /// tens of milliseconds where it is never.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let mut from =
            Timestamp::from_second(after.as_second()).ok()?.checked_add(SignedDuration::from_secs(1)).ok()?;
        loop {
            let stretch = self.stretch(from);
            if let Some(due) = self.at_seam(&stretch).filter(|due| *due >= from) {
                return Some(due);
            }
            let wall = stretch.offset.to_datetime(from).max(self.caught_up(&stretch));
            let due = self.matching(wall)?;
            let instant = stretch.offset.to_timestamp(due).ok()?;
            let Some(end) = stretch.end else { return Some(instant) };
            if instant < end {
                return Some(instant);
            }
            // Nothing matches before `due` on any wall clock, so stretches that end long before are passed over.
            let nearly = instant.checked_sub(OFFSET_SPAN).ok()?;
            from = end.max(nearly);
        }
    }

    fn stretch(&self, at: Timestamp) -> Stretch {
        // A seam at `at` itself begins the stretch.
        let soon = at.checked_add(SignedDuration::from_nanos(1)).unwrap_or(at);
        let begun = self.zone.preceding(soon).next().map(|seam| {
            let seam = seam.timestamp();
            let before = seam.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(seam);
            (seam, self.zone.to_offset(before))
        });
        let end = self.zone.following(at).next().map(|seam| seam.timestamp());
        Stretch { begun, offset: self.zone.to_offset(at), end }
    }

    /// Where the clock went forward into this stretch, past a fixed time of the job's: that second.
    fn at_seam(&self, stretch: &Stretch) -> Option<Timestamp> {
        let (begun, before) = stretch.begun?;
        let (left, entered) = (before.to_datetime(begun), stretch.offset.to_datetime(begun));
        if self.expression.wildcard || entered <= left || entered.duration_since(left) > SHIFT_MAX {
            return None;
        }
        let missed = self.matching(left)?;
        (missed < entered).then_some(begun)
    }

    /// What the wall clock has to show before a job with fixed times is due in this stretch.
    fn caught_up(&self, stretch: &Stretch) -> DateTime {
        let Some((begun, before)) = stretch.begun else { return DateTime::MIN };
        let (left, entered) = (before.to_datetime(begun), stretch.offset.to_datetime(begun));
        let back = left.duration_since(entered);
        if self.expression.wildcard || back > SHIFT_MAX { DateTime::MIN } else { left.max(entered) }
    }

    /// The first time that matches, from `wall` on, on a wall clock that is never changed.
    fn matching(&self, wall: DateTime) -> Option<DateTime> {
        let found: Result<DateTime, CronError> = self.expression.cron.find_next_occurrence(&wall, true);
        found.ok()
    }
}

#[cfg(test)]
#[path = "schedule/tests.rs"]
mod tests;
