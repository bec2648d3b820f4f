//! The pipeline with large payloads: read → content-defined chunks → hash and compress → report. Every stage works on
//! borrowed slices and copies no input, so that its workers can look at blocks where the reader wrote them. The
//! stages: [`files`] finds and reads, [`cut`] finds boundaries, [`digest`] hashes and compresses, [`ledger`] accounts.

pub mod cut;
pub mod digest;
pub mod files;
pub mod ledger;

pub use cut::{Chunk, ChunkSizes, Chunks};
pub use digest::{ChunkDigest, ChunkHash, Digester};
pub use files::{FileEntry, FileList, FilesBudget};
pub use ledger::{Ledger, LedgerReport};

#[cfg(test)]
mod tests;
