//! JSON as text: how deep it is nested, without reading it into memory, because a parser may check text that it could not
//! read; and the one text of a value, whatever the order of its keys. Used before something is kept, or known by its text.
//! It must not know what the text says.

use serde_json::Value;

/// Levels of arrays and objects in a value. Deeper text can be checked, but not read by most parsers.
pub const DEPTH_MAX: usize = 120;

/// Whether every parser with the usual limits can read this text, which is known to be JSON.
#[must_use]
pub fn is_shallow(text: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.iter().copied() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return false;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// The text of a value with the keys of its objects in order, so that equal values have equal texts.
#[must_use]
pub fn sorted(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            let field = |(name, value): (&String, &Value)| {
                format!("{}:{}", Value::from(name.as_str()), sorted(value))
            };
            format!("{{{}}}", fields.into_iter().map(field).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_strings() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let is_shallow = |text: &str| is_shallow(text.as_bytes());
        assert!(is_shallow(&deep(DEPTH_MAX)));
        assert!(!is_shallow(&deep(DEPTH_MAX + 1)));
        assert!(serde_json::from_str::<serde_json::Value>(&deep(DEPTH_MAX)).is_ok());
        assert!(is_shallow(&format!("[\"\\\"{}\"]", "[{".repeat(DEPTH_MAX))));
        assert!(is_shallow(&"[],".repeat(DEPTH_MAX + 1)));
        assert!(!is_shallow(&format!("[\"\\\\\",{}", deep(DEPTH_MAX))));
    }

    #[test]
    fn equal_values_have_one_text() {
        let read = |text: &str| sorted(&serde_json::from_str(text).unwrap());
        let text = r#"{"a":[1,{"x":null,"y":"\""}],"b":{}}"#;
        assert_eq!(read(text), text);
        assert_eq!(read(r#"{"b":{},"a":[1,{"y":"\"","x":null}]}"#), text);
        assert_ne!(read("[1,2]"), read("[2,1]"));
    }
}
