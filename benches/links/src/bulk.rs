//! 16 MiB one way, eight bytes back: who sends, who receives, and the loop around both. The answer takes the plainest way,
//! whatever is measured: it is a four-hundredth of the time.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::event::epoll;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_uring::buf::BoundedBuf;

use crate::raw::{Kind, Receive, Send, Setup, Uring, set_low_water};
use crate::runtimes::{one_thread, uring_thread};
use crate::sockets::{read_exact, wait, watch};

/// Bytes of a payload.
pub(crate) const PAYLOAD: usize = 16 << 20;
/// Distance of the words that every payload is checked by.
const STAMPS: usize = 1 << 20;

/// How payloads leave.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SendBy {
    /// Blocking sends of so many bytes.
    Blocking(usize),
    /// Sends until the socket is full, then `epoll_wait`.
    Epoll,
    /// A ring's sends of so many bytes, one after another.
    Uring(usize, Send),
    /// tokio's `write_all`.
    Tokio,
    /// tokio-uring's `write_all`.
    TokioUring,
}

/// How payloads arrive.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReceiveBy {
    /// Blocking receives of up to so many bytes.
    Blocking(usize),
    /// One blocking receive with `MSG_WAITALL`.
    BlockingAll,
    /// Receives that do not block, again and again.
    Spinning,
    /// `epoll_wait`, then a receive of all that is missing; woken only once so many bytes are there.
    Epoll(usize),
    /// A ring's receives of all that is missing; woken only once so many bytes are there.
    Uring(Receive, usize),
    /// A multishot receive into provided buffers of so many bytes, bundled or not, copied from there.
    Multishot(usize, bool),
    /// tokio's `read_exact`.
    Tokio,
    /// tokio-uring's `read`s of all that is missing.
    TokioUring,
}

/// Sends payloads.
pub(crate) trait Sender {
    /// Returns the bytes that the next send takes.
    fn payload(&mut self) -> &mut [u8];
    /// Sends all of them, and returns when they may be changed.
    fn send(&mut self) -> io::Result<()>;
    /// Returns how many zero-copy sends there were, and how many of them were copied after all.
    fn zero_copies(&self) -> (u64, u64) {
        (0, 0)
    }
}

/// Receives payloads.
pub(crate) trait Receiver {
    /// Waits for a whole payload. Returns whether the stream did not end instead.
    fn receive(&mut self) -> io::Result<bool>;
    /// Returns the payload.
    fn payload(&self) -> &[u8];
}

/// What came of one run.
pub(crate) struct Sample {
    pub(crate) payloads: u64,
    pub(crate) elapsed: Duration,
    /// Zero-copy sends, and how many were copied after all.
    pub(crate) zero_copies: (u64, u64),
}

fn word_of(position: usize) -> u64 {
    (position as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The sending side of one run.
pub(crate) fn push(sender: &mut dyn Sender, acks: &TcpStream, time: Duration) -> anyhow::Result<Sample> {
    let started = Instant::now();
    let mut payloads = 0;
    while payloads == 0 || started.elapsed() < time {
        for (stamp, page) in sender.payload().chunks_exact_mut(STAMPS).enumerate() {
            page[..8].copy_from_slice(&(payloads + stamp as u64).to_le_bytes());
        }
        sender.send()?;
        let mut ack = [0; 8];
        ensure!(read_exact(acks, &mut ack)?, "the receiving side left");
        ensure!(u64::from_le_bytes(ack) == payloads, "wanted an answer to payload {payloads}");
        payloads += 1;
    }
    Ok(Sample { payloads, elapsed: started.elapsed(), zero_copies: sender.zero_copies() })
}

/// Fills what the stamps leave, once.
pub(crate) fn fill(sender: &mut dyn Sender) {
    for (position, word) in sender.payload().chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&word_of(position).to_le_bytes());
    }
}

