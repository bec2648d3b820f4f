//! Puts messages on channels and takes them off: inline area, descriptors, metadata, blocks.
//!
//! The inline area holds, in this order, the descriptors, the body and the metadata, so that the body of a frame
//! without descriptors starts on a 64-byte boundary and an archived value is read where it arrived. What does not fit
//! moves to blocks: first the body, then the metadata, then the descriptors themselves.

use std::sync::Arc;

use ringway_ipc::arena::Loan;
use ringway_ipc::channel::{Channel, CloseReason, Lead, LeaseGuard, LendError, Payload};
use ringway_ipc::frame::{DESCRIPTOR_BYTES, DESCRIPTORS_MAX, Descriptor, Header, Inline};
use ringway_ipc::layout::INLINE_BYTES;
use ringway_protocol::header::{DType, Encoding, Flags, Role};
use ringway_protocol::limits::{ATTACHMENTS_MAX, TENSOR_DIMS_MAX};
use ringway_protocol::{CallError, ErrorCode};

use rkyv::util::AlignedVec;

use crate::memory::Memory;
use crate::message::{Attachment, Body, Message};
use crate::meta::{Meta, TAG_DIMS};

/// Leases that a composed frame carries, to be ended if the frame is not sent.
pub(crate) type Leases = Vec<u32>;

/// Fills the size fields of `header` and returns the inline area of a message, lending what travels in blocks. Where the
/// memory is kept apart, blocks are copied into it first.
pub(crate) fn compose(
    channel: &Channel,
    memory: &Memory,
    header: &mut Header,
    message: &Message,
    meta: &Meta,
) -> Result<(Inline, Leases), CallError> {
    header.encoding = message.encoding.to_u8();
    if meta.is_empty()
        && let Some((inline, len)) = inline_of(message)
    {
        header.inline_len = len;
        return Ok((*inline, Leases::new()));
    }
    let mut lender = Lender { channel, memory, leases: Leases::new() };
    match lender.compose(header, message, meta) {
        Ok(inline) => Ok((inline, lender.leases)),
        Err(error) => {
            end_leases(channel, &lender.leases);
            Err(error)
        }
    }
}

/// Ends the leases of a frame that was not sent.
pub(crate) fn end_leases(channel: &Channel, leases: &[u32]) {
    for lease in leases {
        // A channel that was closed meanwhile has ended them.
        let _ended = channel.end_lease(*lease);
    }
}

struct Lender<'a> {
    channel: &'a Channel,
    memory: &'a Memory,
    leases: Leases,
}

