//! Hashes chunks (BLAKE3) and compresses those not seen before (Zstandard), to tell how small the data would be. What
//! is compressed is measured and thrown away; one scratch buffer serves all chunks. It knows nothing of files.

use std::collections::HashMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cut::Chunk;

/// Compression level where none is asked for; 1 to 3 keep pace with reading.
pub const LEVEL: i32 = 1;

/// A chunk's BLAKE3 hash; 64 hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkHash(pub [u8; 32]);

impl fmt::Display for ChunkHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ChunkHash({self})")
    }
}

impl Serialize for ChunkHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChunkHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        blake3::Hash::from_hex(&digits).map(|hash| Self(*hash.as_bytes())).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ChunkHash {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ChunkHash".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$", "description": "BLAKE3 of a chunk" })
    }
}

/// What a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChunkDigest {
    /// The chunk's offset, from the start of the block it was cut from.
    pub offset: u64,
    /// Its length.
    pub bytes: u32,
    /// Its hash.
    pub hash: ChunkHash,
    /// Its length when compressed.
    pub compressed_bytes: u32,
}

/// Why chunks could not be digested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// A chunk does not lie in the block.
    #[error("a chunk of {bytes} bytes at {offset} does not lie in a block of {block_bytes} bytes")]
    OutsideBlock {
        /// Where it would begin.
        offset: u64,
        /// How long it would be.
        bytes: u32,
        /// How long the block is.
        block_bytes: u64,
    },
    /// The compressor failed.
    #[error("compression failed: {0}")]
    Compress(#[from] std::io::Error),
}

/// Digests chunks and remembers which it has compressed. Each replica keeps its own; a chunk that several have seen
/// has the same compressed size at each, since nothing here depends on what came before.
pub struct Digester {
    compressor: zstd::bulk::Compressor<'static>,
    scratch: Vec<u8>,
    seen: HashMap<ChunkHash, u32>,
}

impl fmt::Debug for Digester {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Digester").field("seen", &self.seen.len()).finish_non_exhaustive()
    }
}

impl Digester {
    /// Makes one that compresses at a Zstandard level.
    ///
    /// # Errors
    /// [`DigestError::Compress`] if the compressor cannot be made.
    pub fn new(level: i32) -> Result<Self, DigestError> {
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(level)?,
            scratch: Vec::new(),
            seen: HashMap::new(),
        })
    }

    /// Digests chunks of a block, which is only read. Allocates the list, and scratch memory when chunks get larger.
    ///
    /// # Errors
    /// [`DigestError::OutsideBlock`] if the list does not fit the block.
    pub fn digest(&mut self, block: &[u8], chunks: &[Chunk]) -> Result<Vec<ChunkDigest>, DigestError> {
        chunks
            .iter()
            .map(|chunk| {
                let data = slice(block, *chunk)?;
                let hash = ChunkHash(*blake3::hash(data).as_bytes());
                let compressed_bytes = match self.seen.get(&hash) {
                    Some(bytes) => *bytes,
                    None => {
                        let bytes = u32::try_from(self.compress(data)?.len()).unwrap_or(u32::MAX);
                        self.seen.insert(hash, bytes);
                        bytes
                    }
                };
                Ok(ChunkDigest { offset: chunk.offset, bytes: chunk.bytes, hash, compressed_bytes })
            })
            .collect()
    }

    /// Compresses one piece of data into the scratch buffer, as [`Self::digest`] does.
    ///
    /// # Errors
    /// [`DigestError::Compress`] if the compressor fails.
    pub fn compress(&mut self, data: &[u8]) -> Result<&[u8], DigestError> {
        let bound = zstd::zstd_safe::compress_bound(data.len());
        if self.scratch.len() < bound {
            self.scratch.resize(bound, 0);
        }
        let written = self.compressor.compress_to_buffer(data, &mut self.scratch[..])?;
        Ok(&self.scratch[..written])
    }
}

fn slice(block: &[u8], chunk: Chunk) -> Result<&[u8], DigestError> {
    let outside = || DigestError::OutsideBlock {
        offset: chunk.offset,
        bytes: chunk.bytes,
        block_bytes: block.len() as u64,
    };
    let start = usize::try_from(chunk.offset).map_err(|_| outside())?;
    let bytes = usize::try_from(chunk.bytes).map_err(|_| outside())?;
    let end = start.checked_add(bytes).ok_or_else(outside)?;
    block.get(start..end).ok_or_else(outside)
}
