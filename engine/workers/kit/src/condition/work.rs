//! How much work an expression may be, so that no trigger can make a worker compute for hours: found once when it is bound,
//! and held against the size of each event. Read by `condition`. It must not know what the expression is for.
//!
//! An expression runs in time that grows with the event's size to the power of its degree. A comprehension (`all`, `exists`,
//! `exists_one`, `map`, `filter`) goes through what it is given, so each that stands inside another adds one, and so does
//! something inside that by itself looks through all of a list or text, such as `x in tags`. What belongs to the element that
//! is looked at adds nothing: all elements together are no more than the event.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, ListExpr, operators};
use serde_json::Value;

/// The most comprehensions of one expression.
pub const COMPREHENSIONS_MAX: u32 = 4;

/// The highest power of an event's size in which an expression may run.
pub const DEGREE_MAX: u32 = 3;

/// The most additions, and items of lists and maps that are made of variables, inside comprehensions; each makes copies.
pub const COPIES_MAX: u32 = 4;

/// The most steps that an expression of the second or third degree may take for one event: a fraction of a second.
pub const STEPS_MAX: u64 = 1_000_000;

/// Bytes of a text that count as one value.
const TEXT_BYTES: usize = 64;

/// How the work of an expression grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    /// The power of the event's size.
    degree: u32,
    /// How much larger than the event what is gone through may be.
    growth: u64,
}

impl Work {
    /// Looks at an expression, or says what it has too much of.
    pub(super) fn of(expression: &IdedExpr) -> Result<Self, String> {
        let mut walk = Walk { growth: 1, ..Walk::default() };
        let degree = walk.degree(expression);
        let limit = |found: u32, max: u32, what: &str| {
            if found <= max {
                return Ok(());
            }
            Err(format!("has {found} {what}, at most {max} are taken"))
        };
        limit(
            walk.comprehensions,
            COMPREHENSIONS_MAX,
            "comprehensions (all, exists, exists_one, map, filter)",
        )?;
        limit(walk.copies_inside, COPIES_MAX, "additions and items of new lists inside comprehensions")?;
        limit(degree, DEGREE_MAX, "levels of going through lists inside each other")?;
        Ok(Self { degree, growth: walk.growth * u64::from(1 + walk.copies) })
    }

    /// Says how large an event may be, if this one is larger. Costs nothing for an expression of the first degree.
    pub(super) fn check(self, payload: &Value) -> Result<(), String> {
        if self.degree < 2 {
            return Ok(());
        }
        let max = values_max(self.degree, self.growth);
        if weight(payload, max) <= max {
            return Ok(());
        }
        Err(format!(
            "it goes through lists inside each other, and the event has more than the {max} values for which that is done: \
             use `condition_function_id` for events that large"
        ))
    }
}

/// The size of the largest event that is taken.
fn values_max(degree: u32, growth: u64) -> u64 {
    let root = if degree == 2 { STEPS_MAX.isqrt() } else { cube_root(STEPS_MAX) };
    (root / growth).max(1)
}

const fn cube_root(of: u64) -> u64 {
    let mut root = 1;
    while (root + 1) * (root + 1) * (root + 1) <= of {
        root += 1;
    }
    root
}

/// Values of an event, long texts counted by their length; stops beyond `max`.
fn weight(value: &Value, max: u64) -> u64 {
    let parts = |parts: &mut dyn Iterator<Item = &Value>| {
        let mut sum = 1;
        for part in parts {
            if sum > max {
                break;
            }
            sum += weight(part, max - sum);
        }
        sum
    };
    match value {
        Value::Array(items) => parts(&mut items.iter()),
        Value::Object(fields) => parts(&mut fields.values()),
        Value::String(text) => 1 + (text.len() / TEXT_BYTES) as u64,
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

#[derive(Default)]
struct Walk<'a> {
    /// What comprehensions call the element that they look at, the innermost last.
    elements: Vec<&'a str>,
    comprehensions: u32,
    /// Copies in the comprehension that is looked at, or outside of all.
    copies: u32,
    copies_inside: u32,
    growth: u64,
}

impl<'a> Walk<'a> {
    fn degree(&mut self, expression: &'a IdedExpr) -> u32 {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => 0,
            Expr::Select(select) => self.degree(&select.operand),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::List(ListExpr { elements, .. }) => self.made(elements.iter().collect()),
            Expr::Map(map) => {
                self.made(map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect())
            }
            Expr::Struct(made) => {
                self.made(made.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect())
            }
        }
    }

    fn most(&mut self, expressions: impl IntoIterator<Item = &'a IdedExpr>) -> u32 {
        expressions.into_iter().map(|expression| self.degree(expression)).max().unwrap_or(0)
    }

    /// A list or map that is written out.
    fn made(&mut self, items: Vec<&'a IdedExpr>) -> u32 {
        let copied = items.iter().filter(|item| !matches!(item.expr, Expr::Literal(_))).count();
        self.copies += u32::try_from(copied).unwrap_or(u32::MAX);
        self.most(items)
    }

    fn comprehension(&mut self, it: &'a ComprehensionExpr) -> u32 {
        self.comprehensions += 1;
        let outside = self.most([&it.iter_range, &it.accu_init]);
        let copies_before = std::mem::take(&mut self.copies);
        let known = self.elements.len();
        self.elements
            .extend([Some(&it.iter_var), it.iter_var2.as_ref()].into_iter().flatten().map(String::as_str));
        let inside = self.most([&it.loop_cond, &it.loop_step]);
        self.elements.truncate(known);
        let copies = std::mem::replace(&mut self.copies, copies_before);
        self.copies_inside += copies;
        self.growth = self.growth.saturating_mul(u64::from(1 + copies));
        outside.max(1 + inside).max(self.degree(&it.result))
    }

    fn call(&mut self, call: &'a CallExpr) -> u32 {
        if let Some(added) = appended(call) {
            // What `map` and `filter` gather; that it is gathered is not counted as a copy.
            return match &added.expr {
                Expr::List(list) if list.elements.len() == 1 => self.most(&list.elements),
                _ => self.degree(added),
            };
        }
        let parts = || call.target.iter().map(|target| &**target).chain(&call.args);
        let small = |part: &IdedExpr| self.is_small(part);
        let looks_through = match call.func_name.as_str() {
            operators::CONDITIONAL
            | operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::NEGATE
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::INDEX
            | operators::OPT_INDEX
            | operators::OPT_SELECT
            | operators::NOT_STRICTLY_FALSE
            | "size" => false,
            // They stop where the shorter one ends.
            operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS => !parts().any(small),
            operators::IN => !call.args.last().is_some_and(small),
            _ => !parts().all(small),
        };
        if call.func_name == operators::ADD {
            self.copies += 1;
        }
        self.most(parts()).max(u32::from(looks_through))
    }

    /// Whether this is written out, or belongs to an element that a comprehension looks at.
    fn is_small(&self, expression: &IdedExpr) -> bool {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => true,
            Expr::Ident(name) => self.elements.contains(&name.as_str()),
            Expr::Select(select) => self.is_small(&select.operand),
            Expr::Call(call) if call.func_name == operators::INDEX => {
                call.args.first().is_some_and(|of| self.is_small(of))
            }
            Expr::Call(call) => {
                call.target.iter().map(|target| &**target).chain(&call.args).all(|part| self.is_small(part))
            }
            Expr::List(list) => list.elements.iter().all(|element| self.is_small(element)),
            Expr::Comprehension(it) => self.is_small(&it.iter_range),
            Expr::Map(_) | Expr::Struct(_) => false,
        }
    }
}

