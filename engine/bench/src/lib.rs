//! Benchmarks with their physical floors in the same run.
