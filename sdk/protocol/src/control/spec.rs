//! What workers register: functions, trigger types, triggers. The engine keeps them as they are and
//! shows them in its listings.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::header::Encoding;
use crate::ids::FunctionId;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
pub(super) const fn is_false(value: &bool) -> bool {
    !*value
}

/// A function that a worker serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionSpec {
    /// Its id.
    pub id: FunctionId,
    /// Its index in the worker's table, which frames carry; from 1, unique within the worker.
    pub index: u32,
    /// Tells this registration from an earlier one with the same index.
    #[serde(default)]
    pub generation: u16,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_schema: Option<Value>,
    /// JSON Schema of the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_schema: Option<Value>,
    /// Anything its author wants to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// The encodings that it takes, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encodings: Vec<Encoding>,
    /// A name for the layout of its typed request and reply: a caller may use [`Encoding::Rkyv`] only
    /// where its own types have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_key: Option<String>,
    /// Repeating a call does no harm.
    #[serde(default, skip_serializing_if = "is_false")]
    pub idempotent: bool,
    /// No other worker may register the id.
    #[serde(default, skip_serializing_if = "is_false")]
    pub exclusive: bool,
    /// The caller streams items to it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub streams_in: bool,
    /// It streams items to the caller.
    #[serde(default, skip_serializing_if = "is_false")]
    pub streams_out: bool,
    /// Items go both ways where a caller wants that, who says so by [`crate::header::Flags::MORE`]; it is called without, too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub streams_optional: bool,
    /// Hidden from listings unless they ask for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub internal: bool,
}

impl FunctionSpec {
    /// Makes the plainest function; the rest may be set afterwards.
    #[must_use]
    pub const fn new(id: FunctionId, index: u32) -> Self {
        Self {
            id,
            index,
            generation: 0,
            description: None,
            request_schema: None,
            response_schema: None,
            metadata: None,
            encodings: Vec::new(),
            type_key: None,
            idempotent: false,
            exclusive: false,
            streams_in: false,
            streams_out: false,
            streams_optional: false,
            internal: false,
        }
    }
}

/// A kind of event that a worker can watch for.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct TriggerTypeSpec {
    /// Its id, such as `cron`.
    pub id: String,
    /// What it does.
    #[serde(default)]
    pub description: String,
    /// JSON Schema of a trigger's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_schema: Option<Value>,
    /// JSON Schema of what it sends to the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_schema: Option<Value>,
    /// JSON Schema of what it expects back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_schema: Option<Value>,
}

/// What binds a kind of event to a function. Neither need exist yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriggerSpec {
    /// The binding's id, unique in the engine; a later one with the same id replaces it.
    pub id: String,
    /// The kind of event.
    pub trigger_type: String,
    /// The namespace whose provider is wanted; none: the worker's own, then the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_namespace: Option<String>,
    /// The function to run.
    pub function_id: FunctionId,
    /// The function's namespace; none: the worker's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What the provider needs to know.
    #[serde(default)]
    pub config: Value,
    /// Passed to the function with every event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

impl TriggerSpec {
    /// Makes a binding; the rest may be set afterwards.
    #[must_use]
    pub fn new(id: impl Into<String>, trigger_type: impl Into<String>, function_id: FunctionId) -> Self {
        Self {
            id: id.into(),
            trigger_type: trigger_type.into(),
            trigger_namespace: None,
            function_id,
            namespace: None,
            config: Value::Null,
            metadata: None,
        }
    }
}
