//! The rows: what is measured, under which name, and which code runs it on either side. The first row of each table is
//! its floor.

use std::net::TcpStream;
use std::time::Duration;

use crate::bulk::{PAYLOAD, ReceiveBy, SendBy};
use crate::frames::{Asking, Turns, echo};
use crate::many::{LINKS, ManyHow};
use crate::raw::{Receive, Send, Setup, TaskRun, Wait};
use crate::runtimes::{Tokio, TokioUring, Tonic, serve_tonic};
use crate::sockets::{Blocking, Epoll, Mio, Patience, Spinning};
use crate::uring::{Multishot, Single};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// One frame under way.
    PingPong,
    /// Many frames under way.
    Stream,
    /// Many links of one thread, one frame under way on each.
    Many,
    /// Large payloads one way.
    Bulk,
}

impl Work {
    pub(crate) const ALL: [Self; 4] = [Self::PingPong, Self::Stream, Self::Many, Self::Bulk];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PingPong => "pingpong",
            Self::Stream => "stream",
            Self::Many => "many",
            Self::Bulk => "bulk",
        }
    }

    /// Returns how many connections it takes.
    pub(crate) fn links(self) -> usize {
        if self == Self::Many { LINKS } else { 1 }
    }

    /// Returns the names of its rows.
    pub(crate) fn rows(self) -> Vec<&'static str> {
        match self {
            Self::PingPong | Self::Stream => FRAMES.iter().map(|(name, _)| *name).collect(),
            Self::Many => MANY.iter().map(|(name, _)| *name).collect(),
            Self::Bulk => BULK.iter().map(|(name, _, _)| *name).collect(),
        }
    }

    /// Returns whether a row spins: two such sides on one processor only wait for each other.
    pub(crate) fn spins(self, row: usize) -> bool {
        self.rows()[row].contains("spinning")
    }

    /// Returns whether a row needs `io_uring`.
    pub(crate) fn needs_io_uring(self, row: usize) -> bool {
        match self {
            Self::PingPong | Self::Stream => {
                matches!(FRAMES[row].1, How::Single(..) | How::Multishot(_) | How::TokioUring)
            }
            Self::Many => matches!(MANY[row].1, ManyHow::Uring(..) | ManyHow::TokioUring),
            Self::Bulk => {
                let (_, send, receive) = BULK[row];
                matches!(send, SendBy::Uring(..) | SendBy::TokioUring)
                    || matches!(
                        receive,
                        ReceiveBy::Uring(..) | ReceiveBy::Multishot(..) | ReceiveBy::TokioUring
                    )
            }
        }
    }
}

/// How frames travel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    Blocking,
    Spinning,
    Mio,
    Epoll(Patience),
    Single(Setup, Receive),
    Multishot(Setup),
    Tokio,
    TokioUring,
    Tonic,
}

const fn setup(task_run: TaskRun, registered: bool) -> Setup {
    Setup { task_run, registered, wait: Wait::Asleep }
}

/// The kernel is entered again and again.
const ENTERING: Setup = Setup { wait: Wait::Entering, ..Setup::BEST };
/// Completions come with interrupts, so that the thread need not enter the kernel to see them.
const LOOKING: Setup = Setup { task_run: TaskRun::Any, registered: true, wait: Wait::Looking };

/// Rows of 64-byte frames.
pub(crate) const FRAMES: &[(&str, How)] = &[
    ("blocking send, recv (floor)", How::Blocking),
    ("epoll: rustix", How::Epoll(Patience::Asleep)),
    ("epoll: mio", How::Mio),
    ("epoll: tokio", How::Tokio),
    ("io_uring single-shot", How::Single(setup(TaskRun::Any, false), Receive::Some)),
    ("io_uring single-shot, COOP_TASKRUN", How::Single(setup(TaskRun::Coop, false), Receive::Some)),
    ("io_uring single-shot, DEFER_TASKRUN", How::Single(setup(TaskRun::Defer, false), Receive::Some)),
    ("io_uring single-shot, DEFER, registered fds", How::Single(Setup::BEST, Receive::Some)),
    ("… and POLL_FIRST", How::Single(Setup::BEST, Receive::PollFirst)),
    ("… and fixed receive buffer", How::Single(Setup::BEST, Receive::Fixed)),
    ("io_uring multishot, COOP_TASKRUN", How::Multishot(setup(TaskRun::Coop, false))),
    ("io_uring multishot, DEFER_TASKRUN", How::Multishot(setup(TaskRun::Defer, false))),
    ("io_uring multishot, DEFER, registered fds", How::Multishot(Setup::BEST)),
    ("tokio-uring 0.5", How::TokioUring),
    ("gRPC: tonic on tokio", How::Tonic),
    ("spinning: recv", How::Spinning),
    ("spinning: epoll_wait without time, then recv", How::Epoll(Patience::Spinning)),
    ("spinning 50 µs like that, then asleep", How::Epoll(Patience::Spin(Duration::from_micros(50)))),
    ("spinning: io_uring multishot, DEFER, entering", How::Multishot(ENTERING)),
    ("spinning: io_uring multishot, completion queue only", How::Multishot(LOOKING)),
];

