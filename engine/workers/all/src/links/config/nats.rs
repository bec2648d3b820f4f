//! What may stand under `links.nats`: the same keys for a server as `engine.store` has. It must not know the server.

use std::fmt;
use std::path::PathBuf;

use ringway_config::NatsAccess;
use ringway_config::engine::{Secret, Tls};
use ringway_links_nats::{check_project, check_server};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Engines of one project that see each other through a NATS server. `offer` and `call` say what crosses; off loopback the
/// server takes TLS and one of `credentials`, `user`, `token` and a certificate.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Nats {
    /// Addresses of NATS servers of one cluster. Default: `nats://127.0.0.1:4222`.
    pub(crate) servers: Option<Vec<String>>,
    /// Which engines see each other: those of the same project, 1 to 64 letters, digits, `-` or `_`. Default: the engine's
    /// project.
    pub(crate) project: Option<String>,
    /// A file of NATS credentials, as `nsc` writes it, relative to the folder of this file. Default: none.
    pub(crate) credentials: Option<PathBuf>,
    /// A NATS user; wants `password` beside it. Default: none.
    pub(crate) user: Option<String>,
    /// The password of that user, best as `${VARIABLE}`. Default: none.
    pub(crate) password: Option<Secret>,
    /// A NATS token, best as `${VARIABLE}`. Default: none.
    pub(crate) token: Option<Secret>,
    /// How the connection to NATS is kept from others.
    pub(crate) tls: Option<Tls>,
    /// What the others are told of, and may call: functions of this engine in which `*` stands for any run of characters.
    /// Default: nothing.
    pub(crate) offer: Vec<String>,
    /// What of theirs may be called from here, in the same way. Default: nothing.
    pub(crate) call: Vec<String>,
}

impl fmt::Debug for Nats {
    /// Without what addresses may say of user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { servers: _, project, credentials, user, password, token, tls, offer, call } = self;
        f.debug_struct("Nats")
            .field("servers", &self.access().hosts())
            .field("project", project)
            .field("credentials", credentials)
            .field("user", user)
            .field("password", password)
            .field("token", token)
            .field("tls", tls)
            .field("offer", offer)
            .field("call", call)
            .finish()
    }
}

impl Nats {
    /// What the section says of the server.
    pub(crate) fn access(&self) -> NatsAccess<'_> {
        NatsAccess {
            servers: self.servers.as_deref(),
            credentials: self.credentials.as_deref(),
            user: self.user.as_deref(),
            password: self.password.as_ref(),
            token: self.token.as_ref(),
            tls: self.tls.as_ref(),
        }
    }

    /// What does not fit together: each a JSON pointer within the section, and what is wrong.
    pub(super) fn faults(&self) -> Vec<(String, String)> {
        let of_server = self.access().faults().into_iter();
        let mut faults: Vec<_> = of_server.map(|(key, message)| (format!("/{key}"), message)).collect();
        // Not by the schema, whose complaint would show the whole section with what is secret in it.
        if self.servers.as_ref().is_some_and(Vec::is_empty) {
            faults.push(("/servers".to_owned(), "wanted one server at least, found none".to_owned()));
        }
        if let Some(Err(error)) = self.project.as_deref().map(check_project) {
            faults.push(("/project".to_owned(), error.to_string()));
        }
        let tls = self.tls.as_ref();
        let required = tls.is_some_and(|tls| tls.required);
        let has_certificate = tls.is_some_and(|tls| tls.certificate.is_some());
        let authenticated =
            self.credentials.is_some() || self.user.is_some() || self.token.is_some() || has_certificate;
        for (at, server) in self.servers.iter().flatten().enumerate() {
            if let Err(error) = check_server(server, required, authenticated) {
                faults.push((format!("/servers/{at}"), error.to_string()));
            }
        }
        if self.offer.is_empty() && self.call.is_empty() {
            let text = "nothing would cross: wanted `call`, what of the others may be called here, or `offer`, what they are told of";
            faults.push((String::new(), text.to_owned()));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_told() {
        let text =
            r#"{"servers": ["nats://me:secret@127.0.0.1:1"], "token": "secret", "password": "secret"}"#;
        let nats: Nats = serde_json::from_str(text).unwrap();
        let told = format!("{nats:?}");
        assert!(
            told.contains("127.0.0.1:1") && !told.contains("secret@") && !told.contains("\"secret\""),
            "{told}"
        );
    }
}
