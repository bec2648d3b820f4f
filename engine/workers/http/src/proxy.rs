//! Who asked, where proxies stand in between: the rightmost address of `X-Forwarded-For` that is no proxy of ours. What a
//! client writes there itself lies further left, and is not believed. It must not know what an address is used for.

use std::net::{IpAddr, Ipv6Addr};

/// A network of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: u128,
    bits: u32,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => u128::from(four.to_ipv6_mapped()),
        IpAddr::V6(six) => u128::from(six),
    }
}

const fn mask(bits: u32) -> u128 {
    if bits == 0 { 0 } else { u128::MAX << (128 - bits) }
}

impl Network {
    /// Reads `10.0.0.0/8`, or an address alone.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address and no network: wanted is `10.1.2.3` or `10.0.0.0/8`");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= width).ok_or_else(wrong)?,
        };
        let bits = bits + (128 - width);
        Ok(Self { address: number(address) & mask(bits), bits })
    }

    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        number(address) & mask(self.bits) == self.address
    }
}

/// The address of a client, given who is at the other end of the connection and the lines of `X-Forwarded-For`.
pub(crate) fn client<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &[Network],
) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.holds(address));
    let mut client = peer;
    if !is_trusted(peer) {
        return client;
    }
    for entry in forwarded.rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        // What is no address was not written by a proxy of ours; what stands before it is anybody's.
        let Some(address) = std::str::from_utf8(entry).ok().and_then(|entry| read(entry.trim())) else {
            break;
        };
        client = address;
        if !is_trusted(address) {
            break;
        }
    }
    client
}

/// Reads an address, with or without a port and brackets.
fn read(text: &str) -> Option<IpAddr> {
    let bare = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse().map(|with_port: std::net::SocketAddr| with_port.ip()));
    bare.ok().or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

/// What is counted as one client: an address; of IPv6 the network that a household has.
pub(crate) fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => IpAddr::V4(four),
            None => IpAddr::V6(Ipv6Addr::from(u128::from(six) & mask(64))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses() {
        let holds =
            |network: &str, address: &str| Network::parse(network).unwrap().holds(address.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.1.2.3", "10.1.2.3") && !holds("10.1.2.3", "10.1.2.4"));
        assert!(holds("10.0.0.0/8", "::ffff:10.0.0.1") && holds("fd00::/8", "fd12::1"));
        assert!(holds("0.0.0.0/0", "9.9.9.9") && !holds("0.0.0.0/0", "fd00::1") && holds("::/0", "9.9.9.9"));
        for text in ["", "10.0.0.0/33", "a/8", "10.0.0.0/", "::/129"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_proxies_of_ours_are_believed() {
        let trusted = [Network::parse("10.0.0.0/8").unwrap()];
        let found = |peer: &str, lines: &[&str]| {
            client(peer.parse().unwrap(), lines.iter().map(|line| line.as_bytes()), &trusted).to_string()
        };
        assert_eq!(found("9.9.9.9", &["1.1.1.1"]), "9.9.9.9");
        assert_eq!(found("10.0.0.1", &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(found("10.0.0.1", &["6.6.6.6, 1.1.1.1"]), "1.1.1.1");
        assert_eq!(found("10.0.0.1", &["6.6.6.6", "1.1.1.1, 10.0.0.2:80"]), "1.1.1.1");
        assert_eq!(found("10.0.0.1", &["[fd00::1]"]), "fd00::1");
        assert_eq!(found("10.0.0.1", &["unknown"]), "10.0.0.1");
        assert_eq!(found("10.0.0.1", &[]), "10.0.0.1");
        // What cannot be read does not hide what our proxy has written behind it.
        let lines: [&[u8]; 2] = [b"6.6.6.6", b"\xff, 1.1.1.1"];
        let peer = "10.0.0.1".parse().unwrap();
        assert_eq!(client(peer, lines.into_iter(), &trusted).to_string(), "1.1.1.1");
    }

    #[test]
    fn a_household_of_ipv6_is_one_client() {
        let counted = |text: &str| counted(text.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!((counted("1.2.3.4").as_str(), counted("::ffff:1.2.3.4").as_str()), ("1.2.3.4", "1.2.3.4"));
    }
}