impl Lender<'_> {
    fn compose(&mut self, header: &mut Header, message: &Message, meta: &Meta) -> Result<Inline, CallError> {
        if message.attachments.len() > ATTACHMENTS_MAX {
            let found = message.attachments.len();
            let text = format!("{found} attachments; one message carries at most {ATTACHMENTS_MAX}");
            return Err(CallError::new(ErrorCode::PayloadTooLarge, text));
        }
        if let Body::Block(payload) = &message.body
            && message.attachments.is_empty()
            && meta.is_empty()
        {
            // One payload and nothing else, as large calls mostly are: no list is needed.
            let descriptor = self.lend(payload.clone(), Role::Body)?;
            return self.fill(header, Flags::BODY_IN_BLOCK.bits(), &[descriptor], &[], &[]);
        }
        let mut flags = 0;
        let mut descriptors = Vec::with_capacity(message.attachments.len() + 2);
        let mut meta_bytes = meta.encode(&message.attachments);
        let front = message.attachments.len() * DESCRIPTOR_BYTES;
        let body_len = message.body().len();
        let body_inline = !matches!(message.body, Body::Block(_))
            && front.saturating_add(body_len).saturating_add(meta_bytes.len()) <= INLINE_BYTES;
        let mut body: &[u8] = &[];
        match &message.body {
            Body::Block(payload) => descriptors.push(self.lend(payload.clone(), Role::Body)?),
            Body::Inline { .. } | Body::Heap(_) if body_inline => body = message.body(),
            Body::Inline { .. } | Body::Heap(_) => descriptors.push(self.copy(message.body(), Role::Body)?),
        }
        if !body_inline {
            flags |= Flags::BODY_IN_BLOCK.bits();
        }
        for attachment in &message.attachments {
            let mut descriptor = self.lend(attachment.payload.clone(), Role::Attachment)?;
            descriptor.dtype = attachment.dtype.to_u8();
            descriptor.ndim = u8::try_from(attachment.shape.len()).unwrap_or(u8::MAX);
            descriptors.push(descriptor);
        }
        if descriptors.len() * DESCRIPTOR_BYTES + body.len() + meta_bytes.len() > INLINE_BYTES
            && !meta_bytes.is_empty()
        {
            descriptors.push(self.copy(&meta_bytes, Role::Meta)?);
            meta_bytes.clear();
            flags |= Flags::META_IN_BLOCK.bits();
        }
        if descriptors.len() * DESCRIPTOR_BYTES + body.len() + meta_bytes.len() > INLINE_BYTES {
            let table: Vec<u8> =
                descriptors.iter().flat_map(Descriptor::to_words).flat_map(u64::to_le_bytes).collect();
            descriptors = vec![self.copy(&table, Role::Table)?];
            flags |= Flags::DESCRIPTORS_IN_BLOCK.bits();
        }
        self.fill(header, flags, &descriptors, body, &meta_bytes)
    }

    fn fill(
        &self,
        header: &mut Header,
        flags: u16,
        descriptors: &[Descriptor],
        body: &[u8],
        meta: &[u8],
    ) -> Result<Inline, CallError> {
        let front = descriptors.len() * DESCRIPTOR_BYTES;
        let total = front + body.len() + meta.len();
        if total > INLINE_BYTES {
            let text = format!("{total} B remain for a slot of {INLINE_BYTES} B");
            return Err(CallError::new(ErrorCode::PayloadTooLarge, text));
        }
        let mut inline = Inline::default();
        for (at, descriptor) in descriptors.iter().enumerate() {
            inline.set_descriptor(at, descriptor);
        }
        let rest = &mut inline.bytes_mut()[front..];
        rest[..body.len()].copy_from_slice(body);
        rest[body.len()..body.len() + meta.len()].copy_from_slice(meta);
        header.flags |= flags;
        header.attachments = u8::try_from(descriptors.len()).unwrap_or(u8::MAX);
        header.meta_len = u16::try_from(meta.len()).unwrap_or(u16::MAX);
        header.inline_len = u16::try_from(total).unwrap_or(u16::MAX);
        Ok(inline)
    }

    fn loan(&self, bytes: usize) -> Result<Loan, CallError> {
        crate::counters::copied(bytes);
        self.memory.arena.loan(bytes, 64).map_err(|error| out_of_memory(&error))
    }

    fn copy(&mut self, bytes: &[u8], role: Role) -> Result<Descriptor, CallError> {
        let mut loan = self.loan(bytes.len())?;
        loan.copy_from_slice(bytes);
        self.pass(loan.freeze().into(), role)
    }

    fn lend(&mut self, payload: Payload, role: Role) -> Result<Descriptor, CallError> {
        if !self.memory.apart {
            return self.pass(payload, role);
        }
        let bytes = usize::try_from(payload.len()).unwrap_or(usize::MAX);
        let mut loan = self.loan(bytes)?;
        payload.copy_to(&mut loan);
        self.pass(loan.freeze().into(), role)
    }

    fn pass(&mut self, payload: Payload, role: Role) -> Result<Descriptor, CallError> {
        crate::counters::lent(payload.len());
        let mut descriptor = self.channel.lend(payload).map_err(lend_error)?;
        descriptor.role = role.to_u8();
        self.leases.push(descriptor.lease);
        Ok(descriptor)
    }
}

pub(crate) fn out_of_memory(error: &ringway_ipc::arena::ArenaError) -> CallError {
    CallError::new(ErrorCode::OutOfMemory, error.to_string())
}

fn lend_error(error: LendError) -> CallError {
    match error {
        LendError::Closed(reason) => closed(reason),
        LendError::Leases | LendError::Segment => CallError::new(ErrorCode::OutOfMemory, error.to_string()),
        _ => CallError::new(ErrorCode::ProtocolViolation, error.to_string()),
    }
}

/// What a closed channel means to a caller.
pub(crate) fn closed(reason: CloseReason) -> CallError {
    if reason.is_violation() {
        CallError::new(ErrorCode::ProtocolViolation, format!("the channel was closed: {reason}"))
    } else {
        CallError::new(ErrorCode::WorkerGone, reason.to_string())
    }
}

/// A frame as it arrived: checked, copied out of its slot, its payloads resolved.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) header: Header,
    pub(crate) inline: Inline,
    pub(crate) blocks: Option<Box<Blocks>>,
}

/// The bytes of an archive, in memory of this process.
#[derive(Debug)]
pub(crate) enum Archive<'a> {
    Here(&'a [u8]),
    Copied(Box<AlignedVec>),
}

