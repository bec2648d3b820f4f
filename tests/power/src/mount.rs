//! A disk in a folder of this machine: passes what a kernel asks on to `disk`, and mounts and unmounts. Used by tests that run
//! programs on it. It must not know when the power goes.
//!
//! Root mounts it with a system call of its own. Other users need the program `fusermount3` (Debian: fuse3), and everybody
//! `/dev/fuse`, which containers often lack. A mount whose process was killed is taken away by the next one that mounts.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use nix::mount::{MntFlags, umount2};
use nix::unistd::{getgid, getuid};

use crate::disk::{Disk, Errno, Facts};

/// Names the file system in the list of what is mounted.
const NAME: &str = "ringway-power";
/// How long a kernel may believe what it was told. Nobody but that kernel changes anything.
const BELIEF: Duration = Duration::from_secs(3600);
const BLOCK_BYTES: u32 = 4096;
/// What the disk says it has room for, in blocks: a TiB.
const BLOCKS: u64 = 1 << 28;

/// This machine does not let us mount.
#[derive(Debug, thiserror::Error)]
#[error(
    "wanted to mount a file system by FUSE, found: {source}; it takes /dev/fuse and the right to mount: in a container \
     `--device /dev/fuse --cap-add SYS_ADMIN`, as another user than root the package fuse3"
)]
pub struct Refused {
    source: io::Error,
}

/// A disk that is mounted. Dropping this takes it away; whoever has a file open sees errors.
#[derive(Debug)]
pub struct Mounted {
    folder: PathBuf,
    session: Option<BackgroundSession>,
}

impl Mounted {
    /// Mounts a disk in a fresh folder.
    ///
    /// # Errors
    /// [`Refused`], with what the system says.
    pub fn new(disk: &Disk) -> Result<Self, Refused> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("{NAME}-{}-{number}", std::process::id()));
        let mount = || {
            fs::create_dir_all(&folder)?;
            let mut config = Config::default();
            config.mount_options =
                vec![MountOption::FSName(NAME.to_owned()), MountOption::NoAtime, MountOption::NoSuid];
            fuser::spawn_mount(Served(disk.clone()), &folder, &config)
        };
        match mount() {
            Ok(session) => Ok(Self { folder, session: Some(session) }),
            Err(source) => {
                drop(fs::remove_dir(&folder));
                Err(Refused { source })
            }
        }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Detached: also while somebody has a file open: a process that was killed may still be letting go.
        let detached = umount2(&self.folder, MntFlags::MNT_DETACH);
        let ended = self.session.take().map_or(Ok(()), BackgroundSession::umount_and_join);
        if detached.is_ok() || ended.is_ok() {
            drop(fs::remove_dir(&self.folder));
        }
    }
}

/// Takes away what processes left that are no more.
fn sweep() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let ours = mounts.lines().filter_map(|line| line.strip_prefix(NAME)?.split(' ').nth(1));
    for folder in ours.map(Path::new) {
        let name = folder.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let process = name.split('-').nth(2).unwrap_or_default();
        if !Path::new("/proc").join(process).exists() && umount2(folder, MntFlags::MNT_DETACH).is_ok() {
            drop(fs::remove_dir(folder));
        }
    }
}

/// What the kernel talks to.
struct Served(Disk);

fn code(error: Errno) -> fuser::Errno {
    match error {
        Errno::PowerOff => fuser::Errno::EIO,
        Errno::Missing => fuser::Errno::ENOENT,
        Errno::Exists => fuser::Errno::EEXIST,
        Errno::NotFolder => fuser::Errno::ENOTDIR,
        Errno::Folder => fuser::Errno::EISDIR,
        Errno::NotEmpty => fuser::Errno::ENOTEMPTY,
    }
}

const fn kind(facts: Facts) -> FileType {
    if facts.length.is_some() { FileType::RegularFile } else { FileType::Directory }
}

/// What `stat` shows. Modes and times are not kept: nothing here asks for them.
fn attributes(facts: Facts) -> FileAttr {
    let size = facts.length.unwrap_or(0);
    let (kind, perm) = (kind(facts), if facts.length.is_some() { 0o600 } else { 0o700 });
    FileAttr {
        ino: INodeNo(facts.number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: getuid().as_raw(),
        gid: getgid().as_raw(),
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(code(error)),
    }
}

fn entry(result: Result<Facts, Errno>, reply: ReplyEntry) {
    match result {
        Ok(facts) => reply.entry(&BELIEF, &attributes(facts), Generation(0)),
        Err(error) => reply.error(code(error)),
    }
}

fn attribute(result: Result<Facts, Errno>, reply: ReplyAttr) {
    match result {
        Ok(facts) => reply.attr(&BELIEF, &attributes(facts)),
        Err(error) => reply.error(code(error)),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.0.find(parent.0, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attribute(self.0.facts(ino.0), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = size.map_or(Ok(()), |bytes| self.0.set_length(ino.0, bytes));
        attribute(set.and_then(|()| self.0.facts(ino.0)), reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        entry(self.0.make(parent.0, name, true), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(fuser::Errno::EINVAL);
        }
        empty(self.0.rename((parent.0, name), (newparent.0, newname)), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.0.make(parent.0, name, false) {
            Ok(facts) => {
                reply.created(&BELIEF, &attributes(facts), Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(code(error)),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.facts(ino.0) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(code(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.read(ino.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(code(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(ino.0, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(code(error)),
        }
    }

    /// A file is closed. That brings nothing to disk.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.0.sync(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.0.sync_folder(ino.0), reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = match self.0.entries(ino.0) {
            Ok(entries) => entries,
            Err(error) => return reply.error(code(error)),
        };
        let dots = [".", ".."].map(|name| (name.into(), Facts { number: ino.0, length: None }));
        for (at, (name, facts)) in (1..).zip(dots.into_iter().chain(entries)) {
            if at > offset && reply.add(INodeNo(facts.number), at, kind(facts), name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, 1 << 20, 1 << 20, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}
