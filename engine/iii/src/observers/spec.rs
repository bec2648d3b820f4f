//! What an observer is: which calls it wants, what it is given of them, what is called then. Read from what a client says,
//! and held against what the observed function allows. It must not know who keeps observers.

use std::fmt;

use iii_filter::Filter;
use jsonschema::{PatternOptions, Validator};
use ringway::protocol::FunctionId;
use ringway::protocol::naming::NAMESPACE_DEFAULT;
use serde_json::{Map, Value, json};

use super::code;
use crate::limits::{OBSERVER_IN_FLIGHT, OBSERVER_IN_FLIGHT_MAX};
use crate::protocol::{ErrorBody, NewObserver, code as protocol_code};

/// A function in its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) namespace: String,
    pub(crate) id: String,
}

impl Name {
    pub(crate) fn new(namespace: &str, id: &str) -> Self {
        Self { namespace: namespace.to_owned(), id: id.to_owned() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace == NAMESPACE_DEFAULT {
            return write!(out, "'{}'", self.id);
        }
        write!(out, "'{}' in namespace '{}'", self.id, self.namespace)
    }
}

/// What an observer is given of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Capture {
    pub(crate) input: bool,
    pub(crate) output: bool,
    pub(crate) error: bool,
    pub(crate) caller: bool,
    pub(crate) metadata: bool,
}

impl Capture {
    /// What iii gives where nothing is said.
    pub(crate) const USUAL: Self =
        Self { input: true, output: true, error: false, caller: true, metadata: false };

    fn read(said: &[Value]) -> Result<Self, ErrorBody> {
        let mut capture = Self::default();
        for word in said {
            match word.as_str() {
                Some("input") => capture.input = true,
                Some("output") => capture.output = true,
                Some("error") => capture.error = true,
                Some("caller") => capture.caller = true,
                Some("metadata") => capture.metadata = true,
                _ => return Err(unsupported("capture", "input, output, error, caller or metadata", word)),
            }
        }
        Ok(capture)
    }

    fn words(self) -> Vec<&'static str> {
        let all = [
            (self.input, "input"),
            (self.output, "output"),
            (self.error, "error"),
            (self.caller, "caller"),
            (self.metadata, "metadata"),
        ];
        all.into_iter().filter_map(|(is_in, word)| is_in.then_some(word)).collect()
    }
}

/// Which ends of a call an observer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Success,
    Error,
    Complete,
}

impl On {
    pub(crate) fn wants(self, success: bool) -> bool {
        match self {
            Self::Success => success,
            Self::Error => !success,
            Self::Complete => true,
        }
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Complete => "complete",
        }
    }
}

/// What the target's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deliver {
    /// All that was captured, and which call it was.
    Envelope,
    /// The call's payload.
    Input,
    /// The call's value.
    Output,
}

impl Deliver {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// An observer, as its client wants it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    pub(crate) id: String,
    pub(crate) source: Name,
    /// For the source's host; none where nothing was said.
    pub(crate) args: Option<Value>,
    pub(crate) filter: Filter,
    pub(crate) capture: Capture,
    pub(crate) on: On,
    pub(crate) deliver: Deliver,
    pub(crate) target: Name,
    pub(crate) metadata: Option<Value>,
    pub(crate) max_fires: Option<u64>,
    pub(crate) expires_in_ms: Option<u64>,
    /// None where nothing was said.
    pub(crate) max_in_flight: Option<u32>,
    /// The type and the configuration of the trigger that it stands for.
    pub(crate) legacy: Option<(String, Value)>,
}

fn unsupported(field: &str, wanted: &str, found: &Value) -> ErrorBody {
    ErrorBody::new(code::UNSUPPORTED, format!("wanted {wanted} as `{field}`, found {found}"))
}

fn invalid(text: String) -> ErrorBody {
    ErrorBody::new(code::INVALID_ARGS, text)
}

/// A function that something names.
fn name(said: &Value, field: &str) -> Result<Name, ErrorBody> {
    let id = said.get("function_id").and_then(Value::as_str).unwrap_or_default();
    FunctionId::new(id).map_err(|error| invalid(format!("`{field}.function_id`: {error}")))?;
    let namespace = said.get("namespace").filter(|namespace| !namespace.is_null());
    let namespace = namespace.map_or(Some(NAMESPACE_DEFAULT), Value::as_str).unwrap_or_default();
    if namespace.trim().is_empty() {
        let text = format!("`{field}.namespace` is blank; leave it out to mean `default`");
        return Err(ErrorBody::new(protocol_code::INVALID_NAMESPACE, text));
    }
    Ok(Name::new(namespace, id))
}

