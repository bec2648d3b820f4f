//! The live triggers of one type, with their configs parsed. The worker that provides the type reads them at every event;
//! the engine changes them whenever somebody binds or unbinds. It must not know what the events are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ringway::protocol::control::TriggerSpec;
use ringway::{CallError, TriggerProvider};
use serde_json::Value;

use crate::condition::Condition;

/// One live trigger.
#[derive(Debug)]
pub struct Binding<C> {
    /// Its id, unique in the engine.
    pub id: String,
    /// The function to call.
    pub function_id: String,
    /// What it watches for.
    pub config: C,
    /// Which events it wants.
    pub condition: Condition,
    /// Passed to the function beside the payload.
    pub metadata: Option<Value>,
}

type Listener = Arc<dyn Fn() + Send + Sync>;

/// The live triggers of one type. Clones share them.
pub struct Bindings<C> {
    shared: Arc<Shared<C>>,
}

struct Shared<C> {
    /// Ordered by id, so that every event meets them in the same order.
    all: ArcSwap<Vec<Arc<Binding<C>>>>,
    /// Held while the list is replaced.
    by_id: Mutex<BTreeMap<String, Arc<Binding<C>>>>,
    listeners: Mutex<Vec<Listener>>,
}

impl<C> Clone for Bindings<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C: fmt::Debug> fmt::Debug for Bindings<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().iter()).finish()
    }
}

impl<C> Bindings<C> {
    /// The triggers that are live now, ordered by id. Takes no lock.
    #[must_use]
    pub fn all(&self) -> Arc<Vec<Arc<Binding<C>>>> {
        self.shared.all.load_full()
    }

    /// Calls `listener` after each change, on the thread that brings it; it must not wait.
    pub fn on_change(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.shared.listeners.lock().push(Arc::new(listener));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Arc<Binding<C>>>)) {
        {
            let mut by_id = self.shared.by_id.lock();
            change(&mut by_id);
            self.shared.all.store(Arc::new(by_id.values().cloned().collect()));
        }
        let listeners = self.shared.listeners.lock().clone();
        listeners.iter().for_each(|listener| listener());
    }
}

impl<C: Send + Sync + 'static> Bindings<C> {
    /// An empty list, and what to register the trigger type with. `parse` reads a trigger's config, or says what is wrong
    /// with it; the error is what the worker that binds hears. The fields of the condition are read here.
    pub fn provider(
        parse: impl Fn(&Value) -> Result<C, CallError> + Send + Sync + 'static,
    ) -> (Self, impl TriggerProvider) {
        let shared = Shared {
            all: ArcSwap::default(),
            by_id: Mutex::new(BTreeMap::new()),
            listeners: Mutex::new(Vec::new()),
        };
        let bindings = Self { shared: Arc::new(shared) };
        (bindings.clone(), Provider { bindings, parse })
    }
}

struct Provider<C, P> {
    bindings: Bindings<C>,
    parse: P,
}

impl<C, P> TriggerProvider for Provider<C, P>
where
    C: Send + Sync + 'static,
    P: Fn(&Value) -> Result<C, CallError> + Send + Sync + 'static,
{
    fn bind(&self, binding: &TriggerSpec) -> Result<(), CallError> {
        let parsed = Binding {
            id: binding.id.clone(),
            function_id: binding.function_id.to_string(),
            config: (self.parse)(&binding.config)?,
            condition: Condition::of(&binding.config)?,
            metadata: binding.metadata.clone(),
        };
        self.bindings.change(|by_id| {
            by_id.insert(parsed.id.clone(), Arc::new(parsed));
        });
        Ok(())
    }

    fn unbind(&self, id: &str) {
        self.bindings.change(|by_id| {
            by_id.remove(id);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ringway::ErrorCode;
    use ringway::protocol::ids::FunctionId;
    use serde_json::json;

    use super::*;

    fn spec(id: &str, config: Value) -> TriggerSpec {
        let mut spec = TriggerSpec::new(id, "test", FunctionId::new("a::b").unwrap());
        spec.config = config;
        spec
    }

    fn topics() -> (Bindings<String>, impl TriggerProvider) {
        Bindings::provider(|config| {
            let topic = config["topic"].as_str();
            topic
                .map(str::to_owned)
                .ok_or_else(|| CallError::new(ErrorCode::InvalidRegistration, "a topic is wanted"))
        })
    }

    #[test]
    fn those_that_are_bound_are_seen_in_order_until_they_are_unbound() {
        let (bindings, provider) = topics();
        let changes = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&changes);
        bindings.on_change(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        for (id, topic) in [("b", "x"), ("a", "y"), ("b", "z")] {
            provider.bind(&spec(id, json!({ "topic": topic }))).unwrap();
        }
        let found = |bindings: &Bindings<String>| -> Vec<(String, String)> {
            bindings.all().iter().map(|binding| (binding.id.clone(), binding.config.clone())).collect()
        };
        let pair = |id: &str, topic: &str| (id.to_owned(), topic.to_owned());
        assert_eq!(found(&bindings), [pair("a", "y"), pair("b", "z")]);
        provider.unbind("a");
        provider.unbind("never-there");
        assert_eq!(found(&bindings), [pair("b", "z")]);
        assert_eq!(changes.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_wrong_config_or_condition_is_refused_and_changes_nothing() {
        let (bindings, provider) = topics();
        let refused = provider.bind(&spec("a", json!({}))).unwrap_err();
        assert!(refused.message.contains("a topic is wanted"), "{refused}");
        let refused =
            provider.bind(&spec("a", json!({ "topic": "x", "condition": "status ==" }))).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRegistration);
        assert!(bindings.all().is_empty());
    }
}