/// The receiving side: the first payload is looked at whole, the others at their stamps.
pub(crate) fn pull(receiver: &mut dyn Receiver, mut acks: &TcpStream) -> anyhow::Result<()> {
    let mut first = true;
    while receiver.receive()? {
        let payload = receiver.payload();
        let sequence =
            payload.first_chunk().map(|word| u64::from_le_bytes(*word)).context("an empty payload")?;
        for (stamp, page) in payload.chunks_exact(STAMPS).enumerate() {
            ensure!(page[..8] == (sequence + stamp as u64).to_le_bytes(), "payload {sequence} is mixed up");
        }
        if std::mem::take(&mut first) {
            let words =
                payload.chunks_exact(8).enumerate().filter(|(position, _)| position * 8 % STAMPS != 0);
            for (position, word) in words {
                ensure!(
                    word == word_of(position).to_le_bytes(),
                    "the first payload is wrong at word {position}"
                );
            }
        }
        acks.write_all(&sequence.to_le_bytes())?;
    }
    Ok(())
}

/// Makes a sender.
pub(crate) fn sender(by: SendBy, stream: TcpStream) -> io::Result<Box<dyn Sender>> {
    Ok(match by {
        SendBy::Blocking(chunk) => Box::new(Plain { stream, payload: vec![0; PAYLOAD], chunk }),
        SendBy::Epoll => {
            let watching = watch(&stream)?;
            epoll::modify(&watching, &stream, epoll::EventData::new_u64(0), epoll::EventFlags::OUT)?;
            let low = LowWater::new(&stream, 0)?;
            Box::new(Watched { stream, watching, payload: vec![0; PAYLOAD], low })
        }
        SendBy::Uring(chunk, how) => {
            let fixed = matches!(how, Send::CopyFixed | Send::ZeroCopyFixed);
            let uring = Uring::new(vec![stream], Setup::BEST, &[PAYLOAD], fixed)?;
            Box::new(Ringed { uring, chunk, how, notices: 0, copied: 0 })
        }
        SendBy::Tokio => {
            stream.set_nonblocking(true)?;
            let runtime = one_thread()?;
            let stream = runtime.block_on(async { tokio::net::TcpStream::from_std(stream) })?;
            Box::new(OnTokio { stream, runtime, payload: vec![0; PAYLOAD] })
        }
        SendBy::TokioUring => {
            let runtime = uring_thread()?;
            let stream = tokio_uring::net::TcpStream::from_std(stream);
            Box::new(OnTokioUring { stream, runtime, payload: vec![0; PAYLOAD] })
        }
    })
}

/// Makes a receiver.
pub(crate) fn receiver(by: ReceiveBy, stream: TcpStream) -> io::Result<Box<dyn Receiver>> {
    Ok(match by {
        ReceiveBy::Blocking(chunk) => Box::new(Plain { stream, payload: vec![0; PAYLOAD], chunk }),
        ReceiveBy::Spinning => {
            stream.set_nonblocking(true)?;
            Box::new(Spinning { stream, payload: vec![0; PAYLOAD] })
        }
        ReceiveBy::BlockingAll => Box::new(WaitingForAll { stream, payload: vec![0; PAYLOAD] }),
        ReceiveBy::Epoll(low) => {
            let (watching, low) = (watch(&stream)?, LowWater::new(&stream, low)?);
            Box::new(Watched { stream, watching, payload: vec![0; PAYLOAD], low })
        }
        ReceiveBy::Uring(how, low) => {
            let low = LowWater::new(&stream, low)?;
            let uring = Uring::new(vec![stream], Setup::BEST, &[PAYLOAD], how == Receive::Fixed)?;
            Box::new(RingedInto { uring, how, low })
        }
        ReceiveBy::Multishot(size, bundle) => {
            let mut uring = Uring::new(vec![stream], Setup::BEST, &[], false)?;
            // 4 MiB in all, whatever their size.
            uring.provide(u16::try_from((4 << 20) / size).map_err(io::Error::other)?, size)?;
            Box::new(Provided { uring, bundle, armed: false, payload: vec![0; PAYLOAD] })
        }
        ReceiveBy::Tokio => {
            stream.set_nonblocking(true)?;
            let runtime = one_thread()?;
            let stream = runtime.block_on(async { tokio::net::TcpStream::from_std(stream) })?;
            Box::new(OnTokio { stream, runtime, payload: vec![0; PAYLOAD] })
        }
        ReceiveBy::TokioUring => {
            let runtime = uring_thread()?;
            let stream = tokio_uring::net::TcpStream::from_std(stream);
            Box::new(OnTokioUring { stream, runtime, payload: vec![0; PAYLOAD] })
        }
    })
}