/// A number of at least one.
fn count(said: Option<&Value>, field: &str) -> Result<Option<u64>, ErrorBody> {
    let Some(said) = said else { return Ok(None) };
    let found = said.as_u64().filter(|count| *count > 0);
    found
        .map(Some)
        .ok_or_else(|| invalid(format!("wanted a whole number above 0 as `{field}`, found {said}")))
}

impl Spec {
    /// Reads what a client says.
    pub(crate) fn read(said: &NewObserver) -> Result<Self, ErrorBody> {
        let source = name(&said.source, "source")?;
        let target = name(&said.target, "target")?;
        if source == target {
            let text = format!("{source} observes itself; each of its calls would make another one");
            return Err(ErrorBody::new(code::SELF_TARGET, text));
        }
        let field = |field: &str| said.source.get(field).filter(|value| !value.is_null());
        let filter = match field("filters") {
            None => Filter::match_all(),
            Some(filters) => {
                Filter::parse(filters).map_err(|error| ErrorBody::new(error.code.as_str(), error.message))?
            }
        };
        let capture = match field("capture") {
            None => Capture::USUAL,
            Some(Value::Array(words)) => Capture::read(words)?,
            Some(other) => return Err(unsupported("capture", "a list", other)),
        };
        let on = match field("on").map(|word| (word.as_str(), word)) {
            None | Some((Some("success"), _)) => On::Success,
            Some((Some("error"), _)) => On::Error,
            Some((Some("complete"), _)) => On::Complete,
            Some((_, other)) => return Err(unsupported("on", "success, error or complete", other)),
        };
        let deliver = match field("deliver").map(|word| (word.as_str(), word)) {
            None | Some((Some("envelope"), _)) => Deliver::Envelope,
            Some((Some("input"), _)) => Deliver::Input,
            Some((Some("output"), _)) => Deliver::Output,
            Some((_, other)) => return Err(unsupported("deliver", "envelope, input or output", other)),
        };
        let max_in_flight = count(said.max_in_flight.as_ref(), "max_in_flight")?;
        Ok(Self {
            id: said.id.clone(),
            source,
            args: field("args").cloned(),
            filter,
            capture,
            on,
            deliver,
            target,
            metadata: said.metadata.clone(),
            max_fires: count(said.max_fires.as_ref(), "max_fires")?,
            expires_in_ms: count(said.expires_in_ms.as_ref(), "expires_in_ms")?,
            max_in_flight: max_in_flight
                .map(|max| u32::try_from(max).unwrap_or(u32::MAX).min(OBSERVER_IN_FLIGHT_MAX)),
            legacy: None,
        })
    }

    /// How many of its calls may run at once.
    pub(crate) fn in_flight_max(&self) -> u32 {
        self.max_in_flight.unwrap_or(OBSERVER_IN_FLIGHT)
    }

    /// The arguments as a host sees them.
    pub(crate) fn args_or_none(&self) -> Value {
        self.args.clone().unwrap_or_else(|| Value::Object(Map::new()))
    }

    /// What the source's host is told of it.
    pub(crate) fn view(&self) -> Value {
        let mut view = json!({
            "id": self.id,
            "args": self.args_or_none(),
            "filters": self.filter.normalized(),
            "target": self.target.id,
            "capture": self.capture.words(),
            "on": self.on.word(),
        });
        if let Some((trigger_type, config)) = &self.legacy {
            view["legacy"] = json!({ "trigger_type": trigger_type, "config": config });
        }
        view
    }
}

/// What a function's host says of those who observe it.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    /// What its observers' arguments are to look like; none: it takes none.
    pub(crate) args: Option<Validator>,
    /// The schema of its payload.
    pub(crate) input: Option<Value>,
    /// The schema of its value.
    pub(crate) output: Option<Value>,
    /// Nobody may observe it.
    pub(crate) closed: bool,
    /// Its calls are no events: its host says what is one.
    pub(crate) by_owner: bool,
    /// The trigger type that it stands for where nobody provides that one.
    pub(crate) legacy: Option<String>,
}

