//! The connection to the server: made in the background, mended by the client for as long as it is wanted. It must not know
//! what is said over it.

use std::str::FromStr;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use ringway_store_nats::{Identity, Tls};
use tokio::sync::mpsc::UnboundedSender;

use crate::limits::{DIAL_MAX, PROJECT_BYTES_MAX, RECONNECT_MAX};
use crate::settings::NatsSettings;

/// What is wrong with settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The project cannot be a part of subjects.
    #[error("wanted a project of 1 to {PROJECT_BYTES_MAX} letters, digits, `-` or `_`, found `{0}`")]
    Project(String),
    /// An address, a file of credentials or a certificate cannot be used.
    #[error("{what} cannot be used: {reason}")]
    Setting {
        /// What was given, without secrets.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Connects in the background; `up` hears whether there is a connection.
pub(crate) async fn connect(
    settings: &NatsSettings,
    up: UnboundedSender<bool>,
) -> Result<Client, SettingsError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let project = &settings.project;
    if project.is_empty() || project.len() > PROJECT_BYTES_MAX || !project.bytes().all(is_plain) {
        return Err(SettingsError::Project(project.clone()));
    }
    let addresses = addresses(&settings.servers)?;
    let identified = identified(&settings.identity).await?;
    let connect = secured(identified, &settings.tls)
        .name(format!("ringway links {}", settings.name))
        .connection_timeout(DIAL_MAX)
        .request_timeout(Some(DIAL_MAX))
        .ping_interval(Duration::from_secs(2))
        .no_echo()
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|attempt| Duration::from_millis(10 << attempt.min(10)).min(RECONNECT_MAX))
        .event_callback(move |event| {
            match event {
                Event::Connected => drop(up.send(true)),
                Event::Disconnected | Event::Closed => drop(up.send(false)),
                other => tracing::warn!(event = %other, "NATS"),
            }
            async {}
        });
    connect.connect(addresses).await.map_err(|error| SettingsError::Setting {
        what: format!("NATS at {}", settings.servers_told()),
        reason: error.to_string(),
    })
}

fn addresses(servers: &[String]) -> Result<Vec<ServerAddr>, SettingsError> {
    if servers.is_empty() {
        let reason = "it names no server".to_owned();
        return Err(SettingsError::Setting { what: "the list of servers".to_owned(), reason });
    }
    let address = |(number, server): (usize, &String)| {
        ServerAddr::from_str(server).map_err(|error| SettingsError::Setting {
            what: format!("the address of server {}", number + 1),
            reason: format!("{error}; wanted one like nats://HOST:4222"),
        })
    };
    servers.iter().enumerate().map(address).collect()
}

async fn identified(identity: &Identity) -> Result<ConnectOptions, SettingsError> {
    let connect = ConnectOptions::new();
    Ok(match identity {
        Identity::Password { user, password } => connect.user_and_password(user.clone(), password.clone()),
        Identity::Token(token) => connect.token(token.clone()),
        Identity::Credentials(path) => {
            connect.credentials_file(path).await.map_err(|error| SettingsError::Setting {
                what: format!("the credentials in {}", path.display()),
                reason: error.to_string(),
            })?
        }
        // Not at all, or as the address says.
        _ => connect,
    })
}

fn secured(mut connect: ConnectOptions, tls: &Tls) -> ConnectOptions {
    if tls.required {
        connect = connect.require_tls(true);
    }
    if let Some(roots) = &tls.roots {
        connect = connect.add_root_certificates(roots.clone());
    }
    if let Some((certificate, key)) = &tls.own {
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    connect
}
