//! For tests of this and of other stores: the suite that every implementation of [`Store`](crate::Store) must pass, and
//! disks that fail on demand. Nothing here is compiled without the feature `testing`.

pub mod dice;
pub mod faults;
pub mod killed;
pub mod power;

mod suite;

pub use suite::conformance;
