//! The worker on a bed, with variables, names and settings of the test's.

use std::sync::Arc;

use ringway_worker_bed::Bed;
use ringway_worker_http_functions::{Config, Environment, HttpFunctions, Resolver, Security};
use serde_json::{Value, json};

pub(crate) type Stage = Bed<HttpFunctions>;

/// What the tests' servers need to be reached.
pub(crate) fn local() -> Config {
    let security = Security {
        require_https: false,
        addresses_allowed: vec!["127.0.0.1".to_owned()],
        ..Security::default()
    };
    Config { security, ..Config::default() }
}

pub(crate) fn environment() -> Environment {
    Environment::new(|name| {
        Some(match name {
            "HOOK_SECRET" => "s3cret".to_owned(),
            "HOOK_TOKEN" => "t0ken".to_owned(),
            _ => return None,
        })
    })
}

pub(crate) fn stage(config: Config) -> Stage {
    stage_with(config, environment(), Resolver::of_system())
}

pub(crate) fn stage_with(config: Config, environment: Environment, resolver: Resolver) -> Stage {
    let mut bed = Bed::new("http-functions", "list", move |address, store, _| {
        let (environment, resolver) = (environment.clone(), resolver.clone());
        HttpFunctions::start_with(address, Arc::clone(&store), config.clone(), environment, resolver)
    });
    bed.start();
    bed
}

/// Registers a function and waits until it can be called; one of that id is gone for the client too before, so that it is the
/// new one which is found.
pub(crate) fn register(stage: &Stage, id: &str, invocation: Value) {
    stage.call("unregister", json!({"function_id": id}));
    stage.wait_until("the one before is gone", || stage.client.handle(id).replicas() == 0);
    stage.call("register", json!({"function_id": id, "invocation": invocation}));
    stage.client.wait_for(id, ringway_worker_bed::PATIENCE).unwrap();
}

/// Calls any function; gives the value, or the code and the words of the error.
pub(crate) fn call(stage: &Stage, id: &str, input: &Value) -> Result<Value, (String, String)> {
    let options = ringway::CallOptions::new().timeout(ringway_worker_bed::PATIENCE);
    stage.client.trigger_json_with(id, input, &options).map_err(|error| {
        let code = error.user_code.clone().unwrap_or_else(|| error.code.as_str().to_owned());
        (code, error.message)
    })
}
