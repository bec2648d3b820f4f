//! What operations do to a value. Called by the workers while they prepare a change, so that it neither blocks nor
//! allocates more than the value grows by. It must not know where the value came from.

use serde_json::{Map, Number, Value};

use crate::limits::{MERGE_DEPTH_MAX, MERGE_KEYS_MAX, POLLUTING};
use crate::op::{Op, OpError, kind, nothing};

/// A value after a list of operations.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The value.
    pub value: Value,
    /// How many operations were applied.
    pub applied: usize,
    /// Those that were left out, in order.
    pub errors: Vec<OpError>,
}

/// Applies the operations in order to a value, or to `{}` where there is none. One that cannot be applied changes nothing
/// and is reported.
#[must_use]
pub fn apply(current: Option<Value>, ops: &[Op]) -> Outcome {
    let mut value = current.unwrap_or_else(nothing);
    let mut errors = Vec::new();
    for (op_index, op) in ops.iter().enumerate() {
        if let Err((code, message)) = one(&mut value, op) {
            let code = format!("{}.{code}", op.name());
            errors.push(OpError { op_index, code, message });
        }
    }
    Outcome { value, applied: ops.len() - errors.len(), errors }
}

/// The code without the operation's name, and the words.
type Problem = (String, String);

fn problem<T>(code: &str, message: impl Into<String>) -> Result<T, Problem> {
    Err((code.to_owned(), message.into()))
}

fn one(root: &mut Value, op: &Op) -> Result<(), Problem> {
    let path = op.path().map_or(Ok(&[] as &[String]), |path| path.segments());
    let path = path.map_err(|(code, message)| (format!("path.{code}"), message))?;
    match op {
        Op::Set { value, .. } => set(root, path, value),
        Op::Merge { value, .. } => merge(root, path, value),
        Op::Increment { by, .. } => add(root, path, i128::from(*by)),
        Op::Decrement { by, .. } => add(root, path, -i128::from(*by)),
        Op::Append { value, .. } => append(root, path, value),
        Op::Remove { .. } => remove(root, path),
    }
}

/// The object that holds the last key of a path. Missing ones on the way are made, but only once it is certain that the
/// way is free, so that an operation that fails leaves nothing behind.
fn parent<'a>(root: &'a mut Value, way: &[String]) -> Result<&'a mut Map<String, Value>, Problem> {
    let mut seen: &Value = root;
    for (depth, segment) in way.iter().enumerate() {
        let Value::Object(map) = seen else { return not_an_object(seen, &way[..depth]) };
        match map.get(segment) {
            Some(next) => seen = next,
            None => return Ok(make_way(root, way)),
        }
    }
    if !seen.is_object() {
        return not_an_object(seen, way);
    }
    Ok(make_way(root, way))
}

fn not_an_object<T>(found: &Value, way: &[String]) -> Result<T, Problem> {
    let place = if way.is_empty() { "the root".to_owned() } else { format!("`{}`", way.join("` → `")) };
    problem("target_not_object", format!("{place} is {}, an object was wanted", kind(found)))
}

/// Goes down a way, replacing what is missing or no object.
fn make_way<'a>(root: &'a mut Value, way: &[String]) -> &'a mut Map<String, Value> {
    let mut map = object(root);
    for segment in way {
        map = object(map.entry(segment.as_str()).or_insert(Value::Null));
    }
    map
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = nothing();
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object"),
    }
}

fn set(root: &mut Value, path: &[String], value: &Value) -> Result<(), Problem> {
    match path.split_last() {
        None => *root = value.clone(),
        Some((key, way)) => {
            parent(root, way)?.insert(key.clone(), value.clone());
        }
    }
    Ok(())
}

fn merge(root: &mut Value, path: &[String], value: &Value) -> Result<(), Problem> {
    let Value::Object(entries) = value else {
        return problem("value.not_an_object", format!("the value is {}, an object was wanted", kind(value)));
    };
    if entries.len() > MERGE_KEYS_MAX {
        let text = format!("the value has {} keys, at most {MERGE_KEYS_MAX} are merged", entries.len());
        return problem("value.too_many_keys", text);
    }
    if let Some(key) = entries.keys().find(|key| POLLUTING.contains(&key.as_str())) {
        return problem("value.proto_polluted", format!("the value may not have the key `{key}`"));
    }
    if deeper_than(value, MERGE_DEPTH_MAX) {
        let text = format!("the value is nested more than {MERGE_DEPTH_MAX} levels deep");
        return problem("value.too_deep", text);
    }
    if !root.is_object() {
        return not_an_object(root, &[]);
    }
    let target = make_way(root, path);
    for (key, value) in entries {
        target.insert(key.clone(), value.clone());
    }
    Ok(())
}