impl Declared {
    /// Reads what came with a registration: 0.25 says it in one object, 0.26 in fields of their own.
    pub(crate) fn read(
        observe: Option<&Value>,
        args_format: Option<&Value>,
        observable: bool,
    ) -> Result<Self, ErrorBody> {
        let said = |field: &str| observe.and_then(|said| said.get(field)).filter(|value| !value.is_null());
        let by_owner = said("delivery").is_some_and(|delivery| delivery == "owner");
        let old_format = said("args_format");
        if old_format.is_some() && !by_owner {
            let text = "`args_format` wants `delivery: owner`: who observes each call has no arguments";
            return Err(ErrorBody::new(code::INVALID_OBSERVE_DESCRIPTOR, text));
        }
        let args = match args_format.or(old_format) {
            None => None,
            Some(schema) => Some(validator(schema)?),
        };
        Ok(Self {
            args,
            input: None,
            output: None,
            closed: !observable || said("allow").is_some_and(|allow| allow == false),
            by_owner,
            legacy: said("legacy_trigger_type").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// Whether an observer may be one of this function; what is to be said of its filter if so.
    pub(crate) fn admit(&self, spec: &Spec) -> Result<Vec<String>, ErrorBody> {
        if self.closed {
            let text = format!("{} may not be observed, as its worker says", spec.source);
            return Err(ErrorBody::new(code::NOT_OBSERVABLE, text));
        }
        if spec.legacy.is_none() {
            self.check_args(spec)?;
        }
        let checked = spec.filter.check_schema_paths(self.input.as_ref(), self.output.as_ref());
        checked.map_err(|error| ErrorBody::new(error.code.as_str(), error.message))
    }

    fn check_args(&self, spec: &Spec) -> Result<(), ErrorBody> {
        match (&self.args, &spec.args) {
            (None, None) => Ok(()),
            (None, Some(args)) if args.as_object().is_some_and(Map::is_empty) => Ok(()),
            (None, Some(_)) => {
                let text = format!("{} takes no arguments of its observers, found some", spec.source);
                Err(invalid(text))
            }
            (Some(format), _) => fits(format, spec),
        }
    }
}

/// Whether an observer's arguments are as they should be.
pub(crate) fn fits(format: &Validator, spec: &Spec) -> Result<(), ErrorBody> {
    let args = spec.args_or_none();
    match format.iter_errors(&args).next() {
        None => Ok(()),
        Some(fault) => {
            let path = fault.instance_path().to_string();
            let place = if path.is_empty() { "the arguments".to_owned() } else { format!("`args{path}`") };
            Err(invalid(format!("an observer of {}: {place}: {fault}", spec.source)))
        }
    }
}

/// Reads a schema. References to elsewhere are not followed, and patterns cost time linear in the text.
pub(crate) fn validator(schema: &Value) -> Result<Validator, ErrorBody> {
    let wrong = |why: String| {
        ErrorBody::new(code::INVALID_ARGS_FORMAT, format!("the `args_format` is no JSON Schema: {why}"))
    };
    if !schema.is_object() && !schema.is_boolean() {
        return Err(wrong("wanted an object, true or false".to_owned()));
    }
    let options = jsonschema::options().offline().with_pattern_options(PatternOptions::regex());
    options.build(schema).map_err(|error| wrong(error.to_string()))
}

/// What an observer of a test asks for.
#[cfg(test)]
pub(super) fn observing(source: Value, target: &str) -> Result<Spec, ErrorBody> {
    Spec::read(&NewObserver {
        id: "o".to_owned(),
        source,
        target: json!({ "function_id": target }),
        metadata: None,
        max_fires: None,
        expires_in_ms: None,
        max_in_flight: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: Value, target: &str) -> Result<Spec, String> {
        observing(source, target).map_err(|error| error.code)
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let check = |source: Value, target: &str, expected: &str| {
            assert_eq!(read(source.clone(), target).unwrap_err(), expected, "{source}");
        };
        check(json!({ "function_id": "a::b" }), "a::b", "SELF_TARGET");
        check(json!({ "function_id": "a::b" }), "", "INVALID_ARGS");
        check(json!(null), "a::t", "INVALID_ARGS");
        check(json!({ "function_id": "a::b", "namespace": " " }), "a::t", "INVALID_NAMESPACE");
        check(json!({ "function_id": "a::b", "filters": { "input.a": 1 } }), "a::t", "INVALID_FILTER");
        check(json!({ "function_id": "a::b", "on": "never" }), "a::t", "UNSUPPORTED");
        check(json!({ "function_id": "a::b", "capture": ["soul"] }), "a::t", "UNSUPPORTED");
        check(json!({ "function_id": "a::b", "deliver": 1 }), "a::t", "UNSUPPORTED");
        assert!(read(json!({ "function_id": "a::b", "namespace": "n" }), "a::b").is_ok());
    }

    #[test]
    fn a_host_sees_what_concerns_it() {
        let source = json!({ "function_id": "a::b", "args": { "t": 1 }, "on": "complete", "capture": ["error"],
            "filters": { "input.n": { "$gt": 1 } } });
        assert_eq!(
            read(source, "a::t").unwrap().view(),
            json!({ "id": "o", "args": { "t": 1 }, "target": "a::t", "capture": ["error"], "on": "complete",
                "filters": { "$and": [{ "input.n": { "$gt": 1 } }] } })
        );
        let plain = read(json!({ "function_id": "a::b" }), "a::t").unwrap().view();
        assert_eq!((&plain["args"], &plain["filters"]), (&json!({}), &json!({})));
        assert_eq!(plain["capture"], json!(["input", "output", "caller"]));
    }

    #[test]
    fn arguments_fit_what_the_host_says() {
        let format = json!({ "type": "object", "required": ["topic"], "additionalProperties": false,
            "properties": { "topic": { "type": "string" } } });
        let check = |declared: &Declared, args: Value, expected: Result<(), &str>| {
            let spec = read(json!({ "function_id": "a::b", "args": args }), "a::t").unwrap();
            let found = declared.admit(&spec).map(drop).map_err(|error| error.code);
            assert_eq!(found, expected.map_err(str::to_owned), "{args}");
        };
        let new = Declared::read(None, Some(&format), true).unwrap();
        let old = Declared::read(Some(&json!({ "delivery": "owner", "args_format": format })), None, true);
        for declared in [new, old.unwrap()] {
            check(&declared, json!({ "topic": "a" }), Ok(()));
            check(&declared, json!(null), Err("INVALID_ARGS"));
            check(&declared, json!({ "topic": 1 }), Err("INVALID_ARGS"));
            check(&declared, json!({ "topic": "a", "typo": 1 }), Err("INVALID_ARGS"));
        }
        let none = Declared::read(None, None, true).unwrap();
        check(&none, json!({}), Ok(()));
        check(&none, json!({ "topic": "a" }), Err("INVALID_ARGS"));
        check(&Declared::read(None, None, false).unwrap(), json!(null), Err("NOT_OBSERVABLE"));
        let closed = Declared::read(Some(&json!({ "allow": false })), None, true).unwrap();
        check(&closed, json!(null), Err("NOT_OBSERVABLE"));
        let code = |observe: Option<Value>, format: Option<Value>| {
            Declared::read(observe.as_ref(), format.as_ref(), true).unwrap_err().code
        };
        assert_eq!(code(None, Some(json!({ "type": 5 }))), "INVALID_ARGS_FORMAT");
        assert_eq!(code(None, Some(json!("string"))), "INVALID_ARGS_FORMAT");
        assert_eq!(code(Some(json!({ "args_format": {} })), None), "INVALID_OBSERVE_DESCRIPTOR");
    }

    #[test]
    fn a_filter_of_what_cannot_be_is_refused() {
        let closed = json!({ "type": "object", "properties": { "n": {} }, "additionalProperties": false });
        let declared = Declared { input: Some(closed), ..Declared::default() };
        let filter = |path: &str| json!({ "function_id": "a::b", "filters": { path: { "$eq": 1 } } });
        assert!(declared.admit(&read(filter("input.n"), "a::t").unwrap()).is_ok());
        let error = declared.admit(&read(filter("input.m"), "a::t").unwrap()).unwrap_err();
        assert_eq!(error.code, "INVALID_FILTER_PATH");
    }
}
