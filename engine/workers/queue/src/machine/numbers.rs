//! Numbers that are given out once, of messages and of leases. A block of them is on disk as given out before the first one
//! of it is; the next block is noted when half of one is used. So they rise over restarts, whatever happened before, and at
//! the end of all numbers nothing is given out rather than the first one again. Used by the machine; it must not know what
//! is numbered.

use super::{Machine, Pending, Token};
use crate::record::{self, Numbers, Writes};

/// What has been given out, and what may be.
#[derive(Debug)]
pub(super) struct Reserve {
    next: Numbers,
    end: Numbers,
    /// A commit with the next block is under way.
    asked: bool,
}

impl Reserve {
    pub(super) fn new(first: Numbers) -> Self {
        Self { next: first, end: first.after_block(), asked: false }
    }

    /// A number for a message; `None` if none is left that the disk knows of.
    pub(super) fn seq(&mut self) -> Option<u64> {
        take(&mut self.next.seq, self.end.seq)
    }

    /// A number for a lease.
    pub(super) fn token(&mut self) -> Option<Token> {
        take(&mut self.next.token, self.end.token)
    }

    pub(super) fn seqs_left(&self) -> usize {
        usize::try_from(self.end.seq - self.next.seq).unwrap_or(usize::MAX)
    }

    pub(super) fn tokens_left(&self) -> bool {
        self.next.token < self.end.token
    }

    /// The number of the next message.
    pub(super) fn next_seq(&self) -> u64 {
        self.next.seq
    }

    pub(super) fn not_reserved(&mut self) {
        self.asked = false;
    }

    fn is_low(&self) -> bool {
        let low = |next: u64, end: u64| end - next < record::BLOCK / 2 && end < u64::MAX;
        !self.asked && (low(self.next.seq, self.end.seq) || low(self.next.token, self.end.token))
    }
}

fn take(next: &mut u64, end: u64) -> Option<u64> {
    (*next < end).then(|| {
        *next += 1;
        *next - 1
    })
}

impl Machine {
    /// Asks for the next block where one is wanted.
    pub(super) fn reserve(&mut self) {
        if !self.numbers.is_low() || self.stall.is() {
            return;
        }
        self.numbers.asked = true;
        let end = self.numbers.end.after_block();
        let mut writes = Writes::default();
        writes.put(record::META, record::NUMBERS.to_vec(), &end);
        self.commit(Pending::Reserve(end), writes);
    }

    /// Numbers up to these may be given out.
    pub(super) fn reserved(&mut self, end: Numbers, now_ms: u64) {
        let held_up = !self.numbers.tokens_left();
        self.numbers.end = end;
        self.numbers.asked = false;
        if held_up {
            self.start_all(now_ms);
        }
    }
}
