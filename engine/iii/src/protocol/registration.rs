//! What a client registers and takes back. It must not know what becomes of it.

use serde_json::Value;

use super::observing::NewObserver;

/// Something to register, or to take back by its id.
#[derive(Debug)]
pub enum Registration {
    /// Serves a function from now on.
    Function(Box<NewFunction>),
    /// Serves it no longer.
    NoFunction(String),
    /// Provides a trigger type from now on.
    TriggerType(NewTriggerType),
    /// Provides it no longer.
    NoTriggerType(String),
    /// Binds a function to a kind of event.
    Trigger(NewTrigger),
    /// Takes a binding back.
    NoTrigger(String),
    /// Wants a function called after each call of another one.
    Observer(Box<NewObserver>),
    /// Wants that no longer.
    NoObserver(String),
}

/// A function.
#[derive(Debug)]
pub struct NewFunction {
    /// Its id.
    pub id: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON Schema of the request.
    pub request_format: Option<Value>,
    /// JSON Schema of the reply.
    pub response_format: Option<Value>,
    /// Anything.
    pub metadata: Option<Value>,
    /// How to call it by HTTP, if this side is to.
    pub invocation: Option<Value>,
    /// How it is observed, as 0.25 says it.
    pub observe: Option<Value>,
    /// JSON Schema of the arguments that its observers give, as 0.26 says it.
    pub args_format: Option<Value>,
    /// Nobody else may call it.
    pub private: bool,
    /// It may be observed.
    pub observable: bool,
}

/// A kind of event.
#[derive(Debug)]
pub struct NewTriggerType {
    /// Its id.
    pub id: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of a trigger's configuration.
    pub trigger_request_format: Option<Value>,
    /// JSON Schema of what it sends to functions.
    pub call_request_format: Option<Value>,
    /// Where; none: in the connection's namespace.
    pub namespace: Option<String>,
}

/// A binding of a function to a kind of event.
#[derive(Debug, Clone)]
pub struct NewTrigger {
    /// The binding's id.
    pub id: String,
    /// The kind of event.
    pub trigger_type: String,
    /// The function.
    pub function_id: String,
    /// What the provider needs to know.
    pub config: Value,
    /// Passed to the function with every event.
    pub metadata: Option<Value>,
    /// The function's namespace.
    pub namespace: Option<String>,
    /// The provider's namespace.
    pub trigger_namespace: Option<String>,
}
