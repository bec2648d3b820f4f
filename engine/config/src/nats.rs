//! What a section says of a NATS server, in the same keys wherever that is: where the server is, who we are there, how the
//! connection is kept from others. Used by the sections that have those keys. It must not know what a server is used for.

use std::path::Path;

use crate::engine::{Secret, Tls};

/// The keys, as far as they are there.
#[derive(Debug, Clone, Copy, Default)]
pub struct NatsAccess<'a> {
    /// Addresses of servers of one cluster.
    pub servers: Option<&'a [String]>,
    /// A file of credentials.
    pub credentials: Option<&'a Path>,
    /// A user.
    pub user: Option<&'a str>,
    /// Its password.
    pub password: Option<&'a Secret>,
    /// A token.
    pub token: Option<&'a Secret>,
    /// How the connection is kept from others.
    pub tls: Option<&'a Tls>,
}

impl NatsAccess<'_> {
    /// What does not fit together: keys, each with what is wrong about it.
    #[must_use]
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.user.is_some() != self.password.is_some() {
            let key = if self.user.is_some() { "user" } else { "password" };
            faults.push((key, "wanted `user` and `password` together, found one of them".to_owned()));
        }
        let ways = [self.credentials.is_some(), self.user.is_some(), self.token.is_some()];
        if ways.iter().filter(|is_set| **is_set).count() > 1 {
            let key = if self.credentials.is_some() { "credentials" } else { "token" };
            faults.push((key, "wanted one of `credentials`, `user` and `token`, found more".to_owned()));
        }
        if self.tls.is_some_and(|tls| tls.certificate.is_some() != tls.key.is_some()) {
            faults.push(("tls", "wanted `certificate` and `key` together, found one of them".to_owned()));
        }
        faults
    }

    /// The servers without what their addresses may say of user and password.
    #[must_use]
    pub fn hosts(&self) -> Vec<&str> {
        let servers = self.servers.unwrap_or_default().iter();
        servers.filter_map(|server| server.rsplit('@').next()).collect()
    }
}
