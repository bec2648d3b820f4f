//! A frame that is arriving: its payloads are read from the socket straight into blocks of the arena from which they will be
//! lent on. Used by [`crate::incoming`] and [`crate::session`]. It must not know where the bytes come from.

use std::collections::VecDeque;
use std::sync::Arc;

use ringway_ipc::arena::{Arena, Loan};
use ringway_ipc::channel::Payload;
use ringway_ipc::frame::{DESCRIPTOR_BYTES, DESCRIPTORS_MAX, Descriptor, Header, Inline};
use ringway_ipc::limits::BLOCK_BYTES_MAX;
use ringway_protocol::header::Flags;
use ringway_protocol::limits::ATTACHMENTS_MAX;

use crate::fault::Fault;

/// The strictest alignment that a block is asked for, as a power of two: a page.
pub(crate) const ALIGN_LOG2_MAX: u8 = 12;

/// See the module.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) channel: u32,
    pub(crate) header: Header,
    pub(crate) inline: Inline,
    arena: Option<Arc<Arena>>,
    /// The table of descriptors, where they do not lie inline, as far as it has come.
    table: Option<Table>,
    /// What is still to come, the first being filled.
    coming: VecDeque<Part>,
    filled: usize,
    arrived: Vec<(Descriptor, Option<Loan>)>,
    /// Why it cannot be kept: what still comes is counted and dropped.
    refused: Option<String>,
}

#[derive(Debug)]
struct Table {
    bytes: Vec<u8>,
    wanted: usize,
}

#[derive(Debug)]
struct Part {
    descriptor: Descriptor,
    len: usize,
    loan: Option<Loan>,
}

/// A frame that has arrived whole.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) channel: u32,
    pub(crate) header: Header,
    pub(crate) inline: Inline,
    pub(crate) payloads: Vec<(Descriptor, Payload)>,
    /// The descriptors lie in a table of their own.
    pub(crate) in_table: bool,
    /// Why its payloads could not be kept.
    pub(crate) refused: Option<String>,
    /// Its payloads were wanted at all.
    pub(crate) kept: bool,
}

impl Parcel {
    /// Begins with a frame's header and inline area. Without an arena its payloads are dropped as they come.
    ///
    /// # Errors
    /// Descriptors that no correct peer sends.
    pub(crate) fn new(
        channel: u32,
        header: Header,
        inline: Inline,
        arena: Option<Arc<Arena>>,
    ) -> Result<Self, Fault> {
        let mut parcel = Self {
            channel,
            header,
            inline,
            arena,
            table: None,
            coming: VecDeque::new(),
            filled: 0,
            arrived: Vec::new(),
            refused: None,
        };
        let count = usize::from(header.attachments).min(DESCRIPTORS_MAX);
        if header.flags & Flags::DESCRIPTORS_IN_BLOCK.bits() != 0 {
            let len = inline.descriptor(0).len;
            let wanted = usize::try_from(len).map_err(|_| Fault::Table)?;
            let longest = (ATTACHMENTS_MAX + 2) * DESCRIPTOR_BYTES;
            if count != 1 || wanted == 0 || wanted > longest || !wanted.is_multiple_of(DESCRIPTOR_BYTES) {
                return Err(Fault::Table);
            }
            parcel.table = Some(Table { bytes: Vec::with_capacity(wanted), wanted });
        } else {
            let descriptors: Vec<Descriptor> = (0..count).map(|at| inline.descriptor(at)).collect();
            parcel.expect(&descriptors)?;
        }
        Ok(parcel)
    }

    /// Takes room for payloads. Where there is none, the parcel is refused, not the link.
    fn expect(&mut self, descriptors: &[Descriptor]) -> Result<(), Fault> {
        let mut all: u64 = 0;
        for descriptor in descriptors {
            all = all.saturating_add(descriptor.len);
            if all > BLOCK_BYTES_MAX {
                return Err(Fault::Payload { found: all });
            }
            let len =
                usize::try_from(descriptor.len).map_err(|_| Fault::Payload { found: descriptor.len })?;
            let loan = self.arena.as_ref().filter(|_| self.refused.is_none());
            let loan = loan.and_then(|arena| {
                let align = 1usize << descriptor.align_log2.clamp(6, ALIGN_LOG2_MAX);
                arena.loan(len, align).map_err(|error| self.refused = Some(error.to_string())).ok()
            });
            self.coming.push_back(Part { descriptor: *descriptor, len, loan });
        }
        if self.refused.is_some() {
            // What has been taken for a parcel that cannot be kept is needed by others.
            self.coming.iter_mut().for_each(|part| part.loan = None);
        }
        self.skip_empty();
        Ok(())
    }

