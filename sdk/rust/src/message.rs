//! What travels with a call: a body in some encoding, and attachments that are never copied.
//!
//! Small bodies live in the message itself and travel inside the slot; larger ones lie in a block of an arena and
//! are lent. Used for requests and replies alike. Knows nothing of channels; [`crate::wire`] puts messages on them.

use ringway_ipc::arena::Loan;
use ringway_ipc::channel::Payload;
use ringway_ipc::frame::Inline;
use ringway_ipc::layout::INLINE_BYTES;
use ringway_protocol::header::{DType, Encoding};

use crate::error::Failure;

/// A body and its attachments.
#[derive(Debug, Clone)]
pub struct Message {
    pub(crate) encoding: Encoding,
    pub(crate) body: Body,
    pub(crate) attachments: Vec<Attachment>,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Inline { bytes: Inline, len: u16 },
    Heap(Vec<u8>),
    Block(Payload),
}

impl Default for Message {
    fn default() -> Self {
        Self::empty()
    }
}

impl Message {
    /// No body at all.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            encoding: Encoding::None,
            body: Body::Inline { bytes: Inline::default(), len: 0 },
            attachments: Vec::new(),
        }
    }

    /// A body of bytes in the given encoding. Up to 192 bytes travel inside the slot; more are copied once, into a
    /// block. To avoid that copy, write into a loan ([`crate::Worker::loan`]) and use [`Message::from_loan`].
    #[must_use]
    pub fn new(encoding: Encoding, bytes: &[u8]) -> Self {
        let body = match u16::try_from(bytes.len()) {
            Ok(len) if bytes.len() <= INLINE_BYTES => {
                let mut inline = Inline::default();
                inline.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
                Body::Inline { bytes: inline, len }
            }
            _ => Body::Heap(bytes.to_vec()),
        };
        Self { encoding, body, attachments: Vec::new() }
    }

    /// Raw bytes.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::new(Encoding::Bytes, bytes)
    }

    /// A body written where it will be read.
    #[must_use]
    pub fn from_loan(encoding: Encoding, loan: Loan) -> Self {
        Self::from_payload(encoding, loan.freeze().into())
    }

    /// A body that lies in an arena, of this process or of a peer: forwarding copies nothing.
    #[must_use]
    pub fn from_payload(encoding: Encoding, payload: Payload) -> Self {
        Self { encoding, body: Body::Block(payload), attachments: Vec::new() }
    }

    /// JSON text of a value.
    ///
    /// # Errors
    /// `invalid_request` when the value does not serialize.
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, Failure> {
        Ok(Self::from_vec(Encoding::Json, serde_json::to_vec(value)?))
    }

    /// As [`Message::new`], of bytes that are not needed any more: a long body is not copied here.
    #[must_use]
    pub fn from_vec(encoding: Encoding, bytes: Vec<u8>) -> Self {
        if bytes.len() <= INLINE_BYTES {
            Self::new(encoding, &bytes)
        } else {
            Self { encoding, body: Body::Heap(bytes), attachments: Vec::new() }
        }
    }

    /// Adds an attachment.
    #[must_use]
    pub fn attach(mut self, attachment: Attachment) -> Self {
        self.attachments.push(attachment);
        self
    }

    /// The body's encoding.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Inline { bytes, len } => &bytes.bytes()[..usize::from(*len)],
            Body::Heap(bytes) => bytes,
            Body::Block(payload) => payload,
        }
    }

    /// The body's payload, where it lies in an arena: a clone may be kept, read later, or sent on.
    #[must_use]
    pub fn payload(&self) -> Option<&Payload> {
        match &self.body {
            Body::Block(payload) => Some(payload),
            Body::Inline { .. } | Body::Heap(_) => None,
        }
    }

    /// The attachments.
    #[must_use]
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Bytes of body and attachments.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.body().len() as u64 + self.attachments.iter().map(|part| part.payload.len()).sum::<u64>()
    }
}

/// A payload beside the body: bytes, or a tensor with element type and shape.
#[derive(Debug, Clone)]
pub struct Attachment {
    pub(crate) payload: Payload,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<u64>,
}

impl Attachment {
    /// Bytes without further meaning.
    #[must_use]
    pub fn bytes(payload: Payload) -> Self {
        Self { payload, dtype: DType::Opaque, shape: Vec::new() }
    }

    /// A dense row-major tensor.
    ///
    /// # Errors
    /// `invalid_request` when the payload's length is not that of the shape.
    pub fn tensor(payload: Payload, dtype: DType, shape: &[u64]) -> Result<Self, Failure> {
        if dtype.tensor_bytes(shape) != Some(payload.len())
            || shape.len() > ringway_protocol::limits::TENSOR_DIMS_MAX
        {
            return Err(Failure::invalid(format!(
                "a {dtype} tensor of shape {shape:?} does not have {} bytes",
                payload.len()
            )));
        }
        Ok(Self { payload, dtype, shape: shape.to_vec() })
    }

    /// The bytes.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Element type of a tensor; `Opaque` for bytes.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes of a tensor's dimensions, the slowest first; empty for bytes.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }
}
