//! How a server is addressed, told who we are, and kept from others, and what went wrong in words. Used by the store here and
//! by the links over NATS. It must not know what a connection is for.

use std::str::FromStr;

use async_nats::{ConnectOptions, ServerAddr};

use crate::options::{Identity, Tls};

/// An address, a file of credentials or a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot be used: {reason}")]
pub struct SettingError {
    /// What was given, without secrets.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An error with what caused it, in one line.
#[must_use]
pub fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A server in words, without user and password.
#[must_use]
pub fn told(server: &str) -> String {
    let (scheme, rest) = server.split_once("://").unwrap_or(("nats", server));
    format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
}

/// All servers in words.
#[must_use]
pub fn all_told(servers: &[String]) -> String {
    servers.iter().map(|server| told(server)).collect::<Vec<_>>().join(", ")
}

/// Reads the address of a server.
///
/// # Errors
/// It is none, or of a protocol that is not spoken here.
pub fn address(server: &str) -> Result<ServerAddr, SettingError> {
    let wrong = |reason: String| SettingError {
        what: format!("the address `{}`", told(server)),
        reason: format!("{reason}; wanted one like nats://HOST:4222 or tls://HOST:4222"),
    };
    let address = ServerAddr::from_str(server).map_err(|error| wrong(words(&error)))?;
    match address.scheme() {
        "nats" | "tls" if !address.host().is_empty() => Ok(address),
        "nats" | "tls" => Err(wrong("it names no host".to_owned())),
        other => Err(wrong(format!("`{other}` is not spoken here"))),
    }
}

/// Reads the addresses of the servers of a cluster.
///
/// # Errors
/// As [`address`], or there is none.
pub fn addresses(servers: &[String]) -> Result<Vec<ServerAddr>, SettingError> {
    if servers.is_empty() {
        let reason = "it names no server".to_owned();
        return Err(SettingError { what: "the list of servers".to_owned(), reason });
    }
    servers.iter().map(|server| address(server)).collect()
}

/// Begins a connection: who we are, and how it is kept from others.
///
/// # Errors
/// The file of credentials cannot be read.
pub async fn options(identity: &Identity, tls: &Tls) -> Result<ConnectOptions, SettingError> {
    let connect = ConnectOptions::new();
    let mut connect = match identity {
        Identity::Nobody => connect,
        Identity::Password { user, password } => connect.user_and_password(user.clone(), password.clone()),
        Identity::Token(token) => connect.token(token.clone()),
        Identity::Credentials(path) => connect.credentials_file(path).await.map_err(|error| {
            SettingError { what: format!("the credentials in {}", path.display()), reason: error.to_string() }
        })?,
    };
    if tls.required {
        connect = connect.require_tls(true);
    }
    if let Some(roots) = &tls.roots {
        connect = connect.add_root_certificates(roots.clone());
    }
    if let Some((certificate, key)) = &tls.own {
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(connect)
}