impl Archive<'_> {
    #[cold]
    pub(crate) fn copy_of(body: &Payload) -> Self {
        let mut bytes = AlignedVec::new();
        bytes.resize(body.len().try_into().unwrap_or(usize::MAX), 0);
        body.copy_to(&mut bytes);
        crate::counters::copied(bytes.len());
        Self::Copied(Box::new(bytes))
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Here(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }
}

/// What a frame brought in blocks.
#[derive(Debug)]
pub(crate) struct Blocks {
    pub(crate) body: Option<Payload>,
    pub(crate) meta: Option<Vec<u8>>,
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) guard: Arc<LeaseGuard>,
}

impl Received {
    /// A place for frames to come, to be used again and again: moving a frame costs more than reading it.
    #[inline]
    pub(crate) fn blank() -> Self {
        Self { header: Header::default(), inline: Inline::default(), blocks: None }
    }

    /// Takes the next frame of a ring into this place; `false` when there is none.
    #[inline]
    pub(crate) fn poll(&mut self, lead: &mut Lead<'_>) -> Result<bool, CloseReason> {
        let Some(header) = lead.poll(&mut self.inline)? else { return Ok(false) };
        self.header = header;
        Ok(true)
    }

    /// Resolves the frame's payloads.
    #[inline]
    pub(crate) fn resolve(&mut self, channel: &Arc<Channel>) -> Result<(), CloseReason> {
        self.blocks = None;
        if self.header.attachments != 0 {
            self.blocks = Some(read_blocks(channel, &self.header, &self.inline)?);
        }
        Ok(())
    }

    /// Moves the frame out and leaves a blank place.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::blank())
    }

    /// The body's bytes.
    #[inline]
    pub(crate) fn body(&self) -> &[u8] {
        if let Some(blocks) = &self.blocks
            && let Some(body) = &blocks.body
        {
            return body;
        }
        let front = usize::from(self.header.attachments) * DESCRIPTOR_BYTES;
        let end = usize::from(self.header.inline_len) - usize::from(self.header.meta_len);
        &self.inline.bytes()[front..end]
    }

    /// The body of an archive, where nobody else can change it: in the copy of the slot, or copied out of its block here.
    /// An archive leads from place to place, so one that its sender changes after it was checked would lead anywhere.
    pub(crate) fn archive(&self) -> Archive<'_> {
        let body = self.blocks.as_ref().and_then(|blocks| blocks.body.as_ref());
        body.map_or_else(|| Archive::Here(self.body()), Archive::copy_of)
    }

    /// The metadata's bytes.
    pub(crate) fn meta(&self) -> &[u8] {
        if let Some(blocks) = &self.blocks
            && let Some(meta) = &blocks.meta
        {
            return meta;
        }
        let end = usize::from(self.header.inline_len);
        &self.inline.bytes()[end - usize::from(self.header.meta_len)..end]
    }

    /// The body's encoding; unknown ones count as none.
    pub(crate) fn encoding(&self) -> Encoding {
        Encoding::try_from(self.header.encoding).unwrap_or(Encoding::None)
    }

    /// Bytes of body and attachments.
    pub(crate) fn total_bytes(&self) -> u64 {
        let attached: u64 = self
            .blocks
            .as_ref()
            .map_or(0, |blocks| blocks.attachments.iter().map(|part| part.payload.len()).sum());
        self.body().len() as u64 + attached
    }

    /// The frame as a message; payloads stay where they are.
    pub(crate) fn into_message(self) -> Message {
        let encoding = self.encoding();
        let (body, attachments) = match self.blocks {
            None => {
                let len = self.header.inline_len - self.header.meta_len;
                (Body::Inline { bytes: self.inline, len }, Vec::new())
            }
            Some(blocks) => {
                let Blocks { body, attachments, .. } = *blocks;
                let inline = || {
                    let front = usize::from(self.header.attachments) * DESCRIPTOR_BYTES;
                    let end = usize::from(self.header.inline_len) - usize::from(self.header.meta_len);
                    Message::new(encoding, &self.inline.bytes()[front..end]).body
                };
                (body.map_or_else(inline, Body::Block), attachments)
            }
        };
        Message { encoding, body, attachments }
    }
}

