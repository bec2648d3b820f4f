//! A client that writes what it likes, byte by byte.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use ringway_worker_bed::PATIENCE;

/// A connection.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// Everything until the other side closes.
    pub(crate) fn rest(&mut self) -> String {
        let mut text = Vec::new();
        // A reset is an end too.
        let _reset = self.0.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Reads until a text has come.
    pub(crate) fn until(&mut self, wanted: &str) -> String {
        let mut text = String::new();
        let mut byte = [0];
        while !text.contains(wanted) {
            let read = self.0.read(&mut byte).unwrap();
            assert!(read > 0, "`{wanted}` is awaited, the end came after {text:?}");
            text.push(char::from(byte[0]));
        }
        text
    }

    pub(crate) fn patience(&self, patience: Duration) {
        self.0.set_read_timeout(Some(patience)).unwrap();
    }
}
