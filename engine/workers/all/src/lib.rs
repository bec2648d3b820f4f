//! The built-in workers together, over one store: opens it, starts every worker that the settings want, gives them other
//! settings while they run, and ends everything in order. Used by `ringway up`, and by whoever embeds an engine and wants
//! the workers too. It must not know the engine: it attaches to an address as any worker does.
//!
//! - [`Workers`]: what runs;
//! - `rows`: one row for each worker, the only place that names them;
//! - `browsers`: the one that is mounted in another;
//! - `links`: remote workers and other engines, where the settings want them;
//! - `nats`: a NATS server as the settings name it;
//! - `kept`: which store it is, the only place that knows;
//! - `keeper`: the functions of the store itself.

#![forbid(unsafe_code)]

mod browsers;
mod keeper;
mod kept;
mod links;
mod nats;
mod rows;
mod workers;

pub use kept::store_options;
pub use rows::{check_files, sections, silent_sections};
pub use workers::{StartError, Workers};
