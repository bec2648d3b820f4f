//! Routers of other parts of the engine below a path, such as the stream socket for browsers. They see whole requests and
//! answer for themselves. It must not know what they do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use axum::Router;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use tower::ServiceExt as _;

use crate::body::Body;

/// Routers below paths: whoever mounts one and whoever serves them share it. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Mounts {
    all: Arc<ArcSwap<Vec<Mount>>>,
    is_public: Arc<AtomicBool>,
}

impl Mounts {
    /// Serves a router below a path, before all routes: it sees whole requests, may open WebSockets, and answers for itself. One
    /// that was there before goes.
    pub fn mount(&self, path: &str, router: Router) {
        let mount = Mount::new(path, router);
        self.all.rcu(|mounts| {
            let others = mounts.iter().filter(|other| other.prefix != mount.prefix);
            let mut mounts: Vec<Mount> = others.cloned().collect();
            mounts.push(mount.clone());
            // The longest first, which says most.
            mounts.sort_by_key(|mount| std::cmp::Reverse(mount.prefix.len()));
            mounts
        });
    }

    /// Takes a router away, if there is one.
    pub fn unmount(&self, path: &str) {
        let gone = Mount::new(path, Router::new()).prefix;
        self.all
            .rcu(|mounts| mounts.iter().filter(|mount| mount.prefix != gone).cloned().collect::<Vec<_>>());
    }

    /// Whether others than programs of this machine reach what is mounted: since the worker listens where they are, or a proxy
    /// stands in front of it. Known when the worker runs.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.is_public.load(Ordering::Relaxed)
    }

    pub(crate) fn set_public(&self, is_public: bool) {
        self.is_public.store(is_public, Ordering::Relaxed);
    }

    pub(crate) fn find(&self, path: &str) -> Option<Router> {
        self.all.load().iter().find(|mount| mount.holds(path)).map(|mount| mount.router.clone())
    }
}

/// A router below a path.
#[derive(Debug, Clone)]
struct Mount {
    prefix: String,
    router: Router,
}

impl Mount {
    fn new(prefix: &str, router: Router) -> Self {
        let prefix = format!("/{}", prefix.trim_matches('/'));
        // A router strips what it is nested below, so that its own paths begin anew, with or without a slash.
        let router = if prefix == "/" { router } else { Router::new().nest_service(&prefix, router) };
        Self { prefix, router }
    }

    /// Whether a path lies below.
    fn holds(&self, path: &str) -> bool {
        let behind = path.strip_prefix(self.prefix.as_str());
        self.prefix == "/" || behind.is_some_and(|behind| behind.is_empty() || behind.starts_with('/'))
    }
}

/// Has a router answer a request; it is told where the client is by an extension, a `SocketAddr`.
pub(crate) async fn answer(
    router: Router,
    client: SocketAddr,
    mut parts: Parts,
    body: Incoming,
) -> Response<Body> {
    parts.extensions.insert(client);
    let request = Request::from_parts(parts, axum::body::Body::new(body));
    match router.oneshot(request).await {
        Ok(response) => response.map(Body::streamed),
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_holds_what_lies_below_its_path() {
        let holds = |prefix, path| Mount::new(prefix, Router::new()).holds(path);
        assert!(holds("/streams", "/streams") && holds("streams/", "/streams/a"));
        assert!(!holds("/streams", "/streamsx") && !holds("/streams", "/"));
    }

    #[test]
    fn the_longest_path_is_found_until_it_is_taken_away() {
        let mounts = Mounts::default();
        for path in ["/a", "/a/b", "a"] {
            mounts.mount(path, Router::new());
        }
        let found = |path: &str| {
            mounts.all.load().iter().find(|mount| mount.holds(path)).map(|mount| mount.prefix.clone())
        };
        assert_eq!(
            (found("/a/b/c"), found("/a/c"), found("/")),
            (Some("/a/b".into()), Some("/a".into()), None)
        );
        mounts.unmount("/a/b/");
        assert_eq!(found("/a/b/c"), Some("/a".into()));
    }
}
