//! Cuts what the socket gives into heads, frames, pieces of transfers and messages. Bytes of large payloads are not staged:
//! [`Intake::spaces`] says where they belong, and the system call that reads them puts them there. Used by
//! [`crate::session`], which it tells of what came through [`Taker`]. It must not know channels.

use std::io::IoSliceMut;

use ringway_ipc::frame::{Header, Inline};

use crate::fault::{Ended, Fault};
use crate::limits;
use crate::parcel::Parcel;
use crate::wire::{Class, HEAD_BYTES, Head};

/// What is told of what came.
pub(crate) trait Taker {
    /// A frame without payloads.
    fn plain(&mut self, channel: u32, header: Header, inline: &Inline) -> Result<(), Fault>;
    /// A frame with payloads begins; they follow at once, or as a transfer.
    fn begin(
        &mut self,
        channel: u32,
        header: Header,
        inline: Inline,
        large: bool,
    ) -> Result<Option<Parcel>, Fault>;
    /// A frame is whole.
    fn whole(&mut self, parcel: Parcel) -> Result<(), Fault>;
    /// A piece of a transfer begins; says whether it is wanted.
    fn chunk(&mut self, transfer: u64, bytes: u64) -> Result<bool, Fault>;
    /// The transfer that is wanted.
    fn transfer(&mut self, transfer: u64) -> Option<&mut Parcel>;
    /// Bytes of a piece have arrived, wanted or not, and so many of it are left; says whether its transfer is whole by them.
    fn arrived(&mut self, transfer: u64, bytes: u64, left: usize) -> Result<bool, Fault>;
    /// A head that is all there is.
    fn word(&mut self, head: &Head) -> Result<(), Ended>;
    /// A message for the owner.
    fn message(&mut self, topic: u64, bytes: Vec<u8>) -> Result<(), Fault>;
}

#[derive(Debug)]
enum State {
    /// At the beginning of a head.
    Head,
    /// In the payloads right behind a frame.
    Frame(Box<Parcel>),
    /// In a piece of a transfer.
    Chunk { transfer: u64, left: usize, wanted: bool },
    /// In a piece of a message.
    Message { topic: u64, left: usize, behind: usize },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Intake {
    /// A `Vec` and no `Box`, which may not be moved while the system writes to it.
    staging: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the space outside the staging area that was given out last.
    direct: usize,
    state: State,
    /// The message that is coming, as far as it has.
    message: Vec<u8>,
    /// Its topic, and the bytes of it that are still to come.
    unfinished: Option<(u64, usize)>,
}

impl Intake {
    pub(crate) fn new() -> Self {
        let staging = vec![0; limits::STAGING_BYTES];
        Self {
            staging,
            start: 0,
            end: 0,
            direct: 0,
            state: State::Head,
            message: Vec::new(),
            unfinished: None,
        }
    }

    /// Bytes of a message that has not come whole.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn message_bytes(&self) -> usize {
        self.message.len()
    }

