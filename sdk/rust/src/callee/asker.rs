//! Who waits for a call that runs away from the dispatcher's thread. Used by the parent. It must not know what is answered.

use std::sync::{Arc, Weak};

use ringway_ipc::frame::Header;
use ringway_protocol::header::Kind;

use super::CalleeChannel;

/// Who is told when a job has ended.
#[derive(Debug, Clone)]
pub(super) enum Asker {
    /// A caller that waits; its channel is kept for the answer.
    Waits(Arc<CalleeChannel>),
    /// A sender, which hears nothing. A send outlives whoever sent it, and does not hold that worker's memory and
    /// descriptors all the while.
    Sent(Weak<CalleeChannel>),
}

impl Asker {
    pub(super) fn of(channel: &Arc<CalleeChannel>, header: &Header) -> Self {
        if header.kind == Kind::Call.to_u8() {
            Self::Waits(Arc::clone(channel))
        } else {
            Self::Sent(Arc::downgrade(channel))
        }
    }

    /// Hands over the channel, or nothing where a sender has gone.
    pub(super) fn with<R>(&self, act: impl FnOnce(Option<&CalleeChannel>) -> R) -> R {
        match self {
            Self::Waits(channel) => act(Some(channel)),
            Self::Sent(channel) => act(channel.upgrade().as_deref()),
        }
    }
}
