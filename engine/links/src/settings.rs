//! What the links of an engine are told. It must not know where that was written.

use std::net::SocketAddr;
use std::sync::Arc;

use ringway_access::Doorkeeper;
use ringway_access::tls::ServerTls;
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
    /// How bytes are moved.
    pub driver: DriverConfig,
}
