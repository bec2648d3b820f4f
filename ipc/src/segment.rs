//! Segments: shared memory with exactly one writer.
//!
//! A process writes only the [`Segment`]s that it made itself; whoever receives one maps it as a [`SegmentView`], which
//! can be read and nothing else, and the kernel sees to that (promise P1). Rings and arenas live in segments. This file
//! must not know what they put there.
//!
//! Fields. `base` and `bytes` are fixed for the life of a value, so sharing a value shares no mutable state of this
//! module. What lies in the memory is the business of `ring` and `arena` for the writer, `foreign` for readers.
//!
//! Invariants.
//! - I1: `base..base + bytes` is one live mapping (or heap block) until the value is dropped. Only `Drop` ends it.
//! - I2: `base` is aligned to 4096 bytes and `bytes` is a positive multiple of 4096.
//! - I3: a segment with a descriptor carries all of [`sys::memory::SEALS`] from before `create` returns: nobody can
//!   shrink it under a reader, nor write it except through the one mapping made in `create`. That mapping is not
//!   inherited by a forked child.
//! - I4: a view of a received descriptor exists only if the descriptor had those seals, so touching any byte of it never
//!   raises SIGBUS.
//!
//! Orderings: none here; a descriptor travels by a system call.
//!
//! Checked by: tests below (what a receiver can and cannot do, on every backend).

use std::alloc::{self, Layout};
use std::fmt;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::limits;
#[cfg(target_os = "linux")]
use crate::sys::{self, memory::Hint};

mod portable;

use portable::Portable;

/// How a new segment is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentOptions {
    /// Ask for huge pages. Has an effect only where the machine allows them for shared memory, which `doctor` tells.
    pub huge_pages: bool,
    /// Touch every page now, so that no later write pays for a first touch (0.1 to 0.3 µs a page).
    pub prefault: bool,
}

/// Why a segment could not be made or mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// A size of zero, or above the limit.
    #[error("a segment has 1 to {bytes_max} bytes, {bytes} were asked for")]
    Size {
        /// The size asked for, or found in a descriptor.
        bytes: u64,
        /// The limit that applies.
        bytes_max: u64,
    },
    /// A received descriptor lacks seals, so its memory could vanish or be written by others.
    #[error("a received segment must be sealed against resizing and foreign writes, found seals {found:#x}")]
    Unsealed {
        /// The seals it has.
        found: u32,
    },
    /// A received descriptor has a size that is no whole number of pages.
    #[error("a segment is a whole number of pages, found {bytes} bytes")]
    PartialPage {
        /// Its size.
        bytes: u64,
    },
    /// A step of making or mapping it failed.
    #[error("cannot {step} a segment of {bytes} bytes: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// The size.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The portable backend failed.
    #[error("cannot {step} a named segment: {source}")]
    Portable {
        /// What was tried.
        step: &'static str,
        /// What the backend said.
        source: shared_memory::ShmemError,
    },
}

/// Memory that this process writes and that others can be given to read.
pub struct Segment {
    base: NonNull<u8>,
    bytes: usize,
    backing: Backing,
}

/// What keeps the memory there.
enum Backing {
    #[cfg(target_os = "linux")]
    Memfd(OwnedFd),
    Heap(Layout),
    Portable(Portable),
}

// SAFETY: by I1 the memory is not bound to a thread, and this type gives out only the address; every access through it is
// an unsafe operation of the module that makes it, with its own argument.
unsafe impl Send for Segment {}
// SAFETY: as for Send; no method changes a field.
unsafe impl Sync for Segment {}

impl Segment {
    /// Makes a segment of at least `bytes` bytes, rounded up to whole pages, zeroed, sealed, and named `label` in
    /// `/proc/PID/maps`. Blocks while the kernel clears the pages: about 0.25 ms a MiB.
    ///
    /// Where the system has no sealed memory this is the portable backend.
    ///
    /// # Errors
    /// [`SegmentError::Size`], or [`SegmentError::System`] when memory, descriptors or mappings run out.
    pub fn create(label: &str, bytes: usize, options: SegmentOptions) -> Result<Arc<Self>, SegmentError> {
        let bytes = whole_pages(bytes)?;
        #[cfg(target_os = "linux")]
        return Self::memfd(label, bytes, options);
        #[cfg(not(target_os = "linux"))]
        {
            let (_, _) = (label, options);
            Self::portable(bytes)
        }
    }

    #[cfg(target_os = "linux")]
    fn memfd(label: &str, bytes: usize, options: SegmentOptions) -> Result<Arc<Self>, SegmentError> {
        let failed = |step| move |source| SegmentError::System { step, bytes: bytes as u64, source };
        let fd = sys::memory::memfd(label).map_err(failed("create"))?;
        sys::memory::allocate(&fd, bytes as u64).map_err(failed("allocate"))?;
        let base = sys::memory::map_write(&fd, bytes).map_err(failed("map"))?;
        let segment = Self { base, bytes, backing: Backing::Memfd(fd) };
        if let Backing::Memfd(fd) = &segment.backing {
            sys::memory::seal(fd).map_err(failed("seal"))?;
        }
        segment.hint(Hint::NotInChildren).map_err(failed("keep to this process"))?;
        if options.huge_pages {
            // Only a wish: a kernel without huge pages for shared memory refuses it, and `doctor` reports that.
            let _refused = segment.hint(Hint::HugePages);
        }
        if options.prefault {
            segment.prefault().map_err(failed("prefault"))?;
        }
        Ok(Arc::new(segment))
    }

