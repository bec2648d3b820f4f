//! iii's published SDKs, unchanged, against a real engine: npm 0.22.1, PyPI 0.22.1 and 0.25.0, crates.io 0.23, 0.24, 0.25
//! and 0.26, each a process that does what `tests/iii/README.md` says, and a native worker that does the same. `cargo sdks`
//! installs them and runs these tests.
//!
//! - `stage`: the engine, the actors, and how they are asked;
//! - `native`, `native_channels`: the native worker;
//! - `calls`: everybody calls everybody, in every way and size;
//! - `channels`: everybody exchanges channels with everybody;
//! - `triggers`: everybody binds every type, and provides types of their own;
//! - `http`: everybody answers requests;
//! - `observers`: those of 0.25 and later observe everybody;
//! - `browser`: the actor in a page, in Chromium;
//! - `restart`: engines and actors that die;
//! - `trace`: one trace over all of them.

mod native;
mod native_channels;
mod stage;

mod browser;
mod calls;
mod channels;
mod http;
mod observers;
mod restart;
mod trace;
mod triggers;
