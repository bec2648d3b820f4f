//! Which events a trigger wants: all, those that a function agrees to, or those for which an expression is true. Read when a
//! trigger is bound, asked at every event. It must not know where events come from.

mod work;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, ExecutionError, Program};
use ringway::{CallError, CallOptions, ErrorCode, Worker};
use serde_json::{Map, Value};

pub use work::{COMPREHENSIONS_MAX, COPIES_MAX, DEGREE_MAX, STEPS_MAX};

use work::Work;

/// The longest expression, in bytes. What it costs to check and to run grows with its length.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// The most signs (operators, brackets, points, commas) of an expression. It cannot be nested deeper than it has signs, and
/// the library descends on the stack.
pub const EXPRESSION_SIGNS_MAX: usize = 256;

/// Where an event keeps the item that expressions speak of.
const ITEMS: [&str; 2] = ["new_value", "data"];

/// How long a condition's function may take to answer one that waits without a thread.
const FUNCTION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// What CEL has. Made once: its making takes many times longer than most expressions.
static LIBRARY: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// Which events are wanted.
#[derive(Debug)]
pub enum Condition {
    /// All of them.
    Always,
    /// Those to which this function answers yes.
    Function(String),
    /// Those for which this is true.
    Expression(Expression),
}

/// A CEL expression that was found right.
pub struct Expression {
    source: String,
    program: Program,
    variables: BTreeSet<String>,
    work: Work,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl Condition {
    /// Reads `condition_function_id` or `condition` of a trigger's config.
    ///
    /// # Errors
    /// `invalid_registration`: both are there, one is no text, or the expression is wrong; says where.
    pub fn of(config: &Value) -> Result<Self, CallError> {
        let function = text(config, "condition_function_id")?;
        let expression = text(config, "condition")?;
        match (function, expression) {
            (None, None) => Ok(Self::Always),
            (Some(function), None) => Ok(Self::Function(function.to_owned())),
            (None, Some(source)) => Expression::compile(source).map(Self::Expression),
            (Some(_), Some(_)) => Err(wrong(
                "a trigger takes `condition_function_id` or `condition`, not both: leave one of them out"
                    .to_owned(),
            )),
        }
    }

    /// Whether an event with this payload is wanted. Waits for the function, if there is one, as long as a call may take.
    ///
    /// # Errors
    /// As the call of the function ended; `handler_error` with the code `CONDITION_ERROR` for an expression that cannot be
    /// worked out for this payload.
    pub fn holds(&self, worker: &Worker, payload: &Value) -> Result<bool, CallError> {
        match self {
            Self::Always => Ok(true),
            Self::Function(id) => {
                worker.trigger_json_with(id, payload, &CallOptions::new()).map(|answer| is_yes(&answer))
            }
            Self::Expression(expression) => expression.holds(payload),
        }
    }

    /// As [`Condition::holds`], without a thread that waits. The function has 30 s.
    ///
    /// # Errors
    /// As [`Condition::holds`].
    pub async fn holds_async(&self, worker: &Worker, payload: &Value) -> Result<bool, CallError> {
        let Self::Function(id) = self else { return self.holds(worker, payload) };
        let options = CallOptions::new().timeout(FUNCTION_TIMEOUT);
        worker.trigger_json_async(id, payload, &options).await.map(|answer| is_yes(&answer))
    }
}

impl Expression {
    /// Checks an expression.
    ///
    /// # Errors
    /// `invalid_registration`, with what is wrong and where.
    pub fn compile(source: &str) -> Result<Self, CallError> {
        if source.len() > EXPRESSION_BYTES_MAX {
            let found = source.len();
            return Err(wrong(format!(
                "the condition has {found} bytes, at most {EXPRESSION_BYTES_MAX} are taken: use \
                 `condition_function_id` for what needs more"
            )));
        }
        let is_sign = |c: &char| !c.is_alphanumeric() && !c.is_whitespace() && !"_'\"".contains(*c);
        let signs = source.chars().filter(is_sign).count();
        if signs > EXPRESSION_SIGNS_MAX {
            return Err(wrong(format!(
                "the condition has {signs} operators, brackets, points and commas, at most {EXPRESSION_SIGNS_MAX} are taken: \
                 use `condition_function_id` for what needs more"
            )));
        }
        let program = Program::compile(source)
            .map_err(|error| wrong(format!("the condition `{source}` is no CEL expression: {error}")))?;
        let references = program.references();
        let unknown: Vec<&str> =
            references.functions().into_iter().filter(|name| !is_function(name)).collect();
        if !unknown.is_empty() {
            let unknown = unknown.join("`, `");
            return Err(wrong(format!(
                "the condition `{source}` uses `{unknown}`, which CEL does not have: use `condition_function_id` for what \
                 needs a function of your own"
            )));
        }
        let work = Work::of(program.expression()).map_err(|why| {
            wrong(format!("the condition `{source}` {why}: use `condition_function_id` for what needs more"))
        })?;
        let variables = references.variables().into_iter().map(str::to_owned).collect();
        Ok(Self { source: source.to_owned(), program, variables, work })
    }

