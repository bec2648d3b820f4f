//! Long data by reference: what a message's record names, how it is held, and the shelf that puts it and takes it away. Blobs are
//! the store's; a message holds its own by an entry in the batch that writes the message, and lets go in the batch that ends
//! it. Used by the functions that take messages, by the machine, and by attempts. It must not know what a message is for.

use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::thread;

use async_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};
use ringway::{Failure, HandlerResult};
use ringway_store::blobs::{HOLD, HOLD_VALUE, Pin, hold_key, split_hold_key};
use ringway_store::{BlobError, BlobId, Scan, Snapshot, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::record::{Head, Place, Unreadable, Writes};
use crate::runner::read_parts;

/// What begins the name of a holder that is a message.
const HOLDER_PREFIX: u8 = b'q';

/// Blobs that are written at once, each on a thread that waits for the disk.
const WRITERS: usize = 4;

/// Holds that are read at once.
const PAGE: usize = 4096;

/// Data that lies in a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobRef {
    #[serde(with = "text")]
    pub(crate) id: BlobId,
    pub(crate) bytes: u64,
}

/// Ids as texts.
mod text {
    use ringway_store::BlobId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &BlobId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BlobId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn key(place: &Place, id: &BlobId) -> Vec<u8> {
    hold_key(id, &[&[HOLDER_PREFIX], place.key().as_slice()].concat())
}

/// Has a message hold its data.
pub(crate) fn hold(writes: &mut Writes, place: &Place, id: &BlobId) {
    writes.put_bytes(HOLD, key(place, id), HOLD_VALUE.into());
}

/// Has a message let its data go.
pub(crate) fn let_go(writes: &mut Writes, place: &Place, id: &BlobId) {
    writes.delete(HOLD, key(place, id));
}

/// The blob that a message holds, for one whose record cannot be read. Costs a read of every hold.
pub(crate) fn held_by(snapshot: &dyn Snapshot, place: &Place) -> Result<Option<BlobId>, StoreError> {
    let holder = [&[HOLDER_PREFIX], place.key().as_slice()].concat();
    let mut passed: Option<Vec<u8>> = None;
    loop {
        let from = passed.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let page = snapshot.scan(&Scan::table(HOLD).range(from, Bound::Unbounded).limit(PAGE))?;
        let Some(last) = page.last() else { return Ok(None) };
        let held = page.iter().filter_map(|entry| split_hold_key(&entry.key));
        if let Some((id, _)) = held.into_iter().find(|(_, found)| *found == holder) {
            return Ok(Some(id));
        }
        passed = Some(last.key.clone());
    }
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    #[error(transparent)]
    Record(#[from] Unreadable),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl Unread {
    /// The code under which the message is dead.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Record(_) | Self::Store(StoreError::Corrupt { .. }) => "MESSAGE_UNREADABLE",
            Self::Store(_) => "QUEUE_ERROR",
            Self::Blob(error) => error.code(),
        }
    }

    /// Whether another attempt reads the same. A store or a disk that does not answer for a moment, or a process with too
    /// many open files, is no fault of the message.
    pub(crate) fn lasts(&self) -> bool {
        match self {
            Self::Record(_) | Self::Store(StoreError::Corrupt { .. }) => true,
            Self::Store(_) => false,
            Self::Blob(error) => error.lasts(),
        }
    }
}

/// Reads a message with its data, wherever that lies.
pub(crate) fn read_message(
    store: &dyn Store,
    place: &Place,
) -> Result<Option<(Head, Box<RawValue>)>, Unread> {
    let Some((head, data)) = read_parts(store, place)? else { return Ok(None) };
    let (Some(blob), Some(blobs)) = (head.blob, store.blobs()) else {
        let missing = || Unreadable::new(HOLD, &place.key(), "this store keeps no blobs");
        return data.map(|data| Some((head, data))).ok_or_else(|| missing().into());
    };
    let bytes = blobs.read(&blob.id)?;
    let data = serde_json::from_slice(&bytes).map_err(|error| Unreadable::new(HOLD, &place.key(), error))?;
    Ok(Some((head, data)))
}

