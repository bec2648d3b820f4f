//! The way to the engine: the control socket of this host, or a link to another one. Used by [`super::link`]. It must not
//! know what messages mean, but for those whose descriptors a link has to stand in for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ringway_ipc::packet::{PacketError, PacketStream};
use ringway_protocol::CallError;
use ringway_protocol::control::{EngineMessage, WorkerMessage};

use super::remote::Remote;

/// Why a message could not be read: the connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The socket's end, or its failure.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// A message that is none.
    #[error("the engine sent what is no message: {0}")]
    Json(#[from] serde_json::Error),
    /// The link's end, or that it never came to be.
    #[error("{0}")]
    Link(String),
    /// The other end will not have this worker.
    #[error(transparent)]
    Refused(CallError),
}

/// See the module.
#[derive(Debug)]
pub(super) enum Stream {
    Local(Box<PacketStream>),
    Remote(Box<Remote>),
}

impl Stream {
    /// Queues a message.
    pub(super) fn send(&mut self, message: &WorkerMessage, fds: Vec<Arc<OwnedFd>>) -> io::Result<()> {
        match self {
            Self::Local(stream) => stream.queue(&serde_json::to_vec(message)?, fds).map_err(io::Error::other),
            Self::Remote(remote) => remote.send(message, fds),
        }
    }

    /// Sends as much as goes at once.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Local(stream) if stream.wants_write() => stream.flush().map(drop),
            Self::Local(_) | Self::Remote(_) => Ok(()),
        }
    }

    /// Reads the next message, if one is there.
    pub(super) fn receive(&mut self) -> Result<Option<(EngineMessage, Vec<OwnedFd>)>, ReadError> {
        match self {
            Self::Local(stream) => {
                let Some((text, fds)) = stream.receive()? else { return Ok(None) };
                Ok(Some((serde_json::from_slice(&text)?, fds)))
            }
            Self::Remote(remote) => remote.receive(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Local(stream) => stream.as_fd(),
            Self::Remote(remote) => remote.as_fd(),
        }
    }
}
