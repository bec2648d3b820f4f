//! The connection to the server: tried once, so that what is wrong with the settings is known at once; then made in the
//! background and mended by the client for as long as it is wanted. It must not know what is said over it.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event};
use ringway_store_nats::Identity;
use ringway_store_nats::access::{self, SettingError, told, words};
use tokio::sync::mpsc::UnboundedSender;

use crate::limits::{DIAL_MAX, FIRST_MAX, PROJECT_BYTES_MAX, RECONNECT_MAX};
use crate::settings::NatsSettings;

/// What is wrong with settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The project cannot be a part of subjects.
    #[error("wanted a project of 1 to {PROJECT_BYTES_MAX} letters, digits, `-` or `_`, found `{0}`")]
    Project(String),
    /// An address, a file of credentials or a certificate cannot be used.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Others could read or change what goes to this server.
    #[error("wanted TLS and authentication for `{server}`, which is not a loopback address, found {found}")]
    Exposed {
        /// The server, without secrets.
        server: String,
        /// What there is of the two.
        found: &'static str,
    },
    /// The server answers, and does not take us in.
    #[error("NATS at {servers} refused the connection: {reason}")]
    Refused {
        /// The servers, without secrets.
        servers: String,
        /// What it said.
        reason: String,
    },
}

/// What is heard of the connection.
#[derive(Debug)]
pub(crate) enum Heard {
    Up,
    Down,
    /// In words, and perhaps again and again.
    Said(String),
}

/// Checks the name of a project.
///
/// # Errors
/// [`SettingsError::Project`].
pub fn check_project(project: &str) -> Result<(), SettingsError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if project.is_empty() || project.len() > PROJECT_BYTES_MAX || !project.bytes().all(is_plain) {
        return Err(SettingsError::Project(project.chars().take(120).collect()));
    }
    Ok(())
}

/// Checks the address of a server, and that what goes there is kept from others: off loopback it takes TLS and something by
/// which the server knows us, in the address or beside it.
///
/// # Errors
/// [`SettingsError`].
pub fn check_server(server: &str, tls: bool, authenticated: bool) -> Result<(), SettingsError> {
    let address = access::address(server)?;
    let host = address.host();
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    let found = match (tls || address.tls_required(), authenticated || address.username().is_some()) {
        (true, true) => return Ok(()),
        _ if is_loopback => return Ok(()),
        (true, false) => "TLS alone",
        (false, true) => "authentication alone",
        (false, false) => "neither",
    };
    Err(SettingsError::Exposed { server: told(server), found })
}

/// Tries once, and then in the background; `heard` is told of the connection. Also why the first attempt failed, if it did.
pub(crate) async fn connect(
    settings: &NatsSettings,
    heard: &UnboundedSender<Heard>,
) -> Result<(Client, Option<String>), SettingsError> {
    check_project(&settings.project)?;
    let addresses = access::addresses(&settings.servers)?;
    let has_own = settings.tls.own.is_some() || settings.identity != Identity::Nobody;
    for server in &settings.servers {
        check_server(server, settings.tls.required, has_own)?;
    }
    let first = options(settings, heard).await?.connect(addresses.clone());
    let why = match tokio::time::timeout(FIRST_MAX, first).await {
        Ok(Ok(client)) => return Ok((client, None)),
        Ok(Err(error)) if is_refusal(&error) => {
            return Err(SettingsError::Refused { servers: settings.servers_told(), reason: words(&error) });
        }
        Ok(Err(error)) => words(&error),
        Err(_) => format!("nobody answered within {FIRST_MAX:?}"),
    };
    let later = options(settings, heard).await?.retry_on_initial_connect().connect(addresses);
    let client = later.await.map_err(|error| SettingError {
        what: format!("NATS at {}", settings.servers_told()),
        reason: words(&error),
    })?;
    Ok((client, Some(why)))
}

/// Whether another attempt with the same settings would fail too.
fn is_refusal(error: &ConnectError) -> bool {
    match error.kind() {
        ConnectErrorKind::Authentication
        | ConnectErrorKind::AuthorizationViolation
        | ConnectErrorKind::Tls => true,
        // A certificate that is not trusted, or a server that speaks no TLS where it was wanted.
        ConnectErrorKind::Io => error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>())
            .is_some_and(|error| error.kind() == io::ErrorKind::InvalidData),
        _ => false,
    }
}

async fn options(
    settings: &NatsSettings,
    heard: &UnboundedSender<Heard>,
) -> Result<ConnectOptions, SettingsError> {
    let heard = heard.clone();
    let begun = access::options(&settings.identity, &settings.tls).await?;
    Ok(begun
        .name(format!("ringway links {}", settings.name))
        .connection_timeout(DIAL_MAX)
        .request_timeout(Some(DIAL_MAX))
        .ping_interval(Duration::from_secs(2))
        .no_echo()
        .max_reconnects(None)
        .reconnect_delay_callback(|attempt| Duration::from_millis(10 << attempt.min(10)).min(RECONNECT_MAX))
        .event_callback(move |event| {
            drop(heard.send(match event {
                Event::Connected => Heard::Up,
                Event::Disconnected | Event::Closed => Heard::Down,
                other => Heard::Said(other.to_string()),
            }));
            async {}
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_other_hosts_want_tls_and_authentication() {
        let check = |server: &str, tls: bool, authenticated: bool, expected: &str| {
            let found = check_server(server, tls, authenticated)
                .map_or_else(|error| error.to_string(), |()| String::new());
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{server}: {found}");
        };
        for own in ["nats://127.0.0.1:4222", "localhost:4222", "nats://[::1]:4222", "127.3.2.1"] {
            check(own, false, false, "");
        }
        check("nats://nats.example:4222", false, false, "found neither");
        check("nats://nats.example:4222", true, false, "found TLS alone");
        check("tls://nats.example", false, false, "found TLS alone");
        check("nats://10.0.0.1", false, true, "found authentication alone");
        check(
            "nats://me:secret@nats.example",
            false,
            false,
            "`nats://nats.example`, which is not a loopback address, found authentication",
        );
        check("tls://me:secret@nats.example", false, false, "");
        check("nats://nats.example", true, true, "");
        check("http://127.0.0.1", false, false, "wanted one like nats://HOST:4222");
        check("ws://127.0.0.1", false, false, "`ws` is not spoken here");
        check("", false, false, "cannot be used");
    }

    #[test]
    fn projects_are_parts_of_subjects() {
        assert!(check_project("shop-2_b").is_ok());
        for wrong in ["", "a.b", "a b", "*", ">", "é", &"x".repeat(PROJECT_BYTES_MAX + 1)] {
            assert!(check_project(wrong).is_err(), "{wrong}");
        }
    }
}
