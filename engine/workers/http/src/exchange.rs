//! One request of one route: who asks and how often, what is asked before the function, its body, the function itself, what is
//! asked after it. Whatever is asked before must answer in the way that it should; an error or an odd answer of it ends the
//! request. It must not know how answers are sent.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Response};
use ringway::{Baggage, CallOptions};
use ringway_worker_kit::Condition;
use serde_json::{Map, Value};

use crate::auth::Identity;
use crate::body::{self, Body};
use crate::config::route::{BodyMode, Respond};
use crate::config::{Rate, RateBy};
use crate::door::{Door, Named, Peer, holding};
use crate::problem::{Code, Problem};
use crate::rate::Limiter;
use crate::request::{self, Asked, Content};
use crate::response::Answer;
use crate::route::{Asker, Route, text};
use crate::{call, idempotency, middleware, proxy, socket, streams};

const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) door: &'a Arc<Door>,
    pub(crate) route: &'a Arc<Route>,
    pub(crate) parts: &'a Parts,
    pub(crate) params: &'a [&'a str],
    pub(crate) client: IpAddr,
    pub(crate) peer: &'a Arc<Peer>,
    pub(crate) named: &'a Named,
}

/// Counts a request.
///
/// # Errors
/// It came too early.
pub(crate) fn ask_limit(
    limiter: Option<&Limiter<Asker>>,
    rate: Option<&Rate>,
    door: &Door,
    client: IpAddr,
    identity: Option<&Identity>,
) -> Result<(), Box<Problem>> {
    let (Some(limiter), Some(rate)) = (limiter, rate) else { return Ok(()) };
    let address = || Asker::Address(proxy::counted(client));
    let asker = match rate.by {
        RateBy::Client => address(),
        RateBy::Subject => {
            identity.map_or_else(address, |who| Asker::Subject(format!("{} {}", who.scheme, who.subject)))
        }
        RateBy::Everybody => Asker::Everybody,
    };
    limiter.ask(asker, door.now_ns()).map_err(|wait| {
        let text = format!("more than {} requests came in {} ms", rate.requests, rate.per_ms);
        Problem::new(Code::RateLimited, text).retry_after(wait)
    })
}

