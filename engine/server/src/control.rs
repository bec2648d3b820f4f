//! The control thread: waits for sockets, pidfds and commands, feeds what happened to the core, and carries out what the
//! core answers. It is the only one that changes the core and the only one that touches control sockets. It may block on
//! nothing else, so that one slow worker cannot hold up the others.
//!
//! A round: wait; accept; read some messages of every connection that has any; send what was queued. Polling is
//! edge-triggered, so a connection that has more to read than its turn allows stays on the `ready` list.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use ringway_engine_core::{ConnectionId, Event};

use crate::counters;
use crate::limits;
use crate::shared::{Command, Shared, now_ns};
use crate::telemetry::Telemetry;

mod accept;
mod channels;
mod connection;
mod effects;
mod messages;

use accept::Door;
pub(crate) use accept::Listeners;
use channels::Pages;
use connection::Connection;

/// The waker's token; doors and connections follow.
pub(crate) const WAKER: Token = Token(0);
const FIRST_DOOR: usize = 1;
const FIRST_CONNECTION: ConnectionId = 1024;

/// The control thread's state.
#[derive(Debug)]
pub(crate) struct Control {
    poll: Poll,
    shared: Arc<Shared>,
    telemetry: Telemetry,
    commands: Receiver<Command>,
    doors: Vec<Door>,
    queued_bytes_max: usize,
    connections: BTreeMap<ConnectionId, Connection>,
    next_connection: ConnectionId,
    pages: Pages,
    /// Connections with something to read.
    ready: BTreeSet<ConnectionId>,
    /// Connections with something to send.
    unsent: BTreeSet<ConnectionId>,
    /// Connections that could not be sent to, and why: the core is told once the effects at hand are carried out.
    failed: Vec<(ConnectionId, String)>,
    accept_again: Option<Instant>,
    stopped: bool,
}

impl Control {
    /// Takes over the sockets.
    pub(crate) fn new(
        poll: Poll,
        shared: Arc<Shared>,
        telemetry: Telemetry,
        commands: Receiver<Command>,
        listeners: Listeners,
    ) -> io::Result<Self> {
        let (doors, queued_bytes_max) = listeners.into_parts();
        for (at, door) in doors.iter().enumerate() {
            let token = Token(FIRST_DOOR + at);
            poll.registry().register(
                &mut SourceFd(&door.listener.as_fd().as_raw_fd()),
                token,
                Interest::READABLE,
            )?;
        }
        Ok(Self {
            poll,
            shared,
            telemetry,
            commands,
            doors,
            queued_bytes_max,
            connections: BTreeMap::new(),
            next_connection: FIRST_CONNECTION,
            pages: Pages::default(),
            ready: BTreeSet::new(),
            unsent: BTreeSet::new(),
            failed: Vec::new(),
            accept_again: None,
            stopped: false,
        })
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        while !self.stopped {
            match self.poll.poll(&mut events, self.timeout()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for control sockets; the engine stops");
                    break;
                }
            }
            for event in &events {
                self.note(event.token());
            }
            self.take_commands();
            self.read_ready();
            self.tell_news();
            self.expire();
            self.send_unsent();
        }
        self.send_unsent();
    }

    fn note(&mut self, token: Token) {
        match token {
            WAKER => {}
            Token(number) if (number as ConnectionId) < FIRST_CONNECTION => self.accept(number - FIRST_DOOR),
            Token(number) => {
                let id = number as ConnectionId / 2;
                if let Some(connection) = self.connections.get_mut(&id) {
                    // What a process sent before it died is still read.
                    connection.died |= number % 2 == 1;
                    self.ready.insert(id);
                    self.unsent.insert(id);
                }
            }
        }
    }

    fn take_commands(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Event(event)) => self.feed(*event),
                Ok(Command::Settle(event, done)) => {
                    self.feed(*event);
                    let _given_up = done.send(());
                }
                Ok(Command::CloseListeners) => self.close_doors(),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                    self.stopped = true;
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    /// Tells the core what happened, carries out what it answers, and tells it what went wrong with that.
    fn feed(&mut self, event: Event) {
        let effects = self.shared.core.write().handle(now_ns(), event);
        for effect in effects {
            self.carry_out(effect);
        }
        while let Some((connection, problem)) = self.failed.pop() {
            let effects = self.shared.core.write().handle(now_ns(), Event::Violated { connection, problem });
            for effect in effects {
                self.carry_out(effect);
            }
            // One that has not said hello yet is unknown to the core.
            self.drop_connection(connection);
        }
    }

    /// How long to wait at most: for ever, unless somebody's time runs.
    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let times = self.connections.values().filter_map(|connection| connection.until);
        let first = times.chain(self.accept_again).min();
        let first = first.map(|at| at.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let news = self.shared.core.read().news_due_ns();
        let news = news.map(|due_ns| Duration::from_nanos(due_ns.saturating_sub(now_ns())));
        first.into_iter().chain(news).min()
    }

    /// Has news of the catalog told that were kept for a moment.
    fn tell_news(&mut self) {
        let due_ns = self.shared.core.read().news_due_ns();
        if due_ns.is_some_and(|due_ns| due_ns <= now_ns()) {
            self.feed(Event::NewsDue {});
        }
    }

    /// Ends connections whose time is up.
    fn expire(&mut self) {
        let now = Instant::now();
        let late = |connection: &Connection| connection.until.is_some_and(|until| until <= now);
        let ids: Vec<_> =
            self.connections.iter().filter(|(_, connection)| late(connection)).map(|(id, _)| *id).collect();
        for id in ids {
            if self.connections.get(&id).is_some_and(|connection| !connection.greeted) {
                counters::count(&self.shared.counters.refused_silent);
                tracing::warn!(connection = id, limit = ?limits::HELLO_TIME_MAX, "no hello came in time");
            }
            self.drop_connection(id);
        }
        if self.accept_again.is_some_and(|again| again <= now) {
            self.accept_again = None;
            (0..self.doors.len()).for_each(|door| self.accept(door));
        }
    }

    fn send_unsent(&mut self) {
        for id in std::mem::take(&mut self.unsent) {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            match connection.stream.flush() {
                Ok(true) if connection.closing => self.drop_connection(id),
                Ok(_) => {}
                // The peer is gone. If something of it is left to read, its end of stream tells us so.
                Err(error) => {
                    tracing::debug!(connection = id, %error, "cannot send");
                    connection.mute = true;
                    if connection.closing {
                        self.drop_connection(id);
                    } else {
                        self.ready.insert(id);
                    }
                }
            }
        }
    }

    /// Closes a connection without telling the core.
    fn drop_connection(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            connection.deregister(self.poll.registry());
            self.ready.remove(&id);
            counters::set(&self.shared.counters.connections_open, self.connections.len());
        }
    }
}
