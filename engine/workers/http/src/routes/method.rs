//! The methods that routes are registered for. It must not know paths.

use std::fmt;

/// A method of HTTP, or any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
    Head,
    Options,
    Trace,
    Query,
    /// Every method that nobody else has.
    Any,
}

impl Method {
    pub(crate) const ALL: [Self; 10] = [
        Self::Get,
        Self::Post,
        Self::Put,
        Self::Patch,
        Self::Delete,
        Self::Head,
        Self::Options,
        Self::Trace,
        Self::Query,
        Self::Any,
    ];

    /// How many there are, [`Self::Any`] among them.
    pub(crate) const COUNT: usize = Self::ALL.len();

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Query => "QUERY",
            Self::Any => "ANY",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Reads what a trigger says, in any case of letters; `*` is `ANY`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        Self::ALL.into_iter().find(|method| method.as_str().eq_ignore_ascii_case(text))
    }

    /// The method of a request; one that no route can have is served by those for any.
    pub(crate) fn of(method: &hyper::Method) -> Self {
        match *method {
            hyper::Method::GET => Self::Get,
            hyper::Method::POST => Self::Post,
            hyper::Method::PUT => Self::Put,
            hyper::Method::PATCH => Self::Patch,
            hyper::Method::DELETE => Self::Delete,
            hyper::Method::HEAD => Self::Head,
            hyper::Method::OPTIONS => Self::Options,
            hyper::Method::TRACE => Self::Trace,
            _ if method.as_str() == "QUERY" => Self::Query,
            _ => Self::Any,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_read_and_has_a_place_of_its_own() {
        for (at, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method.index(), at);
            assert_eq!(Method::parse(&method.as_str().to_lowercase()), Some(method));
        }
        assert_eq!((Method::parse("*"), Method::parse("FETCH")), (Some(Method::Any), None));
    }
}
