//! Which addresses may be connected to. Everything that is not plainly of the public internet is refused, unless the settings
//! name it: this host, private networks, link-local addresses (where clouds keep their secrets), and all that reaches one of
//! those in another spelling. It must not know names: an address is checked when it is about to be connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

/// What stands in the settings is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no network: an address was wanted, or one with the number of its bits, such as 10.0.0.0/8 or ::1"
)]
pub struct ParseNetworkError(String);

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let wrong = || ParseNetworkError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.trim().parse().map_err(|_| wrong()))?;
        (bits <= most).then_some(Self { address, bits }).ok_or_else(wrong)
    }
}

impl Network {
    const fn four(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
    }

    const fn six(first: u16, second: u16, bits: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0)), bits }
    }

    /// Whether an address is in it.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differ = ours.to_bits() ^ theirs.to_bits();
                differ.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differ = ours.to_bits() ^ theirs.to_bits();
                differ.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// What of version 4 is not the public internet (IANA, "IPv4 Special-Purpose Address Registry").
const CLOSED_FOUR: &[Network] = &[
    Network::four(0, 0, 0, 0, 8),
    Network::four(10, 0, 0, 0, 8),
    Network::four(100, 64, 0, 0, 10),
    Network::four(127, 0, 0, 0, 8),
    Network::four(169, 254, 0, 0, 16),
    Network::four(172, 16, 0, 0, 12),
    Network::four(192, 0, 0, 0, 24),
    Network::four(192, 0, 2, 0, 24),
    Network::four(192, 88, 99, 0, 24),
    Network::four(192, 168, 0, 0, 16),
    Network::four(198, 18, 0, 0, 15),
    Network::four(198, 51, 100, 0, 24),
    Network::four(203, 0, 113, 0, 24),
    // Multicast, what is reserved, and broadcast.
    Network::four(224, 0, 0, 0, 3),
];

/// Of version 6 only this is given out (IANA, "IPv6 Global Unicast Address Assignments") …
const OPEN_SIX: Network = Network::six(0x2000, 0, 3);

/// … and of that this is not (IANA, "IPv6 Special-Purpose Address Registry"): protocol assignments with Teredo, documentation.
const CLOSED_SIX: &[Network] =
    &[Network::six(0x2001, 0, 23), Network::six(0x2001, 0x0db8, 32), Network::six(0x3fff, 0, 20)];

/// Whether an address is one of the public internet.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match spelled_out(address) {
        four @ IpAddr::V4(_) => !CLOSED_FOUR.iter().any(|network| network.contains(four)),
        six @ IpAddr::V6(_) => {
            OPEN_SIX.contains(six) && !CLOSED_SIX.iter().any(|network| network.contains(six))
        }
    }
}

/// The address of version 4 that one of version 6 leads to: mapped, translated (NAT64), or tunnelled (6to4).
fn spelled_out(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let [a, b, c, d, e, f, g, h] = six.segments();
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        // Mapped, and the old way of writing the same.
        (0, 0, 0, 0, 0, 0xffff | 0) if g != 0 => four(g, h),
        (0x0064, 0xff9b, 0, 0, 0, 0) => four(g, h),
        (0x2002, ..) => four(b, c),
        _ => address,
    }
}

/// What may be connected to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed {
    /// Whether only the public internet is open, with what is named.
    pub(crate) public_only: bool,
    /// What is open beside it.
    pub(crate) named: Vec<Network>,
}

impl Allowed {
    /// Whether an address may be connected to.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        !self.public_only
            || is_public(address)
            || self
                .named
                .iter()
                .any(|network| network.contains(address) || network.contains(spelled_out(address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        for public in [
            "8.8.8.8",
            "1.1.1.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "100.128.0.1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for closed in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:c0a8:101::1",
            "2001::1",
            "2001:db8::1",
            "100::1",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(!is_public(closed.parse().unwrap()), "{closed}");
        }
    }

    #[test]
    fn what_is_named_is_open_in_every_spelling() {
        let allowed = Allowed {
            public_only: true,
            named: vec!["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        };
        for open in ["127.0.0.1", "::ffff:127.0.0.1", "fd12::1", "8.8.8.8"] {
            assert!(allowed.allows(open.parse().unwrap()), "{open}");
        }
        for closed in ["10.0.0.1", "::1", "fe80::1"] {
            assert!(!allowed.allows(closed.parse().unwrap()), "{closed}");
        }
        assert!(Allowed::default().allows("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn networks_are_read() {
        let check = |text: &str, address: &str, expected: bool| {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), expected, "{text} {address}");
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("0.0.0.0/0", "200.1.1.1", true);
        check("::/0", "fe80::1", true);
        check("::1", "::1", true);
        check("::1", "::2", false);
        check("10.0.0.1", "10.0.0.1", true);
        check("10.0.0.1/31", "10.0.0.0", true);
        check("0.0.0.0/0", "::1", false);
        for wrong in ["", "10.0.0.0/33", "::1/129", "localhost", "10.0.0.0/", "10/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
