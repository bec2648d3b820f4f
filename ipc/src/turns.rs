//! Turns at a ring: of all who wait for a frame of it, one reads for the others.
//!
//! Used by the SDK's caller, whose threads and tasks wait for replies that come over one ring. A thread that needs one
//! *leads*: it reads the ring, and completes the others' calls on the way. Threads that find it led *follow*: they sleep
//! until their own reply has come or it is their turn to lead. *Tasks* wait without a thread; while there are any, the
//! worker's dispatcher reads the ring whenever nobody leads. Knows no frames and no calls: what a ring is, how a frame is
//! acted on and how a follower is woken is the implementor's ([`Turn`]).
//!
//! # Fields and who may touch them
//! - `tasks`: raised and lowered by whoever polls a task;
//! - `followers`: the keys of those that sleep, or are about to; `sleeping`: how many, so that a leader need not lock;
//! - `posted`: whether the dispatcher could post its request before the sleep that it prepares; touched by the dispatcher.
//!
//! # Invariants
//! - **T1** Who lets go of the lead, however briefly it was held, looks for followers afterwards and wakes one
//!   ([`Turns::hand_over`], [`Turns::wake_follower`]). A follower counts itself, fences, and sleeps only if the ring is led.
//!   At least one of them sees the other's store (Dekker, the light side paid for by the heavy one; [`crate::fence`]). So
//!   while a follower sleeps somebody leads, or a follower is on its way to lead, or to hand over because its call is over.
//! - **T2** A leader that leaves and sees a task has the dispatcher rung for what comes. The task that raises the count from
//!   zero looks whether a request stands, and asks for that bell itself where none does. One that stands is the dispatcher's,
//!   which posts it before each sleep whether tasks wait or not, fences, and looks at the count; the task raises the count,
//!   fences, and looks at the request and the ring: either the dispatcher sees the count, and looks at the ring itself, or the
//!   task sees the request or what came before it. Where the task cannot look, because the ring is led, it fences and tries
//!   again. Again one of them sees the other: a leader that saw zero has let go before that fence, so that this task finds the ring free, or led by a
//!   thread that came after and sees the count; and it does not leave before it has asked. That is for all tasks that come
//!   until the count is zero again. From then on a request stands, or the dispatcher has woken of it, sees the count and posts
//!   another before it sleeps (T3), or a thread leads that asks when it leaves. A frame that comes before the first task has
//!   asked is found by its second look, for whichever task it is.
//! - **T3** A request for a bell is posted anew before each sleep, because it may have been answered ([`crate::ring`]). A
//!   leader takes it back while it leads, and asks when it leaves. The dispatcher sleeps only after one of two looks. At the
//!   first it led, and a request stood that was posted since it last woke: by itself before its fence, or else at that look.
//!   A request that it merely finds may be the one that it woke of. At the second somebody led, and the dispatcher's bell
//!   was not asked for: that one asks when it leaves (T2). Where somebody leads and the bell is asked for, that may be a
//!   leader that has asked, has looked and has not let go yet. The dispatcher may have woken of this very request, and
//!   nobody would look again; so it looks again itself ([`Turns::has_news`]). It sees such a request without leading,
//!   because the bell was rung after it was posted.
//!
//! # Orderings in pairs
//! - `sleeping`, `tasks`: `SeqCst` where they rise, Relaxed where a leader looks; ordered by the fences of T1 and T2;
//! - a leader that takes the ring from another thread sees what that one saw, by the ring's lock;
//! - the request, where the dispatcher looks at it without the lead: Relaxed, ordered after the request that it was rung for
//!   by the bell itself.
//!
//! # What checks it
//! The loom models below, in which no sleep has a limit: a thread that leads and one that follows; tasks that a dispatcher
//! reads for, and moments at which it or a task leads while a thread begins to follow; several tasks of which one pays for
//! the barrier; a first task that finds a request; a thread that leads while a task waits for the dispatcher. The hand-over of the dispatcher's role is not
//! modelled.

