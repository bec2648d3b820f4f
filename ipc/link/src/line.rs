//! A session and the encryption around it: what the drivers read into and write from. Used by the drivers, which see bytes.
//! It must not know sockets.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};

use rustls::Connection;

use crate::fault::{Ended, Fault};
use crate::session::Session;

/// Bytes of records that are read at a time.
const SEALED_BYTES: usize = 64 << 10;

/// Bytes of records that wait for the socket before no more are made.
const SEALED_WAITING_BYTES: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) session: Session,
    tls: Option<Box<Tls>>,
}

#[derive(Debug)]
struct Tls {
    connection: Connection,
    inward: Vec<u8>,
    outward: Vec<u8>,
    sent: usize,
}

impl Line {
    pub(crate) fn new(session: Session, tls: Option<Connection>) -> Self {
        let tls = tls.map(|mut connection| {
            connection.set_buffer_limit(Some(2 * SEALED_WAITING_BYTES));
            let inward = vec![0; SEALED_BYTES];
            Box::new(Tls { connection, inward, outward: Vec::new(), sent: 0 })
        });
        Self { session, tls }
    }

    /// Where bytes of the socket belong.
    pub(crate) fn spaces(&mut self) -> [IoSliceMut<'_>; 2] {
        match &mut self.tls {
            None => self.session.spaces(),
            Some(tls) => [IoSliceMut::new(&mut tls.inward), IoSliceMut::new(&mut [])],
        }
    }

    /// So many bytes of the socket came; 0 for what was left over of the greeting.
    ///
    /// # Errors
    /// Why the link must end.
    pub(crate) fn received(&mut self, bytes: usize) -> Result<(), Ended> {
        let Some(tls) = &mut self.tls else { return self.session.received(bytes) };
        let mut sealed = &tls.inward[..bytes];
        loop {
            if !sealed.is_empty() {
                tls.connection.read_tls(&mut sealed).map_err(|_| Fault::Encryption)?;
                tls.connection.process_new_packets().map_err(|_| Fault::Encryption)?;
            }
            loop {
                let mut spaces = self.session.spaces();
                match tls.connection.reader().read_vectored(&mut spaces) {
                    Ok(0) => return Err(Ended::Cut),
                    Ok(count) => self.session.received(count)?,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // The other end closed the socket without saying so.
                    Err(_) => return Err(Ended::Cut),
                }
            }
            if sealed.is_empty() {
                return Ok(());
            }
        }
    }

    /// Makes ready what can be written; says whether there is anything.
    pub(crate) fn load(&mut self) -> bool {
        let Some(tls) = &mut self.tls else { return self.session.load() };
        if tls.sent < tls.outward.len() {
            return true;
        }
        tls.outward.clear();
        tls.sent = 0;
        while tls.outward.len() < SEALED_WAITING_BYTES && self.session.load() {
            let mut slices = Vec::with_capacity(4);
            self.session.slices(&mut slices);
            let written = tls.connection.writer().write_vectored(&slices).unwrap_or(0);
            drop(slices);
            self.session.sent(written);
            tls.seal();
            if written == 0 {
                break;
            }
        }
        // Records of the protocol itself, such as new keys.
        tls.seal();
        !tls.outward.is_empty()
    }

    /// Whether something could be written.
    pub(crate) fn has_some(&self) -> bool {
        let sealed =
            self.tls.as_ref().is_some_and(|tls| tls.sent < tls.outward.len() || tls.connection.wants_write());
        sealed || self.session.has_some()
    }

    /// What is to be written, in order. It stays where it is until all of it is.
    pub(crate) fn slices<'a>(&'a self, out: &mut Vec<IoSlice<'a>>) {
        match &self.tls {
            None => self.session.slices(out),
            Some(tls) => out.push(IoSlice::new(&tls.outward[tls.sent..])),
        }
    }

    /// The socket took so many bytes.
    pub(crate) fn sent(&mut self, bytes: usize) {
        match &mut self.tls {
            None => self.session.sent(bytes),
            Some(tls) => tls.sent += bytes,
        }
    }
}

impl Tls {
    fn seal(&mut self) {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut self.outward).is_err() {
                return;
            }
        }
    }
}
