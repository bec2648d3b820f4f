//! What an engine can be told at its start. Used by whoever embeds one and by the command line. It must not open
//! anything.

use std::path::{Path, PathBuf};

use ringway::address::{AddressOrigin, ControlAddress};
use ringway_engine_core::{Policy, Zones};
use ringway_protocol::control::Limits;
use ringway_protocol::naming::ZONE_DEFAULT;
use ringway_telemetry::store::StoreLimits;

use crate::engine::{Engine, StartError};
use crate::limits;

/// Another control socket, whose workers are in a zone of their own whatever they claim: for a sandbox or for other
/// users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneSocket {
    /// The zone's name.
    pub zone: String,
    /// A path, or an abstract name after `@`.
    pub address: String,
    /// Users beside the engine's own whose processes may attach there.
    pub users: Vec<u32>,
}

impl ZoneSocket {
    /// Makes a socket for processes of the engine's own user.
    #[must_use]
    pub fn new(zone: impl Into<String>, address: impl Into<String>) -> Self {
        Self { zone: zone.into(), address: address.into(), users: Vec::new() }
    }
}

/// Whether spans and logs are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Otlp {
    /// As the standard `OTEL_…` variables say, if any of them asks for it.
    #[default]
    Environment,
    /// Not at all.
    Off,
}

/// What an engine is made of. See [`Engine::builder`].
#[derive(Clone, Debug)]
pub struct EngineBuilder {
    pub(crate) address: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) zone_sockets: Vec<ZoneSocket>,
    pub(crate) users: Vec<(u32, String)>,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    pub(crate) store_limits: StoreLimits,
    pub(crate) otlp: Otlp,
    pub(crate) queued_bytes_max: usize,
}

impl EngineBuilder {
    pub(crate) fn new() -> Self {
        Self {
            address: None,
            project: None,
            zone_sockets: Vec::new(),
            users: Vec::new(),
            policy: Policy::default(),
            limits: Limits::default(),
            store_limits: StoreLimits::default(),
            otlp: Otlp::default(),
            queued_bytes_max: limits::QUEUED_BYTES_MAX,
        }
    }

    /// Sets where the control socket is: a path, or an abstract name after `@`, which leaves no file. Without it, the
    /// rules that workers follow decide.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Sets the project, which tells several engines of one user apart.
    #[must_use]
    pub fn project(mut self, project: impl Into<String>) -> Self {
        self.project = Some(project.into());
        self
    }

    /// Adds a control socket for another zone.
    #[must_use]
    pub fn zone_socket(mut self, socket: ZoneSocket) -> Self {
        self.zone_sockets.push(socket);
        self
    }

    /// Lets another user's processes attach at the main socket, in a zone of this name.
    #[must_use]
    pub fn user_zone(mut self, uid: u32, zone: impl Into<String>) -> Self {
        self.users.push((uid, zone.into()));
        self
    }

    /// Sets who may call what.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the limits on every worker.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how many spans and logs are kept.
    #[must_use]
    pub const fn store_limits(mut self, limits: StoreLimits) -> Self {
        self.store_limits = limits;
        self
    }

    /// Sets how many bytes may wait for a worker that does not read its control socket, before it is put out. A worker's
    /// first view of the catalog must fit.
    #[must_use]
    pub const fn queued_bytes_max(mut self, bytes: usize) -> Self {
        self.queued_bytes_max = bytes;
        self
    }

    /// Sets whether spans and logs are exported.
    #[must_use]
    pub const fn otlp(mut self, otlp: Otlp) -> Self {
        self.otlp = otlp;
        self
    }

    /// Opens the sockets and starts the engine's threads. When this returns, workers can attach.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way; nothing is left behind.
    pub fn start(self) -> Result<Engine, StartError> {
        Engine::start(self)
    }

    /// Finds what keeps the engine from starting, as far as that can be known without a start.
    ///
    /// # Errors
    /// [`StartError::Zone`] and [`StartError::NoDirectory`], as [`EngineBuilder::start`] would return them.
    pub fn check(&self) -> Result<(), StartError> {
        self.check_zones()?;
        self.check_directories(&self.control_address())
    }

    pub(crate) fn control_address(&self) -> ControlAddress {
        ringway::address::control_address(self.address.as_deref(), self.project.as_deref())
    }

    pub(crate) fn zones(&self, own_uid: u32) -> Zones {
        self.users.iter().fold(Zones::new(own_uid), |zones, (uid, zone)| zones.with_user(*uid, zone))
    }

    /// Finds a control socket that was named and whose directory is not there. The directory of the usual place is made when
    /// it is missing; anywhere else that could hide a misspelt path.
    fn check_directories(&self, main: &ControlAddress) -> Result<(), StartError> {
        let zones = self.zone_sockets.iter().map(|socket| ControlAddress::explicit(&socket.address));
        for address in std::iter::once(main.clone()).chain(zones) {
            let missing = wanted_directory(&address).filter(|directory| !directory.is_dir());
            if let Some(directory) = missing {
                return Err(StartError::NoDirectory { address: address.as_str().to_owned(), directory });
            }
        }
        Ok(())
    }

    /// Finds a zone name that would mix other processes with the engine's own user's.
    fn check_zones(&self) -> Result<(), StartError> {
        let names = self.zone_sockets.iter().map(|socket| &socket.zone);
        let mut names = names.chain(self.users.iter().map(|(_, zone)| zone));
        let fits = |zone: &str| {
            zone != ZONE_DEFAULT && (1..=ringway_protocol::limits::NAME_BYTES_MAX).contains(&zone.len())
        };
        match names.find(|zone| !fits(zone)) {
            Some(zone) => Err(StartError::Zone { zone: zone.clone() }),
            None => Ok(()),
        }
    }
}

/// The directory that must be there before an engine listens at an address; none where it is made.
fn wanted_directory(address: &ControlAddress) -> Option<PathBuf> {
    if address.is_abstract() {
        return None;
    }
    let parent = Path::new(address.as_str()).parent()?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match address.origin() {
        // What the variable names is somebody else's to make; the directory in it is ours.
        AddressOrigin::RuntimeVariable => parent.parent().map(Path::to_owned),
        AddressOrigin::RuntimeDirectory | AddressOrigin::Temporary => None,
        _ => Some(parent.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use ringway::address::{Surroundings, resolve};

    use super::*;

    #[test]
    fn only_the_usual_place_is_made() {
        let check = |explicit: Option<&str>, set: &[(&str, &str)], expected: Option<&str>| {
            let variable =
                |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned());
            let surroundings = Surroundings { variable: &variable, is_directory: &|_| false, user: 7 };
            let found = wanted_directory(&resolve(explicit, None, &surroundings));
            assert_eq!(found.as_deref(), expected.map(Path::new), "{explicit:?} {set:?}");
        };
        check(Some("/nowhere/x/y.sock"), &[], Some("/nowhere/x"));
        check(Some("y.sock"), &[], Some("."));
        check(Some("@abstract"), &[], None);
        check(None, &[("RINGWAY_SOCKET", "/nowhere/y.sock")], Some("/nowhere"));
        check(None, &[("XDG_RUNTIME_DIR", "/run/me")], Some("/run/me"));
        check(None, &[], None);
    }
}
