//! How large a file may be, so that one that nobody wrote by hand costs little before it is refused.

/// Bytes of the file.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Lists and maps within one another.
pub const DEPTH_MAX: usize = 64;

/// Values in the file, those that aliases repeat counted each time.
pub const NODES_MAX: usize = 100_000;

/// Bytes of all texts together after variables and aliases were put in.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

/// Variables within the defaults of one another.
pub const NESTED_MAX: usize = 8;
