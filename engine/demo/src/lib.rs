//! The workers of the demo.
