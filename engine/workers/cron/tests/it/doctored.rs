//! A store that a test can make refuse, or keep waiting, around the real one. It must not know what is written.

use std::sync::Arc;

use parking_lot::Mutex;
use ringway_store::store::Done;
use ringway_store::{Batch, Durability, Snapshot, Store, StoreError};

use crate::stage::Stage;

/// What the store does with a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Commits it.
    #[default]
    Well,
    /// Refuses it at once, as a full disk does.
    Full,
    /// Takes it, and refuses it a moment later.
    FullLate,
    /// Keeps it until [`Doctor::let_go`] or [`Doctor::refuse_kept`].
    Keep,
}

type Kept = (Batch, Durability, Done);

/// What a test tells its store with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doctor(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    mode: Mode,
    kept: Vec<Kept>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("mode", &self.mode).field("kept", &self.kept.len()).finish()
    }
}

impl Doctor {
    /// A stage over such a store.
    pub(crate) fn stage() -> (Self, Stage) {
        let doctor = Self::default();
        let stage = Stage::over(|inner| doctor.around(inner));
        (doctor, stage)
    }

    pub(crate) fn around(&self, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Doctored { inner, doctor: self.clone() })
    }

    pub(crate) fn order(&self, mode: Mode) {
        self.0.lock().mode = mode;
    }

    /// How many batches are kept.
    pub(crate) fn kept(&self) -> usize {
        self.0.lock().kept.len()
    }

    /// Refuses what was kept, and keeps nothing more.
    pub(crate) fn refuse_kept(&self) {
        let kept = self.well_again();
        kept.into_iter().for_each(|(_, _, done)| done(Err(full())));
    }

    /// Refuses the first of what was kept, and goes on keeping.
    pub(crate) fn refuse_first(&self) {
        let (_, _, done) = self.0.lock().kept.remove(0);
        done(Err(full()));
    }

    /// Hands what was kept to the real store, and keeps nothing more.
    pub(crate) fn let_go(&self, inner: &Arc<dyn Store>) {
        let kept = self.well_again();
        for (batch, durability, done) in kept {
            inner.submit(batch, durability, done).unwrap();
        }
    }

    fn well_again(&self) -> Vec<Kept> {
        let mut state = self.0.lock();
        state.mode = Mode::Well;
        std::mem::take(&mut state.kept)
    }
}

#[derive(Debug)]
struct Doctored {
    inner: Arc<dyn Store>,
    doctor: Doctor,
}

fn full() -> StoreError {
    StoreError::DiskFull { folder: "/data".into(), reason: "no space left".to_owned() }
}

impl Store for Doctored {
    fn submit(&self, batch: Batch, durability: Durability, done: Done) -> Result<(), StoreError> {
        let mut state = self.doctor.0.lock();
        match state.mode {
            Mode::Well => return self.inner.submit(batch, durability, done),
            Mode::Full => return Err(full()),
            Mode::FullLate => drop(std::thread::spawn(move || done(Err(full())))),
            Mode::Keep => state.kept.push((batch, durability, done)),
        }
        Ok(())
    }

    fn wait_for_room(&self) {
        self.inner.wait_for_room();
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.inner.snapshot()
    }
}