/// Rows of many links.
pub(crate) const MANY: &[(&str, ManyHow)] = &[
    ("epoll: rustix (floor)", ManyHow::Epoll(Patience::Asleep)),
    ("epoll: tokio, a task for each link", ManyHow::Tokio),
    ("io_uring single-shot, DEFER, registered fds", ManyHow::Uring(Setup::BEST, false)),
    ("io_uring multishot, DEFER, registered fds", ManyHow::Uring(Setup::BEST, true)),
    ("tokio-uring 0.5, a task for each link", ManyHow::TokioUring),
    ("spinning: epoll_wait without time", ManyHow::Epoll(Patience::Spinning)),
    ("spinning: io_uring single-shot, entering", ManyHow::Uring(ENTERING, false)),
    ("spinning: io_uring multishot, entering", ManyHow::Uring(ENTERING, true)),
];

const K16: usize = 16 << 10;
const K64: usize = 64 << 10;
const K256: usize = 256 << 10;
const M1: usize = 1 << 20;

/// The side that a row does not name.
const SENDS: SendBy = SendBy::Blocking(M1);
const RECEIVES: ReceiveBy = ReceiveBy::Blocking(M1);

/// Rows of 16 MiB payloads: name, sender, receiver. What a row does not name is blocking calls of 1 MiB.
pub(crate) const BULK: &[(&str, SendBy, ReceiveBy)] = &[
    ("blocking 1 MiB (floor)", SENDS, RECEIVES),
    ("blocking 64 KiB", SendBy::Blocking(K64), ReceiveBy::Blocking(K64)),
    ("blocking 256 KiB", SendBy::Blocking(K256), ReceiveBy::Blocking(K256)),
    ("recv: one MSG_WAITALL", SENDS, ReceiveBy::BlockingAll),
    ("recv: epoll", SENDS, ReceiveBy::Epoll(0)),
    ("recv: tokio read_exact", SENDS, ReceiveBy::Tokio),
    ("recv: io_uring direct", SENDS, ReceiveBy::Uring(Receive::Some, 0)),
    ("recv: io_uring direct, MSG_WAITALL", SENDS, ReceiveBy::Uring(Receive::All, 0)),
    ("recv: io_uring direct, fixed buffer", SENDS, ReceiveBy::Uring(Receive::Fixed, 0)),
    ("recv: multishot 16 KiB + copy", SENDS, ReceiveBy::Multishot(K16, false)),
    ("recv: multishot 64 KiB + copy", SENDS, ReceiveBy::Multishot(K64, false)),
    ("recv: multishot bundle 16 KiB + copy", SENDS, ReceiveBy::Multishot(K16, true)),
    ("recv: multishot bundle 64 KiB + copy", SENDS, ReceiveBy::Multishot(K64, true)),
    ("recv: tokio-uring", SENDS, ReceiveBy::TokioUring),
    ("recv: epoll, SO_RCVLOWAT 256 KiB", SENDS, ReceiveBy::Epoll(K256)),
    ("recv: epoll, SO_RCVLOWAT 1 MiB", SENDS, ReceiveBy::Epoll(M1)),
    ("recv: io_uring direct, SO_RCVLOWAT 256 KiB", SENDS, ReceiveBy::Uring(Receive::Some, K256)),
    ("recv: io_uring direct, SO_RCVLOWAT 1 MiB", SENDS, ReceiveBy::Uring(Receive::Some, M1)),
    ("recv: spinning", SENDS, ReceiveBy::Spinning),
    ("send: epoll", SendBy::Epoll, RECEIVES),
    ("send: tokio write_all", SendBy::Tokio, RECEIVES),
    ("send: tokio-uring write_all", SendBy::TokioUring, RECEIVES),
    ("send: io_uring 64 KiB", SendBy::Uring(K64, Send::Copy), RECEIVES),
    ("send: io_uring 256 KiB", SendBy::Uring(K256, Send::Copy), RECEIVES),
    ("send: io_uring 1 MiB", SendBy::Uring(M1, Send::Copy), RECEIVES),
    ("send: io_uring 16 MiB", SendBy::Uring(PAYLOAD, Send::Copy), RECEIVES),
    ("send: io_uring fixed 64 KiB", SendBy::Uring(K64, Send::CopyFixed), RECEIVES),
    ("send: io_uring fixed 256 KiB", SendBy::Uring(K256, Send::CopyFixed), RECEIVES),
    ("send: io_uring fixed 1 MiB", SendBy::Uring(M1, Send::CopyFixed), RECEIVES),
    ("send_zc 64 KiB", SendBy::Uring(K64, Send::ZeroCopy), RECEIVES),
    ("send_zc 256 KiB", SendBy::Uring(K256, Send::ZeroCopy), RECEIVES),
    ("send_zc 1 MiB", SendBy::Uring(M1, Send::ZeroCopy), RECEIVES),
    ("send_zc fixed 64 KiB", SendBy::Uring(K64, Send::ZeroCopyFixed), RECEIVES),
    ("send_zc fixed 256 KiB", SendBy::Uring(K256, Send::ZeroCopyFixed), RECEIVES),
    ("send_zc fixed 1 MiB", SendBy::Uring(M1, Send::ZeroCopyFixed), RECEIVES),
    ("send: blocking 64 KiB, recv: spinning", SendBy::Blocking(K64), ReceiveBy::Spinning),
    ("send: blocking 256 KiB, recv: spinning", SendBy::Blocking(K256), ReceiveBy::Spinning),
    ("send: io_uring 64 KiB, recv: spinning", SendBy::Uring(K64, Send::Copy), ReceiveBy::Spinning),
    ("send: io_uring 256 KiB, recv: spinning", SendBy::Uring(K256, Send::Copy), ReceiveBy::Spinning),
    ("send: io_uring 1 MiB, recv: spinning", SendBy::Uring(M1, Send::Copy), ReceiveBy::Spinning),
    ("send_zc 64 KiB, recv: spinning", SendBy::Uring(K64, Send::ZeroCopy), ReceiveBy::Spinning),
    ("send_zc 256 KiB, recv: spinning", SendBy::Uring(K256, Send::ZeroCopy), ReceiveBy::Spinning),
    ("send_zc 1 MiB, recv: spinning", SendBy::Uring(M1, Send::ZeroCopy), ReceiveBy::Spinning),
    ("both: epoll", SendBy::Epoll, ReceiveBy::Epoll(0)),
    ("both: epoll, SO_RCVLOWAT 1 MiB", SendBy::Epoll, ReceiveBy::Epoll(M1)),
    ("both: io_uring 1 MiB, direct", SendBy::Uring(M1, Send::Copy), ReceiveBy::Uring(Receive::Some, 0)),
    (
        "both: io_uring 1 MiB, direct, SO_RCVLOWAT 1 MiB",
        SendBy::Uring(M1, Send::Copy),
        ReceiveBy::Uring(Receive::Some, M1),
    ),
    (
        "both: io_uring 1 MiB, multishot 64 KiB + copy",
        SendBy::Uring(M1, Send::Copy),
        ReceiveBy::Multishot(K64, false),
    ),
    ("both: tokio", SendBy::Tokio, ReceiveBy::Tokio),
    ("both: tokio-uring", SendBy::TokioUring, ReceiveBy::TokioUring),
];

