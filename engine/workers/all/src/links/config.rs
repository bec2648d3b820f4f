//! The section `links` of `ringway.yaml`: what may stand there, and what of it contradicts itself. It reads no files that are
//! named in it, and must not know links.
//!
//! - `nats`: engines that see each other through a NATS server.

mod nats;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ringway_access::address::PORT;
use ringway_access::key::KeyError;
use ringway_access::tls::CertificateFingerprint;
use ringway_access::{Grant, LinkAddress, PublicKey, check_exposure};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub(crate) use nats::Nats;

/// What stands before a public key.
const KEY_SCHEME: &str = "ed25519:";

/// Links to other hosts: remote workers, and other engines. Left out, there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// What this engine is called at the other ends. Default: the host's name.
    #[schemars(length(min = 1, max = 256))]
    pub(crate) name: Option<String>,
    /// Where remote workers and other engines dial: an IP address with or without a port, `127.0.0.1` or `0.0.0.0:49135`.
    /// Default: nowhere; the port 49135 where only an address is named.
    #[schemars(with = "Option<String>")]
    pub(crate) listen: Option<Listen>,
    /// How bytes are moved: `probe` takes `io_uring` where the system allows it. Default: probe.
    pub(crate) path: Path,
    /// The congestion control of TCP connections, such as `cubic`. Default: the system's.
    #[schemars(length(min = 1, max = 15))]
    pub(crate) congestion: Option<String>,
    /// The certificate that those who dial see. Default: none, which is allowed on loopback alone.
    pub(crate) tls: Option<Tls>,
    /// Whose tokens let in: public keys such as `ed25519:…`, or files with one on each line, relative to this file. Default:
    /// nobody's.
    #[schemars(with = "Vec<String>")]
    pub(crate) issuers: Vec<Issuer>,
    /// A file with the ids of tokens that hold no more, one on each line, relative to this file; it is read again every two
    /// seconds. Default: none.
    pub(crate) revoked: Option<PathBuf>,
    /// Certificates that let in without a token; wants `tls.client_authorities`. The first that fits decides. Default: none.
    pub(crate) certificates: Vec<Certificate>,
    /// What those of this host may do who dial over loopback and show nothing. Default: they are not let in.
    pub(crate) open: Option<Granted>,
    /// Engines of other hosts, which this one dials. Default: none.
    pub(crate) peers: Vec<Peer>,
    /// Engines of one project that see each other through a NATS server, whatever their number. Default: none.
    pub(crate) nats: Option<Nats>,
    /// What engines that dial this one are told of: functions in which `*` stands for any run of characters, within what each
    /// may call. Default: nothing.
    pub(crate) offer: Vec<String>,
    /// A link from which nothing came for so long is taken for cut, in milliseconds. Default: 2500.
    #[schemars(range(min = 100, max = 86_400_000))]
    pub(crate) silence_ms: u64,
    /// How often the other end is asked whether it is there, in milliseconds. Default: 500.
    #[schemars(range(min = 10, max = 3_600_000))]
    pub(crate) ping_ms: u64,
    /// Memory for payloads that came over links, in bytes. Default: half of the machine's.
    #[schemars(range(min = 16_777_216))]
    pub(crate) memory_bytes: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            listen: None,
            path: Path::default(),
            congestion: None,
            tls: None,
            issuers: Vec::new(),
            revoked: None,
            certificates: Vec::new(),
            open: None,
            peers: Vec::new(),
            nats: None,
            offer: Vec::new(),
            silence_ms: 2_500,
            ping_ms: 500,
            memory_bytes: None,
        }
    }
}

/// How bytes are moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Path {
    /// By `io_uring` where the system allows it, else by epoll.
    #[default]
    Probe,
    /// By `io_uring`, or there are no links.
    IoUring,
    /// By epoll.
    Epoll,
}

/// What a listener shows. Paths are relative to this file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// A file with its certificate, and those between it and its authority.
    pub(crate) certificate: PathBuf,
    /// The file with the key of it, which others may not be able to read.
    pub(crate) key: PathBuf,
    /// A file with certificates of those who sign certificates of clients. Default: no client is asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_authorities: Option<PathBuf>,
}

/// A certificate of a client, and what whoever has it may do: either `fingerprint` or `common_name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certificate {
    /// This one certificate: `sha256:` and 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) fingerprint: Option<CertificateFingerprint>,
    /// Any that `tls.client_authorities` have signed for this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub(crate) common_name: Option<String>,
    /// What it may do.
    pub(crate) grant: Granted,
}

/// What somebody may do. In each text `*` stands for any run of characters; what is left out is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Granted {
    /// The functions that may be called.
    pub(crate) call: Vec<String>,
    /// The functions that may be registered.
    pub(crate) offer: Vec<String>,
    /// The trigger types to which functions may be bound, or which may be provided.
    pub(crate) triggers: Vec<String>,
    /// The namespaces in which all of this holds. Default: `default` alone.
    pub(crate) namespaces: Vec<String>,
}

impl Default for Granted {
    fn default() -> Self {
        let namespaces = vec!["default".to_owned()];
        Self { call: Vec::new(), offer: Vec::new(), triggers: Vec::new(), namespaces }
    }
}

impl Granted {
    pub(crate) fn grant(&self) -> Grant {
        let namespaces: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
        let grant = Grant::default().with_namespaces(&namespaces);
        let grant = self.call.iter().fold(grant, |grant, pattern| grant.with_call(pattern));
        let grant = self.offer.iter().fold(grant, |grant, pattern| grant.with_offer(pattern));
        self.triggers.iter().fold(grant, |grant, pattern| grant.with_trigger(pattern))
    }
}

