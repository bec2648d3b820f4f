//! Named shared memory by the `shared_memory` crate, for systems without sealed memory. Used by `segment` only. It must
//! not know what lies in the memory. Here one writer per segment is a convention that the system does not enforce.

use std::ptr::NonNull;

use shared_memory::{Shmem, ShmemConf, ShmemError};

use super::SegmentError;

/// One named mapping; dropped by its maker, the name goes.
pub(super) struct Portable {
    shmem: Shmem,
    base: NonNull<u8>,
}

impl Portable {
    pub(super) fn create(bytes: usize) -> Result<Self, SegmentError> {
        let failed = |source| SegmentError::Portable { step: "create", source };
        // Without a name of our own the crate picks a random one that is free.
        Self::new(ShmemConf::new().size(bytes).create().map_err(failed)?).map_err(failed)
    }

    pub(super) fn open(name: &str) -> Result<Self, SegmentError> {
        let failed = |source| SegmentError::Portable { step: "open", source };
        Self::new(ShmemConf::new().os_id(name).open().map_err(failed)?).map_err(failed)
    }

    fn new(shmem: Shmem) -> Result<Self, ShmemError> {
        let base = NonNull::new(shmem.as_ptr()).ok_or(ShmemError::MapSizeZero)?;
        Ok(Self { shmem, base })
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn bytes(&self) -> usize {
        self.shmem.len()
    }

    pub(super) fn name(&self) -> &str {
        self.shmem.get_os_id()
    }
}