/// What a macro adds to what it gathers, if this is that.
fn appended(call: &CallExpr) -> Option<&IdedExpr> {
    let [gathered, added] = &call.args[..] else { return None };
    let own = matches!(&gathered.expr, Expr::Ident(name) if name.starts_with('@'));
    (call.func_name == operators::ADD && own).then_some(added)
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

#[cfg(test)]
mod tests {
    use cel::Program;
    use serde_json::json;

    use super::*;

    fn work(source: &str) -> Result<Work, String> {
        Work::of(Program::compile(source).unwrap().expression())
    }

    #[test]
    fn the_degree_is_how_deep_lists_are_gone_through() {
        for (source, degree) in [
            ("status == 'x' && amount > 5", 0),
            ("'x' in tags", 1),
            ("items.all(x, x.price > 5)", 1),
            ("items.exists(x, x.name == wanted.name)", 1),
            ("items.exists(x, x.tag in x.tags)", 1),
            ("items.exists(x, x.tag in tags)", 2),
            ("items.exists(x, text.contains(x))", 2),
            ("items.filter(x, x > 1).map(x, x.id).exists(x, x == 7)", 1),
            ("items.all(x, items.exists(y, y.id == x.parent))", 2),
            ("items.all(x, x.parts.all(y, y.size > 0))", 2),
            ("a.all(x, b.all(y, c.exists(z, z == x)))", 3),
            ("a.all(x, b.all(y, y in tags))", 3),
        ] {
            assert_eq!(work(source).unwrap().degree, degree, "{source}");
        }
    }

    #[test]
    fn what_grows_too_fast_is_refused() {
        for (source, words) in [
            ("a.all(x, b.all(y, c.all(z, z in tags)))", "4 levels"),
            ("a.all(x, b.all(y, c.all(z, d.all(u, true))))", "4 levels"),
            ("a.map(x, x).map(x, x).map(x, x).map(x, x).map(x, x) == []", "5 comprehensions"),
            ("a.map(x, x + x).map(x, x + x).map(x, x + x + x + x) == []", "5 additions"),
            ("a.map(x, [x, x, x, x, x]) == []", "5 additions"),
        ] {
            let refused = work(source).unwrap_err();
            assert!(refused.contains(words), "{source}: {refused}");
        }
        assert_eq!(work("a.map(x, x + x).exists(y, y in tags)").unwrap(), Work { degree: 2, growth: 2 });
    }

    #[test]
    fn an_event_is_weighed_only_where_that_matters() {
        let event = |count: usize| json!({ "items": vec![1; count], "tags": [] });
        let simple = work("items.all(x, x > 0)").unwrap();
        assert_eq!(simple.check(&event(100_000)), Ok(()));
        let nested = work("items.all(x, items.all(y, x > y))").unwrap();
        assert_eq!(nested.check(&event(997)), Ok(()));
        assert!(nested.check(&event(998)).unwrap_err().contains("1000 values"));
        let text = json!({ "items": [], "text": "x".repeat(TEXT_BYTES * 1000) });
        assert!(nested.check(&text).is_err());
        assert_eq!((values_max(3, 1), values_max(2, 81), values_max(3, 10_000)), (100, 12, 1));
    }
}
