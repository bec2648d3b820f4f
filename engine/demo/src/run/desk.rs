//! The third job: the same questions through durable state, queues, a state trigger with a condition, and cron. With chaos,
//! the engine and the workers that do it are killed in the middle, at random, and it must come out right all the same.

use std::time::{Duration, Instant};

use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway::{CallError, ErrorCode, Failure};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::agents::nanoseconds;
use super::{Demo, DemoError, random, tell};
use crate::calls::{RingCalls, ask};
use crate::desk::{
    COUNT, Count, Kept, PROGRESS, Progress, QUESTIONS, Question, RESEARCH_QUEUE, REVIEW_QUEUE, Status, TICKS,
    read,
};
use crate::report::AgentReport;
use crate::setup::Part;
use crate::workers::{ACCEPT, TICK};

const DURING: &str = "the durable loop";
/// How long a call may be repeated while the engine is away.
const AWAY_TIME_MAX: Duration = Duration::from_secs(30);
/// How long all answers may take once nobody is killed any more.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);
/// Between two looks at how far it is.
const LOOK_TIME: Duration = Duration::from_millis(20);
/// The longest time between two deaths, in milliseconds.
const LIFE_MS_MAX: u64 = 600;
/// Who is killed; the engine as often as all others together.
const VICTIMS: [Part; 4] = [Part::Researcher, Part::Critic, Part::Desk, Part::Summarize];

/// What became of one question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeskLine {
    /// Its key.
    pub key: String,
    /// Its text.
    pub question: String,
    /// Where it stands.
    pub status: Status,
    /// Steps that were kept.
    pub steps: u32,
    /// How often somebody began to go on with it.
    pub begun: u32,
    /// Whether the answer is that of the plain loop, to the letter.
    pub same: bool,
}

/// The outcome of the durable loop.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeskReport {
    /// Every question, by its key.
    pub questions: Vec<DeskLine>,
    /// Engines that were killed.
    pub engines_killed: u32,
    /// Workers that were killed.
    pub workers_killed: u32,
    /// Seconds that struck.
    pub ticks: u64,
    /// Seconds that struck more than once.
    pub ticks_repeated: u64,
    /// What the clockwork counted last.
    pub count: Option<Count>,
    /// Messages that nobody could deal with.
    pub dead_letters: u64,
    /// From the first question to the last answer, in nanoseconds.
    pub elapsed_ns: u64,
}

impl DeskReport {
    /// Says what is wrong with it, if anything is.
    fn wrong(&self) -> Option<String> {
        let unlike = self.questions.iter().find(|line| !line.same);
        if let Some(line) = unlike {
            return Some(format!(
                "question {} ({:?}) did not get the answer of the plain loop",
                line.key, line.status
            ));
        }
        if self.ticks_repeated > 0 {
            return Some(format!("{} seconds struck more than once", self.ticks_repeated));
        }
        (self.dead_letters > 0).then(|| format!("{} messages became dead letters", self.dead_letters))
    }
}