/// An engine of another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Peer {
    /// Where it listens: `ringway://HOST:PORT`.
    #[schemars(with = "String")]
    pub(crate) address: LinkAddress,
    /// The file of credentials that `ringway link new --engine` made, relative to this file. Default: none, which is allowed on
    /// loopback alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) credentials: Option<PathBuf>,
    /// What it is told of: functions of this engine in which `*` stands for any run of characters. Default: nothing.
    #[serde(default)]
    pub(crate) offer: Vec<String>,
    /// What of it may be called from here, in the same way. Default: nothing.
    #[serde(default)]
    pub(crate) call: Vec<String>,
}

/// A text that says where to listen and does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wanted an IP address to listen at, such as 127.0.0.1 or 0.0.0.0:{PORT}, found `{0}`")]
pub(crate) struct ListenError(String);

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) SocketAddr);

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let host = |host: &str| match host {
            "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            _ => host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok(),
        };
        let alone = host(text).map(|ip: IpAddr| SocketAddr::new(ip, PORT));
        let both = || {
            let (name, port) = text.rsplit_once(':')?;
            Some(SocketAddr::new(host(name)?, port.parse().ok()?))
        };
        alone.or_else(both).map(Self).ok_or_else(|| ListenError(text.chars().take(120).collect()))
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ListenVisitor)
    }
}

/// Says what was wanted where there is a number, such as a port alone.
struct ListenVisitor;

impl de::Visitor<'_> for ListenVisitor {
    type Value = Listen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an IP address to listen at, such as 127.0.0.1 or 0.0.0.0:{PORT}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Listen, E> {
        text.parse().map_err(E::custom)
    }
}

/// Whose tokens let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Issuer {
    Key(PublicKey),
    File(PathBuf),
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Serialize for Issuer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Issuer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.starts_with(KEY_SCHEME) {
            return text.parse().map(Self::Key).map_err(|error: KeyError| de::Error::custom(error));
        }
        Ok(Self::File(text.into()))
    }
}

impl Config {
    /// What does not fit together: each a JSON pointer within the section, and what is wrong.
    pub(crate) fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut add = |pointer: &str, message: &str| faults.push((pointer.to_owned(), message.to_owned()));
        if self.listen.is_none() && self.peers.is_empty() && self.nats.is_none() {
            let text = "wanted `listen`, where others dial, `peers`, which are dialled, or `nats`, a server between engines; found \
                        none of them";
            add("", text);
        }
        if let Some(Listen(address)) = self.listen {
            let authenticated = !self.issuers.is_empty() || !self.certificates.is_empty();
            if let Err(error) = check_exposure(&address.into(), self.tls.is_some(), authenticated) {
                add("/listen", &error.to_string());
            } else if !authenticated && self.open.is_none() {
                let text = "nobody would be let in: wanted `issuers` of tokens, `certificates`, or `open` for this host's own";
                add("/listen", text);
            }
        }
        if self.revoked.is_some() && self.issuers.is_empty() {
            add("/revoked", "this means something with `issuers` only, whose tokens are taken back by it");
        }
        let asked = self.tls.as_ref().is_some_and(|tls| tls.client_authorities.is_some());
        if !asked && !self.certificates.is_empty() {
            let text =
                "no client is asked for a certificate: wanted `tls.client_authorities`, those who sign them";
            add("/certificates", text);
        }
        for (at, certificate) in self.certificates.iter().enumerate() {
            if certificate.fingerprint.is_some() == certificate.common_name.is_some() {
                add(&format!("/certificates/{at}"), "wanted either `fingerprint` or `common_name`");
            }
        }
        for (at, peer) in self.peers.iter().enumerate() {
            if peer.credentials.is_none()
                && let Err(error) = check_exposure(&peer.address, false, false)
            {
                add(&format!("/peers/{at}/address"), &error.to_string());
            }
            if self.peers[..at].iter().any(|other| other.address == peer.address) {
                add(&format!("/peers/{at}/address"), "this engine is dialled already");
            }
            if peer.offer.is_empty() && peer.call.is_empty() {
                let text = "this link would carry nothing: wanted `call`, what may be called there, or `offer`, what it is told of";
                add(&format!("/peers/{at}"), text);
            }
        }
        if self.ping_ms >= self.silence_ms {
            let text = format!("wanted less than `silence_ms`, which is {}", self.silence_ms);
            add("/ping_ms", &text);
        }
        let of_nats = self.nats.iter().flat_map(Nats::faults);
        faults.extend(of_nats.map(|(pointer, message)| (format!("/nats{pointer}"), message)));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_listen_is_an_address_with_or_without_a_port() {
        let check = |text: &str, expected: Option<&str>| {
            let found = text.parse().ok().map(|Listen(address)| address.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("127.0.0.1", Some("127.0.0.1:49135"));
        check("0.0.0.0:7", Some("0.0.0.0:7"));
        check("localhost", Some("127.0.0.1:49135"));
        check("localhost:0", Some("127.0.0.1:0"));
        check("::1", Some("[::1]:49135"));
        check("[::]", Some("[::]:49135"));
        check("[::1]:9", Some("[::1]:9"));
        for bad in ["", ":9", "9", "host", "host:9", "127.0.0.1:", "127.0.0.1:65536", "ringway://127.0.0.1:9"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn what_is_granted_is_a_grant() {
        let granted: Granted =
            serde_json::from_str(r#"{"call": ["a::*"], "offer": ["b"], "triggers": ["cron"]}"#).unwrap();
        let expected = Grant::default().with_call("a::*").with_offer("b").with_trigger("cron");
        assert_eq!(granted.grant(), expected);
        let elsewhere = Granted { namespaces: vec!["n".to_owned()], ..granted };
        assert_eq!(elsewhere.grant(), expected.with_namespaces(&["n"]));
    }
}
