//! An engine, the HTTP worker, functions of users, and a client. It must not know what is tested.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringway::{CallError, Context, Function, HandlerResult};
use ringway_worker_bed::{Bed, bind};
use ringway_worker_http::{Config, Http};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{Request, Response};

/// What a client got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status and stable code of a problem.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status);
        (self.status, body["code"].as_str().unwrap().to_owned())
    }
}

/// Everything that a test needs.
pub(crate) struct Stage {
    bed: Bed<Http>,
    agent: Agent,
    numbers: AtomicU64,
}

impl Deref for Stage {
    type Target = Bed<Http>;

    fn deref(&self) -> &Bed<Http> {
        &self.bed
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(json!({}))
    }

    /// With settings; ports are any that are free.
    pub(crate) fn with(settings: Value) -> Self {
        let mut settings = settings;
        settings["port"] = 0.into();
        settings["admin"]["port"] = 0.into();
        let config: Config = serde_json::from_value(settings).unwrap();
        let mut bed = Bed::new("http", "routes", move |address, store, clock| {
            Http::start_with(address, store, config.clone(), clock)
        });
        bed.start();
        let agent = Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
        Self { bed, agent, numbers: AtomicU64::new(0) }
    }

    pub(crate) fn bed(&mut self) -> &mut Bed<Http> {
        &mut self.bed
    }

    /// Registers a function.
    pub(crate) fn function(
        &self,
        id: &str,
        handler: impl Fn(&Context, Value) -> HandlerResult<Value> + Send + Sync + 'static,
    ) {
        self.client.register(Function::json(id, handler)).unwrap();
    }

    /// Registers a function that answers with what it was told.
    pub(crate) fn echo(&self) {
        self.function("test::echo", |_, told| Ok(json!({"status_code": 200, "body": told})));
    }

    /// Binds a function to a route.
    pub(crate) fn try_bind(&self, function: &str, config: Value) -> Result<(), CallError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        bind(&self.client, &format!("t{number}"), "http", function, config)
    }

    pub(crate) fn bind(&self, function: &str, config: Value) {
        self.try_bind(function, config.clone()).unwrap_or_else(|error| panic!("{config}: {error}"));
    }

    /// Registers a function and binds it to a path of its own.
    pub(crate) fn serve(
        &self,
        method: &str,
        path: &str,
        handler: impl Fn(&Context, Value) -> HandlerResult<Value> + Send + Sync + 'static,
    ) {
        let id = format!("test::f{}", self.numbers.fetch_add(1, Ordering::Relaxed));
        self.function(&id, handler);
        self.bind(&id, json!({"api_path": path, "http_method": method}));
    }

    pub(crate) fn address(&self) -> String {
        self.worker().address().to_string()
    }

    pub(crate) fn send(&self, request: Request<Vec<u8>>) -> Got {
        let response: Response<ureq::Body> = self.agent.run(request).unwrap();
        let (parts, mut body) = response.into_parts();
        Got { status: parts.status.as_u16(), headers: parts.headers, body: body.read_to_vec().unwrap() }
    }

    /// Asks with a method, a path, headers and a body.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.to_vec()).unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> Got {
        self.ask("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Got {
        self.ask("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Asks the port of those who watch.
    pub(crate) fn watch(&self, path: &str) -> Got {
        let there = self.worker().admin_address().unwrap();
        self.send(Request::get(format!("http://{there}{path}")).body(Vec::new()).unwrap())
    }
}

/// A count that functions and tests share.
pub(crate) fn counter() -> Arc<AtomicU64> {
    Arc::default()
}
