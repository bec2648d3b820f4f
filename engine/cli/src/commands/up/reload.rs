//! What happens when `ringway.yaml` changes, or SIGHUP asks for it to be read again: the new file is checked as a whole; a
//! bad one is told and changes nothing; of a good one, what can change while everything runs is put into force, and the
//! rest is named. It must not know what the settings mean.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use parking_lot::Mutex;
use ringway_config::{Settings, Variables};
use ringway_engine::Engine;
use ringway_workers::{Workers, sections};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use super::policy::PolicyFile;
use super::watch::Watch;
use crate::output;

/// How long nothing may happen to a file before it is read: editors write in several steps.
const QUIET: Duration = Duration::from_millis(200);

/// What happened to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It is another one now, and whole.
    Changed,
    /// Somebody writes it, and has not closed it yet.
    Writing,
    /// SIGHUP asks for it to be read.
    Asked,
    /// The engine has stopped.
    End,
}

/// A file that is followed from before it is read, so that it is read once unless it changes.
pub(super) struct Followed {
    file: PathBuf,
    /// It watches until it is dropped; none where that cannot be done.
    watch: Mutex<Option<Watch>>,
    news: Sender<News>,
    come: Mutex<Receiver<News>>,
    /// SIGHUP, caught from the start on; taken by whoever listens.
    hang_ups: Mutex<Option<Signals>>,
}

impl Followed {
    pub(super) fn start(file: &Path) -> Self {
        let (news, come) = mpsc::channel();
        let watch = match Watch::start(file, news.clone()) {
            Ok(watch) => Some(watch),
            Err(error) => {
                let file = file.display();
                output::note(&format!(
                    "warning: {file} is not watched for changes: {error}; SIGHUP has it read"
                ));
                None
            }
        };
        let hang_ups = match Signals::new([SIGHUP]) {
            Ok(signals) => Some(signals),
            Err(error) => {
                output::note(&format!("warning: SIGHUP is not heard: {error}"));
                None
            }
        };
        Self {
            file: file.to_owned(),
            watch: Mutex::new(watch),
            news,
            come: Mutex::new(come),
            hang_ups: Mutex::new(hang_ups),
        }
    }
}

/// A running engine and the file that it follows.
pub(super) struct Reload<'a> {
    file: Option<Followed>,
    /// What the engine was started with.
    started: Settings,
    /// What was read last and found good.
    last: Mutex<Settings>,
    /// What says more than the file does.
    policy: PolicyFile,
    engine: &'a Engine,
    workers: Option<&'a Workers>,
}

impl<'a> Reload<'a> {
    pub(super) fn new(
        file: Option<Followed>,
        settings: Settings,
        policy: PolicyFile,
        engine: &'a Engine,
        workers: Option<&'a Workers>,
    ) -> Self {
        Self { file, started: settings.clone(), last: Mutex::new(settings), policy, engine, workers }
    }

    /// How long workers may finish what they have begun, as the file says now.
    pub(super) fn drain(&self) -> Duration {
        Duration::from_millis(self.last.lock().engine.drain_ms)
    }

    /// Follows the file while `run` runs; without a file, SIGHUP is as the system has it.
    pub(super) fn run_while<R>(&self, run: impl FnOnce() -> R) -> R {
        let Some(followed) = &self.file else { return run() };
        let signals = followed.hang_ups.lock().take();
        std::thread::scope(|scope| {
            let news = followed.news.clone();
            scope.spawn(|| {
                follow(&followed.come.lock(), |asked| {
                    if let Some(words) = self.read_again(followed, asked) {
                        output::note(&words);
                    }
                });
            });
            let handle = signals.map(|mut signals| {
                let (handle, news) = (signals.handle(), news.clone());
                scope.spawn(move || {
                    for _hang_up in signals.forever() {
                        // Nobody listens only at the end.
                        let _ended = news.send(News::Asked);
                    }
                });
                handle
            });
            let result = run();
            if let Some(handle) = handle {
                handle.close();
            }
            let _ended = news.send(News::End);
            result
        })
    }

