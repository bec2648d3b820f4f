//! Everything that requests share, and the way of one request from its head to the answer's. It must not know connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use ringway::protocol::telemetry::SpanKind;
use ringway::{Handle, TraceContext, Worker};
use ringway_worker_kit::Clock;
use ringway_worker_listen::Places;

use crate::auth::Guard;
use crate::body::Body;
use crate::config::{Config, Phase};
use crate::exchange::{self, Exchange};
use crate::files::Files;
use crate::idempotency::Ledger;
use crate::mount::{self, Mounts};
use crate::openapi::OpenApi;
use crate::problem::{Code, Problem};
use crate::proxy::{self, Network};
use crate::rate::Limiter;
use crate::route::{Asker, Route};
use crate::routes::{Found, Method, Routes};
use crate::{cors, finish};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What requests share.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) config: Config,
    pub(crate) worker: Worker,
    pub(crate) routes: Routes,
    pub(crate) cors: Option<Arc<cors::Policy>>,
    pub(crate) guard: Guard,
    pub(crate) before: Vec<Handle>,
    pub(crate) after: Vec<Handle>,
    pub(crate) ledger: Ledger,
    pub(crate) mounts: Mounts,
    pub(crate) files: Files,
    pub(crate) openapi: OpenApi,
    pub(crate) gate: Arc<Places>,
    pub(crate) limiter: Option<Limiter<Asker>>,
    pub(crate) trusted: Vec<Network>,
    pub(crate) clock: Clock,
    pub(crate) begun: Instant,
    pub(crate) is_ending: AtomicBool,
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// The SHA-256 of the certificate that was shown, in hex.
    pub(crate) certificate: Option<String>,
}

/// What names a request in logs and traces.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) request_id: String,
    pub(crate) trace: Option<TraceContext>,
}

impl Named {
    pub(crate) fn trace_id(&self) -> Option<String> {
        self.trace.map(|trace| trace.trace_id.to_string())
    }
}

impl Door {
    pub(crate) fn new(
        config: Config,
        worker: Worker,
        ledger: Ledger,
        clock: Clock,
        mounts: Mounts,
    ) -> Result<Self, String> {
        let trusted =
            config.trusted_proxies.iter().map(|text| Network::parse(text)).collect::<Result<_, _>>()?;
        let mut middleware = config.middleware.clone();
        middleware.sort_by_key(|middleware| middleware.priority);
        let of = |phase: Phase| {
            let of_phase = middleware.iter().filter(|middleware| middleware.phase == phase);
            of_phase.map(|middleware| worker.handle(&middleware.function_id)).collect::<Vec<_>>()
        };
        Ok(Self {
            routes: Routes::default(),
            cors: config.cors.as_ref().map(|cors| Arc::new(cors::Policy::new(cors))),
            guard: Guard::new(&config.auth.schemes, &worker)?,
            before: of(Phase::Before),
            after: of(Phase::After),
            ledger,
            mounts,
            files: Files::new(&config.static_files),
            openapi: OpenApi::default(),
            gate: Places::new(config.concurrency_max),
            limiter: config.rate.as_ref().map(Limiter::new),
            trusted,
            clock,
            begun: Instant::now(),
            is_ending: AtomicBool::new(false),
            worker,
            config,
        })
    }

