//! Which slots of a job have been decided, as spans of time, so that none is decided twice however the clock is set. Used by
//! `job`, written to disk by `record`. It must not know schedules: a slot is a second.

/// Whole seconds since 1970, UTC. A slot's id.
pub(crate) type Second = i64;

/// Spans that are kept; beyond this the two oldest become one, and what lay between them counts as decided.
pub(crate) const SPANS_MAX: usize = 32;

/// The decided time: spans without their first second and with their last, in order, not touching.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    spans: Vec<(Second, Second)>,
}

impl Ledger {
    /// Reads spans back; puts in order what is not.
    pub(crate) fn from_spans(spans: &[(Second, Second)]) -> Self {
        let mut ledger = Self::default();
        for (from, to) in spans {
            ledger.cover(*from, *to);
        }
        ledger
    }

    pub(crate) fn spans(&self) -> &[(Second, Second)] {
        &self.spans
    }

    /// The last second of the span that holds the slot, if it was decided.
    pub(crate) fn decided(&self, slot: Second) -> Option<Second> {
        let at = self.spans.partition_point(|(_, to)| *to < slot);
        self.spans.get(at).filter(|(from, _)| *from < slot).map(|(_, to)| *to)
    }

    /// Decides everything after `from`, up to and with `to`.
    pub(crate) fn cover(&mut self, from: Second, to: Second) {
        if from >= to {
            return;
        }
        let first = self.spans.partition_point(|(_, end)| *end < from);
        let beyond = self.spans.partition_point(|(start, _)| *start <= to);
        let touched = &self.spans[first..beyond];
        let from = touched.first().map_or(from, |(start, _)| from.min(*start));
        let to = touched.last().map_or(to, |(_, end)| to.max(*end));
        self.spans.splice(first..beyond, [(from, to)]);
        self.join_oldest();
    }

    /// Takes the decision about one second back.
    pub(crate) fn uncover(&mut self, slot: Second) {
        let at = self.spans.partition_point(|(_, to)| *to < slot);
        let Some((from, to)) = self.spans.get(at).copied().filter(|(from, _)| *from < slot) else { return };
        let left = [(from, slot - 1), (slot, to)].into_iter().filter(|(from, to)| from < to);
        self.spans.splice(at..=at, left);
        self.join_oldest();
    }

    fn join_oldest(&mut self) {
        if self.spans.len() > SPANS_MAX {
            let (start, _) = self.spans.remove(0);
            self.spans[0].0 = start;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_spans_become_one_when_there_are_too_many() {
        let mut ledger = Ledger::default();
        for span in 0..40 {
            ledger.cover(span * 10, span * 10 + 1);
        }
        assert_eq!(ledger.spans().len(), SPANS_MAX);
        assert_eq!(ledger.spans()[0], (0, 81));
        assert!(ledger.decided(5).is_some() && ledger.decided(85).is_none());
    }

    proptest! {
        #[test]
        fn it_holds_what_a_set_of_seconds_holds(
            spans in prop::collection::vec((0_i64..200, 0_i64..20, prop::option::of(0_i64..220)), 0..25),
        ) {
            let mut ledger = Ledger::default();
            let mut set = BTreeSet::new();
            for (from, length, back) in spans {
                ledger.cover(from, from + length);
                set.extend(from + 1..=from + length);
                if let Some(back) = back {
                    ledger.uncover(back);
                    set.remove(&back);
                }
            }
            for second in -1..230 {
                prop_assert_eq!(ledger.decided(second).is_some(), set.contains(&second), "{}", second);
            }
            prop_assert!(ledger.spans().windows(2).all(|pair| pair[0].1 < pair[1].0));
            prop_assert_eq!(Ledger::from_spans(ledger.spans()), ledger);
        }
    }
}
