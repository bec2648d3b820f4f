//! What a section says of a NATS server, as the crates want it that speak to one. Used by `kept` and `links`. It must not know
//! what the server is used for.

use std::path::Path;

use ringway_config::{NatsAccess, Settings};
use ringway_store_nats::{Identity, Tls};

/// The project of an engine that is told of none.
const PROJECT: &str = "default";

/// The project of the engine.
pub(crate) fn project(settings: &Settings) -> &str {
    settings.engine.project.as_deref().unwrap_or(PROJECT)
}

/// Who we are; the settings were checked to say it in one way.
pub(crate) fn identity(settings: &Settings, access: &NatsAccess<'_>) -> Identity {
    if let Some(path) = access.credentials {
        return Identity::Credentials(settings.beside(path));
    }
    if let (Some(user), Some(password)) = (access.user, access.password) {
        return Identity::Password { user: user.to_owned(), password: password.0.clone() };
    }
    access.token.map_or(Identity::Nobody, |token| Identity::Token(token.0.clone()))
}

/// How the connection is kept from others.
pub(crate) fn tls(settings: &Settings, access: &NatsAccess<'_>) -> Tls {
    let Some(tls) = access.tls else { return Tls::default() };
    let beside = |path: &Path| settings.beside(path);
    Tls {
        required: tls.required,
        roots: tls.roots.as_deref().map(beside),
        own: tls.certificate.as_deref().map(beside).zip(tls.key.as_deref().map(beside)),
    }
}
