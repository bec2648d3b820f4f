//! The telemetry thread itself: look, take, rest, sleep. Used by [`super::Telemetry`] only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{Receiver, TryRecvError};

use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::frame::Inline;
use ringway_ipc::sys::barrier;
use ringway_protocol::ids::WorkerId;

use super::{Intake, Order};
use crate::shared::{Shared, clock_anchor, now_ns};
use crate::{counters, limits};

/// See the module.
#[derive(Debug)]
pub(super) struct Drain {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    bell: Doorbell,
    barrier: bool,
    rings: BTreeMap<WorkerId, Intake>,
    stopped: bool,
}

/// What one look at a ring found.
enum Look {
    Taken(u64),
    Broken,
}

impl Drain {
    pub(super) fn new(shared: Arc<Shared>, orders: Receiver<Order>, bell: Doorbell) -> Self {
        let barrier = barrier::register();
        Self { shared, orders, bell, barrier, rings: BTreeMap::new(), stopped: false }
    }

    pub(super) fn run(mut self) {
        let mut idle_looks = 0;
        loop {
            self.take_orders();
            let (taken, full) = self.look_at_all();
            if self.stopped {
                return;
            }
            idle_looks = if taken == 0 { idle_looks + 1 } else { 0 };
            if idle_looks >= limits::IDLE_LOOKS_MAX || self.rings.is_empty() {
                self.sleep();
                idle_looks = 0;
            } else if !full {
                std::thread::sleep(limits::DRAIN_PAUSE);
            }
        }
    }

    fn take_orders(&mut self) {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Add(worker, intake)) => {
                    intake.stop_bell();
                    if let Some(mut old) = self.rings.insert(worker, *intake) {
                        self.look(worker, &mut old);
                    }
                }
                Ok(Order::Gone(worker)) => {
                    if let Some(mut last) = self.rings.remove(&worker) {
                        self.look(worker, &mut last);
                    }
                    self.shared.collector.lock().worker_gone(worker, now_ns());
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => {
                    self.stopped = true;
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    /// Takes what is in the rings: how many records, and whether some ring was nearly full.
    fn look_at_all(&mut self) -> (u64, bool) {
        let (mut all, mut full) = (0, false);
        let mut rings = std::mem::take(&mut self.rings);
        rings.retain(|worker, intake| match self.look(*worker, intake) {
            Look::Taken(taken) => {
                all += taken;
                full |= taken >= u64::from(intake.slot_count / 4);
                true
            }
            Look::Broken => false,
        });
        self.rings = rings;
        (all, full)
    }

    /// Takes at most a ring's worth of records from one ring.
    fn look(&self, worker: WorkerId, intake: &mut Intake) -> Look {
        let counters = &self.shared.counters;
        let mut inline = Inline::default();
        let (mut taken, mut malformed) = (0, 0);
        let limit = u64::from(intake.slot_count);
        // The lock is taken once there is something, and given up now and then for those who ask.
        let mut collector = None;
        let broken = loop {
            let bytes = match intake.poll(&mut inline) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            let held = collector.get_or_insert_with(|| self.shared.collector.lock());
            let record = inline.bytes().get(..bytes).unwrap_or_default();
            malformed += u64::from(held.ingest(worker, record).is_err());
            taken += 1;
            if taken % limits::RECORDS_PER_TURN == 0 {
                collector = None;
            }
            if taken == limit {
                break None;
            }
        };
        drop(collector);
        counters::add(&counters.telemetry_records, taken);
        counters::add(&counters.telemetry_malformed, malformed);
        if let Some(error) = broken {
            counters::count(&counters.telemetry_rings_broken);
            tracing::warn!(%worker, %error, "a worker broke its telemetry ring; its telemetry is read no longer");
            return Look::Broken;
        }
        Look::Taken(taken)
    }

    /// Sleeps until rung, unless a record came meanwhile. The ring's handshake, done once for all rings: post the
    /// requests, fence, look again (`ringway_ipc::ring`, I4).
    fn sleep(&mut self) {
        self.rings.values_mut().for_each(Intake::ask_for_bell);
        fence(Ordering::SeqCst);
        if self.barrier && !self.rings.is_empty() {
            // Registered at the start, so it cannot fail.
            let _issued = barrier::everywhere();
        }
        if !self.rings.values().any(Intake::ready) && self.bell.wait(limits::DRAIN_SLEEP_MAX) {
            counters::count(&self.shared.counters.telemetry_wakes);
        }
        self.rings.values().for_each(Intake::stop_bell);
        self.shared.collector.lock().set_anchor(clock_anchor());
    }
}
