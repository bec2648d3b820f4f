//! Physical floors: the barest loops that can carry a word, or a slot, from one process to another through shared
//! memory. `ringway-bench` runs them beside every figure it prints, so that a latency can be read as a multiple of what
//! the machine itself costs. Nothing that ships calls this module, and it must not know segments, channels or frames:
//! a floor that shared code with the ring it judges would move whenever the ring does.
//!
//! **Fields and who may touch them.** One [`FloorMap`] is mapped writable by two processes, the *asker* and the
//! *echoer*. Each 128-byte line of [`PingPong`] and each ring of [`StampRings`] is written by one of the two; the other
//! only reads it. All accesses are atomic words.
//!
//! **Invariants.**
//! - I1: `base` points at `MAP_BYTES` mapped bytes, aligned to a page, until the map is dropped.
//! - I2: every offset handed to `FloorMap::word` is a multiple of 8 and below `MAP_BYTES`, asserted there.
//! - I3: the asker never has more requests in flight than a ring has slots, so no slot is overwritten unread.
//!
//! **Orderings.** A word or stamp is stored with Release and polled with Acquire by the other side; the payload between
//! is Relaxed and ordered by that pair. There is no other shared state.
//!
//! **What checks it.** The tests below run both sides as threads over two maps of one memory file, and the asker checks
//! every payload that comes back. It always uses the real atomics: there is nothing to model in a loop this bare.
#![expect(unsafe_code, reason = "maps memory and reads the time-stamp counter")]

use core::hint::{black_box, spin_loop};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// Bytes of one line of the ping-pong: two cache lines, since neighbours are fetched in pairs.
const LINE_BYTES: usize = 128;
/// Bytes from one slot to the next, as in the product's rings.
const SLOT_BYTES: usize = 256;
/// Offset of a slot's payload: the line after the one that holds the stamp.
const PAYLOAD_OFFSET: usize = 64;
/// Words of payload in a slot: 64 bytes.
const PAYLOAD_WORDS: usize = 8;
/// Slots in each of the two rings.
const SLOT_COUNT: usize = 256;
/// Bytes that a [`FloorMap`] has: room for both rings and, on its own page, the ping-pong.
const MAP_BYTES: usize = 2 * SLOT_COUNT * SLOT_BYTES + 4096;
/// Stored instead of a sequence number to tell the echoer to leave.
const STOP: u64 = u64::MAX;
/// Polls between two looks at the clock while waiting for the other process.
const POLLS_PER_CHECK: u32 = 1 << 16;

/// Most requests that may be in flight over [`StampRings`].
pub const IN_FLIGHT_MAX: usize = SLOT_COUNT / 2;

/// How to wait between two polls of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spin {
    /// Poll again at once.
    Bare,
    /// Execute the processor's spin hint (`pause` on x86) between polls.
    Pause,
}

impl Spin {
    #[inline(always)]
    fn relax(self) {
        if self == Self::Pause {
            spin_loop();
        }
    }
}

/// The other process has not answered within the time given: it died or never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted an answer from the other process of a floor, found none in time")]
pub struct PeerSilent;

/// A memory file mapped writable by both processes of a floor.
#[derive(Debug)]
pub struct FloorMap {
    base: NonNull<u64>,
    file: OwnedFd,
}

// SAFETY: by I1 the memory lives as long as the map, and every access to it is atomic.
unsafe impl Send for FloorMap {}
// SAFETY: as above; no method hands out a reference to anything but atomics.
unsafe impl Sync for FloorMap {}

