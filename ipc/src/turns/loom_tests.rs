//! Every interleaving of the turns that ship, over the ring and the lock that ship, with a peer that answers each request
//! for a bell once. No sleep has a limit here: a thread that sleeps while its frame lies in the ring is a deadlock, which
//! loom reports.
//!
//! Seen to fail without the fence in `wake_follower`, without either fence of `follow` and `task_came`, where a leader
//! leaves without waking a follower, where the dispatcher or a task leads for a moment without waking one, where the
//! dispatcher sleeps again without posting its request anew, where it sleeps after a look at which the request does not
//! stand, or stands since before it woke, where it sleeps while a thread leads that has asked already, where a thread
//! that led leaves without asking, and where a task that finds a request does not look at the ring, or does not fence before.

use std::sync::Arc;

use loom::sync::Notify;
use loom::thread::{self, Thread};

use super::*;
use crate::frame::{Header, Inline};
use crate::layout::{ATTENTION_CHANNEL_BELL, ATTENTION_POLLING, ATTENTION_WORKER_BELL};
use crate::lock::{SpinGuard, SpinLock};
use crate::ring::{Answered, Consumer, EndMemory, Producer, SleepFence};
use crate::sync::{AtomicBool, fence as full_fence};

/// Who waits for one frame, by its number.
struct Waiter {
    done: AtomicBool,
    /// Where a thread sleeps that follows.
    thread: Mutex<Option<Thread>>,
}

struct Caller {
    rx: SpinLock<Consumer>,
    /// Where this side posts its requests.
    own: EndMemory,
    turns: Turns<usize>,
    waiters: Vec<Waiter>,
    channel_bell: Notify,
    worker_bell: Notify,
}

impl Turn for Caller {
    type Key = usize;
    type Lead<'a> = SpinGuard<'a, Consumer>;

    fn try_lead(&self) -> Option<SpinGuard<'_, Consumer>> {
        self.rx.try_lock()
    }

    fn is_free(&self) -> bool {
        self.rx.is_free()
    }

    fn dispatcher_asked(&self) -> bool {
        self.own.request().bell() == ATTENTION_WORKER_BELL
    }

    fn ready(&self, lead: &SpinGuard<'_, Consumer>) -> bool {
        lead.ready()
    }

    fn bell_asked(&self, lead: &SpinGuard<'_, Consumer>) -> bool {
        lead.bell_asked()
    }

    fn post_request(&self, lead: &mut SpinGuard<'_, Consumer>) {
        lead.post_request(ATTENTION_WORKER_BELL);
    }

    fn ask_for_bell(&self, lead: &mut SpinGuard<'_, Consumer>) -> bool {
        lead.ask_for_bell(ATTENTION_WORKER_BELL, || ())
    }

    fn drain(&self, lead: &mut SpinGuard<'_, Consumer>) -> bool {
        let mut inline = Inline::default();
        while let Some(header) = lead.poll(&mut inline).unwrap() {
            let number = usize::try_from(header.invocation).unwrap();
            self.waiters[number].done.store(true, Ordering::SeqCst);
            self.wake(number);
            if number + 1 == self.waiters.len() {
                // The model's dispatcher is also the task that it reads for, the last of those who wait, and is over with it.
                self.worker_bell.notify();
            }
        }
        true
    }

    fn wake(&self, follower: usize) {
        if let Some(thread) = self.waiters[follower].thread.lock().take() {
            thread.unpark();
        }
    }
}

impl Caller {
    /// A caller of so many, and the peer that will answer them.
    fn new(waiters: usize) -> (Arc<Self>, Producer) {
        let (writer, reader) = (EndMemory::heap(2), EndMemory::heap(2));
        let producer = Producer::new(writer.clone(), reader.clone(), SleepFence::Both);
        let own = reader.clone();
        let consumer = Consumer::new(reader, writer);
        consumer.stop_bell();
        let waiter = || Waiter { done: AtomicBool::new(false), thread: Mutex::new(None) };
        let caller = Self {
            rx: SpinLock::new(consumer),
            own,
            turns: Turns::default(),
            waiters: (0..waiters).map(|_| waiter()).collect(),
            channel_bell: Notify::new(),
            worker_bell: Notify::new(),
        };
        (Arc::new(caller), producer)
    }

