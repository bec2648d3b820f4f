//! What listeners share. Used by the iii listener and the stream socket, and by the front door of HTTP for its places. It must
//! not know what is said over a socket, nor the engine.
//!
//! - `serve`: an address, the threads, connections and their requests, the handshake of a WebSocket;
//! - `rules`: which addresses may be listened on, which pages may connect; `places`: how many may.

#![forbid(unsafe_code)]

mod places;

mod rules;

mod serve;

pub use places::{Admitted, Places};
pub use rules::{HostError, host, strange_origin};
pub use serve::{BindError, READ_BYTES, bind, runtime, serve, upgrade};
