//! How deep JSON text is nested, without reading it into memory. Used before a value is kept, because a parser may check
//! text that it could not read. It must not know what the text says.

use crate::limits::DEPTH_MAX;

/// Whether every parser with the usual limits can read this text, which is known to be JSON.
pub(crate) fn is_shallow(text: &[u8]) -> bool {
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
}
