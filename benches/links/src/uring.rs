//! Links over `io_uring`: a send and a receive in one system call, the receive single or multishot.

use std::io;
use std::net::TcpStream;

use crate::frames::{Link, READ};
use crate::raw::{Kind, Receive, Send, Setup, Uring};

/// The region that is sent from.
const OUT: usize = 0;
/// The region that single receives fill.
const IN: usize = 1;

/// A receive for every arrival, submitted together with the send.
pub(crate) struct Single {
    uring: Uring,
    how: Receive,
}

impl Single {
    pub(crate) fn new(stream: TcpStream, setup: Setup, how: Receive) -> io::Result<Self> {
        let fixed = how == Receive::Fixed;
        Ok(Self { uring: Uring::new(vec![stream], setup, &[READ, READ], fixed)?, how })
    }
}

impl Link for Single {
    fn turn(&mut self, out: &[u8], take: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let mut sent = submit(&mut self.uring, out)?;
        self.uring.receive(0, IN, 0..READ, self.how)?;
        let mut received = None;
        while !sent || received.is_none() {
            self.uring.wait(usize::from(!sent) + usize::from(received.is_none()))?;
            while let Some(completion) = self.uring.next() {
                match completion.kind {
                    Kind::Send => sent = all_sent(completion.bytes()?, out)?,
                    Kind::Receive => received = Some(completion.bytes()?),
                }
            }
        }
        let count = received.unwrap_or(0);
        take(&self.uring.bytes(IN)[..count]);
        Ok(count > 0)
    }
}

/// One receive that goes on, into provided buffers.
pub(crate) struct Multishot {
    uring: Uring,
    armed: bool,
}

impl Multishot {
    pub(crate) fn new(stream: TcpStream, setup: Setup) -> io::Result<Self> {
        let mut uring = Uring::new(vec![stream], setup, &[READ], false)?;
        uring.provide(64, 16 << 10)?;
        Ok(Self { uring, armed: false })
    }
}

impl Link for Multishot {
    fn turn(&mut self, out: &[u8], take: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let (mut sent, mut received, mut open) = (submit(&mut self.uring, out)?, false, true);
        while !sent || !received {
            if !self.armed {
                self.uring.receive_on(0, false)?;
                self.armed = true;
            }
            self.uring.wait(usize::from(!sent) + usize::from(!received))?;
            while let Some(completion) = self.uring.next() {
                if completion.kind == Kind::Send {
                    sent = all_sent(completion.bytes()?, out)?;
                    continue;
                }
                self.armed = completion.goes_on;
                if completion.found_no_buffer() {
                    continue;
                }
                let count = completion.bytes()?;
                if let Some(buffer) = completion.buffer {
                    take(self.uring.provided(buffer, count));
                    self.uring.give_back(buffer);
                }
                (received, open) = (true, open && count > 0);
            }
        }
        Ok(open)
    }
}

/// Prepares a send, unless there is nothing to send, and returns whether that is done.
fn submit(uring: &mut Uring, out: &[u8]) -> io::Result<bool> {
    if out.is_empty() {
        return Ok(true);
    }
    uring.bytes_mut(OUT)[..out.len()].copy_from_slice(out);
    uring.send(0, OUT, 0..out.len(), Send::Copy)?;
    Ok(false)
}

fn all_sent(count: usize, out: &[u8]) -> io::Result<bool> {
    // Asked for with `MSG_WAITALL`, and far below what a socket takes.
    if count == out.len() { Ok(true) } else { Err(io::Error::other("a send stopped half-way")) }
}
