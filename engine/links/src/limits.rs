//! Every limit of this crate in one place. It must not know the limits of other layers.

use std::time::Duration;

/// How long whoever connects may take for encryption and the handshake.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Handshakes at a time: whoever comes then is let go, and may come again.
pub const HANDSHAKES_MAX: usize = 64;

/// Links at a time.
pub const LINKS_MAX: usize = 4096;

/// How long to wait after an error of the listening socket, such as too many open files.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Functions of one worker that went while the link was there, of which is known that they did.
pub const GONE_MAX: usize = 4096;

/// The pause before another engine is dialled again; it doubles from one attempt to the next.
pub const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest pause. Where there is no way to the other host an attempt fails at once, and this is how late the return of
/// the network may be noticed.
pub const PAUSE_MAX: Duration = Duration::from_millis(500);
