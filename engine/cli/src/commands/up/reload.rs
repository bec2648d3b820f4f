//! What happens when `ringway.yaml` changes, or SIGHUP asks for it to be read again: the new file is checked as a whole; a
//! bad one is told and changes nothing; of a good one, what can change while everything runs is put into force, and the
//! rest is named. It must not know what the settings mean.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use parking_lot::Mutex;
use ringway_config::{Settings, Variables};
use ringway_engine::{Engine, Rule};
use ringway_workers::{Workers, sections};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use super::policy;
use crate::output;

/// How long nothing may happen to a file before it is read: editors write in several steps.
const QUIET: Duration = Duration::from_millis(200);

/// Why the file is to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Changed,
    Asked,
    End,
}

/// A running engine and the file that it follows.
pub(super) struct Reload<'a> {
    file: Option<PathBuf>,
    /// What the engine was started with.
    started: Settings,
    /// What was read last and found good.
    last: Mutex<Settings>,
    /// Rules that come before those of the file.
    rules: Vec<Rule>,
    engine: &'a Engine,
    workers: Option<&'a Workers>,
}

impl<'a> Reload<'a> {
    pub(super) fn new(
        file: Option<PathBuf>,
        settings: Settings,
        rules: Vec<Rule>,
        engine: &'a Engine,
        workers: Option<&'a Workers>,
    ) -> Self {
        Self { file, started: settings.clone(), last: Mutex::new(settings), rules, engine, workers }
    }

    /// How long workers may finish what they have begun, as the file says now.
    pub(super) fn drain(&self) -> Duration {
        Duration::from_millis(self.last.lock().engine.drain_ms)
    }

    /// Follows the file while `run` runs; without a file, SIGHUP is as the system has it.
    pub(super) fn run_while<R>(&self, run: impl FnOnce() -> R) -> R {
        let Some(file) = &self.file else { return run() };
        let (news, come) = mpsc::channel();
        // It watches until it is dropped.
        let watcher = watch(file, news.clone());
        if let Err(error) = &watcher {
            output::note(&format!(
                "warning: {} is not watched for changes: {error}; SIGHUP has it read",
                file.display()
            ));
        }
        // It may have changed since it was read and before it was watched.
        let _listened = news.send(News::Changed);
        let signals = Signals::new([SIGHUP]);
        if let Err(error) = &signals {
            output::note(&format!("warning: SIGHUP is not heard: {error}"));
        }
        std::thread::scope(|scope| {
            scope.spawn(move || self.follow(file, &come));
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
            if let Ok(handle) = handle {
                handle.close();
            }
            let _ended = news.send(News::End);
            result
        })
    }

    fn follow(&self, file: &Path, come: &Receiver<News>) {
        while let Ok(mut first) = come.recv() {
            // Whatever comes close together is one change.
            loop {
                if first == News::End {
                    return;
                }
                match come.recv_timeout(QUIET) {
                    Ok(News::Changed) => {}
                    Ok(next) => first = next,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            if let Some(words) = self.read_again(file, first == News::Asked) {
                output::note(&words);
            }
        }
    }

    /// Reads the file, puts into force what can be, and says what came of it; nothing where nothing differs and nobody
    /// asked.
    fn read_again(&self, file: &Path, asked: bool) -> Option<String> {
        let kept = "the engine goes on as before";
        let new = match Settings::read(file, &sections(), &Variables::process()) {
            Ok(new) => new,
            Err(problems) => return Some(format!("{problems}\n  {} is not used; {kept}", file.display())),
        };
        let mut last = self.last.lock();
        let changes = last.changes(&new, &sections());
        if changes.is_empty() {
            return asked.then(|| format!("{} says nothing new", file.display()));
        }
        match policy::policy(&self.rules, &new.engine) {
            Ok(policy) => self.engine.set_policy(policy),
            Err(failure) => {
                return Some(format!("{}\n  {} is not used; {kept}", failure.message(), file.display()));
            }
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

/// Watches the folder of a file, since editors put another file in its place.
fn watch(file: &Path, news: Sender<News>) -> notify::Result<impl Watcher + use<>> {
    let file = std::path::absolute(file).map_err(notify::Error::io)?;
    let name = file.file_name().map(ToOwned::to_owned);
    let folder = file.parent().unwrap_or_else(|| Path::new("/")).to_owned();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let concerns = event.map_or(true, |event| {
            !event.kind.is_access() && event.paths.iter().any(|path| path.file_name() == name.as_deref())
        });
        if concerns {
            // Nobody listens only at the end.
            let _ended = news.send(News::Changed);
        }
    })?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