use crate::fence;
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering, fence as full_fence, yield_now};

/// A ring that is read in turns.
pub trait Turn {
    /// What names a thread that waits.
    type Key: Copy + PartialEq;
    /// The right to read the ring, until dropped.
    type Lead<'a>
    where
        Self: 'a;

    /// Takes the right to read, if nobody has it.
    fn try_lead(&self) -> Option<Self::Lead<'_>>;
    /// Whether nobody has it at this moment.
    fn is_free(&self) -> bool;
    /// Whether the dispatcher's bell is asked for, for a thread that does not lead.
    fn dispatcher_asked(&self) -> bool;
    /// Whether a frame waits.
    fn ready(&self, lead: &Self::Lead<'_>) -> bool;
    /// Whether a bell is asked for.
    fn bell_asked(&self, lead: &Self::Lead<'_>) -> bool;
    /// Posts a request for the dispatcher's bell, without a fence.
    fn post_request(&self, lead: &mut Self::Lead<'_>);
    /// Posts a request for the dispatcher's bell and fences. `false`: a frame has come meanwhile.
    fn ask_for_bell(&self, lead: &mut Self::Lead<'_>) -> bool;
    /// Acts on every frame that is there. `false`: none will come any more.
    fn drain(&self, lead: &mut Self::Lead<'_>) -> bool;
    /// Wakes a thread that sleeps in [`Turns::follow`], if it still waits.
    fn wake(&self, follower: Self::Key);
}

/// Who waits for whom to read a ring.
#[derive(Debug)]
pub struct Turns<K> {
    tasks: AtomicU32,
    followers: Mutex<Vec<K>>,
    sleeping: AtomicU32,
    posted: AtomicBool,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self {
            tasks: AtomicU32::new(0),
            followers: Mutex::new(Vec::new()),
            sleeping: AtomicU32::new(0),
            posted: AtomicBool::new(false),
        }
    }
}

impl<K: Copy + PartialEq> Turns<K> {
    /// Whether tasks wait, so that the dispatcher must read the ring.
    #[inline]
    pub fn has_tasks(&self) -> bool {
        self.tasks.load(Ordering::Relaxed) > 0
    }

    /// Sleeps while another thread leads: until woken, or until `sleep` has had enough. `waits` says whether there is still
    /// something to wait for. A few microseconds besides the sleep.
    pub fn follow(
        &self,
        ring: &impl Turn<Key = K>,
        key: K,
        waits: impl FnOnce() -> bool,
        sleep: impl FnOnce(),
    ) {
        self.followers.lock().push(key);
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        // T1, pairs with the fence in `wake_follower`: either the leader sees us, or we see that it has left.
        fence::heavy();
        if waits() && !ring.is_free() {
            sleep();
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        self.followers.lock().retain(|other| *other != key);
    }

    /// After leading: somebody else must read the ring if somebody waits.
    #[inline]
    pub fn hand_over(&self, ring: &impl Turn<Key = K>) {
        if !self.wake_follower(ring) && self.has_tasks() {
            self.hand_over_to_dispatcher(ring);
        }
    }

    /// After leading for a moment, as the dispatcher does: a thread that found the ring led may sleep now. Returns whether
    /// there was one.
    #[inline]
    pub fn wake_follower(&self, ring: &impl Turn<Key = K>) -> bool {
        // T1 and T2, pairs with the fences of `follow` and `task_came`.
        fence::light();
        self.sleeping.load(Ordering::Relaxed) > 0 && self.wake_follower_slowly(ring)
    }

    #[cold]
    fn wake_follower_slowly(&self, ring: &impl Turn<Key = K>) -> bool {
        let Some(next) = self.followers.lock().pop() else { return false };
        // One whose call is over meanwhile is awake, and hands over itself.
        ring.wake(next);
        true
    }

    #[cold]
    fn hand_over_to_dispatcher(&self, ring: &impl Turn<Key = K>) {
        if self.ask_dispatcher(ring) {
            self.wake_follower(ring);
        }
    }

    /// Makes sure that the dispatcher is rung when something comes. `false`: another thread leads, and hands over when it
    /// leaves. Otherwise this thread has led.
    fn ask_dispatcher<T: Turn<Key = K>>(&self, ring: &T) -> bool {
        let mut led = false;
        while let Some(mut lead) = ring.try_lead() {
            led = true;
            // A request that stands is the dispatcher's own, which looks after it (T3).
            let asked =
                if ring.bell_asked(&lead) { !ring.ready(&lead) } else { ring.ask_for_bell(&mut lead) };
            if asked || !ring.drain(&mut lead) {
                break;
            }
        }
        led
    }

    /// Counts a task that begins to wait. The first asks for the dispatcher's bell, a few microseconds; the others find that
    /// seen to (T2), and need not ask again when they look again.
    pub fn task_came(&self, ring: &impl Turn<Key = K>) {
        if self.tasks.fetch_add(1, Ordering::SeqCst) > 0 {
            return;
        }
        // Pairs with the dispatcher's fence between its request and its look at the count.
        full_fence(Ordering::SeqCst);
        let mut led = self.ask_dispatcher(ring);
        if !led {
            // T2, pairs with the fence in `wake_follower`. Not needed where we have led: whoever leads next takes the lead
            // from us, and sees the count.
            fence::heavy();
            led = self.ask_dispatcher(ring);
        }
        if led {
            self.wake_follower(ring);
        }
    }

    /// A task no longer waits.
    pub fn task_left(&self) {
        self.tasks.fetch_sub(1, Ordering::SeqCst);
    }

    /// Acts on all that is there, for the dispatcher. `None`: there was nothing, or somebody leads. `Some(false)`: no frame
    /// will come any more.
    pub fn serve(&self, ring: &impl Turn<Key = K>) -> Option<bool> {
        let mut lead = ring.try_lead()?;
        let open = if ring.ready(&lead) { Some(ring.drain(&mut lead)) } else { None };
        drop(lead);
        self.wake_follower(ring);
        open
    }

    /// Before each sleep of the dispatcher: posts its request anew (T3) where nobody leads, also where no task waits yet: the
    /// first one then need not ask. It fences once for all rings, and looks at each again. Where a thread leads, that thread
    /// asks when it leaves.
    pub fn post_request(&self, ring: &impl Turn<Key = K>) {
        let lead = ring.try_lead();
        self.posted.store(lead.is_some(), Ordering::Relaxed);
        if let Some(mut lead) = lead {
            ring.post_request(&mut lead);
            drop(lead);
            self.wake_follower(ring);
        }
    }

    /// The dispatcher's look after its fence: whether it must stay awake, because a frame has come or because somebody leads
    /// who has asked for the dispatcher's bell already (T3); it then lets others run for a moment. A thread that led
    /// meanwhile has taken the request back, and may have found the ring led by this very look when it left; then the request
    /// is posted here, and so it is where [`Turns::post_request`] could not.
    pub fn has_news(&self, ring: &impl Turn<Key = K>) -> bool {
        let Some(mut lead) = ring.try_lead() else {
            let leaving = ring.dispatcher_asked();
            if leaving {
                // That thread may have been preempted between asking and letting go.
                yield_now();
            }
            return leaving;
        };
        let stands = self.posted.load(Ordering::Relaxed) && ring.bell_asked(&lead);
        let news = if stands { ring.ready(&lead) } else { !ring.ask_for_bell(&mut lead) };
        drop(lead);
        self.wake_follower(ring);
        news
    }
}

#[cfg(test)]
#[cfg(loom)]
#[path = "turns/loom_tests.rs"]
mod loom_tests;
