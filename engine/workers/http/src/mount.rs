//! Routers of other parts of the engine below a path, such as the stream socket for browsers. They see whole requests and
//! answer for themselves. It must not know what they do.

use axum::Router;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use tower::ServiceExt as _;

use crate::body::Body;

/// A router below a path.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    pub(crate) prefix: String,
    pub(crate) router: Router,
}

impl Mount {
    pub(crate) fn new(prefix: &str, router: Router) -> Self {
        let prefix = format!("/{}", prefix.trim_matches('/'));
        // A router strips what it is nested below, so that its own paths begin anew.
        let router = if prefix == "/" { router } else { Router::new().nest(&prefix, router) };
        Self { prefix, router }
    }

    /// Whether a path lies below.
    pub(crate) fn holds(&self, path: &str) -> bool {
        let behind = path.strip_prefix(self.prefix.as_str());
        self.prefix == "/" || behind.is_some_and(|behind| behind.is_empty() || behind.starts_with('/'))
    }
}

pub(crate) async fn answer(mount: &Mount, parts: &Parts, body: Incoming) -> Response<Body> {
    let request = Request::from_parts(parts.clone(), axum::body::Body::new(body));
    match mount.router.clone().oneshot(request).await {
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
}