fn deeper_than(value: &Value, levels: usize) -> bool {
    let below = |value| levels == 0 || deeper_than(value, levels - 1);
    match value {
        Value::Object(entries) => levels == 0 || entries.values().any(below),
        Value::Array(items) => levels == 0 || items.iter().any(below),
        _ => false,
    }
}

fn add(root: &mut Value, path: &[String], by: i128) -> Result<(), Problem> {
    match path.split_last() {
        None => *root = sum(root, by)?,
        Some((key, way)) => {
            let map = parent_of_existing(root, way)?;
            let after = match map.and_then(|map| map.get(key)) {
                Some(value) => sum(value, by)?,
                None => Value::Number(whole(by)?),
            };
            parent(root, way)?.insert(key.clone(), after);
        }
    }
    Ok(())
}

/// As `parent`, but makes nothing: `None` where a part of the way is missing.
fn parent_of_existing<'a>(
    root: &'a Value,
    way: &[String],
) -> Result<Option<&'a Map<String, Value>>, Problem> {
    let mut seen = root;
    for (depth, segment) in way.iter().enumerate() {
        let Value::Object(map) = seen else { return not_an_object(seen, &way[..depth]) };
        let Some(next) = map.get(segment) else { return Ok(None) };
        seen = next;
    }
    match seen {
        Value::Object(map) => Ok(Some(map)),
        other => not_an_object(other, way),
    }
}

fn sum(value: &Value, by: i128) -> Result<Value, Problem> {
    let Value::Number(number) = value else {
        return problem("not_number", format!("it is {}, a number was wanted", kind(value)));
    };
    let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    if let Some(integer) = integer {
        return Ok(Value::Number(whole(integer + by)?));
    }
    #[expect(clippy::cast_precision_loss, reason = "a float is asked to hold the sum, as well as it can")]
    let by = by as f64;
    let float = number.as_f64().map(|float| float + by).and_then(Number::from_f64);
    match float {
        Some(float) => Ok(Value::Number(float)),
        None => problem("overflow", format!("{number} and {by} have no sum that a float holds")),
    }
}

fn whole(sum: i128) -> Result<Number, Problem> {
    let held = i64::try_from(sum).map(Number::from).or_else(|_| u64::try_from(sum).map(Number::from));
    held.or_else(|_| problem("overflow", format!("{sum} does not fit 64 bits; the value is unchanged")))
}

fn append(root: &mut Value, path: &[String], value: &Value) -> Result<(), Problem> {
    let Some((key, way)) = path.split_last() else { return extend(root, value, true) };
    let first_level = way.is_empty();
    let found = parent_of_existing(root, way)?.and_then(|map| map.get(key));
    // Looked at before anything is made on the way there.
    if let Some(found) = found {
        extendable(found, value)?;
    }
    let target = parent(root, way)?.entry(key.as_str()).or_insert(Value::Null);
    extend(target, value, first_level)
}

fn extendable(target: &Value, value: &Value) -> Result<(), Problem> {
    match (target, value) {
        (Value::Null | Value::Array(_), _) | (Value::String(_), Value::String(_)) => Ok(()),
        (Value::String(_), other) => {
            problem("type_mismatch", format!("{} cannot be appended to a string", kind(other)))
        }
        (other, _) => {
            let text = format!("it is {}, an array, a string or nothing was wanted", kind(other));
            problem("type_mismatch", text)
        }
    }
}

fn extend(target: &mut Value, value: &Value, keep_string: bool) -> Result<(), Problem> {
    extendable(target, value)?;
    match (target, value) {
        (Value::Array(items), value) => items.push(value.clone()),
        (Value::String(text), Value::String(more)) => text.push_str(more),
        (target, Value::String(text)) if keep_string => *target = Value::String(text.clone()),
        (target, value) => *target = Value::Array(vec![value.clone()]),
    }
    Ok(())
}

fn remove(root: &mut Value, path: &[String]) -> Result<(), Problem> {
    let Some((key, way)) = path.split_last() else {
        *root = Value::Null;
        return Ok(());
    };
    if parent_of_existing(root, way)?.is_some_and(|map| map.contains_key(key)) {
        // The other keys keep their order.
        parent(root, way)?.shift_remove(key);
    }
    Ok(())
}
