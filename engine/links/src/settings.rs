//! What the links of an engine are told. It must not know where that was written.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ringway_access::tls::ServerTls;
use ringway_access::{Doorkeeper, LinkAddress};
use ringway_link::connection::Preparation;
use ringway_link::driver::DriverConfig;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What this engine is called by whoever dials.
    pub name: String,
    /// Where remote workers dial; none: nowhere.
    pub listen: Option<SocketAddr>,
    /// With what certificate; none: not encrypted, which is allowed on loopback alone.
    pub tls: Option<ServerTls>,
    /// Who is let in, and what they may do.
    pub doorkeeper: Arc<Doorkeeper>,
    /// How connections are prepared, those that are accepted and those that are dialled.
    pub connection: Preparation,
    /// How bytes are moved.
    pub driver: DriverConfig,
    /// Engines of other hosts, which this one dials.
    pub peers: Vec<PeerSettings>,
    /// What engines that dial this one are told of: patterns of functions, within what each of them may call. Empty: nothing.
    pub offer: Vec<String>,
}

/// An engine of another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSettings {
    /// Where it listens for links.
    pub address: LinkAddress,
    /// The file of credentials that it is shown; none: nothing is shown, which is allowed on loopback alone.
    pub credentials: Option<PathBuf>,
    /// What it is told of: patterns of functions of this engine. Empty: nothing.
    pub offer: Vec<String>,
    /// What of it may be called from here: patterns of functions. Empty: nothing.
    pub call: Vec<String>,
}
