//! Reads `ringway.yaml`: what an engine and its built-in workers are told at their start, and again whenever the file
//! changes. Everything that is wrong is said with file, line, column and what may have been meant.
//!
//! The command line reads the file and hands each worker its section. This crate must not know any worker: a
//! [`Section`] brings the type that its worker reads. Nor may it know the engine: [`EngineSettings`] is plain data.
//!
//! - [`Settings`]: the whole file, and what differs between two of them;
//! - [`Section`]: one worker's part of it;
//! - [`EngineSettings`]: the part under `engine`;
//! - [`NatsAccess`]: what a section says of a NATS server;
//! - [`Problem`]: what is wrong, and where;
//! - `source`: the bytes of a file, within the limit;
//! - `tree`, `scalar`, `variables`: YAML with the place of everything, `${VAR:-default}` put in;
//! - `typed`: the tree as serde sees it.

#![forbid(unsafe_code)]

pub mod limits;
pub mod problem;

mod scalar;
mod source;
mod tree;
mod variables;

mod typed;

pub mod engine;
pub mod nats;
pub mod section;
pub mod settings;

pub mod suggest;

pub use engine::EngineSettings;
pub use nats::NatsAccess;
pub use problem::{Position, Problem, Problems};
pub use section::Section;
pub use settings::{Change, Settings};
pub use variables::{ExpandError, Variables, expand_json};
