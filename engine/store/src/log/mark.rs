//! How far a segment of the log is written, kept in its first sector, so that whoever opens it need not read what was
//! never written, or was written long ago. Written and read by `log` alone; it must not know records.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | `RWM1` |
//! | 4 | 4 | zero |
//! | 8 | 8 | base: the first revision written since the segment was last taken into use |
//! | 16 | 8 | extent: records of this use end before this offset |
//! | 24 | 8 | checksum of the 24 bytes before |
//!
//! Numbers are little-endian. Why it can be trusted:
//!
//! M1. A mark is written before the records that need it, into the same file, so that the `fdatasync` that brings a record
//!     to disk brings its mark as well. It costs no sync of its own.
//! M2. It fits into a sector, so that a crash leaves the old one or the new one. If it is neither, which its checksum
//!     tells, the whole segment is read.
//! M3. It is renewed while there is still room of a step before the extent. Records that reach into the last step say that
//!     the disk lost a mark; then the whole segment is read. Nor is a segment left out for its base alone: the record that
//!     lies first in it must be as old. A disk that lost a mark and damaged that record too is not seen through.
//! M4. What lies behind the extent was never written, or is of an earlier use, all of which the index had before the
//!     segment was taken into use again. So marks are worth nothing where both files of the index are lost: then every
//!     segment is read to its end.

use xxhash_rust::xxh3::xxh3_64;

/// Where records begin.
pub(super) const BYTES: usize = 512;

const MAGIC: [u8; 4] = *b"RWM1";
const SEALED: usize = 24;

/// What the first sector says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) base: u64,
    pub(super) extent: u64,
}

impl Mark {
    pub(super) fn write(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.base.to_le_bytes());
        bytes[16..SEALED].copy_from_slice(&self.extent.to_le_bytes());
        let seal = xxh3_64(&bytes[..SEALED]);
        bytes[SEALED..SEALED + 8].copy_from_slice(&seal.to_le_bytes());
        bytes
    }

    /// `None` if this is no mark, or a damaged one.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let right = bytes.get(..4)? == MAGIC && word(SEALED)? == xxh3_64(&bytes[..SEALED]);
        right.then_some(Self { base: word(8)?, extent: word(16)? })
    }
}

/// By how much marks grow, for a segment of this length: marks are rare, and little is read in vain.
pub(super) fn step(segment_bytes: u64) -> u64 {
    (segment_bytes / 64).max(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_or_not_at_all() {
        let mark = Mark { base: 7, extent: 1 << 20 };
        let bytes = mark.write();
        assert_eq!(Mark::read(&bytes), Some(mark));
        for bit in 0..(SEALED + 8) * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::read(&damaged), None, "bit {bit}");
        }
        assert_eq!(Mark::read(&[0; BYTES]), None);
        assert_eq!(Mark::read(&bytes[..31]), None);
    }
}
