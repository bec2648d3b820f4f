//! The path of a route as it is registered: fixed segments, `:name` for one segment, `*name` for the rest. Used by the tree
//! and by whoever shows routes. It must not know requests.

use std::fmt;

/// The longest path of a route, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// The most segments of a route's path.
pub const SEGMENTS_MAX: usize = 64;

/// Why a path is none that can be served. Lower case, says what was wanted and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It is too long.
    #[error("`api_path` has {0} bytes, at most {PATTERN_BYTES_MAX} are taken")]
    Long(usize),
    /// It has too many segments.
    #[error("`api_path` has more than {SEGMENTS_MAX} segments")]
    Deep,
    /// It holds what no path of a request can match.
    #[error(
        "`api_path` holds {0:?}: wanted is a path alone, without query, fragment, spaces or control characters"
    )]
    Sign(char),
    /// A parameter has no name, or one with other signs.
    #[error(
        "`{0}` of `api_path` is no parameter: wanted is `:name` or `*name`, of letters, digits, `_` and `-`"
    )]
    Name(String),
    /// Two parameters share a name.
    #[error("`api_path` names the parameter `{0}` twice: give each a name of its own")]
    Twice(String),
    /// Something follows the rest.
    #[error("`{0}` of `api_path` takes the rest of the path, so nothing can follow it")]
    AfterRest(String),
    /// It holds a segment that means another path.
    #[error("`api_path` holds the segment `{0}`, which clients resolve before they send a path")]
    Dots(String),
}

/// A part of a path between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this text, compared after decoding.
    Fixed(String),
    /// Any one segment that is not empty.
    One(String),
    /// Everything that is left; at least one byte.
    Rest(String),
}

/// A path that was found right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
}

impl Pattern {
    /// Reads a path; the slash at its beginning may be left out. `{name}` and `{*name}` mean `:name` and `*name`.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn parse(path: &str) -> Result<Self, PatternError> {
        if path.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::Long(path.len()));
        }
        if let Some(sign) = path.chars().find(|sign| sign.is_control() || " ?#\\".contains(*sign)) {
            return Err(PatternError::Sign(sign));
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        let mut segments: Vec<Segment> = Vec::new();
        for text in path.split('/') {
            if segments.len() == SEGMENTS_MAX {
                return Err(PatternError::Deep);
            }
            if let Some(Segment::Rest(name)) = segments.last() {
                return Err(PatternError::AfterRest(format!("*{name}")));
            }
            let segment = Segment::parse(text)?;
            if let Some(name) = segment.name()
                && segments.iter().any(|earlier| earlier.name() == Some(name))
            {
                return Err(PatternError::Twice(name.to_owned()));
            }
            segments.push(segment);
        }
        Ok(Self { segments })
    }

    /// Its segments.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The names of its parameters, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::name)
    }

    /// What two patterns share that match the same paths.
    #[must_use]
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for segment in &self.segments {
            shape.push('/');
            match segment {
                Segment::Fixed(text) => shape.push_str(text),
                Segment::One(_) => shape.push('\u{1}'),
                Segment::Rest(_) => shape.push('\u{2}'),
            }
        }
        shape
    }

    /// The path in the manner of OpenAPI, `/users/{id}`.
    #[must_use]
    pub fn template(&self) -> String {
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Fixed(text) => format!("/{text}"),
                Segment::One(name) | Segment::Rest(name) => format!("/{{{name}}}"),
            })
            .collect()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Fixed(text) => write!(f, "/{text}"),
            Segment::One(name) => write!(f, "/:{name}"),
            Segment::Rest(name) => write!(f, "/*{name}"),
        })
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let wrong = || PatternError::Name(text.to_owned());
        let named = |name: &str| {
            let fits = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
            if fits { Ok(name.to_owned()) } else { Err(wrong()) }
        };
        if let Some(name) = text.strip_prefix(':') {
            return named(name).map(Self::One);
        }
        if let Some(name) = text.strip_prefix('*') {
            // iii's routers take a bare star too.
            return if name.is_empty() {
                Ok(Self::Rest("rest".to_owned()))
            } else {
                named(name).map(Self::Rest)
            };
        }
        if let Some(inner) = text.strip_prefix('{') {
            let inner = inner.strip_suffix('}').ok_or_else(wrong)?;
            return match inner.strip_prefix('*') {
                Some(name) => named(name).map(Self::Rest),
                None => named(inner).map(Self::One),
            };
        }
        if text.contains(['{', '}', '*']) {
            return Err(wrong());
        }
        let text = super::decoded(text);
        if text == "." || text == ".." {
            return Err(PatternError::Dots(text.into_owned()));
        }
        Ok(Self::Fixed(text.into_owned()))
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Fixed(_) => None,
            Self::One(name) | Self::Rest(name) => Some(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_shown_alike() {
        for (path, shown) in [
            ("users/:id", "/users/:id"),
            ("/users/{id}", "/users/:id"),
            ("/files/{*rest}", "/files/*rest"),
            ("/files/*", "/files/*rest"),
            ("/", "/"),
            ("", "/"),
            ("/a/", "/a/"),
            ("/caf%C3%A9", "/café"),
        ] {
            assert_eq!(Pattern::parse(path).unwrap().to_string(), shown, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_its_reason() {
        for (path, expected) in [
            ("/a b", "' '"),
            ("/a?b", "'?'"),
            ("/:", "`:`"),
            ("/:a.b", "`:a.b`"),
            ("/{a", "`{a`"),
            ("/a*b", "`a*b`"),
            ("/:a/:a", "`a` twice"),
            ("/*a/b", "`*a`"),
            ("/a/../b", "`..`"),
            ("/%2e%2E", "`..`"),
        ] {
            let refused = Pattern::parse(path).unwrap_err().to_string();
            assert!(refused.contains(expected), "{path}: {refused}");
        }
        assert_eq!(Pattern::parse(&"/a".repeat(65)), Err(PatternError::Deep));
        assert_eq!(Pattern::parse(&"a".repeat(1025)), Err(PatternError::Long(1025)));
    }

    #[test]
    fn patterns_of_one_shape_match_the_same_paths() {
        let shape = |path| Pattern::parse(path).unwrap().shape();
        assert_eq!(shape("/a/:x/b"), shape("a/{y}/b"));
        assert_ne!(shape("/a/:x"), shape("/a/*x"));
        assert_ne!(shape("/a/"), shape("/a"));
    }
}
