//! What a remote worker may register and call: its grant, and the policy of the engine.

use std::sync::Arc;

use parking_lot::Mutex;
use ringway::{CallError, ErrorCode, Function, Message, TriggerProvider};
use ringway_access::Grant;
use ringway_engine::{Action, Policy, Rule};
use ringway_protocol::FunctionId;
use ringway_protocol::control::{TriggerSpec, TriggerTypeSpec};
use serde_json::{Value, json};

use crate::stage::{Stage, until, wait_for};

fn echo(id: &str) -> Function {
    Function::json(id, |_, value: Value| Ok(value))
}

#[test]
fn what_is_not_granted_is_neither_seen_nor_called_nor_registered() {
    let grant = Grant::default().with_call("math::*").with_offer("edge::*");
    for stage in Stage::all(&grant) {
        let (local, remote) = (stage.local("local"), stage.remote("remote"));
        local.register_all(vec![echo("math::id"), echo("bank::pay")]).unwrap();
        let outcomes =
            remote.register_each(vec![echo("edge::a"), echo("bank::rob"), echo("edge::b")]).unwrap();
        assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        let error = outcomes[1].as_ref().unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden);
        assert!(error.message.contains("grant") && error.message.contains("bank::rob"), "{error}");
        let error = remote.register(echo("bank::rob")).unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden, "{error}");
        for id in ["edge::a", "edge::b"] {
            wait_for(&local, id);
            assert_eq!(local.trigger_json(id, &json!(3)).unwrap(), json!(3));
        }
        assert_eq!(local.handle("bank::rob").replicas(), 0);
        wait_for(&remote, "math::id");
        assert_eq!(remote.trigger_json("math::id", &json!(1)).unwrap(), json!(1));
        // It does not even know what it may not call.
        let known = remote.catalog().functions;
        assert!(known.iter().all(|function| function.id.as_str() != "bank::pay"), "{known:?}");
        let error = remote.trigger_json("bank::pay", &json!(1)).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound, "{error}");
    }
}

/// Watches for nothing, and remembers what it was asked for.
#[derive(Clone, Default)]
struct Provider {
    bound: Arc<Mutex<Vec<TriggerSpec>>>,
}

impl TriggerProvider for Provider {
    fn bind(&self, binding: &TriggerSpec) -> Result<(), CallError> {
        self.bound.lock().push(binding.clone());
        Ok(())
    }

    fn unbind(&self, _: &str) {}
}

fn kind_of(id: &str) -> TriggerTypeSpec {
    TriggerTypeSpec {
        id: id.to_owned(),
        description: String::new(),
        configuration_schema: None,
        request_schema: None,
        response_schema: None,
    }
}

fn trigger(id: &str, kind: &str, function: &str) -> TriggerSpec {
    TriggerSpec::new(id, kind, FunctionId::new(function).unwrap())
}

#[test]
fn trigger_types_that_are_not_granted_are_neither_bound_nor_provided() {
    for stage in Stage::all(&Grant::default().with_offer("edge::*").with_trigger("tick")) {
        let (local, remote) = (stage.local("local"), stage.remote("remote"));
        let provider = Provider::default();
        for kind in ["tick", "tock"] {
            local.register_trigger_type(kind_of(kind), provider.clone()).unwrap();
        }
        remote.register(echo("edge::a")).unwrap();
        remote.register_trigger(trigger("mine", "tick", "edge::a")).unwrap();
        let error = remote.register_trigger(trigger("other", "tock", "edge::a")).unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden, "{error}");
        assert!(error.message.contains("grant"), "{error}");
        let spec = kind_of("tuck");
        let error = remote.register_trigger_type(spec, Provider::default()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden, "{error}");
        let bound: Vec<String> = provider.bound.lock().iter().map(|spec| spec.id.clone()).collect();
        assert_eq!(bound, ["mine"]);
    }
}

