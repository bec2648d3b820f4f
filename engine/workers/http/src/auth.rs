//! Who asks: the schemes of the settings, made ready, and asked in turn for a request. Where none of those that a route wants
//! holds, nobody comes in; an error of a scheme is as if it did not hold. It must not know what a route does.

mod jwt;
mod keys;
mod ring_provider;
mod secrets;

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use ringway::{CallOptions, Encoding, Handle, Message, Worker};
use serde_json::{Map, Value, json};

use crate::config::auth::Scheme;
use crate::problem::{Code, Problem};
use crate::request::{Asked, Text};
use jwt::Jwt;
use secrets::Secrets;

/// Who asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    /// The scheme that held.
    pub(crate) scheme: String,
    pub(crate) subject: String,
    /// What else is known: the claims of a token, the answer of a function.
    pub(crate) claims: Option<Value>,
}

impl Identity {
    /// What functions are told under `auth`.
    pub(crate) fn told(&self) -> Value {
        let mut told = json!({"scheme": self.scheme, "subject": self.subject});
        if let Some(claims) = &self.claims {
            told["claims"] = claims.clone();
        }
        told
    }
}

/// A scheme made ready.
#[derive(Debug)]
enum Check {
    Bearer(Secrets),
    ApiKey { secrets: Secrets, header: String, query: Option<String> },
    Basic(Secrets),
    Jwt(Box<Jwt>),
    Function { handle: Handle, timeout: Duration },
    Certificate,
}

/// All schemes.
#[derive(Debug)]
pub(crate) struct Guard {
    checks: BTreeMap<String, Check>,
}

impl Guard {
    /// Makes the schemes ready.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub(crate) fn new(schemes: &BTreeMap<String, Scheme>, worker: &Worker) -> Result<Self, String> {
        let mut checks = BTreeMap::new();
        for (name, scheme) in schemes {
            let check = match scheme {
                Scheme::Bearer { tokens } => Check::Bearer(Secrets::new(tokens)),
                Scheme::ApiKey { keys, header, query } => Check::ApiKey {
                    secrets: Secrets::new(keys),
                    header: header.to_ascii_lowercase(),
                    query: query.clone(),
                },
                Scheme::Basic { users } => Check::Basic(Secrets::new(users)),
                Scheme::Jwt { .. } => Check::Jwt(Box::new(
                    Jwt::new(scheme).map_err(|why| format!("the scheme `{name}`: {why}"))?,
                )),
                Scheme::Function { function_id, timeout_ms } => Check::Function {
                    handle: worker.handle(function_id),
                    timeout: Duration::from_millis(*timeout_ms),
                },
                Scheme::Certificate {} => Check::Certificate,
            };
            checks.insert(name.clone(), check);
        }
        Ok(Self { checks })
    }

    /// Finds out who asks, by one of these schemes.
    ///
    /// # Errors
    /// None of them holds.
    pub(crate) async fn identify(
        &self,
        wanted: &[String],
        asked: &Asked<'_>,
    ) -> Result<Identity, Box<Problem>> {
        let mut why: Option<&'static str> = None;
        for name in wanted {
            let Some(check) = self.checks.get(name) else { continue };
            match check.ask(asked).await {
                Ok((subject, claims)) => return Ok(Identity { scheme: name.clone(), subject, claims }),
                // What was shown and does not hold says more than what was not shown.
                Err(Refused::Wrong(text)) => why = Some(text),
                Err(Refused::Missing) => {}
            }
        }
        let detail = why.unwrap_or("nothing was shown that this route takes");
        let mut problem = Problem::new(Code::Unauthenticated, detail);
        for check in wanted.iter().filter_map(|name| self.checks.get(name)) {
            if let Some(challenge) = check.challenge(why.is_some()) {
                problem = problem.header(WWW_AUTHENTICATE, challenge);
            }
        }
        Err(problem)
    }
}