    /// Where the next bytes of the socket belong: the second place after the first is full. Never empty.
    pub(crate) fn spaces<'a>(&'a mut self, taker: &'a mut impl Taker) -> [IoSliceMut<'a>; 2] {
        self.direct = 0;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            let most = match self.state {
                State::Frame(_) => usize::MAX,
                State::Chunk { left, wanted: true, .. } => left,
                _ => 0,
            };
            let space = match &mut self.state {
                State::Frame(parcel) => parcel.space(),
                State::Chunk { transfer, wanted: true, .. } => {
                    taker.transfer(*transfer).and_then(Parcel::space)
                }
                _ => None,
            };
            if let Some(space) = space {
                let count = space.len().min(most);
                self.direct = count;
                let ahead = &mut self.staging[..limits::READ_AHEAD_BYTES];
                return [IoSliceMut::new(&mut space[..count]), IoSliceMut::new(ahead)];
            }
        } else if self.start > 0 && self.staging.len() - self.end < limits::READ_AHEAD_BYTES {
            self.staging.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        [IoSliceMut::new(&mut self.staging[self.end..]), IoSliceMut::new(&mut [])]
    }

    /// Notes that so many bytes were put into [`Self::spaces`], and acts on what is whole by now.
    ///
    /// # Errors
    /// Why the link must end.
    pub(crate) fn received(&mut self, bytes: usize, taker: &mut impl Taker) -> Result<(), Ended> {
        let direct = bytes.min(self.direct);
        self.end += bytes - direct;
        if direct > 0 {
            match &mut self.state {
                State::Frame(parcel) => parcel.filled(direct)?,
                State::Chunk { transfer, left, .. } => {
                    *left -= direct;
                    let (transfer, left) = (*transfer, *left);
                    if let Some(parcel) = taker.transfer(transfer) {
                        parcel.filled(direct)?;
                    }
                    whole_at_its_end(taker.arrived(transfer, direct as u64, left)?, transfer, left)?;
                }
                State::Head | State::Message { .. } => {}
            }
        }
        while self.step(taker)? {}
        Ok(())
    }

    /// Acts on the next thing if it is there; says whether something changed.
    fn step(&mut self, taker: &mut impl Taker) -> Result<bool, Ended> {
        let staged = &self.staging[self.start..self.end];
        match &mut self.state {
            State::Head => self.head(taker),
            State::Frame(parcel) => {
                if parcel.is_whole() {
                    let State::Frame(parcel) = std::mem::replace(&mut self.state, State::Head) else {
                        return Ok(false);
                    };
                    taker.whole(*parcel)?;
                    return Ok(true);
                }
                let taken = parcel.take(staged)?;
                // A table may have brought more than may lie behind a frame.
                let missing = parcel.missing();
                if missing > limits::COPIED_BYTES_MAX {
                    return Err(Fault::Copied { found: missing }.into());
                }
                self.start += taken;
                Ok(taken > 0 || parcel.is_whole())
            }
            State::Chunk { left: 0, .. } => {
                self.state = State::Head;
                Ok(true)
            }
            State::Chunk { transfer, left, wanted } => {
                let count = staged.len().min(*left);
                let mut taken = count;
                if *wanted && let Some(parcel) = taker.transfer(*transfer) {
                    taken = parcel.take(&staged[..count])?;
                    if taken == 0 && count > 0 {
                        return Err(Fault::Chunk { transfer: *transfer, bytes: count as u64 }.into());
                    }
                }
                if taken == 0 {
                    return Ok(false);
                }
                self.start += taken;
                *left -= taken;
                let (transfer, left) = (*transfer, *left);
                whole_at_its_end(taker.arrived(transfer, taken as u64, left)?, transfer, left)?;
                Ok(true)
            }
            State::Message { topic, left, behind } => {
                let count = staged.len().min(*left);
                self.message.extend_from_slice(&staged[..count]);
                self.start += count;
                *left -= count;
                if *left > 0 {
                    return Ok(false);
                }
                let (topic, behind) = (*topic, *behind);
                self.state = State::Head;
                self.unfinished = (behind > 0).then_some((topic, behind));
                if behind == 0 {
                    taker.message(topic, std::mem::take(&mut self.message))?;
                }
                Ok(true)
            }
        }
    }

    fn head(&mut self, taker: &mut impl Taker) -> Result<bool, Ended> {
        let staged = &self.staging[self.start..self.end];
        let Some((head, rest)) = staged.split_first_chunk::<HEAD_BYTES>() else { return Ok(false) };
        let head = Head::read(head)?;
        match head.class {
            Class::Frame | Class::Large => {
                let header = head.header()?;
                let inline_len = usize::from(header.inline_len);
                let Some(area) = rest.get(..inline_len) else { return Ok(false) };
                let mut inline = Inline::default();
                inline.bytes_mut()[..inline_len].copy_from_slice(area);
                self.start += HEAD_BYTES + inline_len;
                let large = head.class == Class::Large;
                if header.attachments == 0 && !large {
                    taker.plain(head.channel, header, &inline)?;
                } else if let Some(parcel) = taker.begin(head.channel, header, inline, large)? {
                    let missing = parcel.missing();
                    if missing > limits::COPIED_BYTES_MAX {
                        return Err(Fault::Copied { found: missing }.into());
                    }
                    self.state = State::Frame(Box::new(parcel));
                }
            }
            Class::Chunk => {
                self.start += HEAD_BYTES;
                let [transfer, bytes, ..] = head.words;
                let fault = Fault::Chunk { transfer, bytes };
                let left = usize::try_from(bytes).map_err(|_| fault)?;
                if left == 0 || left > limits::CHUNK_BYTES_MAX {
                    return Err(fault.into());
                }
                let wanted = taker.chunk(transfer, bytes)?;
                self.state = State::Chunk { transfer, left, wanted };
            }
            Class::Message => {
                self.start += HEAD_BYTES;
                let [left, topic, behind, ..] = head.words;
                let found = left.saturating_add(behind).saturating_add(self.message.len() as u64);
                let size = |bytes| usize::try_from(bytes).map_err(|_| Fault::Message { found });
                let (left, behind) = (size(left)?, size(behind)?);
                if found > limits::MESSAGE_BYTES_MAX || left > limits::MESSAGE_PIECE_BYTES {
                    return Err(Fault::Message { found }.into());
                }
                if self.unfinished.is_some_and(|rest| rest != (topic, left + behind)) {
                    // Nobody is told a message that nobody sent.
                    return Err(Fault::Nonsense.into());
                }
                self.state = State::Message { topic, left, behind };
            }
            _ => {
                self.start += HEAD_BYTES;
                taker.word(&head)?;
            }
        }
        Ok(true)
    }
}

/// A piece ends where its transfer does, or before.
fn whole_at_its_end(whole: bool, transfer: u64, left: usize) -> Result<(), Fault> {
    if whole && left > 0 { Err(Fault::Chunk { transfer, bytes: left as u64 }) } else { Ok(()) }
}