    #[cfg(target_os = "linux")]
    fn hint(&self, hint: Hint) -> io::Result<()> {
        // SAFETY: the range is the live mapping of I1.
        unsafe { sys::memory::hint(self.base, self.bytes, hint) }
    }

    /// Makes every page present for writing, so that no later write pays for a first touch. 0.1 to 0.3 µs a page.
    /// Does nothing for memory that is not a file.
    ///
    /// # Errors
    /// What the system said; `InvalidInput` before Linux 5.14.
    pub fn prefault(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if matches!(self.backing, Backing::Memfd(_)) {
            return self.hint(Hint::PopulateWrite);
        }
        Ok(())
    }

    /// Makes a segment in ordinary memory, for tests, model checkers and peers inside one process. Zeroed.
    ///
    /// # Panics
    /// If `bytes` is 0 or more than the limit, or memory runs out.
    pub fn heap(bytes: usize) -> Arc<Self> {
        let bytes = whole_pages(bytes).expect("the size of a heap segment is chosen by this program");
        let layout = Layout::from_size_align(bytes, limits::PAGE_BYTES).expect("checked by whole_pages");
        // SAFETY: the size is positive by `whole_pages`.
        let base = unsafe { alloc::alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { alloc::handle_alloc_error(layout) };
        Arc::new(Self { base, bytes, backing: Backing::Heap(layout) })
    }

    /// Makes a named segment with the portable backend: for systems without sealed memory. The name exists as long as
    /// this value, and single ownership is a convention there: the system does not enforce it.
    ///
    /// # Errors
    /// [`SegmentError::Size`] or [`SegmentError::Portable`].
    pub fn portable(bytes: usize) -> Result<Arc<Self>, SegmentError> {
        let bytes = whole_pages(bytes)?;
        let portable = Portable::create(bytes)?;
        Ok(Arc::new(Self { base: portable.base(), bytes, backing: Backing::Portable(portable) }))
    }

    /// Returns the descriptor to hand to a reader; `None` for a heap or named segment.
    #[cfg(target_os = "linux")]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::Memfd(fd) => Some(fd.as_fd()),
            Backing::Heap(_) | Backing::Portable(_) => None,
        }
    }

    /// Returns the name by which another process opens a portable segment.
    pub fn portable_name(&self) -> Option<&str> {
        match &self.backing {
            Backing::Portable(portable) => Some(portable.name()),
            _ => None,
        }
    }

    /// Returns the address of the first byte. Valid for reads and writes of [`Self::len`] bytes while this value lives;
    /// which of them may be written when is up to the structure that lies there.
    #[inline]
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Returns the size in bytes, a positive multiple of the page size.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Returns a read-only view for a reader in the same process.
    pub fn view(self: &Arc<Self>) -> Arc<SegmentView> {
        let source = Source::Local(Arc::clone(self));
        Arc::new(SegmentView { base: self.base, bytes: self.bytes, source })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        match &self.backing {
            #[cfg(target_os = "linux")]
            Backing::Memfd(_) => {
                // SAFETY: the mapping of I1, and nothing can use it after this value.
                unsafe { sys::memory::unmap(self.base, self.bytes) }
            }
            Backing::Heap(layout) => {
                // SAFETY: allocated in `heap` with this very layout, and nothing can use it after this value.
                unsafe { alloc::dealloc(self.base.as_ptr(), *layout) }
            }
            Backing::Portable(_) => {}
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("bytes", &self.bytes).field("backing", &self.backing).finish()
    }
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(target_os = "linux")]
            Self::Memfd(fd) => write!(f, "memfd {fd:?}"),
            Self::Heap(_) => f.write_str("heap"),
            Self::Portable(portable) => write!(f, "named {}", portable.name()),
        }
    }
}

/// A segment made by somebody else, mapped for reading. What it holds can change at any time and is not to be trusted:
/// [`crate::foreign`] reads it.
pub struct SegmentView {
    base: NonNull<u8>,
    bytes: usize,
    source: Source,
}

/// What keeps the memory there.
enum Source {
    #[cfg(target_os = "linux")]
    Mapped(OwnedFd),
    Local(Arc<Segment>),
    Portable(Portable),
}

// SAFETY: by I1 the memory is not bound to a thread, and this type gives out only the address; every access through it is
// an unsafe operation of the module that makes it, with its own argument.
unsafe impl Send for SegmentView {}
// SAFETY: as for Send; no method changes a field.
unsafe impl Sync for SegmentView {}

