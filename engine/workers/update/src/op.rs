//! The operations as callers send them, and what is told of one that was left out. Read by `apply`; the workers embed
//! both in their requests and replies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::path::Path;

/// One change of a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Op {
    /// Writes a value at the path; objects on the way there are made where they are missing.
    Set {
        /// Where; the root is replaced as a whole.
        path: Path,
        /// What; null if it is left out.
        #[serde(default)]
        value: Value,
    },
    /// Writes each key of an object into the one at the path; what is missing or no object on the way is replaced.
    Merge {
        /// Where; the root if it is left out.
        #[serde(default)]
        path: Option<Path>,
        /// An object.
        value: Value,
    },
    /// Adds to the number at the path; a missing one counts as 0.
    Increment {
        /// Where.
        path: Path,
        /// How much.
        by: i64,
    },
    /// Subtracts from the number at the path; a missing one counts as 0.
    Decrement {
        /// Where.
        path: Path,
        /// How much.
        by: i64,
    },
    /// Adds to the end of the array or of the string at the path, or begins one.
    Append {
        /// Where; the root if it is left out.
        #[serde(default)]
        path: Option<Path>,
        /// The new element, or the text to add.
        #[serde(default)]
        value: Value,
    },
    /// Takes the value at the path away; one that is missing stays so, and the root becomes null.
    Remove {
        /// Where.
        path: Path,
    },
}

impl Op {
    /// What the operation is called, also as the first part of its codes.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Set { .. } => "set",
            Self::Merge { .. } => "merge",
            Self::Increment { .. } => "increment",
            Self::Decrement { .. } => "decrement",
            Self::Append { .. } => "append",
            Self::Remove { .. } => "remove",
        }
    }

    /// Where it applies.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Set { path, .. }
            | Self::Increment { path, .. }
            | Self::Decrement { path, .. }
            | Self::Remove { path } => Some(path),
            Self::Merge { path, .. } | Self::Append { path, .. } => path.as_ref(),
        }
    }
}

/// Why an operation was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpError {
    /// Its place in the list, from 0.
    pub op_index: usize,
    /// What was wrong, in one stable word such as `increment.not_number`.
    pub code: String,
    /// What was wanted and what was found.
    pub message: String,
}

/// What kind of value was found, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// An object without keys, which a missing value starts as.
pub(crate) fn nothing() -> Value {
    Value::Object(Map::new())
}