/// Why a scheme does not hold.
enum Refused {
    /// Nothing was shown for it.
    Missing,
    /// What was shown does not hold.
    Wrong(&'static str),
}

type Known = (String, Option<Value>);

impl Check {
    const fn challenge(&self, wrong: bool) -> Option<&'static str> {
        match self {
            Self::Bearer(_) | Self::Jwt(_) if wrong => Some("Bearer error=\"invalid_token\""),
            Self::Bearer(_) | Self::Jwt(_) => Some("Bearer"),
            Self::Basic(_) => Some("Basic realm=\"ringway\", charset=\"UTF-8\""),
            Self::ApiKey { .. } => Some("ApiKey"),
            Self::Function { .. } | Self::Certificate => None,
        }
    }

    async fn ask(&self, asked: &Asked<'_>) -> Result<Known, Refused> {
        match self {
            Self::Bearer(secrets) => {
                let shown = authorization(asked.headers, "bearer").ok_or(Refused::Missing)?;
                secrets.holder(shown).map(no_claims).ok_or(Refused::Wrong("the token is none that is known"))
            }
            Self::ApiKey { secrets, header, query } => {
                let shown = match asked.headers.get(header.as_str()).and_then(|value| value.to_str().ok()) {
                    Some(shown) => shown.to_owned(),
                    None => of_query(asked.query, query.as_deref()).ok_or(Refused::Missing)?,
                };
                secrets.holder(&shown).map(no_claims).ok_or(Refused::Wrong("the key is none that is known"))
            }
            Self::Basic(secrets) => {
                let shown = authorization(asked.headers, "basic").ok_or(Refused::Missing)?;
                let wrong = Refused::Wrong("name and password do not fit");
                secrets.basic(shown).map(no_claims).ok_or(wrong)
            }
            Self::Jwt(jwt) => {
                let shown = authorization(asked.headers, "bearer").ok_or(Refused::Missing)?;
                jwt.verify(shown).await.map_err(Refused::Wrong)
            }
            Self::Function { handle, timeout } => ask_function(handle, *timeout, asked).await,
            Self::Certificate => {
                asked.certificate.map(|certificate| no_claims(certificate.to_owned())).ok_or(Refused::Missing)
            }
        }
    }
}

fn no_claims(subject: impl Into<String>) -> Known {
    (subject.into(), None)
}

/// What stands behind the name of a way in `Authorization`, which may be there once only.
fn authorization<'a>(headers: &'a HeaderMap, way: &str) -> Option<&'a str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (first, None) = (all.next()?, all.next()) else { return None };
    let (name, shown) = first.to_str().ok()?.split_once(' ')?;
    name.eq_ignore_ascii_case(way).then_some(shown.trim())
}

fn of_query(query: Option<&str>, name: Option<&str>) -> Option<String> {
    let (query, name) = (query?, name?);
    let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(found, _)| found == name);
    let (_, value) = found.next()?;
    found.next().is_none().then(|| value.into_owned())
}

async fn ask_function(handle: &Handle, timeout: Duration, asked: &Asked<'_>) -> Result<Known, Refused> {
    let failed = Refused::Wrong("who this is could not be found out");
    let mut text = Text::with_capacity(512);
    text.raw("{");
    asked.write(&mut text).map_err(|_| Refused::Wrong("the query cannot be read"))?;
    text.raw("}");
    let message = Message::new(Encoding::Json, &text.into_bytes());
    let options = CallOptions::new().timeout(timeout);
    let Ok(reply) = crate::call::call(handle, &message, &options).await else { return Err(failed) };
    let answer: Value = serde_json::from_slice(reply.body()).unwrap_or(Value::Null);
    let fields: Map<String, Value> = match answer {
        Value::Object(fields) => fields,
        _ => return Err(Refused::Wrong("the request was refused")),
    };
    // Anything but a subject is a no: an answer that was meant otherwise lets nobody in.
    match fields.get("subject").and_then(Value::as_str) {
        Some(subject) if !subject.is_empty() => Ok((subject.to_owned(), Some(Value::Object(fields.clone())))),
        _ => Err(Refused::Wrong("the request was refused")),
    }
}