    /// Reads the file, puts into force what can be, and says what came of it; nothing where nothing differs and nobody
    /// asked.
    fn read_again(&self, followed: &Followed, asked: bool) -> Option<String> {
        let file = &followed.file;
        if let Some(Err(error)) = followed.watch.lock().as_mut().map(Watch::follow) {
            tracing::warn!(file = %file.display(), %error, "changes of this file may go unnoticed; SIGHUP has it read");
        }
        let unused = |why: &dyn std::fmt::Display| {
            Some(format!("{why}\n  {} is not used; the engine goes on as before", file.display()))
        };
        let new = match Settings::read_again(file, &sections(), &Variables::process()) {
            Ok(new) => new,
            Err(problems) => return unused(&problems),
        };
        let mut last = self.last.lock();
        let changes = last.changes(&new, &sections());
        if changes.is_empty() {
            return asked.then(|| format!("{} says nothing new", file.display()));
        }
        match self.policy.with(&new.engine) {
            Ok(joined) => self.engine.set_policy(super::settings::policy(&joined.rules)),
            Err(failure) => return unused(&failure.message()),
        }
        self.workers.iter().for_each(|workers| workers.apply(&new));
        *last = new;
        let live: Vec<&str> =
            changes.iter().filter(|change| change.live).map(|change| &*change.path).collect();
        let pending = self.started.changes(&last, &sections());
        let pending: Vec<&str> =
            pending.iter().filter(|change| !change.live).map(|change| &*change.path).collect();
        let mut told = format!("{} was read again", file.display());
        if !live.is_empty() {
            told.push_str(&format!("\n  now in force: {}", live.join(", ")));
        }
        if !pending.is_empty() {
            told.push_str(&format!("\n  needs a restart: {}", pending.join(", ")));
        }
        Some(told)
    }
}

/// Has the file read when it is whole and nothing has happened to it for a while, or somebody asks. What comes close
/// together is one change.
fn follow(come: &Receiver<News>, mut read: impl FnMut(bool)) {
    // Whether there is something to read, and whether somebody asked for it.
    let mut due: Option<bool> = None;
    loop {
        let news = match due {
            None => come.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => come.recv_timeout(QUIET),
        };
        match (news, due) {
            (Ok(News::Changed), asked) => due = Some(asked == Some(true)),
            // What it holds now is not what its writer means; its closing is told.
            (Ok(News::Writing), Some(true)) => {}
            (Ok(News::Writing), _) => due = None,
            (Ok(News::Asked), _) => due = Some(true),
            (Err(RecvTimeoutError::Timeout), Some(asked)) => {
                due = None;
                read(asked);
            }
            (Ok(News::End) | Err(_), _) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far more than any reading takes to begin.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Sends these news, some with quiet behind them, and expects the file to be read so often, asked for or not.
    fn check(news: &[(News, bool)], expected: &[bool]) {
        let (send, come) = mpsc::channel();
        let (told, read) = mpsc::channel();
        std::thread::scope(|scope| {
            let done = scope.spawn(move || {
                for (news, quiet) in news {
                    send.send(*news).unwrap();
                    if *quiet {
                        // Long enough for a reading that should not be.
                        std::thread::sleep(QUIET * 3);
                    }
                }
                let found: Vec<_> = expected.iter().map(|_| read.recv_timeout(PATIENCE).unwrap()).collect();
                send.send(News::End).unwrap();
                (found, read)
            });
            follow(&come, |asked| told.send(asked).unwrap());
            let (found, read) = done.join().unwrap();
            assert_eq!((&*found, read.try_iter().count()), (expected, 0), "{news:?}");
        });
    }

    #[test]
    fn a_file_is_read_when_it_is_whole() {
        use News::{Asked, Changed, Writing};
        check(&[], &[]);
        // Nobody reads the half of a file.
        check(&[(Writing, true), (Writing, true)], &[]);
        check(&[(Writing, true), (Changed, true)], &[false]);
        check(&[(Changed, false), (Writing, true)], &[]);
        check(&[(Changed, false), (Changed, true), (Changed, true)], &[false, false]);
        check(&[(Writing, false), (Asked, true)], &[true]);
    }
}
