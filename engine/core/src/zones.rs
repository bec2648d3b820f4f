//! Which zone a process belongs to. A zone is a set of workers that trust each other with memory; the
//! kernel's word decides, and a worker may only ask for less.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringway_protocol::error::{CallError, ErrorCode};
use ringway_protocol::limits;
use ringway_protocol::naming::ZONE_DEFAULT;

/// A zone's name.
pub type Zone = Arc<str>;

/// How users map to zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zones {
    /// The engine's own user, whose processes are in the default zone.
    own_uid: u32,
    /// Zones of other users, where configured.
    users: BTreeMap<u32, Zone>,
}

impl Zones {
    /// Puts the processes of one user into the default zone, all others into a zone for each user.
    #[must_use]
    pub const fn new(own_uid: u32) -> Self {
        Self { own_uid, users: BTreeMap::new() }
    }

    /// Puts another user's processes into a zone of this name.
    #[must_use]
    pub fn with_user(mut self, uid: u32, zone: &str) -> Self {
        self.users.insert(uid, zone.into());
        self
    }

    /// Returns the zone of a process. A process of the default zone may ask for any other, and is then
    /// restricted like every member of it; others get the zone of their user.
    ///
    /// # Errors
    /// The process asks for a zone that it may not have.
    pub fn assign(&self, uid: u32, wanted: Option<&str>) -> Result<Zone, CallError> {
        let own: Zone = if uid == self.own_uid {
            ZONE_DEFAULT.into()
        } else {
            self.users.get(&uid).cloned().unwrap_or_else(|| format!("user-{uid}").into())
        };
        match wanted {
            None => Ok(own),
            Some(wanted) if wanted == &*own => Ok(own),
            Some(wanted) if wanted.is_empty() || wanted.len() > limits::NAME_BYTES_MAX => {
                Err(CallError::invalid_registration(format!(
                    "wanted a zone name of 1 to {} bytes",
                    limits::NAME_BYTES_MAX
                )))
            }
            Some(wanted) if &*own == ZONE_DEFAULT => Ok(wanted.into()),
            Some(wanted) => Err(CallError::new(
                ErrorCode::Forbidden,
                format!("user {uid} belongs to zone `{own}` and may not attach to zone `{wanted}`"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_may_only_ask_for_less() {
        let zones = Zones::new(1000).with_user(33, "web");
        let check = |uid: u32, wanted: Option<&str>, zone: Option<&str>| {
            assert_eq!(zones.assign(uid, wanted).ok().as_deref(), zone, "{uid} {wanted:?}");
        };
        check(1000, None, Some("default"));
        check(1000, Some("sandbox"), Some("sandbox"));
        check(33, None, Some("web"));
        check(33, Some("web"), Some("web"));
        check(33, Some("default"), None);
        check(34, None, Some("user-34"));
        check(34, Some("default"), None);
        check(1000, Some(""), None);
    }
}
