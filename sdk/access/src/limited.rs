//! A connection that gives nobody more time than until a deadline, however slowly bytes come: before each read and write
//! the system is told how long is left. Used below TLS and the handshake. It must not know what is read.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A stream that can be told how long a read and a write may take.
pub trait Timeouts {
    /// Sets how long each further read and write may wait; none: for ever.
    ///
    /// # Errors
    /// The system refuses, or the duration is zero.
    fn set_timeouts(&self, timeout: Option<Duration>) -> io::Result<()>;
}

impl Timeouts for TcpStream {
    fn set_timeouts(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(timeout)?;
        self.set_write_timeout(timeout)
    }
}

impl Timeouts for UnixStream {
    fn set_timeouts(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(timeout)?;
        self.set_write_timeout(timeout)
    }
}

/// A stream with a deadline for everything that is read and written. What comes too late is [`io::ErrorKind::TimedOut`].
#[derive(Debug)]
pub struct Limited<S> {
    stream: S,
    deadline: Instant,
}

impl<S: Timeouts> Limited<S> {
    /// Puts a stream, which must be a blocking one, under a deadline.
    pub const fn new(stream: S, deadline: Instant) -> Self {
        Self { stream, deadline }
    }

    /// Returns the stream, which may take as long as it likes from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn into_inner(self) -> io::Result<S> {
        self.stream.set_timeouts(None)?;
        Ok(self.stream)
    }

    fn prepare(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // The system counts in microseconds, and takes zero for ever.
        if left < Duration::from_micros(1) {
            return Err(too_late());
        }
        self.stream.set_timeouts(Some(left))
    }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the deadline passed")
}

/// The system says "would block" of a read that waited as long as it may.
fn in_time<T>(result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| if error.kind() == io::ErrorKind::WouldBlock { too_late() } else { error })
}

impl<S: Timeouts + Read> Read for Limited<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.prepare()?;
        in_time(self.stream.read(buffer))
    }
}

impl<S: Timeouts + Write> Write for Limited<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.prepare()?;
        in_time(self.stream.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_and_one_that_drips_end_at_the_deadline() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"abc").unwrap();
        let mut limited = Limited::new(near, Instant::now() + Duration::from_millis(50));
        let mut byte = [0];
        for _ in 0..3 {
            limited.read_exact(&mut byte).unwrap();
        }
        assert_eq!(limited.read(&mut byte).unwrap_err().kind(), io::ErrorKind::TimedOut);
        // What comes now comes too late.
        far.write_all(b"d").unwrap();
        assert_eq!(limited.read(&mut byte).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(limited.write(b"e").unwrap_err().kind(), io::ErrorKind::TimedOut);
        let mut free = limited.into_inner().unwrap();
        free.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"d");
    }

    #[test]
    fn a_peer_that_reads_nothing_ends_a_write_at_the_deadline() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut limited = Limited::new(near, Instant::now() + Duration::from_millis(50));
        let written = limited.write_all(&vec![0; 16 << 20]);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
