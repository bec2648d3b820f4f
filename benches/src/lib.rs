//! Criterion micro-benchmarks and instruction counts.
