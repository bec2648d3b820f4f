//! Leases: the owner's private record of what a peer holds.
//!
//! One [`LeaseTable`] per channel, in ordinary memory of the process that lends, so a crash or a lie on the other side
//! cannot corrupt it. Lending a payload gives a number that travels in the frame; the peer sends the number back when it
//! is done, and only then is the payload dropped. When the peer dies the table is drained. Used by `channel`, behind its
//! lock. It must not know what a payload is, beyond its size.
//!
//! A number is `generation << 20 | index`. The generation of an index rises each time a lease on it ends, so a number
//! that comes back twice is an error and not the end of somebody else's lease. It wraps after 4,095 leases of one index:
//! a peer that returns a number that old can end one of its own later leases, which harms nobody but itself.
//!
//! Invariants.
//! - I1: an index is in `free` exactly if its payload is `None`.
//! - I2: `bytes` is the sum of the sizes of all payloads held.
//! - I3: no generation is 0, so no lease has the number 0.
//!
//! Checked by: a property test against a map, and a loom model of lending, returning and draining at once.

use crate::limits;

/// How many low bits of a lease number are its index.
const INDEX_BITS: u32 = 20;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
const GENERATION_MAX: u32 = u32::MAX >> INDEX_BITS;

const _: () = assert!(limits::LEASES_PER_CHANNEL_MAX <= 1 << INDEX_BITS);

/// A payload whose size is known.
pub trait LeaseBytes {
    /// Returns the size in bytes. The same every time.
    fn bytes(&self) -> u64;
}

/// Why a lease could not begin or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The peer holds as many leases as it may.
    #[error("the peer holds {leases_max} payloads, the limit per channel")]
    Full {
        /// The limit.
        leases_max: u32,
    },
    /// The peer would hold more bytes than it may.
    #[error(
        "the peer holds {held_bytes} bytes, {bytes} more would pass the limit of {bytes_max} per channel"
    )]
    TooManyBytes {
        /// What it holds.
        held_bytes: u64,
        /// The size of the payload.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// A number that was never given out.
    #[error("lease {lease:#x} does not exist")]
    Unknown {
        /// The number.
        lease: u32,
    },
    /// A number whose lease has ended.
    #[error("lease {lease:#x} has ended before")]
    Ended {
        /// The number.
        lease: u32,
    },
}

/// How much one peer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLimits {
    /// Leases at one time; at most [`limits::LEASES_PER_CHANNEL_MAX`].
    pub leases_max: u32,
    /// Bytes at one time.
    pub bytes_max: u64,
}

impl Default for LeaseLimits {
    fn default() -> Self {
        Self { leases_max: limits::LEASES_PER_CHANNEL_MAX, bytes_max: u64::MAX }
    }
}

/// What one peer holds of ours.
#[derive(Debug)]
pub struct LeaseTable<P> {
    slots: Vec<Slot<P>>,
    free: Vec<u32>,
    bytes: u64,
    limits: LeaseLimits,
}

#[derive(Debug)]
struct Slot<P> {
    generation: u32,
    payload: Option<P>,
}

impl<P: LeaseBytes> LeaseTable<P> {
    /// Makes an empty table with the default limits. Allocates nothing yet.
    pub fn new() -> Self {
        Self::with_limits(LeaseLimits::default())
    }

    /// Makes an empty table with limits of its own.
    pub fn with_limits(limits: LeaseLimits) -> Self {
        let leases_max = limits.leases_max.min(limits::LEASES_PER_CHANNEL_MAX);
        Self { slots: Vec::new(), free: Vec::new(), bytes: 0, limits: LeaseLimits { leases_max, ..limits } }
    }

    /// Keeps `payload` until the number returned here comes back. Allocates only when the peer holds more than ever
    /// before.
    ///
    /// # Errors
    /// [`LeaseError::Full`] or [`LeaseError::TooManyBytes`]; the payload is dropped.
    #[inline]
    pub fn lend(&mut self, payload: P) -> Result<u32, LeaseError> {
        let bytes = payload.bytes();
        let LeaseLimits { leases_max, bytes_max } = self.limits;
        let sum = self.bytes.checked_add(bytes).filter(|&sum| sum <= bytes_max);
        let Some(sum) = sum else {
            return Err(LeaseError::TooManyBytes { held_bytes: self.bytes, bytes, bytes_max });
        };
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.grow().ok_or(LeaseError::Full { leases_max })?,
        };
        let slot = &mut self.slots[index as usize];
        slot.payload = Some(payload);
        self.bytes = sum;
        Ok(slot.generation << INDEX_BITS | index)
    }

    #[cold]
    fn grow(&mut self) -> Option<u32> {
        let index = u32::try_from(self.slots.len()).ok().filter(|&index| index < self.limits.leases_max)?;
        self.slots.push(Slot { generation: 1, payload: None });
        Some(index)
    }

    /// Ends a lease and returns its payload. For a number that a peer sent: any number is safe.
    ///
    /// # Errors
    /// [`LeaseError::Unknown`] or [`LeaseError::Ended`]; the table is as before.
    #[inline]
    pub fn give_back(&mut self, lease: u32) -> Result<P, LeaseError> {
        let index = lease & INDEX_MASK;
        let slot = self.slots.get_mut(index as usize).ok_or(LeaseError::Unknown { lease })?;
        if slot.generation != lease >> INDEX_BITS {
            return Err(LeaseError::Ended { lease });
        }
        // The generation of a free index was never given out: it rose when the last lease ended.
        let payload = slot.payload.take().ok_or(LeaseError::Unknown { lease })?;
        slot.generation = next_generation(slot.generation);
        self.free.push(index);
        self.bytes -= payload.bytes();
        Ok(payload)
    }

    /// Ends every lease and returns the payloads: the peer is gone. Later returns of their numbers are errors.
    pub fn drain(&mut self) -> Vec<P> {
        let mut ended = Vec::with_capacity(self.len());
        for (index, slot) in (0..).zip(&mut self.slots) {
            if let Some(payload) = slot.payload.take() {
                slot.generation = next_generation(slot.generation);
                self.free.push(index);
                ended.push(payload);
            }
        }
        self.bytes = 0;
        ended
    }

    /// Returns how many leases there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Returns whether the peer holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many bytes the peer holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lists what the peer holds, with its numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &P)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| {
            let payload = slot.payload.as_ref()?;
            Some((slot.generation << INDEX_BITS | index, payload))
        })
    }
}

impl<P: LeaseBytes> Default for LeaseTable<P> {
    fn default() -> Self {
        Self::new()
    }
}

fn next_generation(generation: u32) -> u32 {
    if generation == GENERATION_MAX { 1 } else { generation + 1 }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
