//! Other engines behind a bus: something that carries what all of them offer, and opens a link to one when it is called. Used
//! by `gateway`; the bus is another crate's. It must not know what the bus is made of.
//!
//! The two halves: [`Bus`] is what the gateway asks of it, [`BusInlet`] where it tells the gateway what it has heard.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ringway_protocol::WorkerId;
use ringway_protocol::control::Change;

use crate::gateway::{Command, Shared};

/// What a bus is asked. Called on the gateway's thread, so nothing here may wait.
pub trait Bus: Send + Sync {
    /// Tells all other engines what has changed of what this one offers. `reset`: everything before is gone.
    fn offer(&self, reset: bool, changes: Vec<Change>);

    /// Opens a link to an engine that it has told of: [`BusInlet::linked`] follows, or [`BusInlet::not_linked`].
    fn dial(&self, engine: WorkerId);
}

/// A bus and what may go over it.
#[derive(Clone)]
pub struct BusSettings {
    /// The bus.
    pub bus: Arc<dyn Bus>,
    /// What the others are told of, and may call: patterns of functions of this engine. Empty: nothing.
    pub offer: Vec<String>,
    /// What of theirs may be called from here: patterns of functions. Empty: nothing.
    pub call: Vec<String>,
    /// How long a round trip to another engine takes before one was measured, in microseconds; near replicas are called
    /// before far ones.
    pub round_trip_us: u32,
    /// How long a link may carry no channel before it is closed; the next call opens another.
    pub idle_max: Duration,
}

impl std::fmt::Debug for BusSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bus: _, offer, call, round_trip_us, idle_max } = self;
        f.debug_struct("BusSettings")
            .field("offer", offer)
            .field("call", call)
            .field("round_trip_us", round_trip_us)
            .field("idle_max", idle_max)
            .finish_non_exhaustive()
    }
}

/// What the gateway is told by a bus.
#[derive(Debug, Clone)]
pub(crate) enum BusNews {
    /// What an engine offers, or what has changed of that.
    Offered { engine: WorkerId, name: String, reset: bool, changes: Vec<Change> },
    /// Nothing is heard of an engine: its workers cannot be called until it is back.
    Silent { engine: WorkerId },
    /// It is heard of again, and offers what it did before.
    Back { engine: WorkerId },
    /// It has left, or was silent for too long.
    Gone { engine: WorkerId },
    /// There is no link, and why.
    NotLinked { engine: WorkerId, why: String },
}

/// Where a bus tells what it has heard. Dropping it changes nothing; [`BusInlet::leave`] ends all that came over the bus.
#[derive(Clone)]
pub struct BusInlet {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for BusInlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BusInlet").finish_non_exhaustive()
    }
}

impl BusInlet {
    /// Tells what an engine called `name` offers: all of it with `reset`, else what has changed.
    pub fn offered(&self, engine: WorkerId, name: String, reset: bool, changes: Vec<Change>) {
        self.tell(BusNews::Offered { engine, name, reset, changes });
    }

    /// Tells that an engine cannot be reached for now.
    pub fn silent(&self, engine: WorkerId) {
        self.tell(BusNews::Silent { engine });
    }

    /// Tells that it can be again, and that it offers what it did.
    pub fn back(&self, engine: WorkerId) {
        self.tell(BusNews::Back { engine });
    }

    /// Tells that it has left.
    pub fn gone(&self, engine: WorkerId) {
        self.tell(BusNews::Gone { engine });
    }

    /// Hands over the socket of a link to an engine. `dialled`: by this end, which the two ends must see alike.
    pub fn linked(&self, engine: WorkerId, socket: OwnedFd, dialled: bool) {
        self.shared.tell(Command::BusLinked { engine, socket, dialled });
    }

    /// Tells that a link that was asked for is not to be had.
    pub fn not_linked(&self, engine: WorkerId, why: String) {
        self.tell(BusNews::NotLinked { engine, why });
    }

    /// Ends all that came over the bus, and the bus.
    pub fn leave(&self) {
        self.shared.tell(Command::LeaveBus);
    }

    fn tell(&self, news: BusNews) {
        self.shared.tell(Command::Bus(Box::new(news)));
    }
}
