//! What the worker that did the jobs wrote down, and whether it is right. It must not know how the jobs came there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::load::{Job, Sent};

/// Lines of the journal, in order. Each was written whole, before what it tells was answered.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    runs: Vec<Run>,
    done: BTreeSet<Job>,
    /// For each key, the values that were told, in order.
    changes: BTreeMap<String, Vec<u64>>,
    ticks: Vec<String>,
    /// Jobs that were begun while the same queue had them under way.
    doubles: Vec<Job>,
}

/// A job that was begun.
#[derive(Debug)]
struct Run {
    job: Job,
    /// Rises with every attempt of a job.
    token: u64,
}

impl Journal {
    pub(crate) fn read(path: &Path) -> Self {
        Self::parse(&std::fs::read_to_string(path).unwrap_or_default())
    }

    /// The last line may be cut short by a kill; it tells nothing then.
    fn parse(text: &str) -> Self {
        let mut journal = Self::default();
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let words: Vec<&str> = line.split(' ').collect();
            let number =
                |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
            match words[..] {
                ["run", group, ..] => {
                    journal.runs.push(Run { job: (group.to_owned(), number(2)), token: number(3) });
                }
                ["end", group, ..] => {
                    journal.done.insert((group.to_owned(), number(2)));
                }
                ["change", key, ..] => journal.changes.entry(key.to_owned()).or_default().push(number(2)),
                ["double", group, ..] => journal.doubles.push((group.to_owned(), number(2))),
                ["tick", at] => journal.ticks.push(at.to_owned()),
                _ => panic!("no such line: {line}"),
            }
        }
        journal
    }

    /// Jobs and changes that were acknowledged, and of which nothing is told yet; and the clock, if it was never heard.
    pub(crate) fn missing(&self, sent: &Sent) -> Vec<String> {
        let jobs = sent.jobs();
        let jobs = jobs.difference(&self.done).map(|(group, number)| format!("{group} {number}"));
        let values = sent.acknowledged().into_iter();
        let last = |key: &str| self.changes.get(key).and_then(|all| all.last()).copied().unwrap_or_default();
        let untold =
            values.filter(|(key, value)| last(key) < *value).map(|(key, value)| format!("{key} = {value}"));
        let silent = self.ticks.is_empty().then(|| "any second struck".to_owned());
        jobs.chain(untold).chain(silent).take(20).collect()
    }

    /// The first thing that is wrong.
    fn wrong(&self) -> Result<(), String> {
        self.groups_in_order()?;
        self.tokens_rise()?;
        self.changes_in_order()?;
        if let Some(job) = self.doubles.first() {
            return Err(format!("{job:?} was given out twice at once"));
        }
        let mut seen = BTreeSet::new();
        self.ticks
            .iter()
            .find(|tick| !seen.insert(*tick))
            .map_or(Ok(()), |tick| Err(format!("{tick} struck twice")))
    }

    /// Within a group no job is begun after one that follows it.
    fn groups_in_order(&self) -> Result<(), String> {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for Run { job: (group, number), .. } in self.runs.iter().filter(|run| run.job.0.starts_with("group-"))
        {
            let before = last.entry(group).or_default();
            if *before > *number {
                return Err(format!("job {number} of `{group}` was begun after job {before}"));
            }
            *before = *number;
        }
        Ok(())
    }

    /// What is told for the first time is newer than all that was told before. After a crash the last changes are told
    /// again, in their order.
    fn changes_in_order(&self) -> Result<(), String> {
        for (key, values) in &self.changes {
            let (mut seen, mut newest) = (BTreeSet::new(), 0);
            for value in values {
                if seen.insert(value) && *value < newest {
                    return Err(format!("`{key}` changed to {value} after it had changed to {newest}"));
                }
                newest = newest.max(*value);
            }
        }
        Ok(())
    }

    fn tokens_rise(&self) -> Result<(), String> {
        let mut last: BTreeMap<&Job, u64> = BTreeMap::new();
        for Run { job, token } in &self.runs {
            if let Some(before) = last.insert(job, *token).filter(|before| before >= token) {
                return Err(format!("{job:?} was begun with token {token} after {before}"));
            }
        }
        Ok(())
    }

    pub(crate) fn assert_right(&self, sent: &Sent) {
        let wrong = self.wrong();
        assert_eq!(wrong, Ok(()), "{}", sent.told());
    }

    pub(crate) fn told(&self) -> String {
        let changes: usize = self.changes.values().map(Vec::len).sum();
        let (runs, done, ticks) = (self.runs.len(), self.done.len(), self.ticks.len());
        format!("{done} jobs done in {runs} attempts, {changes} changes told, {ticks} seconds struck")
    }
}

#[test]
fn what_is_wrong_is_found() {
    let check = |text: &str, expected: &str| {
        let found = Journal::parse(text).wrong().err().unwrap_or_default();
        assert_eq!(found, expected, "{text}");
    };
    check(
        "run group-0 1 1\nrun group-0 1 2\nend group-0 1\nrun group-0 2 1\nrun group-1 1 1\nrun group-0 9",
        "",
    );
    check("run group-0 2 1\nrun group-0 1 1\n", "job 1 of `group-0` was begun after job 2");
    check("run crowd-2 2 1\nrun crowd-2 1 1\n", "");
    check("run crowd-2 2 4\nrun crowd-2 2 4\n", "(\"crowd-2\", 2) was begun with token 4 after 4");
    check("change a 1\nchange a 1\nchange a 3\nchange b 2\n", "");
    check("change a 1\nchange a 2\nchange a 1\nchange a 2\nchange a 3\n", "");
    check("change a 2\nchange a 1\n", "`a` changed to 1 after it had changed to 2");
    check("run crowd-2 2 4\ndouble crowd-2 2\n", "(\"crowd-2\", 2) was given out twice at once");
    check("tick 08:00\ntick 08:01\ntick 08:00\n", "08:00 struck twice");
}