impl Demo<'_> {
    /// Asks every question durably and waits for the answers; kills as often as wanted meanwhile.
    pub(super) fn answer_durably(&self, plain: &AgentReport) -> Result<DeskReport, DemoError> {
        self.check(DURING)?;
        self.set_desk_up()?;
        let began = Instant::now();
        let mut report = DeskReport::default();
        let mut keys = Vec::new();
        for question in &self.questions {
            keys.push(self.ask_durably(keys.len(), question)?);
        }
        for (_, question) in (0..self.options.kills).zip(self.questions.iter().cycle()) {
            self.kill_one(&mut report)?;
            keys.push(self.ask_durably(keys.len(), question)?);
        }
        self.wait_for_answers(&keys)?;
        report.elapsed_ns = nanoseconds(began.elapsed());
        self.wait_for_a_tick()?;
        self.read_up(&keys, plain, &mut report)?;
        match report.wrong() {
            Some(what) => Err(DemoError::Wrong { during: DURING, what }),
            None => Ok(report),
        }
    }

    fn set_desk_up(&self) -> Result<(), DemoError> {
        for queue in [RESEARCH_QUEUE, REVIEW_QUEUE] {
            let settings = json!({ "backoff_ms": 50, "backoff_ms_max": 500, "max_retries": 1000 });
            let _set: Value =
                self.until_there("queue::configure", &json!({ "queue": queue, "settings": settings }))?;
        }
        let pending = json!({ "scope": QUESTIONS, "condition": "status == \"pending\"" });
        let every_second = json!({ "expression": "* * * * * *" });
        for (id, kind, function, config) in
            [("demo-asked", "state", ACCEPT, pending), ("demo-tick", "cron", TICK, every_second)]
        {
            let failed = |error| self.explain(DURING, error);
            let id_of_function = FunctionId::new(function)
                .map_err(|error| failed(CallError::new(ErrorCode::InvalidRegistration, error.to_string())))?;
            let mut trigger = TriggerSpec::new(id, kind, id_of_function);
            trigger.config = config;
            self.worker.register_trigger(trigger).map_err(failed)?;
        }
        Ok(())
    }

    /// Puts a question into state, which sets everything off, and returns its key.
    fn ask_durably(&self, number: usize, question: &str) -> Result<String, DemoError> {
        let key = format!("q{:03}", number + 1);
        let asked =
            json!({ "scope": QUESTIONS, "key": key, "value": Question::new(question), "if_revision": 0 });
        match self.until_there::<Value>("state::set", &asked) {
            Ok(_) => Ok(key),
            // An engine that died after it had kept the question: the same request finds it there.
            Err(DemoError::Call { error, .. }) if error.user_code.as_deref() == Some("REVISION_MISMATCH") => {
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }

    /// Kills the engine or a worker after a while, and starts another in its place.
    fn kill_one(&self, report: &mut DeskReport) -> Result<(), DemoError> {
        std::thread::sleep(Duration::from_millis(random() % LIFE_MS_MAX));
        self.check(DURING)?;
        let dice = usize::try_from(random() % (2 * VICTIMS.len() as u64)).unwrap_or(0);
        let victim = VICTIMS.get(dice).copied().unwrap_or(Part::Engine);
        tell(&format!("kill -9 {victim}"));
        self.processes.replace(victim).map_err(DemoError::Start)?;
        if victim == Part::Engine {
            report.engines_killed += 1;
        } else {
            report.workers_killed += 1;
        }
        Ok(())
    }

    fn wait_for_answers(&self, keys: &[String]) -> Result<(), DemoError> {
        let (until, mut told) = (Instant::now() + ANSWER_TIME_MAX, Instant::now());
        loop {
            self.check(DURING)?;
            let questions: Vec<Question> = self.until_there("state::list", &json!({ "scope": QUESTIONS }))?;
            let count = Count::of(&questions);
            if questions.len() == keys.len() && count.pending == 0 {
                return Ok(());
            }
            if Instant::now() >= until {
                let what = format!(
                    "{} of {} questions have no answer after {} s",
                    count.pending,
                    keys.len(),
                    ANSWER_TIME_MAX.as_secs()
                );
                return Err(DemoError::Wrong { during: DURING, what });
            }
            if told.elapsed() > Duration::from_secs(1) {
                told = Instant::now();
                tell(&format!("durable loop: {} of {} questions answered", count.answered, keys.len()));
            }
            std::thread::sleep(LOOK_TIME);
        }
    }

    /// Waits until the clockwork has counted once more: it shows that triggers outlive engines too.
    fn wait_for_a_tick(&self) -> Result<(), DemoError> {
        let (scope, key) = COUNT;
        let known = || -> Result<u64, DemoError> {
            let count: Kept<Count> = self
                .until_there("state::get", &json!({ "scope": scope, "key": key, "with_revision": true }))?;
            Ok(count.revision)
        };
        let (before, until) = (known()?, Instant::now() + AWAY_TIME_MAX);
        while known()? == before {
            if Instant::now() >= until {
                let what = format!("no second struck for {} s", AWAY_TIME_MAX.as_secs());
                return Err(DemoError::Wrong { during: DURING, what });
            }
            self.check(DURING)?;
            std::thread::sleep(LOOK_TIME);
        }
        Ok(())
    }

    fn read_up(
        &self,
        keys: &[String],
        plain: &AgentReport,
        report: &mut DeskReport,
    ) -> Result<(), DemoError> {
        let calls = RingCalls::new(&self.untraced);
        let explain = |error: Failure| self.explain(DURING, error.into_error());
        for key in keys {
            let question = read::<Question>(&calls, QUESTIONS, key).map_err(explain)?.value;
            let progress = read::<Progress>(&calls, PROGRESS, key).map_err(explain)?.value;
            let Some(question) = question else {
                let what = format!("question {key} was acknowledged and is gone");
                return Err(DemoError::Wrong { during: DURING, what });
            };
            let expected = plain.runs.iter().find(|run| run.answer.draft.question == question.question);
            let same = expected.is_some_and(|run| Some(&run.answer) == question.answer.as_ref());
            let (steps, begun) = progress.map_or((0, 0), |progress| (progress.steps, progress.begun));
            let Question { question, status, .. } = question;
            report.questions.push(DeskLine { key: key.clone(), question, status, steps, begun, same });
        }
        let ticks: Vec<Value> = ask(&calls, "state::list", &json!({ "scope": TICKS })).map_err(explain)?;
        report.ticks = ticks.len() as u64;
        report.ticks_repeated = ticks.iter().filter(|tick| tick["struck"].as_u64() != Some(1)).count() as u64;
        let (scope, key) = COUNT;
        report.count = read(&calls, scope, key).map_err(explain)?.value;
        for queue in [RESEARCH_QUEUE, REVIEW_QUEUE] {
            let stats: Value = ask(&calls, "queue::stats", &json!({ "topic": queue })).map_err(explain)?;
            report.dead_letters += stats["dlq_depth"].as_u64().unwrap_or_default();
        }
        Ok(())
    }

    /// Calls until the function is there again: an engine that was killed takes its built-in workers along for a moment.
    fn until_there<T: DeserializeOwned>(&self, function: &str, request: &Value) -> Result<T, DemoError> {
        let (calls, until) = (RingCalls::new(&self.untraced), Instant::now() + AWAY_TIME_MAX);
        // A fresh engine has not all functions yet.
        let passes = |code: ErrorCode| code.is_transient() || code == ErrorCode::NotFound;
        loop {
            match ask(&calls, function, request).map_err(Failure::into_error) {
                Ok(reply) => return Ok(reply),
                Err(error) if passes(error.code) && Instant::now() < until => {
                    self.check(DURING)?;
                    std::thread::sleep(LOOK_TIME);
                }
                Err(error) => return Err(DemoError::Call { during: DURING, error }),
            }
        }
    }
}
