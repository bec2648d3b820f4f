//! An attach to the engine of this host, message by message: what a worker's SDK does, without the rest of it. Used by
//! [`crate::watch`], [`crate::proxy`] and [`crate::peer`]. It must not know what messages mean.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ringway_ipc::channel::{ChannelConfig, OpenError, Opening, Role};
use ringway_ipc::packet::{PacketError, PacketStream};
use ringway_link::driver::Link;
use ringway_link::tunnel::Gate;
use ringway_protocol::control::{ChannelId, EngineMessage, Hello, WorkerMessage};
use ringway_protocol::{CallError, ErrorCode, Started, WorkerId};

/// Slots of the rings whose other end is elsewhere.
const SLOT_COUNT: u32 = 256;

/// Why an attach is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error("the engine closed the attach")]
    Gone,
    #[error("the engine's control socket failed: {0}")]
    Packet(PacketError),
    #[error("the engine cannot be reached: {0}")]
    Connect(#[from] io::Error),
    #[error("a message is none: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<PacketError> for AttachError {
    fn from(error: PacketError) -> Self {
        if matches!(error, PacketError::HungUp) { Self::Gone } else { Self::Packet(error) }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Attach {
    stream: PacketStream,
}

impl Attach {
    /// Connects; a greeting must follow.
    pub(crate) fn connect(engine: &str) -> Result<Self, AttachError> {
        Ok(Self { stream: PacketStream::connect(engine)? })
    }

    /// Connects and greets.
    pub(crate) fn new(engine: &str, hello: Hello) -> Result<Self, AttachError> {
        let mut attach = Self::connect(engine)?;
        attach.send(&WorkerMessage::Hello(Box::new(hello)), Vec::new())?;
        Ok(attach)
    }

    pub(crate) fn send(
        &mut self,
        message: &WorkerMessage,
        fds: Vec<Arc<OwnedFd>>,
    ) -> Result<(), AttachError> {
        self.stream.queue(&serde_json::to_vec(message)?, fds)?;
        Ok(())
    }

    /// The next message, if one is there.
    pub(crate) fn receive(&mut self) -> Result<Option<(EngineMessage, Vec<OwnedFd>)>, AttachError> {
        let Some((json, fds)) = self.stream.receive()? else { return Ok(None) };
        Ok(Some((serde_json::from_slice(&json)?, fds)))
    }

    pub(crate) fn flush(&mut self) -> Result<(), AttachError> {
        if self.stream.wants_write() {
            self.stream.flush()?;
        }
        Ok(())
    }
}

impl AsFd for Attach {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// One end of a channel of this host, for a link to carry.
pub(crate) struct End {
    pub(crate) number: u32,
    pub(crate) channel: ChannelId,
    pub(crate) socket: OwnedFd,
    /// What this end plays.
    pub(crate) role: Role,
    /// In whose name, and towards whom.
    pub(crate) worker: WorkerId,
    pub(crate) peer: WorkerId,
    pub(crate) gate: Arc<dyn Gate>,
    /// The other end of the link is told of it after this.
    pub(crate) first: bool,
}

impl End {
    /// Has the link carry it.
    pub(crate) fn carry(self, link: &Link) -> Result<(), OpenError> {
        let config = ChannelConfig {
            channel: self.channel,
            worker: self.worker.get(),
            peer_worker: self.peer.get(),
            worker_bell: link.bell(),
            slot_count: SLOT_COUNT,
            segment_bytes_max: ringway_ipc::limits::SEGMENT_BYTES_MAX,
            barrier_registered: ringway_ipc::sys::barrier::register(),
            // The driver looks with a fence before it sleeps, so whoever publishes to it pays for one too.
            barrier_before_sleep: false,
        };
        let opening = Opening::start(self.socket, self.role, config)?;
        link.add_channel(self.number, opening, self.role, self.gate, self.first);
        Ok(())
    }
}

/// What a caller hears of a channel that could not be opened to somebody.
pub(crate) fn not_opened(error: &OpenError, peer: WorkerId) -> CallError {
    // The other end of its socket has hung up.
    if matches!(error, OpenError::Message(_)) {
        return CallError::worker_gone(peer, Started::No);
    }
    let text = format!("the engine cannot open a channel for a link: {error}");
    CallError::new(ErrorCode::OutOfMemory, text)
}