    /// Nanoseconds of a clock that only grows.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn client(&self, peer: &Peer, parts: &Parts) -> IpAddr {
        if self.trusted.is_empty() {
            return peer.address;
        }
        let lines = parts.headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        proxy::client(peer.address, lines, &self.trusted)
    }

    /// Answers a request, whatever comes of it.
    pub(crate) async fn answer(
        self: Arc<Self>,
        peer: Arc<Peer>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let mut named = Named { request_id: request_id(&parts), trace: None };
        let Some(pass) = self.gate.admit() else {
            let problem = Problem::new(Code::Overloaded, "as many requests as may be are going on")
                .retry_after(std::time::Duration::from_secs(1));
            return self.refuse(&parts, None, &named, &problem);
        };
        let client = self.client(&peer, &parts);
        if let Err(problem) =
            exchange::ask_limit(self.limiter.as_ref(), self.config.rate.as_ref(), &self, client, None)
        {
            return self.refuse(&parts, None, &named, &problem);
        }
        let Some(router) = self.mounts.find(parts.uri.path()) else {
            let response = self.routed(parts, body, peer, client, &mut named).await;
            return holding(response, pass);
        };
        // The port is only known of whoever connected, which may be a proxy.
        let port = if client == peer.address { peer.port } else { 0 };
        let answer = mount::answer(router, SocketAddr::new(client, port), parts, body);
        let response = Box::pin(answer).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // What is mounted counts its WebSockets itself; here they would keep requests out.
            return response;
        }
        holding(response, pass)
    }

    async fn routed(
        self: &Arc<Self>,
        parts: Parts,
        body: Incoming,
        peer: Arc<Peer>,
        client: IpAddr,
        named: &mut Named,
    ) -> Response<Body> {
        let slash_ignored = self.config.trailing_slash_ignored;
        let method = Method::of(&parts.method);
        let preflight = cors::is_preflight(&parts.method, &parts.headers);
        if preflight && let Some(response) = self.preflight(&parts) {
            return response;
        }
        match self.routes.find(method, parts.uri.path(), slash_ignored) {
            Found::Route(route, params) => {
                let parent = parts.headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
                let parent = parent.and_then(|text| TraceContext::parse_traceparent(text).ok());
                let mut span = self.worker.entry_span(route.span, SpanKind::Server, parent);
                named.trace = Some(span.context()).filter(TraceContext::is_valid);
                let exchange = Exchange {
                    door: self,
                    route: &route,
                    parts: &parts,
                    params: &params,
                    client,
                    peer: &peer,
                    named,
                };
                match exchange.run(body).await {
                    Ok(response) => finish::finish(self, Some(&route), &parts, named, response).await,
                    Err(problem) => {
                        span.fail(problem.error_code());
                        self.refuse(&parts, Some(&route), named, &problem)
                    }
                }
            }
            found => {
                // Boxed, as everything rare is: a request is as large as the largest of what may become of it, and is moved.
                if let Some(response) = Box::pin(self.own(method, &parts)).await {
                    return finish::finish(self, None, &parts, named, response).await;
                }
                let problem = match found {
                    Found::Others(methods) if method == Method::Options => {
                        let mut response = Response::new(Body::empty());
                        *response.status_mut() = StatusCode::NO_CONTENT;
                        if let Ok(value) = HeaderValue::from_str(&joined(&methods)) {
                            response.headers_mut().insert(ALLOW, value);
                        }
                        return finish::finish(self, None, &parts, named, response).await;
                    }
                    Found::Others(methods) => {
                        let text = format!("the path has {}", joined(&methods));
                        Problem::new(Code::MethodNotAllowed, text).header(ALLOW, &joined(&methods))
                    }
                    _ => Problem::new(Code::RouteNotFound, "Not Found"),
                };
                self.refuse(&parts, None, named, &problem)
            }
        }
    }

    /// What the door itself has: the description and files.
    async fn own(&self, method: Method, parts: &Parts) -> Option<Response<Body>> {
        let reads = matches!(method, Method::Get | Method::Head);
        if reads && self.config.openapi.enabled && parts.uri.path() == self.config.openapi.path {
            return Some(self.openapi.answer(self).await);
        }
        if reads { self.files.answer(parts).await } else { None }
    }

    fn preflight(&self, parts: &Parts) -> Option<Response<Body>> {
        let path = parts.uri.path();
        let slash_ignored = self.config.trailing_slash_ignored;
        let wanted = parts.headers.get(hyper::header::ACCESS_CONTROL_REQUEST_METHOD)?;
        let wanted = hyper::Method::from_bytes(wanted.as_bytes()).ok()?;
        let methods = self.routes.methods(path, slash_ignored);
        let policy = match self.routes.find(Method::of(&wanted), path, slash_ignored) {
            Found::Route(route, _) => route.cors.clone(),
            _ => self.cors.clone(),
        }?;
        let names: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
        Some(policy.preflight(&parts.headers, &names))
    }

    fn refuse(
        &self,
        parts: &Parts,
        route: Option<&Arc<Route>>,
        named: &Named,
        problem: &Problem,
    ) -> Response<Body> {
        let mut response = problem.response(&named.request_id, named.trace_id().as_deref());
        let unread = matches!(problem.code, Code::PayloadTooLarge | Code::BodyTimeout | Code::InvalidBody);
        if unread && parts.version < hyper::Version::HTTP_2 {
            // Nothing that comes after a body which was not read can be.
            response.headers_mut().insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
        }
        finish::mark(self, route, parts, named, &mut response);
        response
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }
}

/// Has an answer keep a pass for as long as it goes on.
pub(crate) fn holding(mut response: Response<Body>, pass: impl Send + 'static) -> Response<Body> {
    // What is whole needs no pass any more, unless a WebSocket begins with it.
    if response.body().bytes().is_none() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        response.body_mut().hold(pass);
    }
    response
}

fn joined(methods: &[Method]) -> String {
    methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", ")
}

/// The name that the client or a proxy gave a request, or a new one.
fn request_id(parts: &Parts) -> String {
    const NAME_BYTES_MAX: usize = 128;
    let given = parts.headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let fits = |name: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(plain)
    };
    given.filter(fits).map_or_else(|| format!("{:016x}", fastrand::u64(..)), str::to_owned)
}

/// Puts the names of a request onto its answer.
pub(crate) fn put_names(named: &Named, response: &mut Response<Body>) {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&named.request_id) {
        headers.insert(REQUEST_ID, value);
    }
    if let Some(trace) = named.trace
        && let Ok(value) = HeaderValue::from_bytes(&trace.to_traceparent())
    {
        headers.insert(TRACEPARENT, value);
    }
}