impl How {
    /// Makes the asking side.
    pub(crate) fn asking(self, stream: TcpStream) -> anyhow::Result<Box<dyn Asking>> {
        Ok(match self {
            Self::Blocking => Box::new(Turns(Blocking::new(stream))),
            Self::Spinning => Box::new(Turns(Spinning::new(stream)?)),
            Self::Mio => Box::new(Turns(Mio::new(stream)?)),
            Self::Epoll(patience) => Box::new(Turns(Epoll::new(stream, patience)?)),
            Self::Single(setup, how) => Box::new(Turns(Single::new(stream, setup, how)?)),
            Self::Multishot(setup) => Box::new(Turns(Multishot::new(stream, setup)?)),
            Self::Tokio => Box::new(Tokio::new(vec![stream])?),
            Self::TokioUring => Box::new(TokioUring::new(vec![stream])?),
            Self::Tonic => Box::new(Tonic::new(stream)?),
        })
    }

    /// Answers until the stream ends, having called `ready` once all is set up.
    pub(crate) fn answer(self, stream: TcpStream, ready: impl FnOnce()) -> anyhow::Result<()> {
        macro_rules! serve {
            ($link:expr) => {{
                let link = $link;
                ready();
                Ok(echo(link)?)
            }};
        }
        match self {
            Self::Blocking => serve!(Blocking::new(stream)),
            Self::Spinning => serve!(Spinning::new(stream)?),
            Self::Mio => serve!(Mio::new(stream)?),
            Self::Epoll(patience) => serve!(Epoll::new(stream, patience)?),
            Self::Single(setup, how) => serve!(Single::new(stream, setup, how)?),
            Self::Multishot(setup) => serve!(Multishot::new(stream, setup)?),
            Self::Tokio => {
                let link = Tokio::new(vec![stream])?;
                ready();
                link.echo()
            }
            Self::TokioUring => {
                let link = TokioUring::new(vec![stream])?;
                ready();
                link.echo()
            }
            Self::Tonic => {
                ready();
                serve_tonic(stream)
            }
        }
    }
}
