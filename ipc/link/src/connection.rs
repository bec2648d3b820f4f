//! What a TCP connection is told before it becomes a link, at both of its ends. Used by whoever dials or accepts. It must not
//! know what goes over it.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

use ringway_ipc::sys::socket::set_retransmit_pause_max;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::limits;

/// How connections are prepared. The default leaves to the system what may be chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preparation {
    /// The congestion control, such as `cubic`; none: the system's. `bbr` of Linux goes back to full speed by a quarter at a
    /// time once a network was slow and lossy, and what goes beside payloads, such as catalogs, waits for tens of seconds
    /// (`cargo links`, with `RINGWAY_LINK_CONGESTION=bbr`).
    pub congestion: Option<String>,
}

impl Preparation {
    /// Has small frames go at once, a connection whose other end is unplugged end within seconds, and one that was interrupted
    /// go on as soon as it can. Before the first byte, so that greetings have it too.
    ///
    /// # Errors
    /// A congestion control that this process may not choose; no TCP socket, or one that is over.
    pub fn apply(&self, socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let millis = u32::try_from(limits::UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(socket, millis)?;
        // With little under way, six times at the same pause before the pauses double: cut off for a second, a link that makes
        // small calls is back within a fifth of one instead of within a whole one.
        sockopt::set_tcp_thin_linear_timeouts(socket, true)?;
        let _older_systems_wait_longer = set_retransmit_pause_max(socket, limits::RETRANSMIT_PAUSE_MAX)?;
        self.choose(socket)
    }

    /// Whether connections can be prepared so.
    ///
    /// # Errors
    /// A congestion control that this process may not choose; too many open files.
    pub fn check(&self) -> io::Result<()> {
        let flags = SocketFlags::CLOEXEC;
        self.choose(rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
    }

    fn choose(&self, socket: impl AsFd) -> io::Result<()> {
        let Some(wanted) = &self.congestion else { return Ok(()) };
        let refused = |error: Errno| {
            let found = std::fs::read_to_string(ALLOWED).unwrap_or_default();
            let text = format!(
                "wanted the congestion control `{wanted}`, found that this process may choose from `{}` ({error}); \
                 net.ipv4.tcp_allowed_congestion_control says who may choose what",
                found.trim()
            );
            io::Error::new(io::Error::from(error).kind(), text)
        };
        sockopt::set_tcp_congestion(socket, wanted).map_err(refused)
    }
}

/// Where the system says what those without privileges may choose.
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_prepared() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Everybody may choose it everywhere.
        let reno = Preparation { congestion: Some("reno".to_owned()) };
        reno.check().unwrap();
        reno.apply(&socket).unwrap();
        assert!(socket.nodelay().unwrap());
        assert_eq!(sockopt::tcp_user_timeout(&socket).unwrap(), 4_000);
        assert!(sockopt::tcp_thin_linear_timeouts(&socket).unwrap());
        assert_eq!(sockopt::tcp_congestion(&socket).unwrap(), "reno");
        let too_short = set_retransmit_pause_max(&socket, std::time::Duration::from_millis(1));
        // A system that knows the bound checks it.
        assert!(matches!(&too_short, Ok(false)) || too_short.is_err(), "{too_short:?}");
    }

    #[test]
    fn what_may_not_be_chosen_is_named_with_what_may() {
        let wrong = Preparation { congestion: Some("pigeon".to_owned()) };
        let text = wrong.check().unwrap_err().to_string();
        assert!(text.starts_with("wanted the congestion control `pigeon`, found"), "{text}");
        assert!(text.contains("reno"), "{text}");
    }
}
