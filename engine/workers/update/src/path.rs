//! Where in a value an operation applies: the root, a key of it, or keys from the outside in. Checked once, before the
//! operation looks at any value. It must not know what operations do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{PATH_SEGMENTS_MAX, POLLUTING, SEGMENT_BYTES_MAX};

/// A place in a value. `""`, `[]` and no path at all are the root; dots in a key are part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Path {
    /// One key of the root.
    Key(String),
    /// Keys from the outside in.
    Segments(Vec<String>),
}

impl Default for Path {
    fn default() -> Self {
        Self::Key(String::new())
    }
}

/// What is wrong with a path: the last part of the code, and the words.
pub(crate) type PathError = (&'static str, String);

impl Path {
    /// The keys from the outside in, none for the root.
    ///
    /// # Errors
    /// The limit that the path exceeds.
    pub(crate) fn segments(&self) -> Result<&[String], PathError> {
        let segments = match self {
            Self::Key(key) if key.is_empty() => return Ok(&[]),
            Self::Key(key) => std::slice::from_ref(key),
            Self::Segments(segments) => segments,
        };
        if segments.len() > PATH_SEGMENTS_MAX {
            let text =
                format!("the path has {} segments, at most {PATH_SEGMENTS_MAX} are taken", segments.len());
            return Err(("too_deep", text));
        }
        for (at, segment) in segments.iter().enumerate() {
            check(at, segment)?;
        }
        Ok(segments)
    }
}

fn check(at: usize, segment: &str) -> Result<(), PathError> {
    if segment.is_empty() {
        return Err(("empty_segment", format!("segment {at} of the path is empty")));
    }
    if segment.len() > SEGMENT_BYTES_MAX {
        let text = format!(
            "segment {at} of the path has {} bytes, at most {SEGMENT_BYTES_MAX} are taken",
            segment.len()
        );
        return Err(("segment_too_long", text));
    }
    if POLLUTING.contains(&segment) {
        return Err(("proto_polluted", format!("segment {at} of the path may not be `{segment}`")));
    }
    Ok(())
}
