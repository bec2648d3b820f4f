//! Connections to other hosts, and the check of where they go: a name is looked up, each address that comes of it is held
//! against the rules, and the connection is made to one that was checked, not to the name. So a name that leads elsewhere a
//! moment later leads nowhere. It must not know what is asked over a connection.
//!
//! Redirects are not followed by anybody here, and no proxy is used.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::addresses::Allowed;
use crate::rules::{host_of, refusal};

/// A future of the lookup.
type Found = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// How names become addresses.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn(String) -> Found + Send + Sync>);

impl Resolver {
    /// That of the system.
    #[must_use]
    pub fn of_system() -> Self {
        Self::new(|host| async move {
            Ok(tokio::net::lookup_host((host.as_str(), 0)).await?.map(|address| address.ip()).collect())
        })
    }

    /// Another.
    #[must_use]
    pub fn new<F>(look_up: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    {
        Self(Arc::new(move |host| Box::pin(look_up(host))))
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Resolver").finish()
    }
}

/// Why there is no connection. Nothing was asked then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{}", refusal(.0))]
    Forbidden(String),
    #[error("the name `{0}` leads to no address")]
    NoAddress(String),
    #[error("the name `{host}` cannot be looked up: {reason}")]
    Lookup { host: String, reason: io::Error },
    #[error("cannot connect to {address}: {reason}")]
    Connect { address: SocketAddr, reason: io::Error },
    #[error("no connection to `{0}` came about in time")]
    TimedOut(String),
    #[error("no TLS with `{host}`: {reason}")]
    Tls { host: String, reason: io::Error },
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) resolver: Resolver,
    pub(crate) allowed: Arc<Allowed>,
    pub(crate) tls: TlsConnector,
    pub(crate) timeout: Duration,
}

impl Connector {
    pub(crate) async fn connect(self, uri: Uri) -> Result<Stream, ConnectError> {
        let host = host_of(&uri).to_owned();
        let late = host.clone();
        let connected = tokio::time::timeout(self.timeout, self.connect_to(uri, host)).await;
        connected.unwrap_or(Err(ConnectError::TimedOut(late)))
    }

    async fn connect_to(self, uri: Uri, host: String) -> Result<Stream, ConnectError> {
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = self.reach(&host, port).await?;
        if !secure {
            return Ok(Stream::Plain(TokioIo::new(tcp)));
        }
        let failed = |reason: io::Error| ConnectError::Tls { host: host.clone(), reason };
        let name = ServerName::try_from(host.clone())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = self.tls.connect(name, tcp).await.map_err(failed)?;
        Ok(Stream::Secure(Box::new(TokioIo::new(stream))))
    }

    /// Connects to the first address of a host that may be connected to and can be.
    async fn reach(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let addresses = match host.parse() {
            Ok(address) => vec![address],
            Err(_) => (self.resolver.0)(host.to_owned())
                .await
                .map_err(|reason| ConnectError::Lookup { host: host.to_owned(), reason })?,
        };
        if addresses.is_empty() {
            return Err(ConnectError::NoAddress(host.to_owned()));
        }
        let mut last = ConnectError::Forbidden(host.to_owned());
        for address in addresses.into_iter().filter(|address| self.allowed.allows(*address)) {
            let address = SocketAddr::new(address, port);
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Without it small requests wait; that it cannot be set shows in the first use.
                    let _set = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(reason) => last = ConnectError::Connect { address, reason },
            }
        }
        Err(last)
    }
}

/// A connection.
pub(crate) enum Stream {
    Plain(TokioIo<TcpStream>),
    Secure(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Secure(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Secure(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
