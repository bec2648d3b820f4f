//! From the texts that were typed to a request: by the function's schema where it is known, by how they look where it is
//! not. All problems are found at once, so that nobody mends them one by one.

use std::fmt;

use serde_json::{Map, Value};

use super::schema::{Field, Kind, Schema};
use super::values::{self, Step};
use crate::suggest::closest;

/// Why what was typed is no request of this function.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem(String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes a request of arguments. Without any, it is an empty object, or null where no object is wanted.
pub(super) fn request(arguments: &[String], schema: Option<Schema<'_>>) -> Result<Value, Vec<Problem>> {
    let kinds = schema.map(Schema::kinds).unwrap_or_default();
    let takes_object = kinds.is_empty() || kinds.contains(&Kind::Object);
    match arguments {
        [] if !takes_object && kinds.contains(&Kind::Null) => return Ok(Value::Null),
        [] if !takes_object => {
            let wanted = schema.map(Schema::wanted).unwrap_or_default();
            return Err(vec![Problem(format!("wanted one value: {wanted}, found none"))]);
        }
        [only] if !takes_object || !only.contains('=') => {
            return value(only, schema).map_err(|problem| vec![problem]);
        }
        _ if !takes_object => {
            let wanted = schema.map(Schema::wanted).unwrap_or_default();
            return Err(vec![Problem(format!("wanted one value: {wanted}, found {}", arguments.len()))]);
        }
        _ => {}
    }
    let (mut problems, mut named) = (Vec::new(), Vec::new());
    let mut request = Value::Object(Map::new());
    for argument in arguments {
        if let Err(problem) = assign(&mut request, argument, schema) {
            problems.push(problem);
            named.extend(argument.split_once('=').map(|(name, _)| format!("`{name}` is missing")));
        }
    }
    if let Some(schema) = schema {
        let mut absent = Vec::new();
        missing(&request, schema, &mut Vec::new(), &mut absent);
        // A field that was given and is wrong is not missing as well.
        absent.retain(|Problem(text)| !named.iter().any(|name| text.starts_with(name)));
        problems.append(&mut absent);
    }
    if problems.is_empty() { Ok(request) } else { Err(problems) }
}

/// Puts one `key=value` into the request.
fn assign(request: &mut Value, argument: &str, schema: Option<Schema<'_>>) -> Result<(), Problem> {
    let assignment = values::parse(argument).map_err(Problem)?;
    let mut schema = schema;
    for (depth, step) in assignment.path.iter().enumerate() {
        schema = match step {
            Step::Field(name) => field(schema, name, &assignment.path[..=depth])?,
            Step::Append => schema.and_then(Schema::item),
        };
    }
    let shown = values::display(&assignment.path);
    let repeats = schema.is_some_and(|schema| schema.kinds() == [Kind::List] || nullable_list(schema));
    let text = assignment.text;
    let lone_item = repeats && !text.trim_start().starts_with('[');
    let mut path = assignment.path.clone();
    if lone_item {
        path.push(Step::Append);
        schema = schema.and_then(Schema::item);
    }
    let value = value(text, schema).map_err(|Problem(problem)| Problem(format!("`{shown}`: {problem}")))?;
    put(request, &path, value).map_err(|problem| Problem(format!("`{shown}` {problem}")))
}

fn nullable_list(schema: Schema<'_>) -> bool {
    let kinds = schema.kinds();
    kinds.contains(&Kind::List) && kinds.iter().all(|kind| matches!(kind, Kind::List | Kind::Null))
}

/// Goes one field deeper; without a schema, or in one that allows all, there is none below.
fn field<'a>(schema: Option<Schema<'a>>, name: &str, path: &[Step]) -> Result<Option<Schema<'a>>, Problem> {
    let Some(schema) = schema else { return Ok(None) };
    match schema.field(name) {
        Field::Known(field) => Ok(Some(field)),
        Field::Free => Ok(None),
        Field::Unknown => {
            let names: Vec<&str> = schema.fields().iter().map(|(name, ..)| *name).collect();
            let shown = values::display(path);
            let text = match closest(name, names.iter().copied()) {
                Some(close) => format!("there is no field `{shown}`; did you mean `{close}`?"),
                None => format!("there is no field `{shown}`; there are {}", names.join(", ")),
            };
            Err(Problem(text))
        }
    }
}

/// Makes a value of a text.
fn value(text: &str, schema: Option<Schema<'_>>) -> Result<Value, Problem> {
    let read = serde_json::from_str::<Value>(text).ok();
    let Some(schema) = schema else {
        return Ok(read.unwrap_or_else(|| Value::String(text.to_owned())));
    };
    let kinds = schema.kinds();
    let fits = |value: &Value| {
        let kind = Kind::of(value);
        kinds.is_empty() || kinds.contains(&kind) || (kind == Kind::Integer && kinds.contains(&Kind::Number))
    };
    let converted = match read {
        Some(value) if fits(&value) => value,
        _ if kinds.is_empty() || kinds.contains(&Kind::Text) => Value::String(text.to_owned()),
        _ => return Err(Problem(format!("wanted {}, found `{text}`", schema.wanted()))),
    };
    let choices = schema.choices();
    if !choices.is_empty() && !choices.contains(&&converted) && !converted.is_null() {
        let words = choices.iter().filter_map(|choice| choice.as_str());
        let close =
            closest(text, words).map(|close| format!("; did you mean `{close}`?")).unwrap_or_default();
        return Err(Problem(format!("wanted {}, found `{text}`{close}", schema.wanted())));
    }
    Ok(converted)
}

/// Puts a value at the end of a path, making objects and lists on the way.
fn put(target: &mut Value, path: &[Step], value: Value) -> Result<(), String> {
    let Some((step, rest)) = path.split_first() else {
        if !target.is_null() {
            return Err("is given twice; use `[]=` to make a list".to_owned());
        }
        *target = value;
        return Ok(());
    };
    match step {
        Step::Field(name) => {
            if target.is_null() {
                *target = Value::Object(Map::new());
            }
            let object = target.as_object_mut().ok_or("goes into something that is no object")?;
            if rest.is_empty() && object.contains_key(name) {
                return Err("is given twice; use `[]=` to make a list".to_owned());
            }
            put(object.entry(name.as_str()).or_insert(Value::Null), rest, value)
        }
        Step::Append => {
            if target.is_null() {
                *target = Value::Array(Vec::new());
            }
            let list = target.as_array_mut().ok_or("adds to something that is no list")?;
            list.push(value);
            Ok(())
        }
    }
}

/// Finds the fields that must be there and are not, in every object that was begun.
fn missing(value: &Value, schema: Schema<'_>, path: &mut Vec<Step>, problems: &mut Vec<Problem>) {
    let Value::Object(object) = value else { return };
    for name in schema.required() {
        if !object.contains_key(name) {
            path.push(Step::Field(name.to_owned()));
            let wanted = match schema.field(name) {
                Field::Known(field) => field.wanted(),
                Field::Free | Field::Unknown => "anything".to_owned(),
            };
            problems.push(Problem(format!("`{}` is missing ({wanted})", values::display(path))));
            path.pop();
        }
    }
    for (name, value) in object {
        if let Field::Known(field) = schema.field(name) {
            path.push(Step::Field(name.clone()));
            missing(value, field, path, problems);
            path.pop();
        }
    }
}

#[cfg(test)]
mod tests;