impl FloorMap {
    /// Makes a memory file, maps it and touches every page.
    ///
    /// # Errors
    /// What the system says when it refuses the file or the map.
    pub fn create() -> io::Result<Self> {
        let file = rustix::fs::memfd_create("ringway-floor", MemfdFlags::empty())?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, MAP_BYTES as u64)?;
        let map = Self::open(file)?;
        for offset in (0..MAP_BYTES).step_by(8) {
            map.word(offset).store(0, Ordering::Relaxed);
        }
        Ok(map)
    }

    /// Maps the memory file that the other process made.
    ///
    /// # Errors
    /// What the system says when it refuses the map, or `InvalidInput` when the file is too short.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let size = rustix::fs::fstat(&file)?.st_size;
        if u64::try_from(size).unwrap_or(0) < MAP_BYTES as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "wanted a floor's memory file, found a shorter one",
            ));
        }
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new map at an address of the kernel's choice; no memory of ours is replaced.
        let base = unsafe {
            rustix::mm::mmap(
                core::ptr::null_mut(),
                MAP_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
                &file,
                0,
            )
        }?;
        let base =
            NonNull::new(base.cast::<u64>()).ok_or_else(|| io::Error::other("the map is at address zero"))?;
        Ok(Self { base, file })
    }

    /// Returns the memory file, to be inherited by the other process.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    #[inline(always)]
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < MAP_BYTES, "a floor's word lies inside its map");
        // SAFETY: inside the map by the assertion above (I2).
        let at = unsafe { self.base.add(offset / 8) };
        // SAFETY: aligned since the base is (I1) and the offset is a multiple of 8 (I2); both processes only ever use
        // atomics here.
        unsafe { AtomicU64::from_ptr(at.as_ptr()) }
    }
}

impl Drop for FloorMap {
    fn drop(&mut self) {
        // SAFETY: the map of I1; nobody can hold a word of it, since words borrow the map.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), MAP_BYTES) };
        debug_assert!(unmapped.is_ok(), "a whole map of ours can be unmapped");
    }
}

/// Polls until `ready` returns something, looking at the clock now and then.
#[inline(always)]
fn poll_until<T>(
    spin: Spin,
    patience: Duration,
    mut ready: impl FnMut() -> Option<T>,
) -> Result<T, PeerSilent> {
    let mut started: Option<Instant> = None;
    loop {
        for _ in 0..POLLS_PER_CHECK {
            if let Some(value) = ready() {
                return Ok(value);
            }
            spin.relax();
        }
        if started.get_or_insert_with(Instant::now).elapsed() > patience {
            return Err(PeerSilent);
        }
    }
}

/// The bare two-word ping-pong: each word on its own pair of cache lines, each written by one process.
#[derive(Debug)]
pub struct PingPong<'a> {
    ask: &'a AtomicU64,
    answer: &'a AtomicU64,
    spin: Spin,
    patience: Duration,
    sent: u64,
}

impl<'a> PingPong<'a> {
    /// Takes the page after the rings. Both processes must give the same `spin` for a fair figure.
    #[must_use]
    pub fn new(map: &'a FloorMap, spin: Spin, patience: Duration) -> Self {
        let page = 2 * SLOT_COUNT * SLOT_BYTES;
        Self { ask: map.word(page), answer: map.word(page + LINE_BYTES), spin, patience, sent: 0 }
    }

    /// Sends one word and waits for it to come back.
    ///
    /// # Errors
    /// [`PeerSilent`] when the other process does not answer.
    #[inline(always)]
    pub fn round_trip(&mut self) -> Result<(), PeerSilent> {
        self.sent += 1;
        let sent = self.sent;
        // Release, Acquire: pair with the echoer's, below.
        self.ask.store(sent, Ordering::Release);
        poll_until(self.spin, self.patience, || (self.answer.load(Ordering::Acquire) == sent).then_some(()))
    }

    /// Tells the echoer to leave.
    pub fn stop(&self) {
        self.ask.store(STOP, Ordering::Release);
    }

    /// Sends every word back until told to stop.
    ///
    /// # Errors
    /// [`PeerSilent`] when the other process sends nothing for too long.
    pub fn echo(&mut self) -> Result<(), PeerSilent> {
        loop {
            let last = self.sent;
            self.sent = poll_until(self.spin, self.patience, || {
                let word = self.ask.load(Ordering::Acquire);
                (word != last).then_some(word)
            })?;
            if self.sent == STOP {
                return Ok(());
            }
            self.answer.store(self.sent, Ordering::Release);
        }
    }
}

