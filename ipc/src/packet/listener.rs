//! The listening end of a control socket: a file of mode 0600 that only its maker can reach, or an abstract name. A file
//! left by a process that is gone is replaced, one with a live listener never. Used by the engine. It must not know what
//! is said over its connections.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::{PacketStream, address};
use crate::sys::{process, socket};

/// The most connections that wait to be accepted; the kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// How long to wait for another process that is binding in the same directory.
const LOCK_TIME_MAX: Duration = Duration::from_secs(5);

/// Who may connect to a socket that has a file, as far as its directories let them through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Processes of its maker's user.
    #[default]
    Owner,
    /// Everybody: whoever accepts looks at the credentials.
    Everybody,
}

/// Why a control socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody listens there.
    #[error("another engine is running at {address} (pid {pid})")]
    InUse {
        /// The address.
        address: String,
        /// The process; 0 if it cannot be seen from here.
        pid: u32,
    },
    /// A file of another kind is there.
    #[error("{address} exists and is no socket; remove it or choose another address")]
    NotASocket {
        /// The address.
        address: String,
    },
    /// Others can write to the directory and could replace the socket.
    #[error(
        "the directory of {address} can be changed by other users; it should have mode 0700 and belong to user {uid}"
    )]
    OpenDirectory {
        /// The address.
        address: String,
        /// This process's user.
        uid: u32,
    },
    /// A step failed.
    #[error("cannot {step} {address}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening control socket. Dropping it removes its file.
#[derive(Debug)]
pub struct PacketListener {
    socket: OwnedFd,
    address: String,
    file: Option<SocketFile>,
}

impl PacketListener {
    /// Listens at a path or at an abstract name after `@`. Missing directories are made with mode 0700.
    ///
    /// # Errors
    /// [`BindError`] says what is in the way.
    pub fn bind(address: &str) -> Result<Self, BindError> {
        Self::bind_with(address, Access::Owner)
    }

    /// Listens as [`Self::bind`] does, with the access that is given.
    ///
    /// # Errors
    /// [`BindError`] says what is in the way.
    pub fn bind_with(address: &str, access: Access) -> Result<Self, BindError> {
        let failed = |step| {
            let address = address.to_owned();
            move |source: io::Error| BindError::System { step, address, source }
        };
        let parsed = address::parse(address).map_err(failed("listen at"))?;
        let socket = address::stream_socket().map_err(failed("make a socket for"))?;
        // Linux gives the file the mode of the socket's own inode, so nobody can get in between bind and chmod.
        let mode = match access {
            Access::Owner => Mode::from_bits_truncate(0o600),
            Access::Everybody => Mode::from_bits_truncate(0o666),
        };
        rustix::fs::fchmod(&socket, mode).map_err(|error| failed("protect")(error.into()))?;
        let path = (!address.starts_with('@')).then(|| Path::new(address));
        let lock = path.map(|path| prepare(address, path)).transpose()?;
        match rustix::net::bind(&socket, &parsed) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => return Err(in_use(address)),
            Err(error) => return Err(failed("listen at")(error.into())),
        }
        let file = path.map(SocketFile::new).transpose().map_err(failed("find"))?;
        rustix::net::listen(&socket, BACKLOG).map_err(|error| failed("listen at")(error.into()))?;
        drop(lock);
        Ok(Self { socket, address: address.to_owned(), file })
    }

    /// Takes the next connection, or none when nobody waits.
    ///
    /// # Errors
    /// Too many open files, in the process or the system.
    pub fn accept(&self) -> io::Result<Option<PacketStream>> {
        loop {
            match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => return Ok(Some(PacketStream::new(socket))),
                Err(Errno::AGAIN) => return Ok(None),
                // The one who waited is gone already.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the socket's file, if it has one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }
}

impl AsFd for PacketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The socket's file, known by its inode, so that a later engine's file at the same path is left alone.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        let path = std::path::absolute(path)?;
        Ok(Self { path, device: found.dev(), inode: found.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: &fs::Metadata| (found.dev(), found.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(|found| ours(&found)) {
            let _gone_already = fs::remove_file(&self.path);
        }
    }
}

/// Makes the directory and removes a stale file. The directory stays locked until the result is dropped, so that of two
/// processes that find the same stale file one binds and the other sees it.
fn prepare(address: &str, path: &Path) -> Result<File, BindError> {
    let failed = |step| {
        let address = address.to_owned();
        move |source: io::Error| BindError::System { step, address, source }
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed("make the directory of"))?;
    let directory = File::open(directory).map_err(failed("open the directory of"))?;
    let found = directory.metadata().map_err(failed("look at the directory of"))?;
    let uid = process::user_id();
    let trusted_owner = found.uid() == uid || found.uid() == 0;
    // A sticky directory such as /tmp lets nobody remove the files of others.
    let others_write = found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0;
    if !trusted_owner || others_write {
        return Err(BindError::OpenDirectory { address: address.to_owned(), uid });
    }
    lock(&directory).map_err(failed("lock the directory of"))?;
    remove_stale(address, path)?;
    Ok(directory)
}

fn lock(directory: &File) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::AGAIN) if begun.elapsed() < LOCK_TIME_MAX => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn remove_stale(address: &str, path: &Path) -> Result<(), BindError> {
    let address = address.to_owned();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BindError::System { step: "look at", address, source }),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket { address }),
        Ok(_) => {}
    }
    match address::connect(&address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| BindError::System { step: "remove the stale", address, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BindError::System { step: "find out who listens at", address, source }),
        Ok(socket) => {
            let pid = socket::peer_credentials(socket).map_or(0, |peer| peer.pid);
            Err(BindError::InUse { address, pid })
        }
    }
}

fn in_use(address: &str) -> BindError {
    let peer = address::connect(address).and_then(socket::peer_credentials);
    BindError::InUse { address: address.to_owned(), pid: peer.map_or(0, |peer| peer.pid) }
}