/// From how many bytes on a socket wakes its reader: only for readers that do not block in `recv`. A `recv` that blocks
/// takes what is there and then sleeps for as many bytes again, although fewer may be missing; such a reader hung here.
/// For the same reason the mark never exceeds what is missing, and is back at one byte before whatever comes next.
struct LowWater {
    stream: TcpStream,
    most: usize,
    now: usize,
}

impl LowWater {
    fn new(stream: &TcpStream, most: usize) -> io::Result<Self> {
        Ok(Self { stream: stream.try_clone()?, most, now: 1 })
    }

    fn set(&mut self, missing: usize) -> io::Result<()> {
        let wanted = self.most.min(missing).max(1);
        if wanted != self.now {
            set_low_water(&self.stream, wanted)?;
            self.now = wanted;
        }
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.set(1)
    }
}

/// Blocking calls of a fixed size.
struct Plain {
    stream: TcpStream,
    payload: Vec<u8>,
    chunk: usize,
}

impl Sender for Plain {
    fn payload(&mut self) -> &mut [u8] {
        &mut self.payload
    }

    fn send(&mut self) -> io::Result<()> {
        self.payload.chunks(self.chunk).try_for_each(|chunk| self.stream.write_all(chunk))
    }
}

impl Receiver for Plain {
    fn receive(&mut self) -> io::Result<bool> {
        let mut at = 0;
        while at < PAYLOAD {
            let end = PAYLOAD.min(at + self.chunk);
            let (count, _) = recv(&self.stream, &mut self.payload[at..end], RecvFlags::empty())?;
            if count == 0 {
                return Ok(false);
            }
            at += count;
        }
        Ok(true)
    }

    fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// Calls that do not block, and no waiting.
struct Spinning {
    stream: TcpStream,
    payload: Vec<u8>,
}

impl Receiver for Spinning {
    fn receive(&mut self) -> io::Result<bool> {
        let mut at = 0;
        while at < PAYLOAD {
            match recv(&self.stream, &mut self.payload[at..], RecvFlags::empty()) {
                Err(rustix::io::Errno::AGAIN) => std::hint::spin_loop(),
                Err(error) => return Err(error.into()),
                Ok((0, _)) => return Ok(false),
                Ok((count, _)) => at += count,
            }
        }
        Ok(true)
    }

    fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// One blocking call.
struct WaitingForAll {
    stream: TcpStream,
    payload: Vec<u8>,
}

impl Receiver for WaitingForAll {
    fn receive(&mut self) -> io::Result<bool> {
        let (count, _) = recv(&self.stream, &mut self.payload[..], RecvFlags::WAITALL)?;
        Ok(count == PAYLOAD)
    }

    fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// Calls that do not block, after `epoll_wait`.
struct Watched {
    stream: TcpStream,
    watching: OwnedFd,
    payload: Vec<u8>,
    low: LowWater,
}

impl Sender for Watched {
    fn payload(&mut self) -> &mut [u8] {
        &mut self.payload
    }

