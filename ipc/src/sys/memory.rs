//! Anonymous shared files and mappings: `memfd_create`, `fallocate`, seals, `mmap`, `madvise`. Used by `segment`. It must
//! not know what lies in the memory.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// The seals that every segment carries: its size is fixed, nobody can write to it except through the mapping its maker
/// already has, and this cannot be undone (promise P1).
pub const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

/// Returns the size of a page in bytes.
pub fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// Makes an anonymous shared file that can be sealed. Close-on-exec, and never executable where the kernel can say so.
///
/// # Errors
/// Whatever `memfd_create` reports, such as too many open files.
pub fn memfd(label: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(label, flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3 the flag is unknown.
        Err(rustix::io::Errno::INVAL) => Ok(rustix::fs::memfd_create(label, flags)?),
        other => Ok(other?),
    }
}

/// Sizes a new file to `bytes` and reserves its pages, so that a later touch cannot fail with SIGBUS.
///
/// # Errors
/// `ENOSPC` or `ENOMEM` when the memory is not there.
pub fn allocate(fd: impl AsFd, bytes: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(fd.as_fd(), FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Puts [`SEALS`] on a file.
///
/// # Errors
/// `EPERM` when the file can no longer be sealed.
pub fn seal(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(fd, SEALS)?)
}

/// Returns the seals of a file; empty for one that cannot have any.
pub fn seals(fd: impl AsFd) -> SealFlags {
    rustix::fs::fcntl_get_seals(fd).unwrap_or(SealFlags::empty())
}

/// Returns the length of a file in bytes.
///
/// # Errors
/// Whatever `fstat` reports.
pub fn file_bytes(fd: impl AsFd) -> io::Result<u64> {
    u64::try_from(rustix::fs::fstat(fd)?.st_size).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Maps the first `bytes` of a file for reading and writing, shared.
///
/// # Errors
/// `EPERM` on a sealed file, `ENOMEM` when the address space or the map count is used up.
pub fn map_write(fd: impl AsFd, bytes: usize) -> io::Result<NonNull<u8>> {
    map(fd, bytes, ProtFlags::READ | ProtFlags::WRITE)
}

/// Maps the first `bytes` of a file for reading, shared.
///
/// # Errors
/// `ENOMEM` when the address space or the map count is used up.
pub fn map_read(fd: impl AsFd, bytes: usize) -> io::Result<NonNull<u8>> {
    map(fd, bytes, ProtFlags::READ)
}

fn map(fd: impl AsFd, bytes: usize, protection: ProtFlags) -> io::Result<NonNull<u8>> {
    // SAFETY: the hint is null and MAP_FIXED is absent, so the kernel picks an unused range and no mapping is replaced.
    let base = unsafe { rustix::mm::mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, fd, 0) }?;
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Removes a mapping made by [`map_write`] or [`map_read`].
///
/// # Safety
/// `base` and `bytes` are exactly one such mapping, and nothing uses it from here on.
pub unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller hands over the whole mapping. The only failure is a bad range, which that excludes.
    let result = unsafe { rustix::mm::munmap(base.as_ptr().cast::<c_void>(), bytes) };
    debug_assert!(result.is_ok(), "munmap refused a mapping of our own: {result:?}");
}

/// What can be asked of the kernel about a mapped range. None of these changes what the memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Make every page present and writable now (Linux 5.14).
    PopulateWrite,
    /// Make every page present for reading now (Linux 5.14).
    PopulateRead,
    /// Use huge pages where the machine allows them for shared memory.
    HugePages,
    /// A child made by `fork` does not get this range, so that it cannot become a second writer.
    NotInChildren,
}

/// Gives the kernel a hint about a mapped range.
///
/// # Errors
/// `EINVAL` where the kernel does not know the hint, `ENOMEM` when pages cannot be made present.
///
/// # Safety
/// `base` and `bytes` lie within one live mapping of this process.
pub unsafe fn hint(base: NonNull<u8>, bytes: usize, hint: Hint) -> io::Result<()> {
    let advice = match hint {
        Hint::PopulateWrite => Advice::LinuxPopulateWrite,
        Hint::PopulateRead => Advice::LinuxPopulateRead,
        Hint::HugePages => Advice::LinuxHugepage,
        Hint::NotInChildren => Advice::LinuxDontFork,
    };
    // SAFETY: the range is mapped (the caller's promise) and none of these advices drops or changes its contents.
    Ok(unsafe { rustix::mm::madvise(base.as_ptr().cast::<c_void>(), bytes, advice) }?)
}
