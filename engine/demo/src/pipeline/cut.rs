//! Content-defined chunking: `FastCDC` in its 2020 form (Xia et al., "The Design of Fast Content-Defined Chunking for Data
//! Deduplication Based Storage Systems", TPDS 2020), over a file that arrives in blocks. It knows nothing of hashes.
//!
//! A boundary depends on at most `max` bytes from the chunk's start. So while a block is not the last of its file, chunks
//! are cut only where `max` bytes remain, and the rest is handed back by count: the next block begins at that
//! offset of the file. The boundaries are then those of the whole file, whatever the size of blocks.

use fastcdc::v2020::FastCDC;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sizes of chunks, in bytes. Even numbers, as the two-byte scan needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChunkSizes {
    /// No chunk is smaller, but the last of a file.
    pub min: u32,
    /// What most chunks are near.
    pub average: u32,
    /// No chunk is larger.
    pub max: u32,
}

impl Default for ChunkSizes {
    /// 16 KiB, 64 KiB and 256 KiB.
    fn default() -> Self {
        Self { min: 16 << 10, average: 64 << 10, max: 256 << 10 }
    }
}

/// Sizes that the method does not work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "chunk sizes {min}, {average}, {max}: wanted even numbers, 64 ≤ min ≤ average ≤ max, average from 256 to 4 Mi, max from 1024 to 16 Mi"
)]
pub struct ChunkSizesError {
    min: u32,
    average: u32,
    max: u32,
}

impl ChunkSizes {
    /// Checks the sizes; [`cut`] wants this done once, where they enter.
    ///
    /// # Errors
    /// [`ChunkSizesError`] with the rule, if they break it.
    pub fn checked(self) -> Result<Self, ChunkSizesError> {
        let Self { min, average, max } = self;
        let even = min % 2 == 0 && average % 2 == 0 && max % 2 == 0;
        let in_range = (64..=1 << 20).contains(&min)
            && (256..=4 << 20).contains(&average)
            && (1024..=16 << 20).contains(&max);
        if even && in_range && min <= average && average <= max {
            Ok(self)
        } else {
            Err(ChunkSizesError { min, average, max })
        }
    }
}

/// One chunk of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Chunk {
    /// Where it begins, from the block's start.
    pub offset: u64,
    /// Its length.
    pub bytes: u32,
}

/// The chunks of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Chunks {
    /// Chunks that lie back to back from the block's start.
    pub chunks: Vec<Chunk>,
    /// Bytes that they cover. The file's next block begins here; the rest of this block belongs to it.
    pub consumed: u64,
}

/// Cuts a block. `is_last` says that the file ends with it; otherwise a block shorter than `sizes.max` gives no chunk.
/// Reads each byte once and copies none; allocates the list.
///
/// # Errors
/// [`ChunkSizesError`] if the sizes break their rule.
pub fn cut(block: &[u8], is_last: bool, sizes: ChunkSizes) -> Result<Chunks, ChunkSizesError> {
    let ChunkSizes { min, average, max } = sizes.checked()?;
    let size = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
    let chunker = FastCDC::new(block, size(min), size(average), size(max));
    let mut found = Chunks::default();
    let mut start = 0;
    while start < block.len() && (is_last || block.len() - start >= size(max)) {
        let (_, end) = chunker.cut(start, block.len() - start);
        found.chunks.push(Chunk { offset: start as u64, bytes: u32::try_from(end - start).unwrap_or(max) });
        start = end;
    }
    found.consumed = start as u64;
    Ok(found)
}
