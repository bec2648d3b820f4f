//! The Ringway engine: control plane, brokering, built-in functions.
