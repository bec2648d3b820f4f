//! The open store: one thread with the connection, the writer and the mover, and the trait in front of it. Used by whoever
//! runs an engine.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use ringway_store::report::OpenReport;
use ringway_store::store::Done;
use ringway_store::{Batch, Damage, Durability, Snapshot, Store, StoreError, Value, parts};

use crate::claim::{Claim, claim};
use crate::core::{Core, Job};
use crate::error::OpenError;
use crate::link::Link;
use crate::load::{Loaded, load};
use crate::map::At;
use crate::mover::Mover;
use crate::options::NatsOptions;
use crate::writer::Writer;

/// How long the connection's own threads, which look up names, may take to end.
const THREADS_END: Duration = Duration::from_secs(1);

/// An open store. Dropping it closes it.
#[derive(Debug)]
pub struct NatsStore {
    core: Arc<Core>,
    place: String,
    thread: Mutex<Option<JoinHandle<()>>>,
}

type Opened = Result<(Arc<Core>, OpenReport, String), OpenError>;

impl NatsStore {
    /// Connects, takes the store of this name, makes it if there is none, and reads all of it. Costs a read of everything
    /// that is kept.
    ///
    /// # Errors
    /// [`OpenError`]: nothing answers, the server cannot be used, another engine has the store.
    pub fn open(options: NatsOptions) -> Result<(Self, OpenReport), OpenError> {
        let (tell, told) = channel();
        let thread = std::thread::Builder::new().name("store-nats".to_owned());
        let thread = thread.spawn(move || live(&options, &tell)).map_err(OpenError::Thread)?;
        match told.recv() {
            Ok(Ok((core, report, place))) => {
                Ok((Self { core, place, thread: Mutex::new(Some(thread)) }, report))
            }
            Ok(Err(error)) => {
                drop(thread.join());
                Err(error)
            }
            Err(_) => {
                let place = "the store on NATS".to_owned();
                Err(OpenError::Server { place, reason: "its thread ended while it was opened".to_owned() })
            }
        }
    }

    /// Ends: writes what waits, brings the bucket up to date, lets the store go. While the server is away this waits for
    /// what waits to be refused, and where it is not known whether the server has the last record until the server says
    /// so: call [`Self::hurry`] first not to wait. The same holds for dropping it.
    ///
    /// # Errors
    /// Why the store had ended before, if it had.
    pub fn close(self) -> Result<(), StoreError> {
        self.end();
        self.core.ended().map_or(Ok(()), Err)
    }

    /// Where things are kept, in words.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// From now on nothing waits long for a server that is away: a commit of which it is not known whether it happened
    /// fails, and the store with it. Called before an engine ends.
    pub fn hurry(&self) {
        self.core.hurry();
    }

    /// Reads everything in the bucket and compares it with what is in memory. Commits go on meanwhile.
    ///
    /// # Errors
    /// What does not let it be read.
    pub fn verify(&self) -> Result<Vec<Damage>, StoreError> {
        let (tell, told) = channel();
        self.core.ask(tell);
        if let Some(error) = self.core.ended() {
            return Err(error);
        }
        told.recv().unwrap_or_else(|_| Err(self.core.ended().unwrap_or(StoreError::Closed)))
    }

    fn end(&self) {
        self.core.close();
        if let Some(thread) = self.thread.lock().take() {
            // A thread that panicked has said so.
            drop(thread.join());
        }
    }
}

impl Drop for NatsStore {
    fn drop(&mut self) {
        self.end();
    }
}

impl Store for NatsStore {
    /// Both durabilities are the same here: acknowledged is what the server has acknowledged.
    fn submit(&self, batch: Batch, _durability: Durability, done: Done) -> Result<(), StoreError> {
        batch.fits()?;
        self.core.submit(Job { batch, done })
    }

    fn wait_for_room(&self) {
        self.core.wait_for_room();
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(self.at()?))
    }

    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Value>, StoreError> {
        self.at()?.read(&parts::join(table, key))
    }
}

impl NatsStore {
    /// Everything as of now, unless somebody else may have changed it.
    fn at(&self) -> Result<At, StoreError> {
        match self.core.ended() {
            Some(error @ StoreError::Taken { .. }) => Err(error),
            _ => Ok(self.core.now()),
        }
    }
}

/// The life of the store's thread.
fn live(options: &NatsOptions, tell: &Sender<Opened>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(tell.send(Err(OpenError::Thread(error)))),
    };
    runtime.block_on(async {
        match open(options).await {
            Ok(opened) => {
                let place = crate::claim::place(&opened.link);
                let told = (Arc::clone(&opened.core), opened.report.clone(), place);
                if tell.send(Ok(told)).is_ok() {
                    Box::pin(opened.run(options)).await;
                }
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    });
    runtime.shutdown_timeout(THREADS_END);
}

struct Open {
    link: Link,
    core: Arc<Core>,
    claim: Claim,
    report: OpenReport,
    strays: Vec<String>,
    log_seq: u64,
}

async fn open(options: &NatsOptions) -> Result<Open, OpenError> {
    let link = Link::connect(options).await?;
    let claim = claim(&link, options.replicas).await?;
    let Loaded { at, news, report, strays } = load(&link).await?;
    let log_seq = news.log_seq;
    let core = Arc::new(Core::new(options.waiting_max, at, news));
    Ok(Open { link, core, claim, report, strays, log_seq })
}

impl Open {
    async fn run(self, options: &NatsOptions) {
        let Self { link, core, claim, strays, log_seq, .. } = self;
        let writer = Writer::new(Arc::clone(&core), link.clone(), &claim, log_seq);
        let mover = Mover {
            core: Arc::clone(&core),
            link: link.clone(),
            gather: options.gather,
            keep: options.keep,
            epoch: claim.epoch,
            last: claim.bucket_seq,
            cuts: std::collections::VecDeque::new(),
            cut_next: None,
        };
        let work = async {
            tokio::join!(
                async {
                    writer.run().await;
                    if core.ended().is_some() {
                        // Whoever asks is to take over.
                        drop(claim);
                    }
                },
                async {
                    mover.run(strays).await;
                    // It may end long before the writer does.
                    core.ask_nobody();
                }
            )
        };
        tokio::select! {
            _ = work => {}
            () = refuse_while_away(&link, &core, options.patience) => {}
        }
        // What was sent last, such as answers, leaves before the connection does.
        drop(tokio::time::timeout(THREADS_END, link.client.flush()).await);
    }
}

/// Refuses commits for as long as the server is away, but for a while at first. Never returns.
async fn refuse_while_away(link: &Link, core: &Core, patience: Duration) {
    loop {
        link.until_down().await;
        tracing::warn!("the connection to NATS at {} was lost; commits wait for it", link.servers);
        tokio::select! {
            () = link.until_up() => continue,
            () = tokio::time::sleep(patience) => core.away(link.told()),
        }
        link.until_up().await;
        tracing::warn!("NATS at {} is back", link.servers);
        core.back();
    }
}
