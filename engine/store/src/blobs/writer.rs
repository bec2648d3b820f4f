//! A blob that is being written, piece by piece: hashed as it comes, on disk under its hash when it is finished. Used by
//! `put` and by streams. It must not know where the pieces come from.

use std::path::PathBuf;
use std::sync::Arc;

use super::{BlobError, BlobId, Blobs, Pin};
use crate::files::File;
use crate::limits;

/// A blob that is being written. Dropping it before its end leaves nothing.
#[derive(Debug)]
pub struct BlobWriter<'b> {
    blobs: &'b Blobs,
    path: PathBuf,
    file: Arc<dyn File>,
    hasher: Box<blake3::Hasher>,
    bytes: u64,
    finished: bool,
}

impl<'b> BlobWriter<'b> {
    pub(super) fn new(blobs: &'b Blobs, path: PathBuf, file: Arc<dyn File>) -> Self {
        Self { blobs, path, file, hasher: Box::default(), bytes: 0, finished: false }
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// `TooLarge`, `DiskFull`, `Io`.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), BlobError> {
        let end = self.bytes.saturating_add(piece.len() as u64);
        if end > limits::BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { max: limits::BLOB_BYTES_MAX });
        }
        let written = self.file.write_at(self.bytes, piece);
        written.map_err(|error| self.blobs.failed(&self.path, &error))?;
        self.hasher.update(piece);
        self.bytes = end;
        Ok(())
    }

    /// Ends the blob; when this returns it is on disk.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub fn finish(self) -> Result<Pin, BlobError> {
        let id = BlobId::from(self.hasher.finalize());
        let pin = Pin::new(&self.blobs.pins, id, self.bytes);
        // What lies there already under this name may be damaged: what was just written is not.
        self.finish_as(id)?;
        Ok(pin)
    }

    /// As `finish`, for one whose id is known, and pinned.
    pub(super) fn finish_as(mut self, id: BlobId) -> Result<(), BlobError> {
        let blobs = self.blobs;
        let put = || {
            self.file.sync()?;
            blobs.files.rename(&self.path, &blobs.path(&id))
        };
        put().map_err(|error| blobs.failed(&self.path, &error))?;
        self.finished = true;
        blobs.files.sync_folder(&blobs.folder).map_err(|error| blobs.failed(&blobs.folder, &error))
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // What stays is swept when the store is opened the next time.
            let _swept_later = self.blobs.files.remove(&self.path);
        }
    }
}
