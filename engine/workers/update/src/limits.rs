//! Every bound of an operation, in one place. Each has a code that names it.

/// Segments of a path; more are `path.too_deep`.
pub const PATH_SEGMENTS_MAX: usize = 32;

/// Bytes of a segment; more are `path.segment_too_long`.
pub const SEGMENT_BYTES_MAX: usize = 256;

/// Levels of objects and arrays in a value to merge, its own included; more are `merge.value.too_deep`.
pub const MERGE_DEPTH_MAX: usize = 16;

/// Keys of a value to merge, those of its first level; more are `merge.value.too_many_keys`.
pub const MERGE_KEYS_MAX: usize = 1024;

/// Names that JavaScript gives a meaning of its own; as a segment or a merged key they are `proto_polluted`.
pub const POLLUTING: [&str; 3] = ["__proto__", "constructor", "prototype"];