/// Puts long data into blobs, and takes those away that nobody holds; each on a thread that waits for the disk.
#[derive(Debug)]
pub(crate) struct Shelf {
    /// None of its threads holds the store when [`Shelf::close`] returns.
    store: Weak<dyn Store>,
    bytes_min: u64,
    turns: (Sender<()>, Receiver<()>),
    threads: Mutex<Threads>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Threads {
    running: usize,
    closed: bool,
    /// Blobs that somebody let go, for the collector.
    unheld: Vec<BlobId>,
    /// Whether the collector's thread runs. There is one, however many messages end at once.
    collecting: bool,
}

impl Shelf {
    pub(crate) fn new(store: &Arc<dyn Store>, bytes_min: u64) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::downgrade(store),
            bytes_min,
            turns: bounded(WRITERS),
            threads: Mutex::default(),
            ended: Condvar::new(),
        })
    }

    /// Starts nothing more, and waits for what was started.
    pub(crate) fn close(&self) {
        let mut threads = self.threads.lock();
        threads.closed = true;
        while threads.running > 0 {
            self.ended.wait(&mut threads);
        }
    }

    /// Runs work with the store on a thread of its own. Whether it was started.
    fn start(self: &Arc<Self>, work: impl FnOnce(&dyn Store) + Send + 'static) -> bool {
        let mut threads = self.threads.lock();
        if threads.closed {
            return false;
        }
        threads.running += 1;
        drop(threads);
        let running = Running(Arc::clone(self));
        let body = move || {
            let running = running;
            if let Some(store) = running.0.store.upgrade() {
                work(&*store);
            }
        };
        let started = thread::Builder::new().name("queue-blob".to_owned()).spawn(body);
        started.inspect_err(|error| tracing::warn!(%error, "no thread for a blob could be started")).is_ok()
    }

    /// Puts data that is long; `None` for what lies with its message. Holds no thread of the worker's meanwhile.
    pub(crate) async fn put(self: &Arc<Self>, data: &Arc<RawValue>) -> HandlerResult<Option<Pin>> {
        let keeps_blobs = || self.store.upgrade().is_some_and(|store| store.blobs().is_some());
        if data.get().len() as u64 <= self.bytes_min || !keeps_blobs() {
            return Ok(None);
        }
        let failed = |text: String| Failure::with_code("BLOB_ERROR", text);
        self.turns.0.send(()).await.map_err(|error| failed(error.to_string()))?;
        let turn = Turn(self.turns.1.clone());
        let (give, put) = bounded(1);
        let data = Arc::clone(data);
        self.start(move |store| {
            let Some(blobs) = store.blobs() else { return };
            let put = blobs.put(data.get().as_bytes());
            drop(turn);
            if let Err(left) = give.try_send(put)
                && let Ok(pin) = left.into_inner()
            {
                // Whoever asked is there no more.
                let id = pin.id();
                drop(pin);
                collect(store, &[id]);
            }
        });
        match put.recv().await {
            Ok(Ok(pin)) => Ok(Some(pin)),
            Ok(Err(error)) => Err(Failure::with_code(error.code(), error.to_string())),
            Err(_) => {
                Err(failed("the queue is ending, or the system gives no threads: try again".to_owned()))
            }
        }
    }

    /// Takes blobs away that nobody holds any more.
    pub(crate) fn collect(self: &Arc<Self>, ids: Vec<BlobId>) {
        if ids.is_empty() {
            return;
        }
        let mut threads = self.threads.lock();
        threads.unheld.extend(ids);
        if std::mem::replace(&mut threads.collecting, true) {
            return;
        }
        drop(threads);
        let shelf = Arc::clone(self);
        if !self.start(move |store| shelf.collect_all(store)) {
            // The next one that is let go tries anew; what stays is swept at the next start.
            self.threads.lock().collecting = false;
        }
    }

    /// The collector: ends when there is nothing left.
    fn collect_all(&self, store: &dyn Store) {
        loop {
            let mut threads = self.threads.lock();
            let ids = std::mem::take(&mut threads.unheld);
            if ids.is_empty() {
                threads.collecting = false;
                return;
            }
            drop(threads);
            collect(store, &ids);
        }
    }
}

fn collect(store: &dyn Store, ids: &[BlobId]) {
    let Some(blobs) = store.blobs() else { return };
    for id in ids {
        if let Err(error) = blobs.collect(store, id) {
            tracing::warn!(%error, %id, "a blob that nobody holds stays until the next start");
        }
    }
}

/// One of those that may write at once; over when it is dropped.
struct Turn(Receiver<()>);

impl Drop for Turn {
    fn drop(&mut self) {
        let _ours = self.0.try_recv();
    }
}

/// A thread that may hold the store; told when it has let it go.
struct Running(Arc<Shelf>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.threads.lock().running -= 1;
        self.0.ended.notify_all();
    }
}
