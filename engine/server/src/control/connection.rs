//! One control connection as the control thread keeps it. It must not know what the messages mean.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use ringway_engine_core::ConnectionId;
use ringway_ipc::packet::PacketStream;
use ringway_ipc::sys::socket::Credentials;
use ringway_protocol::ids::WorkerId;

use crate::limits;
use crate::telemetry::Intake;

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: PacketStream,
    pub(super) credentials: Credentials,
    pub(super) pidfd: Arc<OwnedFd>,
    /// The zone of the door it came in by; none for the main one.
    pub(super) zone: Option<Arc<str>>,
    /// The worker that is attached over it.
    pub(super) worker: Option<WorkerId>,
    /// Its first message came.
    pub(super) greeted: bool,
    /// Its process ended: what it sent before is read, then it is over.
    pub(super) died: bool,
    /// Nothing more is read from it; it is dropped when all is sent.
    pub(super) closing: bool,
    /// Nothing more can be sent to it.
    pub(super) mute: bool,
    /// When it is dropped, come what may.
    pub(super) until: Option<Instant>,
    /// The telemetry ring that came with its hello, until it is attached.
    pub(super) intake: Option<Intake>,
    /// What goes out with the welcome.
    pub(super) welcome_fds: Vec<Arc<OwnedFd>>,
}

impl Connection {
    pub(super) fn new(
        stream: PacketStream,
        credentials: Credentials,
        pidfd: Arc<OwnedFd>,
        zone: Option<Arc<str>>,
    ) -> Self {
        Self {
            stream,
            credentials,
            pidfd,
            zone,
            worker: None,
            greeted: false,
            died: false,
            closing: false,
            mute: false,
            until: Some(Instant::now() + limits::HELLO_TIME_MAX),
            intake: None,
            welcome_fds: Vec::new(),
        }
    }

    /// Waits for its socket and for its process's end.
    pub(super) fn register(&self, registry: &Registry, id: ConnectionId) -> io::Result<()> {
        let token = |odd: u64| usize::try_from(id * 2 + odd).map(Token).map_err(io::Error::other);
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&self.stream.as_fd().as_raw_fd()), token(0)?, both)?;
        registry.register(&mut SourceFd(&self.pidfd.as_raw_fd()), token(1)?, Interest::READABLE)
    }

    pub(super) fn deregister(&self, registry: &Registry) {
        for fd in [self.stream.as_fd().as_raw_fd(), self.pidfd.as_raw_fd()] {
            if let Err(error) = registry.deregister(&mut SourceFd(&fd)) {
                tracing::debug!(%error, "cannot stop waiting for a connection");
            }
        }
    }
}