    fn holds(&self, payload: &Value) -> Result<bool, CallError> {
        self.work.check(payload).map_err(|why| self.failed(&why))?;
        let mut context = Context::with_env(Arc::clone(&LIBRARY));
        for name in &self.variables {
            let value = variable(payload, name);
            context.add_variable(name.clone(), value).map_err(|error| self.failed(&error))?;
        }
        match self.program.execute(&context) {
            Ok(cel::Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(self.failed(&format!("it gives {other:?}, not true or false"))),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, why: &dyn fmt::Display) -> CallError {
        let text = format!("the condition `{}` cannot be worked out for this event: {why}", self.source);
        CallError::new(ErrorCode::HandlerError, text).with_user_code("CONDITION_ERROR")
    }
}

/// Whether CEL has a function of this name; operators are functions with names that cannot be written, such as `_+_`.
fn is_function(name: &str) -> bool {
    if name.contains(|c: char| !c.is_alphanumeric() && c != '_' && c != '.') {
        return true;
    }
    // The library tells what it has only by running it: by itself, or of a text, a list, a map.
    ["", "''.", "[].", "{}."].iter().any(|target| {
        let ran = Program::compile(&format!("{target}{name}()"))
            .map(|it| it.execute(&Context::with_env(Arc::clone(&LIBRARY))));
        !matches!(ran, Err(_) | Ok(Err(ExecutionError::UndeclaredReference(_))))
    })
}

/// What a name means: a field of the payload, the payload, a field of the item, or nothing.
fn variable<'a>(payload: &'a Value, name: &str) -> &'a Value {
    static NOTHING: Value = Value::Null;
    let field = payload.get(name);
    let whole = || (name == "event").then_some(payload);
    let of_item = || ITEMS.iter().find_map(|item| payload.get(item)?.get(name));
    field.or_else(whole).or_else(of_item).unwrap_or(&NOTHING)
}

/// As iii reads the answer of a condition function: only `false` says no.
fn is_yes(answer: &Value) -> bool {
    *answer != Value::Bool(false)
}

fn text<'a>(config: &'a Value, name: &str) -> Result<Option<&'a str>, CallError> {
    match config.as_object().and_then(|fields: &Map<String, Value>| fields.get(name)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(format!("`{name}` of a trigger is a text, found {other}"))),
    }
}