    fn send(&mut self) -> io::Result<()> {
        let mut rest = &self.payload[..];
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait(&self.watching)?,
                Err(error) => return Err(error),
                Ok(count) => rest = &rest[count..],
            }
        }
        Ok(())
    }
}

impl Receiver for Watched {
    fn receive(&mut self) -> io::Result<bool> {
        let mut at = 0;
        while at < PAYLOAD {
            self.low.set(PAYLOAD - at)?;
            wait(&self.watching)?;
            match recv(&self.stream, &mut self.payload[at..], RecvFlags::empty()) {
                Err(rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
                Ok((0, _)) => return Ok(false),
                Ok((count, _)) => at += count,
            }
        }
        self.low.reset()?;
        Ok(true)
    }

    fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// A ring's sends.
struct Ringed {
    uring: Uring,
    chunk: usize,
    how: Send,
    notices: u64,
    copied: u64,
}

impl Sender for Ringed {
    fn payload(&mut self) -> &mut [u8] {
        self.uring.bytes_mut(0)
    }

    fn send(&mut self) -> io::Result<()> {
        let (mut at, mut sending) = (0, false);
        // A zero-copy send gives its bytes back with a second completion.
        while at < PAYLOAD || self.uring.in_flight() > 0 {
            if at < PAYLOAD && !sending {
                self.uring.send(0, 0, at..PAYLOAD.min(at + self.chunk), self.how)?;
                sending = true;
            }
            self.uring.wait(1)?;
            while let Some(completion) = self.uring.next() {
                if completion.is_notice {
                    self.notices += 1;
                    self.copied += u64::from(completion.was_copied());
                } else {
                    at += completion.bytes()?;
                    sending = false;
                }
            }
        }
        Ok(())
    }

    fn zero_copies(&self) -> (u64, u64) {
        (self.notices, self.copied)
    }
}

/// A ring's receives into the payload itself.
struct RingedInto {
    uring: Uring,
    how: Receive,
    low: LowWater,
}

impl Receiver for RingedInto {
    fn receive(&mut self) -> io::Result<bool> {
        let mut at = 0;
        while at < PAYLOAD {
            self.low.set(PAYLOAD - at)?;
            self.uring.receive(0, 0, at..PAYLOAD, self.how)?;
            self.uring.wait(1)?;
            while let Some(completion) = self.uring.next() {
                match completion.bytes()? {
                    0 => return Ok(false),
                    count => at += count,
                }
            }
        }
        self.low.reset()?;
        Ok(true)
    }

    fn payload(&self) -> &[u8] {
        self.uring.bytes(0)
    }
}

/// A multishot receive, and a copy.
struct Provided {
    uring: Uring,
    bundle: bool,
    armed: bool,
    payload: Vec<u8>,
}

impl Receiver for Provided {
    fn receive(&mut self) -> io::Result<bool> {
        let (size, buffers) = self.uring.provided_size();
        let mut at = 0;
        while at < PAYLOAD {
            if !self.armed {
                self.uring.receive_on(0, self.bundle)?;
                self.armed = true;
            }
            self.uring.wait(1)?;
            while let Some(completion) = self.uring.next() {
                debug_assert_eq!(completion.kind, Kind::Receive);
                self.armed = completion.goes_on;
                if completion.found_no_buffer() {
                    continue;
                }
                let mut count = completion.bytes()?;
                let Some(mut buffer) = completion.buffer.filter(|_| count > 0) else { return Ok(false) };
                while count > 0 {
                    let part = self.uring.provided(buffer, count);
                    self.payload[at..at + part.len()].copy_from_slice(part);
                    at += part.len();
                    count -= part.len().min(size);
                    self.uring.give_back(buffer);
                    buffer = (buffer + 1) % buffers;
                }
            }
        }
        Ok(true)
    }

    fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// tokio. The stream goes before its runtime.
struct OnTokio {
    stream: tokio::net::TcpStream,
    runtime: tokio::runtime::Runtime,
    payload: Vec<u8>,
}

impl Sender for OnTokio {
    fn payload(&mut self) -> &mut [u8] {
        &mut self.payload
    }

    fn send(&mut self) -> io::Result<()> {
        self.runtime.block_on(self.stream.write_all(&self.payload))
    }
}

impl Receiver for OnTokio {
    fn receive(&mut self) -> io::Result<bool> {
        match self.runtime.block_on(self.stream.read_exact(&mut self.payload)) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            done => done.map(|_| true),
        }
    }

    fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// tokio-uring. The stream goes before its runtime.
struct OnTokioUring {
    stream: tokio_uring::net::TcpStream,
    runtime: tokio_uring::Runtime,
    payload: Vec<u8>,
}

impl Sender for OnTokioUring {
    fn payload(&mut self) -> &mut [u8] {
        &mut self.payload
    }

    fn send(&mut self) -> io::Result<()> {
        let payload = std::mem::take(&mut self.payload);
        let (done, payload) = self.runtime.block_on(self.stream.write_all(payload));
        self.payload = payload;
        done
    }
}

impl Receiver for OnTokioUring {
    fn receive(&mut self) -> io::Result<bool> {
        let mut payload = std::mem::take(&mut self.payload);
        let stream = &self.stream;
        let (done, payload) = self.runtime.block_on(async move {
            let mut at = 0;
            while at < PAYLOAD {
                let (count, part) = stream.read(payload.slice(at..)).await;
                payload = part.into_inner();
                match count {
                    Ok(0) => return (Ok(false), payload),
                    Ok(count) => at += count,
                    Err(error) => return (Err(error), payload),
                }
            }
            (Ok(true), payload)
        });
        self.payload = payload;
        done
    }

    fn payload(&self) -> &[u8] {
        &self.payload
    }
}
