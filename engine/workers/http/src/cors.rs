//! Which pages of other origins may ask, and what browsers are told (the Fetch standard). What is decided here protects
//! users of browsers, not the server: whoever is no browser is not held back. It must not know routes.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, Method, Response, StatusCode};

use crate::body::Body;
use crate::config::Cors;

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// What is allowed, made ready.
#[derive(Debug)]
pub(crate) struct Policy {
    any: bool,
    exact: Vec<String>,
    /// What stands before and behind the star.
    below: Vec<(String, String)>,
    methods: Vec<String>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
    private_network: bool,
}

impl Policy {
    pub(crate) fn new(config: &Cors) -> Self {
        let joined = |names: &[String]| {
            let there = !names.is_empty();
            there.then(|| HeaderValue::from_str(&names.join(", ")).ok()).flatten()
        };
        let (mut exact, mut below) = (Vec::new(), Vec::new());
        for origin in config.origins.iter().filter(|origin| *origin != "*") {
            let origin = origin.trim_end_matches('/').to_ascii_lowercase();
            match origin.split_once('*') {
                Some((before, behind)) => below.push((before.to_owned(), behind.to_owned())),
                None => exact.push(origin),
            }
        }
        // iii reads an empty list as every origin.
        let any = config.origins.is_empty() || config.origins.iter().any(|origin| origin == "*");
        Self {
            any,
            exact,
            below,
            methods: config.methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
            headers: joined(&config.headers),
            expose: joined(&config.expose),
            credentials: config.credentials,
            max_age: HeaderValue::from(config.max_age_seconds),
            private_network: config.private_network,
        }
    }

    /// Whether a page of this origin may ask.
    pub(crate) fn allows(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        let is_below = |(before, behind): &(String, String)| {
            origin
                .strip_prefix(before.as_str())
                .and_then(|rest| rest.strip_suffix(behind.as_str()))
                .is_some_and(|middle| !middle.is_empty() && !middle.contains(['/', ':', '@']))
        };
        self.any || self.exact.contains(&origin) || self.below.iter().any(is_below)
    }

    /// The answer to the question that a browser asks before a request; `methods` are those that the path has.
    pub(crate) fn preflight(&self, asked: &HeaderMap, methods: &[&str]) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let vary = "origin, access-control-request-method, access-control-request-headers";
        response.headers_mut().insert(VARY, HeaderValue::from_static(vary));
        if !self.mark(asked, response.headers_mut()) {
            return response;
        }
        let headers = response.headers_mut();
        headers.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
        let listed: Vec<&str> = if self.methods.is_empty() {
            methods.to_vec()
        } else {
            self.methods.iter().map(String::as_str).collect()
        };
        if let Ok(value) = HeaderValue::from_str(&listed.join(", ")) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, value);
        }
        if let Some(value) = self.headers.as_ref().or_else(|| asked.get(ACCESS_CONTROL_REQUEST_HEADERS)) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, value.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        if self.private_network && asked.contains_key(REQUEST_PRIVATE_NETWORK) {
            headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        response
    }

    /// Puts onto an answer that a page may read it; false if its origin may not, or there is none.
    pub(crate) fn mark(&self, asked: &HeaderMap, answer: &mut HeaderMap) -> bool {
        let same_for_all = self.any && !self.credentials;
        if !same_for_all && !varies_by_origin(answer) {
            answer.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = asked.get(ORIGIN) else { return false };
        if !origin.to_str().is_ok_and(|origin| self.allows(origin)) {
            return false;
        }
        let allowed = if same_for_all { HeaderValue::from_static("*") } else { origin.clone() };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
        true
    }
}

/// Whether caches are told already that another origin may get another answer.
fn varies_by_origin(answer: &HeaderMap) -> bool {
    let lines = answer.get_all(VARY).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .any(|name| matches!(name.trim(), "*") || name.trim().eq_ignore_ascii_case("origin"))
}

/// Whether this is the question that a browser asks before a request.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(origins: &[&str], credentials: bool) -> Policy {
        let origins = origins.iter().map(|&origin| origin.to_owned()).collect();
        Policy::new(&Cors { origins, credentials, expose: vec!["x-own".to_owned()], ..Cors::default() })
    }

    fn asked(origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT"));
        headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-a, x-b"));
        headers
    }

    #[test]
    fn origins_are_compared_whole() {
        let policy = policy(&["https://app.example", "https://*.below.example"], false);
        for (origin, expected) in [
            ("https://app.example", true),
            ("HTTPS://APP.example", true),
            ("https://app.example.evil", false),
            ("http://app.example", false),
            ("https://a.below.example", true),
            ("https://a.b.below.example", true),
            ("https://.below.example", false),
            ("https://evil/.below.example", false),
            ("https://evilbelow.example", false),
            ("null", false),
        ] {
            assert_eq!(policy.allows(origin), expected, "{origin}");
        }
    }

    #[test]
    fn a_preflight_is_answered_for_the_origin_that_asks() {
        let answer =
            policy(&["https://app.example"], true).preflight(&asked("https://app.example"), &["GET", "PUT"]);
        let header = |name: HeaderName| answer.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(answer.status(), 204);
        assert_eq!(header(ACCESS_CONTROL_ALLOW_ORIGIN), Some("https://app.example"));
        assert_eq!(header(ACCESS_CONTROL_ALLOW_CREDENTIALS), Some("true"));
        assert_eq!(header(ACCESS_CONTROL_ALLOW_METHODS), Some("GET, PUT"));
        assert_eq!(header(ACCESS_CONTROL_ALLOW_HEADERS), Some("x-a, x-b"));
        assert_eq!(header(ACCESS_CONTROL_MAX_AGE), Some("600"));
        assert!(header(VARY).unwrap().contains("origin"));
        let refused =
            policy(&["https://app.example"], true).preflight(&asked("https://evil.example"), &["GET"]);
        assert!(!refused.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        assert!(!refused.headers().contains_key(ACCESS_CONTROL_ALLOW_METHODS));
    }

    #[test]
    fn an_answer_says_who_may_read_it() {
        let mut answer = HeaderMap::new();
        assert!(policy(&["*"], false).mark(&asked("https://any.example"), &mut answer));
        assert_eq!(
            (answer[ACCESS_CONTROL_ALLOW_ORIGIN].as_bytes(), answer.contains_key(VARY)),
            (&b"*"[..], false)
        );
        assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], "x-own");
        // A cache must not give one origin's answer to another.
        let mut answer = HeaderMap::new();
        assert!(!policy(&["https://app.example"], false).mark(&HeaderMap::new(), &mut answer));
        assert_eq!(answer[VARY], "origin");
        // Also where the function names something else by which its answers differ.
        for (given, expected) in [("accept-language", 2), ("Origin, accept", 1), ("*", 1)] {
            let mut answer = HeaderMap::new();
            answer.insert(VARY, HeaderValue::from_static(given));
            policy(&["https://app.example"], false).mark(&HeaderMap::new(), &mut answer);
            assert_eq!(answer.get_all(VARY).iter().count(), expected, "{given}");
        }
    }
}
