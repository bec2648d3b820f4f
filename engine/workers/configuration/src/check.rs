//! What may be stored: ids, schemas, values that fit them, variables in values. Pure; it must not know what is stored.

use jsonschema::{PatternOptions, Validator};
use ringway::Failure;
use ringway_config::Variables;
use serde_json::Value;

/// The longest id, in bytes.
const ID_BYTES_MAX: usize = 64;

/// Faults of one value that are told; a value may have thousands.
const FAULTS_TOLD: usize = 5;

pub(crate) fn id(id: &str) -> Result<(), Failure> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(fits) {
        return Ok(());
    }
    let shown: String = id.chars().take(ID_BYTES_MAX + 1).collect();
    let text = format!(
        "wanted an id of 1 to {ID_BYTES_MAX} of the characters a-z, 0-9, `_` and `-`, found `{shown}`"
    );
    Err(Failure::with_code("INVALID_ID", text))
}

/// Reads a schema. References to elsewhere are not followed, and patterns cost time linear in the text.
pub(crate) fn schema(id: &str, schema: &Value) -> Result<Validator, Failure> {
    let wrong = |why: String| {
        Failure::with_code("SCHEMA_INVALID", format!("the schema of `{id}` is no JSON Schema: {why}"))
    };
    if !schema.is_object() && !schema.is_boolean() {
        return Err(wrong("wanted an object, true or false".to_owned()));
    }
    let options = jsonschema::options().offline().with_pattern_options(PatternOptions::regex());
    options.build(schema).map_err(|error| wrong(error.to_string()))
}

/// Holds a value against its schema.
pub(crate) fn value(id: &str, validator: &Validator, value: &Value) -> Result<(), Failure> {
    let mut errors = validator.iter_errors(value);
    let mut faults: Vec<String> = Vec::new();
    for error in errors.by_ref().take(FAULTS_TOLD) {
        let path = error.instance_path().to_string();
        let place = if path.is_empty() { "the value".to_owned() } else { format!("`{path}`") };
        faults.push(format!("{place}: {error}"));
    }
    if faults.is_empty() {
        return Ok(());
    }
    let more = if errors.next().is_some() { "; and more" } else { "" };
    let text = format!("the value does not fit the schema of `{id}`: {}{more}", faults.join("; "));
    Err(Failure::with_code("SCHEMA_INVALID", text))
}

/// Puts variables of the engine's process into a value.
pub(crate) fn expand(id: &str, value: &Value) -> Result<Value, Failure> {
    ringway_config::expand_json(value, &Variables::process()).map_err(|why| {
        Failure::with_code("EXPAND_FAILED", format!("the value of `{id}` cannot be read as it is: {why}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn code(failed: Result<(), Failure>) -> Option<String> {
        failed.err().and_then(|failure| failure.into_error().user_code)
    }

    #[test]
    fn ids_are_short_and_plain() {
        for good in ["a", "iii-http", "x_1", &"a".repeat(64)] {
            assert_eq!(code(id(good)), None, "{good}");
        }
        for bad in ["", "A", "a b", "a/b", "é", &"a".repeat(65)] {
            assert_eq!(code(id(bad)).as_deref(), Some("INVALID_ID"), "{bad}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        let validator = schema("a", &json!({"properties": {"port": {"type": "integer"}}})).unwrap();
        assert_eq!(code(value("a", &validator, &json!({"port": 1}))), None);
        let error = value("a", &validator, &json!({"port": "x"})).unwrap_err().into_error();
        assert_eq!(error.user_code.as_deref(), Some("SCHEMA_INVALID"));
        assert!(error.message.contains("`/port`") && error.message.contains("`a`"), "{error}");
    }

    #[test]
    fn schemas_that_lead_elsewhere_or_nowhere_are_refused() {
        for bad in [
            json!(1),
            json!({"type": "nothing"}),
            json!({"$ref": "https://example.org/x"}),
            json!({"pattern": "("}),
        ] {
            assert_eq!(code(schema("a", &bad).map(drop)).as_deref(), Some("SCHEMA_INVALID"), "{bad}");
        }
    }
}
