//! What links of these tests go over: a pair of sockets. Who carries links over something else runs the same tests with a
//! module like this one.

use std::os::unix::net::UnixStream;

/// What is between the two ends; they hang up when it is dropped.
pub(crate) struct Between;

pub(crate) fn pair() -> (UnixStream, UnixStream, Between) {
    let (near, far) = UnixStream::pair().unwrap();
    (near, far, Between)
}
