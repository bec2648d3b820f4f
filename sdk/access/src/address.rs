//! Where a link leads: `ringway://HOST:PORT`. Used by whoever listens or dials, and by the credentials file. Whether TLS
//! is used is not said by the address: it is where credentials have it, and off loopback it must. It must not look
//! names up.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What an address begins with.
pub const SCHEME: &str = "ringway://";
/// Where links are listened for, unless a port is named.
pub const PORT: u16 = 49_135;
/// The longest name of a host, in bytes (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Why a text is no address of a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It begins with something else.
    #[error("wanted an address such as `ringway://host:49135`, found `{found}`")]
    Scheme {
        /// The text.
        found: String,
    },
    /// There is no port, or none from 0 to 65535.
    #[error("wanted a port behind the last `:` of `{found}`")]
    Port {
        /// The text.
        found: String,
    },
    /// The host is none.
    #[error("wanted a host name, an IPv4 address or an IPv6 address in brackets, found `{found}`")]
    Host {
        /// The text.
        found: String,
    },
}

/// The address of a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkAddress {
    /// Without brackets.
    host: String,
    port: u16,
}

impl LinkAddress {
    /// Returns the host: a name or an IP address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port; 0 lets the system choose one to listen at.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Says whether the address leads to this host by what it says: a loopback IP address, or `localhost`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host.parse::<IpAddr>().map_or(self.host == "localhost", is_loopback)
    }
}

/// Says whether an IP address is of this host's loopback interface, written as IPv4 within IPv6 too.
#[must_use]
pub fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

impl From<SocketAddr> for LinkAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

fn is_host_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| !label.is_empty() && !label.starts_with('-') && label.bytes().all(letter);
    // What ends in digits alone is an IPv4 address that somebody mistyped.
    let number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= HOST_BYTES_MAX && text.split('.').all(label) && (!number || text.parse::<IpAddr>().is_ok())
}

impl FromStr for LinkAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let found = || text.chars().take(HOST_BYTES_MAX).collect::<String>();
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| AddressError::Scheme { found: found() })?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| AddressError::Port { found: found() })?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port =
            port.parse().ok().filter(|_| digits).ok_or_else(|| AddressError::Port { found: found() })?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => inner.parse::<Ipv6Addr>().ok().map(|ip| ip.to_string()),
            None => Some(host.to_ascii_lowercase()).filter(|host| is_host_name(host)),
        };
        Ok(Self { host: host.ok_or_else(|| AddressError::Host { found: found() })?, port })
    }
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{SCHEME}[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{SCHEME}{}:{}", self.host, self.port)
        }
    }
}

impl Serialize for LinkAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LinkAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let check = |text: &str, expected: Option<(&str, u16, bool)>| {
            let found: Option<LinkAddress> = text.parse().ok();
            let parts = found.as_ref().map(|found| (found.host(), found.port(), found.is_loopback()));
            assert_eq!(parts, expected, "{text}");
        };
        check("ringway://example.org:49135", Some(("example.org", 49135, false)));
        check("ringway://Edge_7.Example.org:1", Some(("edge_7.example.org", 1, false)));
        check("ringway://127.0.0.1:0", Some(("127.0.0.1", 0, true)));
        check("ringway://127.9.9.9:1", Some(("127.9.9.9", 1, true)));
        check("ringway://localhost:1", Some(("localhost", 1, true)));
        check("ringway://0.0.0.0:1", Some(("0.0.0.0", 1, false)));
        check("ringway://[::1]:1", Some(("::1", 1, true)));
        check("ringway://[::]:1", Some(("::", 1, false)));
        check("ringway://[::ffff:127.0.0.1]:1", Some(("::ffff:127.0.0.1", 1, true)));
        check("ringway://localhost.example.org:1", Some(("localhost.example.org", 1, false)));
        check("ringway://localhost", None);
        check("ringway://localhost:", None);
        check("ringway://localhost:+1", None);
        check("ringway://localhost:65536", None);
        check("ringway://:1", None);
        check("ringway://::1:1", None);
        check("ringway://[127.0.0.1]:1", None);
        check("ringway://1.2.3:1", None);
        check("ringway://1.2.3.256:1", None);
        check("ringway://user:secret@host:1", None);
        check("ringway://host:1/path", None);
        check("ringway://ho st:1", None);
        check("ringway://-host:1", None);
        check("ringway://a..b:1", None);
        check("http://host:1", None);
        check("host:1", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn any_text_is_safe_and_what_is_read_is_written_alike(rest in "[a-z0-9.:\\[\\]-]{0,24}", any in "\\PC{0,24}") {
            for text in [format!("{SCHEME}{rest}"), format!("{SCHEME}{any}"), any] {
                if let Ok(address) = text.parse::<LinkAddress>() {
                    prop_assert_eq!(address.to_string().parse::<LinkAddress>().unwrap(), address);
                }
            }
        }
    }
}
