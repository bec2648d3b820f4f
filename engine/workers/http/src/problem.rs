//! How requests end badly: a stable code, a status, and a text for people, as `application/problem+json` (RFC 9457). What
//! iii's clients look for, `error.code` and `error.message`, is there too. It must not know who found the problem.

use std::borrow::Cow;
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use ringway::{CallError, ErrorCode, Started};
use serde_json::{Map, Value, json};

use crate::body::Body;

macro_rules! problems {
    ($($(#[$doc:meta])* $variant:ident = $status:literal, $code:literal, $title:literal;)+) => {
        /// What went wrong, in one stable word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code { $($(#[$doc])* $variant,)+ }

        impl Code {
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            pub(crate) const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }
        }
    };
}

problems! {
    /// The body, or a part of the head, cannot be read.
    InvalidBody = 400, "invalid_body", "The body cannot be read";
    /// The function does not take what was sent.
    InvalidRequest = 400, "invalid_request", "The request does not fit";
    /// `Idempotency-Key` is wanted and missing, or is none.
    IdempotencyKeyInvalid = 400, "idempotency_key_invalid", "The Idempotency-Key is missing or cannot be used";
    /// Nobody has shown who they are.
    Unauthenticated = 401, "unauthenticated", "Authentication is wanted";
    /// The signature of a webhook does not hold.
    SignatureInvalid = 401, "signature_invalid", "The signature does not hold";
    /// Whoever it is may not.
    Forbidden = 403, "forbidden", "This is not allowed";
    /// A page of another origin may not.
    OriginForbidden = 403, "origin_forbidden", "Pages of this origin may not ask here";
    /// No route has this path.
    RouteNotFound = 404, "NOT_FOUND", "Not Found";
    /// The function says that something is not there.
    NotFound = 404, "not_found", "Not Found";
    /// Routes have this path, with other methods.
    MethodNotAllowed = 405, "method_not_allowed", "The path has no such method";
    /// A body did not come in time.
    BodyTimeout = 408, "body_timeout", "The body did not come in time";
    /// The first request with this key has not ended.
    IdempotencyInFlight = 409, "idempotency_in_flight", "A request with this Idempotency-Key has not ended";
    /// The body is too long.
    PayloadTooLarge = 413, "payload_too_large", "The body is too long";
    /// The content type is none that can be read.
    UnsupportedMediaType = 415, "unsupported_media_type", "The content type cannot be read here";
    /// The condition of the route does not hold.
    ConditionNotMet = 422, "CONDITION_NOT_MET", "The condition of this route does not hold";
    /// The key was used for another request.
    IdempotencyKeyReused = 422, "idempotency_key_reused", "This Idempotency-Key was used for another request";
    /// A WebSocket is wanted here.
    UpgradeRequired = 426, "upgrade_required", "A WebSocket is wanted here";
    /// Too often.
    RateLimited = 429, "rate_limited", "Too many requests";
    /// The function failed.
    HandlerError = 500, "handler_error", "The function failed";
    /// The function panicked.
    HandlerPanicked = 500, "handler_panicked", "The function failed";
    /// Middleware failed, or answered what it may not.
    MiddlewareFailed = 500, "middleware_failed", "A function that is asked before or after failed";
    /// The condition could not be worked out.
    ConditionFailed = 500, "condition_failed", "The condition of this route failed";
    /// What the function answered is no answer.
    InvalidAnswer = 500, "invalid_answer", "The function's answer cannot be sent";
    /// Something of ours failed.
    Internal = 500, "internal_error", "Something failed";
    /// The function's worker went while it ran.
    WorkerGone = 502, "worker_gone", "The function's worker ended before it answered";
    /// Too many at a time.
    Overloaded = 503, "overloaded", "Too much is going on";
    /// Nobody serves the function.
    FunctionUnavailable = 503, "function_unavailable", "No worker serves the function";
    /// The function took too long.
    Timeout = 504, "deadline_exceeded", "The function took too long";
    /// Middleware took too long.
    MiddlewareTimeout = 504, "MIDDLEWARE_TIMEOUT", "A function that is asked before or after took too long";
}

/// A request that ends badly.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    status: u16,
    /// The function's own code, where it gave one.
    own_code: Option<String>,
    pub(crate) detail: Cow<'static, str>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Further members.
    extra: Map<String, Value>,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        let (status, detail) = (code.status(), detail.into());
        Box::new(Self { code, status, own_code: None, detail, headers: Vec::new(), extra: Map::new() })
    }

    pub(crate) fn header(mut self: Box<Self>, name: HeaderName, value: &str) -> Box<Self> {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// Says when to come again, in whole seconds, rounded up.
    pub(crate) fn retry_after(self: Box<Self>, wait: Duration) -> Box<Self> {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.header(RETRY_AFTER, &seconds.max(1).to_string())
    }

    pub(crate) fn with(mut self: Box<Self>, name: &str, value: Value) -> Box<Self> {
        self.extra.insert(name.to_owned(), value);
        self
    }

    /// How a call of a function ended. What it said is told where it gave a code of its own, or where everything is shown.
    pub(crate) fn of_call(error: &CallError, function: &str, errors_shown: bool) -> Box<Self> {
        let own = error.function.as_deref().is_none_or(|named| named == function);
        let soon = Duration::from_secs(1);
        let code = match error.code {
            ErrorCode::NotFound if own => Code::FunctionUnavailable,
            ErrorCode::NotFound => Code::NotFound,
            ErrorCode::Forbidden => Code::Forbidden,
            ErrorCode::DeadlineExceeded => Code::Timeout,
            ErrorCode::WorkerGone if error.started == Some(Started::No) => Code::FunctionUnavailable,
            ErrorCode::WorkerGone => Code::WorkerGone,
            ErrorCode::Busy | ErrorCode::OutOfMemory => Code::Overloaded,
            ErrorCode::InvalidRequest => Code::InvalidRequest,
            ErrorCode::UnsupportedEncoding => Code::UnsupportedMediaType,
            ErrorCode::PayloadTooLarge => Code::PayloadTooLarge,
            ErrorCode::EngineUnavailable | ErrorCode::Draining | ErrorCode::StaleHandle => {
                Code::FunctionUnavailable
            }
            ErrorCode::HandlerError => Code::HandlerError,
            ErrorCode::HandlerPanicked => Code::HandlerPanicked,
            _ => Code::Internal,
        };
        let told = errors_shown || error.user_code.is_some() || error.code == ErrorCode::InvalidRequest;
        let detail: Cow<'static, str> = match code {
            _ if told => error.message.clone().into(),
            Code::FunctionUnavailable => "no worker serves this at the moment".into(),
            Code::Timeout => "there was no answer in the time that this route has".into(),
            Code::WorkerGone => "the worker ended; the work may have been done or not".into(),
            Code::Overloaded => "the function has too much to do".into(),
            _ => "what happened is in the trace".into(),
        };
        let mut problem = Self::new(code, detail);
        problem.own_code.clone_from(&error.user_code);
        let details = error.details.as_deref();
        let asked = |name: &str| details.and_then(|details| details.get(name)).and_then(Value::as_u64);
        if error.code == ErrorCode::HandlerError
            && let Some(status) = asked("status_code").and_then(|status| u16::try_from(status).ok())
            && (400..600).contains(&status)
        {
            problem.status = status;
        }
        match asked("retry_after_ms") {
            Some(millis) => problem.retry_after(Duration::from_millis(millis)),
            None if problem.status == 503 => problem.retry_after(soon),
            None => problem,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What a span is told.
    pub(crate) fn error_code(&self) -> ErrorCode {
        match self.code {
            Code::Timeout | Code::MiddlewareTimeout | Code::BodyTimeout => ErrorCode::DeadlineExceeded,
            Code::Overloaded | Code::RateLimited => ErrorCode::Busy,
            Code::FunctionUnavailable | Code::RouteNotFound | Code::NotFound => ErrorCode::NotFound,
            Code::WorkerGone => ErrorCode::WorkerGone,
            Code::PayloadTooLarge => ErrorCode::PayloadTooLarge,
            Code::Unauthenticated | Code::Forbidden | Code::SignatureInvalid | Code::OriginForbidden => {
                ErrorCode::Forbidden
            }
            _ if self.status < 500 => ErrorCode::InvalidRequest,
            Code::HandlerPanicked => ErrorCode::HandlerPanicked,
            _ => ErrorCode::HandlerError,
        }
    }

    /// The members, with what names the request in logs and traces.
    pub(crate) fn members(&self, request_id: &str, trace_id: Option<&str>) -> Value {
        let code = self.own_code.as_deref().unwrap_or(self.code.as_str());
        let mut error = json!({"code": code, "message": self.detail});
        if self.status >= 500 {
            error["error_id"] = request_id.into();
        }
        let mut members = json!({
            "type": format!("urn:ringway:error:{}", self.code.as_str()),
            "title": self.code.title(),
            "status": self.status,
            "detail": self.detail,
            "code": code,
            "request_id": request_id,
            "error": error,
        });
        if let Some(trace_id) = trace_id {
            members["trace_id"] = trace_id.into();
        }
        for (name, value) in &self.extra {
            members[name] = value.clone();
        }
        members
    }

    pub(crate) fn response(&self, request_id: &str, trace_id: Option<&str>) -> Response<Body> {
        let mut response = Response::new(Body::full(self.members(request_id, trace_id).to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(hyper::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: CallError) -> Box<Problem> {
        Problem::of_call(&error.with_function("a::b"), "a::b", false)
    }

    #[test]
    fn every_code_has_a_page() {
        let page = include_str!("../../../../docs/http.md");
        for code in Code::ALL {
            assert!(
                page.contains(&format!("| `{}` | {} |", code.as_str(), code.status())),
                "{}",
                code.as_str()
            );
        }
    }

    #[test]
    fn calls_that_fail_have_their_statuses() {
        for (code, status) in [
            (ErrorCode::NotFound, 503),
            (ErrorCode::Forbidden, 403),
            (ErrorCode::DeadlineExceeded, 504),
            (ErrorCode::Busy, 503),
            (ErrorCode::HandlerError, 500),
            (ErrorCode::InvalidRequest, 400),
            (ErrorCode::PayloadTooLarge, 413),
            (ErrorCode::Draining, 503),
        ] {
            let problem = of(CallError::new(code, "secret path /etc"));
            assert_eq!(problem.status().as_u16(), status, "{code}");
            assert_eq!(status == 503, problem.headers.iter().any(|(name, _)| name == RETRY_AFTER), "{code}");
            let told = problem.members("r", None).to_string();
            assert_eq!(told.contains("/etc"), code == ErrorCode::InvalidRequest, "{told}");
        }
        let inner = CallError::new(ErrorCode::NotFound, "").with_function("other::one");
        assert_eq!(of(inner).status().as_u16(), 404);
    }

    #[test]
    fn a_function_that_gives_a_code_of_its_own_is_heard() {
        let error = CallError::new(ErrorCode::HandlerError, "none left")
            .with_user_code("SOLD_OUT")
            .with_details(json!({"status_code": 409, "retry_after_ms": 1500}));
        let problem = of(error);
        let members = problem.members("id-1", Some("0af7"));
        assert_eq!((members["status"].as_u64(), members["code"].as_str()), (Some(409), Some("SOLD_OUT")));
        assert_eq!(members["error"], json!({"code": "SOLD_OUT", "message": "none left"}));
        assert_eq!(members["trace_id"], "0af7");
        assert_eq!(problem.headers[0].1, "2");
    }
}
