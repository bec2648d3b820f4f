//! The books of the pipeline: takes in digests in any order and says what is duplicate, how small the rest becomes, and
//! where the duplicates are. Which copy counts as the first does not depend on the order of arrival: it is the one in
//! the file of the lowest number, at the lowest offset. It sees no data.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::digest::{ChunkDigest, ChunkHash};
use super::files::FileEntry;

/// Duplicates named in a report.
const TOP_DUPLICATES: usize = 10;
/// Places named for each of them.
const PLACES_NAMED: usize = 4;

/// Digests of one block of a file, as the ledger takes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockDigests {
    /// The file's number.
    pub file: u32,
    /// Where the block began in the file.
    pub block_offset: u64,
    /// Its chunks.
    pub chunks: Vec<ChunkDigest>,
}

/// Why digests were refused. The ledger is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// No such file was announced.
    #[error("digests of file {file}, which was not announced")]
    UnknownFile {
        /// The number.
        file: u32,
    },
    /// Bytes of the file are claimed that it has not, or twice.
    #[error("a chunk of {bytes} bytes at {offset} of file {file} overlaps another, or its end")]
    Overlap {
        /// The file.
        file: u32,
        /// Where the chunk begins in it.
        offset: u64,
        /// Its length.
        bytes: u32,
    },
    /// Two digests of one hash disagree.
    #[error("chunk {hash} was digested before, with another length or compressed length")]
    Disagrees {
        /// The hash.
        hash: ChunkHash,
    },
}

/// What is known of all files.
#[derive(Debug, Default)]
pub struct Ledger {
    files: BTreeMap<u32, FileBook>,
    chunks: HashMap<ChunkHash, ChunkBook>,
}

#[derive(Debug)]
struct FileBook {
    entry: FileEntry,
    /// Chunks by offset.
    chunks: BTreeMap<u64, (u32, ChunkHash)>,
}

#[derive(Debug)]
struct ChunkBook {
    bytes: u32,
    compressed_bytes: u32,
    places: Vec<(u32, u64)>,
}

/// The outcome.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerReport {
    /// Files, bytes and chunks of all files together.
    pub total: Totals,
    /// Each file, in the order of its number.
    pub files: Vec<FileReport>,
    /// The chunks whose copies take the most room, most first.
    pub top_duplicates: Vec<Duplicate>,
    /// Distinct chunks that occur more than once.
    pub duplicated_chunks: u64,
}

/// Sums over files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Bytes of their chunks.
    pub bytes: u64,
    /// Bytes announced for which no chunk came.
    pub missing_bytes: u64,
    /// Chunks.
    pub chunks: u64,
    /// Chunks that stand here first.
    pub unique_chunks: u64,
    /// Bytes of those.
    pub unique_bytes: u64,
    /// Bytes of chunks that stand earlier already.
    pub duplicate_bytes: u64,
    /// Bytes of the unique chunks, each compressed by itself.
    pub compressed_bytes: u64,
}

/// One file's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileReport {
    /// The file's number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its sums.
    pub sums: Totals,
}

/// A chunk that occurs more than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Duplicate {
    /// Its hash.
    pub hash: ChunkHash,
    /// Its length.
    pub bytes: u32,
    /// How often it occurs.
    pub copies: u64,
    /// Bytes that all copies but the first take.
    pub wasted_bytes: u64,
    /// The first few places, as `name@offset`.
    pub places: Vec<String>,
}

impl Ledger {
    /// Announces files; their digests may follow in any order.
    pub fn announce(&mut self, entries: &[FileEntry]) {
        for entry in entries {
            self.files
                .entry(entry.index)
                .or_insert_with(|| FileBook { entry: entry.clone(), chunks: BTreeMap::new() });
        }
    }

    /// Takes the digests of a block, all or none.
    ///
    /// # Errors
    /// [`LedgerError`] if they do not fit what is known.
    pub fn take(&mut self, block: &BlockDigests) -> Result<(), LedgerError> {
        self.check(block)?;
        let Some(file) = self.files.get_mut(&block.file) else {
            return Err(LedgerError::UnknownFile { file: block.file });
        };
        for chunk in &block.chunks {
            let offset = block.block_offset + chunk.offset;
            file.chunks.insert(offset, (chunk.bytes, chunk.hash));
            self.chunks
                .entry(chunk.hash)
                .or_insert_with(|| ChunkBook {
                    bytes: chunk.bytes,
                    compressed_bytes: chunk.compressed_bytes,
                    places: Vec::new(),
                })
                .places
                .push((block.file, offset));
        }
        Ok(())
    }