impl Exchange<'_> {
    /// Goes all the way.
    ///
    /// # Errors
    /// Whatever ends it before.
    pub(crate) async fn run(&self, body: Incoming) -> Result<Response<Body>, Box<Problem>> {
        let route = self.route;
        let pass = match &route.gate {
            Some(gate) => Some(gate.admit().ok_or_else(|| {
                Problem::new(Code::Overloaded, "as many requests of this route as may be are going on")
                    .retry_after(std::time::Duration::from_secs(1))
            })?),
            None => None,
        };
        let asked = self.asked();
        let by_subject = route.config.rate.as_ref().is_some_and(|rate| rate.by == RateBy::Subject);
        if !by_subject {
            self.ask_limit(None)?;
        }
        let identity = match route.auth.as_slice() {
            [] => None,
            wanted => Some(Box::pin(self.door.guard.identify(wanted, &asked)).await?),
        };
        if by_subject {
            self.ask_limit(identity.as_ref())?;
        }
        let mut context = Map::new();
        if !self.door.before.is_empty()
            && let Some(answer) =
                Box::pin(middleware::before(&self.door.before, self, &asked, identity.as_ref(), &mut context))
                    .await?
        {
            return Ok(answer.into_response());
        }
        let response = Box::pin(self.go_on(body, &asked, identity.as_ref(), context)).await?;
        Ok(match pass {
            Some(pass) => holding(response, pass),
            None => response,
        })
    }

    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked {
            route: self.route,
            method: self.parts.method.as_str(),
            path: self.parts.uri.path(),
            query: self.parts.uri.query(),
            headers: &self.parts.headers,
            params: self.params,
            client: self.client,
            certificate: self.peer.certificate.as_deref(),
            request_id: &self.named.request_id,
        }
    }

    fn ask_limit(&self, identity: Option<&Identity>) -> Result<(), Box<Problem>> {
        let rate = self.route.config.rate.as_ref();
        ask_limit(self.route.limiter.as_ref(), rate, self.door, self.client, identity)
    }

    async fn go_on(
        &self,
        body: Incoming,
        asked: &Asked<'_>,
        identity: Option<&Identity>,
        mut context: Map<String, Value>,
    ) -> Result<Response<Body>, Box<Problem>> {
        let route = self.route;
        let Some(handle) = &route.handle else {
            return Err(Problem::new(Code::FunctionUnavailable, "the route has no function"));
        };
        let (streams_in, streams_out) = match handle.streams() {
            Some(streams) => streams,
            None => call::awaited(handle, &self.door.worker).await.unwrap_or_default(),
        };
        let streamed = match route.config.respond {
            Respond::Once => streams_in && route.config.body == BodyMode::Stream,
            // An answer that is to be remembered is one, whatever the function could do.
            Respond::Auto => (streams_in || streams_out) && route.config.idempotency.is_none(),
            Respond::Sse | Respond::Ndjson | Respond::Websocket => true,
        };
        if route.config.respond == Respond::Websocket {
            socket::check(self)?;
        }
        let kind = text(asked.headers, CONTENT_TYPE);
        let as_it_comes = streamed && self.comes_bit_by_bit(kind);
        let mut body = Some(body);
        let whole = match body.take_if(|_| !as_it_comes) {
            Some(body) => body::read(body, route.body_bytes_max, self.door.config.body_timeout()).await?,
            None => Bytes::new(),
        };
        if let Some(webhook) = &route.webhook {
            let now = self.door.clock.now_ms() / 1000;
            webhook
                .verify(asked.headers, &whole, now)
                .map_err(|why| Problem::new(Code::SignatureInvalid, why))?;
        }
        let content = if as_it_comes {
            Content::Nothing
        } else {
            request::read(route.config.body, kind, &whole).await?
        };
        if !matches!(route.condition, Condition::Always) {
            Box::pin(self.ask_condition(asked, &content, identity, &context)).await?;
        }
        if !route.before.is_empty()
            && let Some(answer) =
                Box::pin(middleware::before(&route.before, self, asked, identity, &mut context)).await?
        {
            return Ok(answer.into_response());
        }
        let text = asked.object(&content, identity, &context)?;
        if streamed {
            let message = call::message(&self.door.worker, &text);
            let source = body.map_or(streams::Source::Whole(whole), streams::Source::Coming);
            return Box::pin(streams::answer(self, handle, message, source, context)).await;
        }
        let message = call::message(&self.door.worker, &text);
        let answer = match &route.config.idempotency {
            None => {
                let reply = call::call(handle, &message, &self.options()).await;
                Answer::of(reply.map_err(|error| self.failed(&error))?)?
            }
            Some(settings) => Box::pin(idempotency::once(self, settings, identity, &whole, message)).await?,
        };
        let answer = if route.after.is_empty() && self.door.after.is_empty() {
            answer
        } else {
            Box::pin(middleware::after(self, answer, context)).await?
        };
        Ok(answer.into_response())
    }

    /// Whether the body of a function with streams is handed on as it comes; one that is small and known is read first, so that
    /// the function is told of it.
    fn comes_bit_by_bit(&self, kind: Option<&str>) -> bool {
        let config = &self.route.config;
        if config.webhook.is_some() || config.respond == Respond::Websocket {
            return false;
        }
        let known = kind.is_some_and(|kind| {
            let kind = kind.to_ascii_lowercase();
            kind.contains("json")
                || kind.starts_with("application/x-www-form-urlencoded")
                || kind.starts_with("text/")
        });
        match config.body {
            BodyMode::Stream => true,
            BodyMode::Auto => !known || request::wants_multipart(kind),
            BodyMode::Json | BodyMode::Text | BodyMode::Bytes => false,
        }
    }

    pub(crate) fn failed(&self, error: &ringway::CallError) -> Box<Problem> {
        let problem = Problem::of_call(error, &self.route.function_id, self.door.config.errors_shown);
        if problem.status().is_server_error() {
            let (function, request_id) = (&self.route.function_id, &self.named.request_id);
            tracing::warn!(target: "ringway", function, request_id, %error, "a function failed");
        }
        problem
    }

    /// How the function is called: its time, its place in the trace, what travels beside.
    pub(crate) fn options(&self) -> CallOptions {
        let mut options = self.untimed();
        options = options.timeout(self.route.timeout);
        options
    }

    /// As [`Self::options`], with all the time that there is.
    pub(crate) fn untimed(&self) -> CallOptions {
        let mut options = CallOptions::new();
        if let Some(trace) = self.named.trace {
            options = options.parent(trace);
        }
        if let Some(state) = text(&self.parts.headers, TRACESTATE) {
            options = options.trace_state(state);
        }
        if let Some(baggage) = read_baggage(&self.parts.headers) {
            options = options.baggage(baggage);
        }
        if let Some(metadata) = &self.route.metadata {
            options = options.metadata(metadata.clone());
        }
        options
    }

    async fn ask_condition(
        &self,
        asked: &Asked<'_>,
        content: &Content,
        identity: Option<&Identity>,
        context: &Map<String, Value>,
    ) -> Result<(), Box<Problem>> {
        let text = asked.object(content, identity, context)?;
        let payload: Value = serde_json::from_slice(&text).map_err(|error| {
            Problem::new(Code::InvalidBody, format!("the request cannot be read: {error}"))
        })?;
        let asking = self.route.condition.holds_async(&self.door.worker, &payload);
        let asked = tokio::time::timeout(self.route.timeout, asking).await;
        match asked {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                Err(Problem::new(Code::ConditionNotMet, "the condition of this route does not hold")
                    .with("skipped", Value::Bool(true)))
            }
            Ok(Err(error)) => {
                tracing::warn!(target: "ringway", function = self.route.function_id, %error, "a condition failed");
                Err(Problem::new(Code::ConditionFailed, "what happened is in the log"))
            }
            Err(_) => Err(Problem::new(Code::Timeout, "the condition was not worked out in time")),
        }
    }
}

fn read_baggage(headers: &HeaderMap) -> Option<Baggage> {
    headers.get(BAGGAGE)?.to_str().ok().and_then(|text| Baggage::parse(text).ok())
}