fn wrong(message: String) -> CallError {
    CallError::new(ErrorCode::InvalidRegistration, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(source: &str, payload: &Value) -> Result<bool, CallError> {
        Expression::compile(source).unwrap().holds(payload)
    }

    #[test]
    fn an_expression_speaks_of_the_item_the_payload_and_the_event() {
        let payload = json!({
            "event_type": "state:updated", "key": "k", "old_value": { "status": "new" },
            "new_value": { "status": "pending", "amount": 7, "key": "not the payload's" },
        });
        for (source, expected) in [
            ("status == \"pending\"", true),
            ("status != \"pending\"", false),
            ("new_value.amount > 5 && old_value.status == 'new'", true),
            ("amount in [1, 7]", true),
            ("key == 'k'", true),
            ("event.event_type.startsWith('state:')", true),
            ("size(status) == 7", true),
            ("has(event.new_value.amount)", true),
            ("nowhere == 'x'", false),
            ("nowhere == null", true),
            ("[1, 2].exists(n, n == amount)", false),
        ] {
            assert_eq!(holds(source, &payload), Ok(expected), "{source}");
        }
        assert_eq!(holds("topic == 'a'", &json!({ "data": { "topic": "a" } })), Ok(true));
        assert_eq!(holds("status == 'x'", &json!(7)), Ok(false));
    }

    #[test]
    fn a_wrong_expression_is_refused_and_says_where() {
        for (source, said) in [
            ("status ==", "no CEL expression"),
            ("frobnicate(status)", "`frobnicate`"),
            ("status == 'x' && nope(1)", "`nope`"),
            (&"a".repeat(EXPRESSION_BYTES_MAX + 1), "at most 4096"),
            ("a.all(x, b.all(y, c.all(z, d.all(u, true))))", "4 levels"),
        ] {
            let error = Expression::compile(source).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidRegistration, "{source}");
            assert!(error.message.contains(said), "{source}: {error}");
        }
    }

    #[test]
    fn deep_expressions_harm_nobody() {
        let half = EXPRESSION_SIGNS_MAX / 2;
        // At the limit, on a thread with the stack of a pool's: an answer or an error, and the process lives.
        for source in [
            format!("{}1 == 1{}", "(".repeat(half - 1), ")".repeat(half - 1)),
            format!("{}true", "!".repeat(2 * half)),
            format!("{}1", "-".repeat(2 * half)),
            format!("{}{}", "[".repeat(half), "]".repeat(half)),
            format!("1{}", "+1".repeat(2 * half)),
            format!("a{}", ".a".repeat(2 * half)),
            format!("{}true{}", "[1].all(x,".repeat(half / 4), ")".repeat(half / 4)),
            format!("{}1", "a ? 1 :".repeat(half)),
        ] {
            let compiled = std::thread::spawn(move || {
                Expression::compile(&source).is_ok_and(|it| it.holds(&json!({})).is_ok())
            });
            compiled.join().unwrap();
        }
        let deeper = Expression::compile(&"(".repeat(EXPRESSION_SIGNS_MAX + 1)).unwrap_err();
        assert!(deeper.message.contains("at most 256"), "{deeper}");
    }

    #[test]
    fn what_cannot_be_worked_out_is_an_error() {
        let error = holds("amount + 1 > 2", &json!({ "amount": "seven" })).unwrap_err();
        assert_eq!(error.user_code.as_deref(), Some("CONDITION_ERROR"), "{error}");
        let error = holds("amount", &json!({ "amount": 7 })).unwrap_err();
        assert!(error.message.contains("not true or false"), "{error}");
    }

    #[test]
    fn what_would_take_hours_is_refused() {
        // Each level multiplies: without a bound, the last is 10^15 steps.
        let many = json!({ "a": vec![1; 1000], "b": vec![1; 100_000] });
        assert_eq!(holds("a.all(x, x == 1)", &many), Ok(true));
        assert_eq!(holds("b.exists(x, x == 2)", &many), Ok(false));
        let error = holds("b.all(x, b.all(y, b.all(z, x == y && y == z)))", &many).unwrap_err();
        assert_eq!(error.user_code.as_deref(), Some("CONDITION_ERROR"));
        assert!(error.message.contains("100 values"), "{error}");
    }

    #[test]
    fn a_config_names_one_condition_at_most() {
        let of = |config: Value| Condition::of(&config);
        assert!(matches!(of(json!({})), Ok(Condition::Always)));
        assert!(matches!(of(json!(null)), Ok(Condition::Always)));
        assert!(matches!(of(json!({ "condition_function_id": "a::b" })), Ok(Condition::Function(_))));
        assert!(matches!(of(json!({ "condition": "true" })), Ok(Condition::Expression(_))));
        for wrong in
            [json!({ "condition": 7 }), json!({ "condition": "true", "condition_function_id": "a::b" })]
        {
            assert_eq!(of(wrong).unwrap_err().code, ErrorCode::InvalidRegistration);
        }
    }

    #[test]
    fn only_false_says_no_as_in_iii() {
        for yes in [json!(true), json!(0), json!(""), json!(null), json!({ "matches": false })] {
            assert!(is_yes(&yes), "{yes}");
        }
        assert!(!is_yes(&json!(false)));
    }
}