/// Two bare rings: 256-byte slots, the stamp in the slot, 64 bytes of payload, one ring each way.
#[derive(Debug)]
pub struct StampRings<'a> {
    asks: Ring<'a, 0>,
    answers: Ring<'a, { SLOT_COUNT * SLOT_BYTES }>,
    spin: Spin,
    patience: Duration,
}

/// One process's place in the ring that starts at `BASE`, a constant so that no bounds check is left in the loop.
#[derive(Debug)]
struct Ring<'a, const BASE: usize> {
    map: &'a FloorMap,
    cursor: u64,
}

impl<const BASE: usize> Ring<'_, BASE> {
    /// Offset of the slot that a cursor stands for.
    #[inline(always)]
    fn slot(cursor: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "masked to below the slot count")]
        let index = (cursor & (SLOT_COUNT as u64 - 1)) as usize;
        BASE + index * SLOT_BYTES
    }

    /// Writes the payload, then the stamp.
    #[inline(always)]
    fn publish(&mut self, payload: &[u64; PAYLOAD_WORDS], stop: bool) {
        let at = Self::slot(self.cursor);
        for (index, value) in payload.iter().enumerate() {
            self.map.word(at + PAYLOAD_OFFSET + index * 8).store(*value, Ordering::Relaxed);
        }
        self.cursor += 1;
        // Release: pairs with the Acquire in `take`, so that who sees the stamp sees the payload.
        self.map.word(at).store(if stop { STOP } else { self.cursor }, Ordering::Release);
    }

    /// Reads the next payload if its stamp is there; `Some(None)` is the word to stop.
    #[inline(always)]
    fn take(&mut self) -> Option<Option<[u64; PAYLOAD_WORDS]>> {
        let at = Self::slot(self.cursor);
        // Acquire: pairs with the Release in `publish`.
        let stamp = self.map.word(at).load(Ordering::Acquire);
        if stamp == STOP {
            return Some(None);
        }
        if stamp != self.cursor + 1 {
            return None;
        }
        let mut payload = [0; PAYLOAD_WORDS];
        for (index, value) in payload.iter_mut().enumerate() {
            *value = self.map.word(at + PAYLOAD_OFFSET + index * 8).load(Ordering::Relaxed);
        }
        self.cursor += 1;
        Some(Some(payload))
    }
}

impl<'a> StampRings<'a> {
    /// Takes both rings from their start. Both processes must give the same `spin` for a fair figure.
    #[must_use]
    pub fn new(map: &'a FloorMap, spin: Spin, patience: Duration) -> Self {
        Self { asks: Ring { map, cursor: 0 }, answers: Ring { map, cursor: 0 }, spin, patience }
    }

    /// Sends one slot and waits for its payload to come back.
    ///
    /// # Errors
    /// [`PeerSilent`] when the other process does not answer.
    ///
    /// # Panics
    /// When another payload comes back than was sent: the floor would measure something else.
    #[inline(always)]
    pub fn round_trip(&mut self) -> Result<(), PeerSilent> {
        let sent = self.ask();
        let answer = poll_until(self.spin, self.patience, || self.answers.take())?;
        assert_eq!(answer.map(black_box), Some(sent), "the answer is the question");
        Ok(())
    }

    /// Keeps `in_flight` requests under way until `until` has passed; returns how many were answered.
    ///
    /// # Errors
    /// [`PeerSilent`] when the other process does not answer.
    ///
    /// # Panics
    /// When `in_flight` exceeds [`IN_FLIGHT_MAX`] or a payload comes back altered.
    pub fn pump(&mut self, in_flight: usize, until: Instant) -> Result<u64, PeerSilent> {
        assert!((1..=IN_FLIGHT_MAX).contains(&in_flight), "no slot is overwritten unread (I3)");
        let first = self.answers.cursor;
        loop {
            // Looks at the clock once a thousand answers: at tens of millions a second the clock would weigh.
            let pause_at = self.answers.cursor + 1000;
            while self.answers.cursor < pause_at {
                while self.asks.cursor - self.answers.cursor < in_flight as u64 {
                    self.ask();
                }
                self.collect()?;
            }
            if Instant::now() >= until {
                break;
            }
        }
        while self.answers.cursor < self.asks.cursor {
            self.collect()?;
        }
        Ok(self.answers.cursor - first)
    }

