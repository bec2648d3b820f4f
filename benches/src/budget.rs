//! How many instructions each step may take: a committed list, and the comparison with what was counted. Used by
//! `instructions`. It must not know how instructions are counted.

use std::collections::BTreeMap;
use std::fmt::Write;

/// How far a count may lie from its budget either way, in percent. Fewer is a finding too: then the budget is lowered.
pub const TOLERANCE_PERCENT: u64 = 2;

/// Instructions by step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Budget {
    counts: BTreeMap<String, u64>,
}

/// A step whose count is not what the budget says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deviation {
    /// The step.
    pub name: String,
    /// The budget; `None` where the step has none.
    pub budget: Option<u64>,
    /// What was counted; `None` where the step is gone.
    pub counted: Option<u64>,
}

/// The text is no budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError(pub String);

impl std::fmt::Display for LineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "wanted `name instructions`, found {:?}", self.0)
    }
}

impl std::error::Error for LineError {}

impl Budget {
    /// Reads lines of `name instructions`; empty lines and those that start with `#` are left out.
    ///
    /// # Errors
    /// The first line that is neither.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let counts = lines.map(|line| {
            let pair =
                line.split_once(' ').and_then(|(name, count)| Some((name, count.trim().parse().ok()?)));
            pair.map(|(name, count)| (name.to_owned(), count)).ok_or_else(|| LineError(line.to_owned()))
        });
        Ok(Self { counts: counts.collect::<Result<_, _>>()? })
    }

    /// Writes the lines that [`Budget::parse`] reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from(concat!(
            "# Instructions of each step, counted by callgrind in an optimised build with the pinned toolchain on x86-64.\n",
            "# `instructions --update` counts anew; a change of this file belongs to the change that caused it.\n",
        ));
        for (name, count) in &self.counts {
            writeln!(text, "{name} {count}").expect("writing to a string cannot fail");
        }
        text
    }

    /// Sets a step's count.
    pub fn set(&mut self, name: &str, count: u64) {
        self.counts.insert(name.to_owned(), count);
    }

    /// Returns a step's count.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.counts.get(name).copied()
    }

    /// Lists the steps that `counted` does not confirm, those without a budget and those that are gone included.
    #[must_use]
    pub fn deviations(&self, counted: &Self) -> Vec<Deviation> {
        let names = self.counts.keys().chain(counted.counts.keys().filter(|name| self.get(name).is_none()));
        let pairs = names.map(|name| Deviation {
            name: name.clone(),
            budget: self.get(name),
            counted: counted.get(name),
        });
        pairs.filter(|pair| !pair.is_within()).collect()
    }
}

impl Deviation {
    fn is_within(&self) -> bool {
        let (Some(budget), Some(counted)) = (self.budget, self.counted) else { return false };
        // One instruction more or less is the finest that a small step can tell.
        budget.abs_diff(counted) <= (budget * TOLERANCE_PERCENT / 100).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, Deviation};

    fn budget(text: &str) -> Budget {
        Budget::parse(text).unwrap()
    }

    #[test]
    fn text_there_and_back() {
        let counts = budget("# why\n\nround_trip 240\nlease  31\n");
        assert_eq!((counts.get("round_trip"), counts.get("lease")), (Some(240), Some(31)));
        assert_eq!(budget(&counts.to_text()), counts);
        assert!(Budget::parse("round_trip many").is_err() && Budget::parse("240").is_err());
    }

    #[test]
    fn deviations_either_way() {
        let check = |counted: u64, within: bool| {
            let found = budget("step 200").deviations(&budget(&format!("step {counted}")));
            assert_eq!(found.is_empty(), within, "{counted} of 200");
        };
        check(200, true);
        check(204, true);
        check(196, true);
        check(205, false);
        check(195, false);
        let small = budget("step 10");
        assert!(small.deviations(&budget("step 11")).is_empty());
        assert_eq!(small.deviations(&budget("step 12")).len(), 1);
    }

    #[test]
    fn new_steps_and_lost_steps_are_deviations() {
        let found = budget("lost 5\nkept 7").deviations(&budget("kept 7\nnew 9"));
        let expected = [
            Deviation { name: "lost".to_owned(), budget: Some(5), counted: None },
            Deviation { name: "new".to_owned(), budget: None, counted: Some(9) },
        ];
        assert_eq!(found, expected);
    }
}