    fn check(&self, block: &BlockDigests) -> Result<(), LedgerError> {
        let file = self.files.get(&block.file).ok_or(LedgerError::UnknownFile { file: block.file })?;
        let mut end_before = 0;
        let mut lengths: HashMap<ChunkHash, (u32, u32)> = HashMap::new();
        for chunk in &block.chunks {
            let offset = block.block_offset.saturating_add(chunk.offset);
            let overlap = LedgerError::Overlap { file: block.file, offset, bytes: chunk.bytes };
            let end = offset.saturating_add(u64::from(chunk.bytes));
            let before = file.chunks.range(..end).next_back();
            let is_free = before.is_none_or(|(start, (bytes, _))| start + u64::from(*bytes) <= offset);
            if chunk.bytes == 0 || !is_free || offset < end_before || end > file.entry.bytes {
                return Err(overlap);
            }
            end_before = end;
            let known = self.chunks.get(&chunk.hash).map(|known| (known.bytes, known.compressed_bytes));
            let said = (chunk.bytes, chunk.compressed_bytes);
            if known.unwrap_or_else(|| *lengths.entry(chunk.hash).or_insert(said)) != said {
                return Err(LedgerError::Disagrees { hash: chunk.hash });
            }
        }
        Ok(())
    }

    /// Adds up. Costs a pass over all chunks.
    #[must_use]
    pub fn report(&self) -> LedgerReport {
        let mut report = LedgerReport::default();
        for (index, file) in &self.files {
            let sums = self.sums(*index, file);
            report.total.add(&sums);
            report.files.push(FileReport { index: *index, name: file.entry.name.clone(), sums });
        }
        let mut duplicates: Vec<(u64, &ChunkHash, &ChunkBook)> = self
            .chunks
            .iter()
            .filter(|(_, book)| book.places.len() > 1)
            .map(|(hash, book)| (u64::from(book.bytes) * (book.places.len() as u64 - 1), hash, book))
            .collect();
        duplicates.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        report.duplicated_chunks = duplicates.len() as u64;
        report.top_duplicates = duplicates
            .into_iter()
            .take(TOP_DUPLICATES)
            .map(|(wasted, hash, book)| self.duplicate(wasted, *hash, book))
            .collect();
        report
    }

    fn sums(&self, index: u32, file: &FileBook) -> Totals {
        let mut sums = Totals { files: 1, ..Totals::default() };
        for (offset, (bytes, hash)) in &file.chunks {
            let bytes = u64::from(*bytes);
            sums.chunks += 1;
            sums.bytes += bytes;
            let Some(book) = self.chunks.get(hash) else { continue };
            if book.places.iter().min() == Some(&(index, *offset)) {
                sums.unique_chunks += 1;
                sums.unique_bytes += bytes;
                sums.compressed_bytes += u64::from(book.compressed_bytes);
            } else {
                sums.duplicate_bytes += bytes;
            }
        }
        sums.missing_bytes = file.entry.bytes.saturating_sub(sums.bytes);
        sums
    }

    fn duplicate(&self, wasted_bytes: u64, hash: ChunkHash, book: &ChunkBook) -> Duplicate {
        let mut places = book.places.clone();
        places.sort_unstable();
        let name = |file: &u32| self.files.get(file).map_or("?", |file| file.entry.name.as_str());
        Duplicate {
            hash,
            bytes: book.bytes,
            copies: places.len() as u64,
            wasted_bytes,
            places: places
                .iter()
                .take(PLACES_NAMED)
                .map(|(file, offset)| format!("{}@{offset}", name(file)))
                .collect(),
        }
    }
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.missing_bytes += other.missing_bytes;
        self.chunks += other.chunks;
        self.unique_chunks += other.unique_chunks;
        self.unique_bytes += other.unique_bytes;
        self.duplicate_bytes += other.duplicate_bytes;
        self.compressed_bytes += other.compressed_bytes;
    }
}