impl SegmentView {
    /// Maps a received descriptor for reading, after checking that it is a sealed segment of at most `bytes_max` bytes.
    /// The descriptor is kept for forwarding.
    ///
    /// # Errors
    /// [`SegmentError::Unsealed`], [`SegmentError::Size`] or [`SegmentError::PartialPage`] for what is not a segment;
    /// [`SegmentError::System`] when mappings run out.
    #[cfg(target_os = "linux")]
    pub fn map(fd: OwnedFd, bytes_max: u64) -> Result<Arc<Self>, SegmentError> {
        // The seals come first: only a size that cannot change any more is worth a check.
        let found = sys::memory::seals(&fd);
        if !found.contains(sys::memory::SEALS) {
            return Err(SegmentError::Unsealed { found: found.bits() });
        }
        let failed = |step, bytes| move |source| SegmentError::System { step, bytes, source };
        let bytes = sys::memory::file_bytes(&fd).map_err(failed("measure", 0))?;
        let bytes_max = bytes_max.min(limits::SEGMENT_BYTES_MAX);
        if bytes == 0 || bytes > bytes_max {
            return Err(SegmentError::Size { bytes, bytes_max });
        }
        let too_large = |_| SegmentError::Size { bytes, bytes_max };
        let length = usize::try_from(bytes).map_err(too_large)?;
        if !length.is_multiple_of(limits::PAGE_BYTES) {
            return Err(SegmentError::PartialPage { bytes });
        }
        let base = sys::memory::map_read(&fd, length).map_err(failed("map", bytes))?;
        Ok(Arc::new(Self { base, bytes: length, source: Source::Mapped(fd) }))
    }

    /// Opens a segment of the portable backend by its name.
    ///
    /// # Errors
    /// [`SegmentError::Portable`] when there is none, [`SegmentError::Size`] when it is too large.
    pub fn open_portable(name: &str, bytes_max: u64) -> Result<Arc<Self>, SegmentError> {
        let portable = Portable::open(name)?;
        let bytes = portable.bytes();
        let bytes_max = bytes_max.min(limits::SEGMENT_BYTES_MAX);
        if bytes == 0 || bytes as u64 > bytes_max {
            return Err(SegmentError::Size { bytes: bytes as u64, bytes_max });
        }
        if !bytes.is_multiple_of(limits::PAGE_BYTES) {
            return Err(SegmentError::PartialPage { bytes: bytes as u64 });
        }
        Ok(Arc::new(Self { base: portable.base(), bytes, source: Source::Portable(portable) }))
    }

    /// Returns the descriptor, to forward the segment to a third process.
    #[cfg(target_os = "linux")]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Mapped(fd) => Some(fd.as_fd()),
            Source::Local(segment) => segment.fd(),
            Source::Portable(_) => None,
        }
    }

    /// Returns the name by which another process opens a portable segment.
    pub fn portable_name(&self) -> Option<&str> {
        match &self.source {
            Source::Portable(portable) => Some(portable.name()),
            Source::Local(segment) => segment.portable_name(),
            #[cfg(target_os = "linux")]
            Source::Mapped(_) => None,
        }
    }

    /// Returns the address of the first byte. Valid for reads of [`Self::len`] bytes while this value lives; what is read
    /// may change between two reads.
    #[inline]
    pub fn base(&self) -> *const u8 {
        self.base.as_ptr()
    }

    /// Returns the size in bytes, a positive multiple of the page size.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Makes every page present for reading, so that no later read pays for a first touch. 0.1 to 0.3 µs a page; only a
    /// hint, so a failure is not reported.
    pub fn populate(&self) {
        #[cfg(target_os = "linux")]
        if matches!(self.source, Source::Mapped(_)) {
            // SAFETY: the range is the live mapping of I1.
            let _refused = unsafe { sys::memory::hint(self.base, self.bytes, Hint::PopulateRead) };
        }
    }
}

impl Drop for SegmentView {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        if matches!(self.source, Source::Mapped(_)) {
            // SAFETY: the mapping of I1, made in `map`, and nothing can use it after this value.
            unsafe { sys::memory::unmap(self.base, self.bytes) }
        }
    }
}

impl fmt::Debug for SegmentView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentView").field("bytes", &self.bytes).field("source", &self.source).finish()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(target_os = "linux")]
            Self::Mapped(fd) => write!(f, "received {fd:?}"),
            Self::Local(_) => f.write_str("same process"),
            Self::Portable(portable) => write!(f, "named {}", portable.name()),
        }
    }
}

/// Rounds a wanted size up to whole pages.
fn whole_pages(bytes: usize) -> Result<usize, SegmentError> {
    let rounded = bytes.checked_next_multiple_of(limits::PAGE_BYTES);
    match rounded {
        Some(rounded) if rounded > 0 && rounded as u64 <= limits::SEGMENT_BYTES_MAX => Ok(rounded),
        _ => Err(SegmentError::Size { bytes: bytes as u64, bytes_max: limits::SEGMENT_BYTES_MAX }),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