    fn is_done(&self, number: usize) -> bool {
        self.waiters[number].done.load(Ordering::SeqCst)
    }

    /// As a thread of the SDK waits, without spinning.
    fn wait(&self, number: usize) {
        while !self.is_done(number) {
            if let Some(mut lead) = self.try_lead() {
                lead.stop_bell();
                loop {
                    self.drain(&mut lead);
                    if self.is_done(number) {
                        break;
                    }
                    if lead.ask_for_bell(ATTENTION_CHANNEL_BELL, || ()) {
                        self.channel_bell.wait();
                    }
                    lead.stop_bell();
                }
            } else {
                *self.waiters[number].thread.lock() = Some(thread::current());
                self.turns.follow(self, number, || !self.is_done(number), thread::park);
                // It is not unparked later: in loom that ends whatever a thread waits for, as a bell or another thread's end.
                *self.waiters[number].thread.lock() = None;
            }
        }
        self.turns.hand_over(self);
    }

    /// As a thread leads whose reply is there at its first look.
    fn lead_for_a_moment(&self) {
        if let Some(mut lead) = self.try_lead() {
            self.drain(&mut lead);
            lead.stop_bell();
            drop(lead);
            self.turns.hand_over(self);
        }
    }

    /// As the SDK's dispatcher reads for tasks, until `number` is done.
    fn dispatch(&self, number: usize) {
        while !self.is_done(number) {
            if self.turns.has_tasks() && self.turns.serve(self).is_some() {
                continue;
            }
            self.turns.post_request(self);
            full_fence(Ordering::SeqCst);
            if self.turns.has_tasks() && self.turns.has_news(self) {
                continue;
            }
            self.worker_bell.wait();
        }
    }
}

/// The peer: publishes frames with these numbers, and rings once for each request.
fn answer(caller: &Caller, mut producer: Producer, numbers: impl IntoIterator<Item = u64>) {
    let answered = Answered::default();
    for invocation in numbers {
        producer.push(&Header { invocation, ..Header::default() }, &Inline::default()).unwrap();
        let asked = producer.attention();
        if asked.bell() != ATTENTION_POLLING && answered.is_new(asked) {
            match asked.bell() {
                ATTENTION_CHANNEL_BELL => caller.channel_bell.notify(),
                _ => caller.worker_bell.notify(),
            }
        }
    }
}

#[test]
fn loom_a_follower_gets_its_turn() {
    loom::model(|| {
        let (caller, producer) = Caller::new(2);
        let (second, peer) = (Arc::clone(&caller), Arc::clone(&caller));
        let second = thread::spawn(move || second.wait(1));
        let peer = thread::spawn(move || answer(&peer, producer, [0, 1]));
        caller.wait(0);
        second.join().unwrap();
        peer.join().unwrap();
    });
}

/// A task that the dispatcher reads for, while a thread leads for a reply of its own.
#[test]
fn loom_a_task_is_read_for_beside_a_thread() {
    loom::model(|| {
        let (caller, producer) = Caller::new(2);
        let (task, peer) = (Arc::clone(&caller), Arc::clone(&caller));
        let task = thread::spawn(move || {
            task.turns.task_came(&*task);
            task.dispatch(1);
            task.turns.task_left();
        });
        let peer = thread::spawn(move || answer(&peer, producer, [0, 1]));
        caller.wait(0);
        task.join().unwrap();
        peer.join().unwrap();
    });
}

#[test]
fn loom_the_dispatcher_asks_anew() {
    loom::model(|| {
        let (caller, producer) = Caller::new(2);
        caller.turns.task_came(&*caller);
        let peer = Arc::clone(&caller);
        let peer = thread::spawn(move || answer(&peer, producer, [0, 1]));
        caller.dispatch(1);
        peer.join().unwrap();
    });
}

