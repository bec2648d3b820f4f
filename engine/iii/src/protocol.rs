//! The messages of iii's protocol: what each looks like, how long it may be for whom, which codes its errors have. Read and
//! written as text; no input or output happens here, and nothing is known of connections.

mod body;
mod frame;
mod ids;
mod incoming;
mod observing;
mod registration;
mod sizes;
mod values;

pub use body::ErrorBody;
pub(crate) use body::{code, of_call};
pub(crate) use frame::{CALLER, Frame};
pub(crate) use ids::{Invocations, uuid_of, uuid_random, with_uuids};
pub use incoming::{Action, DecodeError, Incoming, Invoke, Outcome, decode};
pub use observing::{Ack, Delivered, DroppedReports, LocalCalls, LocalStats, NewObserver, ObservedItem};
pub use registration::{NewFunction, NewTrigger, NewTriggerType, Registration};
pub(crate) use sizes::{Features, OURS, bytes_max, enforces_names};
pub(crate) use values::is_null;