    fn skip_empty(&mut self) {
        while self.coming.front().is_some_and(|part| part.len == 0) {
            let part = self.coming.pop_front();
            self.arrived.extend(part.map(|part| (part.descriptor, part.loan)));
        }
    }

    /// Bytes of payload that are known to be missing; there are more behind a table.
    pub(crate) fn missing(&self) -> u64 {
        let table = self.table.as_ref().map_or(0, |table| table.wanted - table.bytes.len());
        let coming: u64 = self.coming.iter().map(|part| part.len as u64).sum();
        coming - self.filled as u64 + table as u64
    }

    /// Where the next bytes belong, if they are kept and lie in a block.
    pub(crate) fn space(&mut self) -> Option<&mut [u8]> {
        let filled = self.filled;
        let part = self.coming.front_mut()?;
        part.loan.as_mut().map(|loan| &mut loan[filled..])
    }

    /// Notes that bytes were put into [`Self::space`].
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) fn filled(&mut self, bytes: usize) -> Result<(), Fault> {
        self.filled += bytes;
        let Some(part) = self.coming.front().filter(|part| part.len == self.filled) else { return Ok(()) };
        debug_assert!(part.len > 0, "empty ones are skipped");
        self.filled = 0;
        let part = self.coming.pop_front();
        self.arrived.extend(part.map(|part| (part.descriptor, part.loan)));
        self.skip_empty();
        Ok(())
    }

    /// Takes bytes that were read elsewhere; returns how many.
    ///
    /// # Errors
    /// A table of descriptors that is none.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if let Some(table) = self.table.as_mut().filter(|table| table.bytes.len() < table.wanted) {
            let count = bytes.len().min(table.wanted - table.bytes.len());
            table.bytes.extend_from_slice(&bytes[..count]);
            if table.bytes.len() == table.wanted {
                let descriptors = read_table(&table.bytes);
                self.expect(&descriptors)?;
            }
            return Ok(count);
        }
        let Some(part) = self.coming.front() else { return Ok(0) };
        let count = bytes.len().min(part.len - self.filled);
        if let Some(space) = self.space() {
            space[..count].copy_from_slice(&bytes[..count]);
        }
        self.filled(count)?;
        Ok(count)
    }

    /// Whether nothing is missing.
    pub(crate) fn is_whole(&self) -> bool {
        self.coming.is_empty() && self.table.as_ref().is_none_or(|table| table.bytes.len() == table.wanted)
    }

    /// Why it will not be kept, if so.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// The frame with its payloads. It must be whole.
    pub(crate) fn into_arrived(self) -> Arrived {
        let payloads = self.arrived.into_iter();
        let payloads = payloads
            .filter_map(|(descriptor, loan)| loan.map(|loan| (descriptor, Payload::from(loan.freeze()))));
        Arrived {
            channel: self.channel,
            header: self.header,
            inline: self.inline,
            payloads: payloads.collect(),
            in_table: self.table.is_some(),
            kept: self.arena.is_some(),
            refused: self.refused,
        }
    }
}

/// Cuts a table into its descriptors; its length is a multiple of theirs.
pub(crate) fn read_table(bytes: &[u8]) -> Vec<Descriptor> {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    let read = |entry: &[u8]| {
        Descriptor::from_words(&[
            word(&entry[..8]),
            word(&entry[8..16]),
            word(&entry[16..24]),
            word(&entry[24..]),
        ])
    };
    bytes.chunks_exact(DESCRIPTOR_BYTES).map(read).collect()
}

/// Puts descriptors into a table.
pub(crate) fn write_table<'a>(descriptors: impl Iterator<Item = &'a Descriptor>) -> Vec<u8> {
    descriptors.flat_map(Descriptor::to_words).flat_map(u64::to_le_bytes).collect()
}
