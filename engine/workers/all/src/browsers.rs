//! The socket for browsers at both its doors: the port that iii's clients know, and a path of the worker `http`. It must not know
//! what is said there.

use ringway_worker_http::Mounts;
use ringway_worker_stream_socket::{Config, ConfigError, HTTP_PATH, StartError, StreamSocket};

/// Why the socket did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrowsersError {
    #[error(transparent)]
    Socket(#[from] StartError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "`workers.stream-socket.http_path` is `{0}`, others than this host's own reach the worker `http`, and nobody is asked who \
         they are: `workers.stream-socket.auth_function` names a function that says so; `http_path: \"\"` ends this"
    )]
    Open(String),
}

/// The socket, and where it hangs.
#[derive(Debug)]
pub(crate) struct Browsers {
    mounts: Mounts,
    path: Option<String>,
    _socket: StreamSocket,
}

impl Browsers {
    pub(crate) fn start(address: &str, config: Config, mounts: Mounts) -> Result<Self, BrowsersError> {
        config.check()?;
        let path = path(&config, mounts.is_public())?;
        let socket = StreamSocket::start(address, config)?;
        if let Some(path) = &path {
            mounts.mount(path, socket.router());
        }
        Ok(Self { mounts, path, _socket: socket })
    }
}

impl Drop for Browsers {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            self.mounts.unmount(path);
        }
    }
}

/// Where it is mounted. Everybody who reaches the worker `http` gets there, past its authentication: so there is somebody who
/// asks, or nobody from elsewhere comes.
fn path(config: &Config, is_public: bool) -> Result<Option<String>, BrowsersError> {
    let is_open = is_public && config.auth_function.is_none();
    match config.http_path.as_deref() {
        Some("") => Ok(None),
        Some(path) if is_open => Err(BrowsersError::Open(path.to_owned())),
        Some(path) => Ok(Some(path.to_owned())),
        None if is_open => {
            tracing::info!(
                "browsers cannot follow streams by HTTP's port, since nobody is asked who they are: \
                 `workers.stream-socket.auth_function` names who is"
            );
            Ok(None)
        }
        None => Ok(Some(HTTP_PATH.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_get_in_only_where_somebody_is_asked() {
        let check = |http_path: Option<&str>, auth: bool, is_public: bool, expected: Option<Option<&str>>| {
            let config = Config {
                http_path: http_path.map(str::to_owned),
                auth_function: auth.then(|| "a::b".to_owned()),
                ..Config::default()
            };
            let found = path(&config, is_public).ok();
            let expected = expected.map(|path| path.map(str::to_owned));
            assert_eq!(found, expected, "{http_path:?} {auth} {is_public}");
        };
        for auth in [false, true] {
            check(None, auth, false, Some(Some(HTTP_PATH)));
            check(Some("/own"), auth, false, Some(Some("/own")));
            check(Some(""), auth, true, Some(None));
        }
        check(None, true, true, Some(Some(HTTP_PATH)));
        check(Some("/own"), true, true, Some(Some("/own")));
        check(None, false, true, Some(None));
        check(Some("/own"), false, true, None);
    }
}
