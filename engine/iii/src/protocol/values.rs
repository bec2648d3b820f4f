//! JSON that is passed on as it came. It must not know what it says.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// Whether the text of a value is that of an object.
pub(crate) fn is_object(json: &str) -> bool {
    json.starts_with('{')
}

/// Whether the text of a value is that of null, or there is none.
pub(crate) fn is_null(json: &str) -> bool {
    let json = json.trim();
    json.is_empty() || json == "null"
}

/// A text; none where the value is something else.
pub(super) fn text(value: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let json = value?.get();
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Any value, parsed; none where there is none, or null.
pub(super) fn value(value: Option<&RawValue>) -> Option<serde_json::Value> {
    // It was checked to be JSON when its message was read.
    value.and_then(|value| serde_json::from_str(value.get()).ok())
}

/// A value of a type; none where there is none, or one of another type.
pub(super) fn value_as<T: serde::de::DeserializeOwned>(value: Option<&RawValue>) -> Option<T> {
    value.and_then(|value| serde_json::from_str(value.get()).ok())
}