#[cold]
fn read_blocks(channel: &Arc<Channel>, header: &Header, inline: &Inline) -> Result<Box<Blocks>, CloseReason> {
    let nonsense = || channel.violation(CloseReason::Nonsense);
    let count = usize::from(header.attachments);
    let flags = Flags::from_bits(header.flags).map_err(|_| nonsense())?;
    let first = inline.descriptor(0);
    if (count, first.role) == (1, Role::Body.to_u8())
        && flags.contains(Flags::BODY_IN_BLOCK)
        && !flags.contains(Flags::DESCRIPTORS_IN_BLOCK)
    {
        // One payload and nothing else: no lists to go through.
        let guard = LeaseGuard::new(channel, vec![first.lease]);
        let body = Some(channel.resolve(&first, &guard)?);
        return Ok(Box::new(Blocks { body, meta: None, attachments: Vec::new(), guard }));
    }
    let mut descriptors: Vec<Descriptor> =
        (0..count.min(DESCRIPTORS_MAX)).map(|at| inline.descriptor(at)).collect();
    let mut leases: Vec<u32> = descriptors.iter().map(|descriptor| descriptor.lease).collect();
    if flags.contains(Flags::DESCRIPTORS_IN_BLOCK) {
        // The table is read under a guard of its own that is never armed: its lease joins the frame's.
        let aside = LeaseGuard::new(channel, Vec::new());
        aside.disarm();
        let [table] = descriptors[..] else { return Err(nonsense()) };
        let table = channel.resolve(&table, &aside)?;
        descriptors = read_table(&table).ok_or_else(nonsense)?;
        leases.extend(descriptors.iter().map(|descriptor| descriptor.lease));
    }
    let guard = LeaseGuard::new(channel, leases);
    let mut blocks = Blocks { body: None, meta: None, attachments: Vec::new(), guard };
    let mut shapes = Vec::new();
    for descriptor in &descriptors {
        let payload = channel.resolve(descriptor, &blocks.guard)?;
        match Role::try_from(descriptor.role) {
            Ok(Role::Body) if blocks.body.is_none() => blocks.body = Some(payload),
            Ok(Role::Meta) if blocks.meta.is_none() && payload.len() <= Meta::BYTES_MAX => {
                let mut bytes = vec![0; usize::try_from(payload.len()).map_err(|_| nonsense())?];
                payload.copy_to(&mut bytes);
                blocks.meta = Some(bytes);
            }
            Ok(Role::Attachment) if usize::from(descriptor.ndim) <= TENSOR_DIMS_MAX => {
                let dtype = DType::try_from(descriptor.dtype).map_err(|_| nonsense())?;
                shapes.push(descriptor.ndim);
                blocks.attachments.push(Attachment { payload, dtype, shape: Vec::new() });
            }
            _ => return Err(nonsense()),
        }
    }
    if flags.contains(Flags::BODY_IN_BLOCK) != blocks.body.is_some() {
        return Err(nonsense());
    }
    let is_plain = |part: &Attachment, ndim: u8| part.dtype == DType::Opaque && ndim == 0;
    if !blocks.attachments.iter().zip(&shapes).all(|(part, ndim)| is_plain(part, *ndim)) {
        let received = Received { header: *header, inline: *inline, blocks: Some(Box::new(blocks)) };
        let mut dims = Meta::find(received.meta(), TAG_DIMS)
            .unwrap_or_default()
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()));
        let shapes: Vec<Vec<u64>> =
            shapes.iter().map(|ndim| dims.by_ref().take(usize::from(*ndim)).collect()).collect();
        let Some(mut blocks) = received.blocks else { return Err(nonsense()) };
        for (attachment, shape) in blocks.attachments.iter_mut().zip(shapes) {
            let plain = is_plain(attachment, u8::from(!shape.is_empty()));
            if !plain && attachment.dtype.tensor_bytes(&shape) != Some(attachment.payload.len()) {
                return Err(nonsense());
            }
            attachment.shape = shape;
        }
        return Ok(blocks);
    }
    Ok(Box::new(blocks))
}

fn read_table(table: &Payload) -> Option<Vec<Descriptor>> {
    let len = usize::try_from(table.len()).ok()?;
    if !len.is_multiple_of(DESCRIPTOR_BYTES) || len / DESCRIPTOR_BYTES > ATTACHMENTS_MAX + 2 {
        return None;
    }
    let mut bytes = vec![0; len];
    table.copy_to(&mut bytes);
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    let read = |entry: &[u8]| {
        Descriptor::from_words(&[
            word(&entry[..8]),
            word(&entry[8..16]),
            word(&entry[16..24]),
            word(&entry[24..]),
        ])
    };
    Some(bytes.chunks_exact(DESCRIPTOR_BYTES).map(read).collect())
}

/// The inline area of a message that travels whole inside its slot.
#[inline]
pub(crate) fn inline_of(message: &Message) -> Option<(&Inline, u16)> {
    match &message.body {
        Body::Inline { bytes, len } if message.attachments.is_empty() => Some((bytes, *len)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