/// The dispatcher leads for moments, for a task that does not stay. A thread that finds the ring led then must not sleep
/// on when nobody leads.
#[test]
fn loom_moments_of_the_dispatcher_leave_nobody_asleep() {
    loom::model(|| {
        let (caller, producer) = Caller::new(1);
        let (dispatcher, peer) = (Arc::clone(&caller), Arc::clone(&caller));
        let dispatcher = thread::spawn(move || {
            let caller = &*dispatcher;
            caller.turns.task_came(caller);
            let _served = caller.turns.serve(caller);
            caller.turns.post_request(caller);
            let _news = caller.turns.has_news(caller);
            caller.turns.task_left();
        });
        let peer = thread::spawn(move || answer(&peer, producer, [0]));
        caller.wait(0);
        dispatcher.join().unwrap();
        peer.join().unwrap();
    });
}

#[test]
fn loom_a_task_that_comes_and_goes_leaves_nobody_asleep() {
    loom::model(|| {
        let (caller, producer) = Caller::new(1);
        let (task, peer) = (Arc::clone(&caller), Arc::clone(&caller));
        let task = thread::spawn(move || {
            task.turns.task_came(&*task);
            task.turns.task_left();
        });
        let peer = thread::spawn(move || answer(&peer, producer, [0]));
        caller.wait(0);
        task.join().unwrap();
        peer.join().unwrap();
    });
}

/// A thread leads for a moment between the dispatcher's post and its look, and may find the ring led by that look when it
/// leaves.
#[test]
fn loom_the_dispatcher_sleeps_only_while_its_request_stands() {
    loom::model(|| {
        let (caller, producer) = Caller::new(1);
        caller.turns.task_came(&*caller);
        caller.turns.post_request(&*caller);
        full_fence(Ordering::SeqCst);
        let dispatcher = Arc::clone(&caller);
        let dispatcher = thread::spawn(move || dispatcher.turns.has_news(&*dispatcher));
        caller.lead_for_a_moment();
        let stays_awake = dispatcher.join().unwrap();
        if !stays_awake {
            answer(&caller, producer, [0]);
            caller.worker_bell.wait();
        }
    });
}

/// A thread that leads for a moment and leaves, as one that publishes does, while two tasks begin to wait.
#[test]
fn loom_one_task_pays_for_all() {
    loom::model(|| {
        let (caller, producer) = Caller::new(1);
        let (first, second) = (Arc::clone(&caller), Arc::clone(&caller));
        let first = thread::spawn(move || first.turns.task_came(&*first));
        let second = thread::spawn(move || second.turns.task_came(&*second));
        caller.lead_for_a_moment();
        first.join().unwrap();
        second.join().unwrap();
        // Nobody leads now: the dispatcher must be rung for the next frame.
        answer(&caller, producer, [0]);
        caller.worker_bell.wait();
    });
}

/// The task that asked for all leaves while another comes and waits on, and a thread leads for a moment meanwhile.
#[test]
fn loom_who_comes_later_need_not_ask() {
    loom::model(|| {
        let (caller, producer) = Caller::new(1);
        caller.turns.task_came(&*caller);
        let (first, leader) = (Arc::clone(&caller), Arc::clone(&caller));
        let first = thread::spawn(move || first.turns.task_left());
        let leader = thread::spawn(move || leader.lead_for_a_moment());
        caller.turns.task_came(&*caller);
        first.join().unwrap();
        leader.join().unwrap();
        answer(&caller, producer, [0]);
        caller.worker_bell.wait();
    });
}

/// The first task comes while the dispatcher prepares to sleep, or sleeps, with a request that it posted for nobody yet.
#[test]
fn loom_the_first_task_finds_a_request() {
    loom::model(|| {
        let (caller, producer) = Caller::new(1);
        let (dispatcher, peer) = (Arc::clone(&caller), Arc::clone(&caller));
        let dispatcher = thread::spawn(move || dispatcher.dispatch(0));
        let peer = thread::spawn(move || answer(&peer, producer, [0]));
        caller.turns.task_came(&*caller);
        dispatcher.join().unwrap();
        peer.join().unwrap();
        caller.turns.task_left();
    });
}
