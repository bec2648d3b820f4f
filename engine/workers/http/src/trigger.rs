//! The trigger type `http`, and the functions that tell what is bound. It must not know requests.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use ringway::protocol::control::TriggerSpec;
use ringway::{CallError, Failure, Function, TriggerProvider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::door::Door;
use crate::route::Route;

/// Binds triggers to routes.
#[derive(Debug)]
pub(crate) struct Provider(Weak<Door>);

impl Provider {
    pub(crate) fn new(door: &Arc<Door>) -> Self {
        Self(Arc::downgrade(door))
    }
}

impl TriggerProvider for Provider {
    fn bind(&self, binding: &TriggerSpec) -> Result<(), CallError> {
        let Some(door) = self.0.upgrade() else {
            return Err(CallError::new(ringway::ErrorCode::Draining, "the HTTP worker is about to end"));
        };
        let route = Route::new(&door.worker, binding, &door.config, door.cors.as_ref())?;
        door.routes.add(Arc::new(route))
    }

    fn unbind(&self, id: &str) {
        if let Some(door) = self.0.upgrade() {
            door.routes.remove(id);
        }
    }
}

/// Nothing is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
struct Nothing {}

/// What is bound.
#[derive(Debug, Serialize, JsonSchema)]
struct Listed {
    /// Where requests are taken.
    address: String,
    routes: Vec<View>,
}

/// A route.
#[derive(Debug, Serialize, JsonSchema)]
struct View {
    /// The trigger's id.
    id: String,
    function_id: String,
    path: String,
    methods: Vec<&'static str>,
    /// Schemes of which one is wanted.
    auth: Vec<String>,
}

/// The functions of the worker.
pub(crate) fn functions(door: &Arc<Door>, address: SocketAddr) -> Vec<Function> {
    let door = Arc::downgrade(door);
    let list = move |_: &ringway::Context, _: Nothing| {
        let door = door.upgrade().ok_or_else(|| Failure::new("the HTTP worker is about to end"))?;
        let view = |route: &Arc<Route>| View {
            id: route.id.clone(),
            function_id: route.function_id.clone(),
            path: route.pattern.to_string(),
            methods: route.methods.iter().map(|method| method.as_str()).collect(),
            auth: route.auth.clone(),
        };
        Ok(Listed { address: address.to_string(), routes: door.routes.all().iter().map(view).collect() })
    };
    vec![
        Function::json("http::routes", list)
            .pooled()
            .description("Where HTTP is served, and every route that is bound"),
    ]
}