    /// Waits for one answer, then takes whatever else is there.
    #[inline(always)]
    fn collect(&mut self) -> Result<(), PeerSilent> {
        let mut answer = poll_until(self.spin, self.patience, || self.answers.take())?;
        loop {
            let sequence = answer.map(|payload| black_box(payload)[0]);
            assert_eq!(sequence, Some(self.answers.cursor), "answers come in the order of the questions");
            match self.answers.take() {
                Some(next) => answer = next,
                None => return Ok(()),
            }
        }
    }

    #[inline(always)]
    fn ask(&mut self) -> [u64; PAYLOAD_WORDS] {
        let sequence = self.asks.cursor + 1;
        let mut payload = [sequence; PAYLOAD_WORDS];
        payload[PAYLOAD_WORDS - 1] = !sequence;
        self.asks.publish(&payload, false);
        payload
    }

    /// Tells the echoer to leave.
    pub fn stop(&mut self) {
        self.asks.publish(&[0; PAYLOAD_WORDS], true);
    }

    /// Sends every payload back until told to stop.
    ///
    /// # Errors
    /// [`PeerSilent`] when the other process sends nothing for too long.
    pub fn echo(&mut self) -> Result<(), PeerSilent> {
        while let Some(payload) = poll_until(self.spin, self.patience, || self.asks.take())? {
            self.answers.publish(&payload, false);
        }
        Ok(())
    }
}

/// Reads the processor's time-stamp counter once everything before has been done; `None` where there is none to read.
///
/// The unit is the machine's: calibrate against the system's clock before use.
#[must_use]
#[inline(always)]
pub fn timestamp() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: part of SSE2, which every x86_64 processor has.
        unsafe { core::arch::x86_64::_mm_lfence() };
        // SAFETY: part of every x86_64 processor; user code may read it on every system this is built for.
        Some(unsafe { core::arch::x86_64::_rdtsc() })
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{FloorMap, PingPong, Spin, StampRings};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn with_echo<E: FnOnce(&FloorMap) + Send>(echo: E, ask: impl FnOnce(&FloorMap)) {
        let ours = FloorMap::create().unwrap();
        let theirs = FloorMap::open(ours.file().try_clone_to_owned().unwrap()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || echo(&theirs));
            ask(&ours);
        });
    }

    #[test]
    fn ping_pong_answers_each_word() {
        for spin in [Spin::Bare, Spin::Pause] {
            with_echo(
                |map| PingPong::new(map, spin, PATIENCE).echo().unwrap(),
                |map| {
                    let mut floor = PingPong::new(map, spin, PATIENCE);
                    for _ in 0..100 {
                        floor.round_trip().unwrap();
                    }
                    floor.stop();
                },
            );
        }
    }

    #[test]
    fn rings_wrap_and_keep_every_payload() {
        with_echo(
            |map| StampRings::new(map, Spin::Pause, PATIENCE).echo().unwrap(),
            |map| {
                let mut floor = StampRings::new(map, Spin::Pause, PATIENCE);
                for _ in 0..600 {
                    floor.round_trip().unwrap();
                }
                let answered = floor.pump(64, Instant::now() + Duration::from_millis(20)).unwrap();
                assert!(answered >= 1000, "{answered} answers");
                floor.round_trip().unwrap();
                floor.stop();
            },
        );
    }

    #[test]
    fn silent_peer_is_an_error() {
        let map = FloorMap::create().unwrap();
        let mut floor = PingPong::new(&map, Spin::Bare, Duration::from_millis(1));
        assert!(floor.round_trip().is_err());
    }
}
