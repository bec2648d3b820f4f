//! The telemetry thread and the way to it. Each worker has a ring towards the engine; this thread takes the records out and
//! gives them to the collector. It must not know what a record says.
//!
//! While records come it looks every millisecond, so that one look finds many of them and nobody has to ring. After some
//! looks without a record it asks for the doorbell on every ring and sleeps until it is rung.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use ringway_ipc::doorbell::Doorbell;
use ringway_protocol::ids::WorkerId;
use ringway_protocol::telemetry::LogRecord;
use ringway_telemetry::WorkerIdentity;

use crate::shared::Shared;

mod drain;
mod intake;

use drain::Drain;
pub(crate) use intake::Intake;

/// What the thread is told.
#[derive(Debug)]
enum Order {
    /// Look at this worker's ring too; at its old one no longer.
    Add(WorkerId, Box<Intake>),
    /// Take what is left in the worker's ring, then end what it had running.
    Gone(WorkerId),
    /// Take what is left in all rings, then end.
    Stop,
}

/// The way to the telemetry thread, for the control thread.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    shared: Arc<Shared>,
    orders: Sender<Order>,
    bell: Doorbell,
}

impl Telemetry {
    /// Starts the thread.
    pub(crate) fn start(shared: Arc<Shared>) -> io::Result<(Self, JoinHandle<()>)> {
        let bell = Doorbell::new()?;
        let (orders, receiver) = channel();
        let drain = Drain::new(Arc::clone(&shared), receiver, bell.clone());
        let thread =
            std::thread::Builder::new().name("ringway-records".to_owned()).spawn(move || drain.run())?;
        Ok((Self { shared, orders, bell }, thread))
    }

    /// The doorbell that workers ring.
    pub(crate) const fn bell(&self) -> &Doorbell {
        &self.bell
    }

    /// Learns of a worker, and of its ring if it has one.
    pub(crate) fn attached(&self, identity: WorkerIdentity, intake: Option<Intake>) {
        let worker = identity.id;
        self.shared.collector.lock().worker_attached(identity);
        if let Some(intake) = intake {
            self.order(Order::Add(worker, Box::new(intake)));
        }
    }

    /// Learns that a worker is gone.
    pub(crate) fn gone(&self, worker: WorkerId) {
        self.order(Order::Gone(worker));
    }

    /// Takes in logs that came over the control socket.
    pub(crate) fn logs(&self, worker: WorkerId, records: Vec<LogRecord>) {
        let mut collector = self.shared.collector.lock();
        for record in records {
            if let Err(error) = collector.ingest_log(worker, record) {
                tracing::debug!(%worker, %error, "a log is lost");
            }
        }
    }

    /// Tells the thread to take what is left and to end.
    pub(crate) fn stop(&self) {
        self.order(Order::Stop);
    }

    fn order(&self, order: Order) {
        // A thread that has ended needs no orders.
        if self.orders.send(order).is_ok() {
            self.bell.notify();
        }
    }
}