/// Whoever provides a trigger type calls what was bound to it in its own name: a binding must not lead to what its maker may
/// neither call nor serves itself.
#[test]
fn a_trigger_is_no_way_around_the_grant() {
    let grant = Grant::default().with_offer("edge::*").with_call("math::*").with_trigger("tick");
    for stage in Stage::all(&grant) {
        let (local, remote) = (stage.local("local"), stage.remote("remote"));
        local.register_all(vec![echo("bank::pay"), echo("math::id")]).unwrap();
        let provider = Provider::default();
        local.register_trigger_type(kind_of("tick"), provider.clone()).unwrap();
        let elsewhere =
            TriggerSpec { namespace: Some("other".to_owned()), ..trigger("elsewhere", "tick", "edge::a") };
        for spec in [trigger("robbery", "tick", "bank::pay"), elsewhere] {
            let outcome = remote.register_trigger(spec);
            let asked: Vec<String> =
                provider.bound.lock().iter().map(|spec| spec.function_id.to_string()).collect();
            let error = outcome.expect_err(&format!("the provider was asked to call {asked:?}"));
            assert_eq!(error.code, ErrorCode::Forbidden, "{error}");
        }
        remote.register_trigger(trigger("sum", "tick", "math::id")).unwrap();
    }
}

#[test]
fn a_grant_has_namespaces() {
    let grant = Grant::default().with_call("*").with_offer("*").with_namespaces(&["tenant-*"]);
    for stage in Stage::all(&grant) {
        let local = |namespace: &str| {
            let builder = ringway::Worker::builder("local").address(stage.engine.address());
            builder.namespace(namespace).connect().unwrap()
        };
        let remote = |namespace: &str| {
            let builder = ringway::Worker::builder("remote").address(stage.address());
            builder.namespace(namespace).credentials(stage.credentials("remote")).connect().unwrap()
        };
        let (ours, theirs) = (local("tenant-7"), local("other"));
        ours.register(echo("docs::read")).unwrap();
        theirs.register(echo("docs::secret")).unwrap();
        let inside = remote("tenant-7");
        wait_for(&inside, "docs::read");
        assert_eq!(inside.trigger_json("docs::read", &json!(1)).unwrap(), json!(1));
        let known = inside.catalog().functions;
        assert!(known.iter().all(|function| function.namespace.starts_with("tenant-")), "{known:?}");
        inside.register(echo("edge::f")).unwrap();
        wait_for(&ours, "edge::f");
        // A namespace that is not granted is one in which nothing can be registered.
        let outside = remote("other");
        let error = outside.register(echo("docs::secret2")).unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden, "{error}");
        assert_eq!(outside.trigger_json("docs::secret", &json!(1)).unwrap_err().code, ErrorCode::NotFound);
    }
}

#[test]
fn the_policy_of_the_engine_holds_on_open_channels_both_ways() {
    for stage in Stage::all(&Grant::everything()) {
        let (local, remote) = (stage.local("local"), stage.remote("remote"));
        local.register_all(vec![echo("here::free"), echo("here::held")]).unwrap();
        remote.register_all(vec![echo("there::free"), echo("there::held")]).unwrap();
        let pairs = [(&local, "there"), (&remote, "here")];
        // Handles that have been used: they know their callee and have a channel to it.
        let handles: Vec<_> = pairs
            .iter()
            .flat_map(|(caller, place)| {
                ["free", "held"].map(|name| {
                    let id = format!("{place}::{name}");
                    wait_for(caller, &id);
                    assert_eq!(caller.trigger_json(&id, &json!(1)).unwrap(), json!(1));
                    (caller.handle(&id), name)
                })
            })
            .collect();
        let request = Message::json(&1).unwrap();
        stage.engine.set_policy(Policy::new(vec![Rule::new(Action::Deny, "default", "*::held")]));
        for (handle, name) in &handles {
            match *name {
                "held" => {
                    until("the policy holds", || handle.call(&request).is_err());
                    for _ in 0..20 {
                        let error = handle.call(&request).unwrap_err();
                        let expected = [ErrorCode::Forbidden, ErrorCode::NotFound];
                        assert!(expected.contains(&error.code), "{}: {error}", handle.id());
                    }
                }
                _ => drop(handle.call(&request).unwrap()),
            }
        }
        stage.engine.set_policy(Policy::default());
        for (handle, _) in &handles {
            until("it may be called again", || handle.call(&request).is_ok());
        }
    }
}
