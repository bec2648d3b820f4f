//! Reading cron expressions, and saying where a wrong one is wrong. The calendar is croner's; what it accepts is narrowed
//! here to what means one thing. Used by `schedule`. It must not know time zones or clocks.

use croner::Cron;
use croner::parser::CronParser;

/// The longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 512;

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{expression}` is no cron expression: at column {column}, {problem}")]
pub struct ExpressionError {
    /// The expression as it was given.
    pub expression: String,
    /// Where the mistake is, in characters from 1.
    pub column: usize,
    /// What was found there, and what is wanted.
    pub problem: String,
}

/// An expression that was found right.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    pub(crate) cron: Cron,
    /// Whether hour or minute begins with `*`. Such a job follows the wall clock; all others have fixed times.
    pub(crate) wildcard: bool,
}

/// A short name, and the fields that it stands for.
const NAMES: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A field: its name, and what it takes.
struct Kind {
    name: &'static str,
    takes: &'static str,
    /// Where it stands among seven fields.
    place: usize,
}

const fn kind(name: &'static str, takes: &'static str, place: usize) -> Kind {
    Kind { name, takes, place }
}

const KINDS: [Kind; 7] = [
    kind("second", "0 to 59", 0),
    kind("minute", "0 to 59", 1),
    kind("hour", "0 to 23", 2),
    kind("day of the month", "1 to 31, L, or W after a day", 3),
    kind("month", "1 to 12 or JAN to DEC", 4),
    kind("day of the week", "0 to 7 (0 and 7 are Sunday) or SUN to SAT, with # or L", 5),
    kind("year", "1 to 5000", 6),
];

/// A piece of the expression with the column of its first character.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    column: usize,
}

impl Expression {
    /// Reads five, six or seven fields, or a name such as `@hourly`.
    pub(crate) fn parse(text: &str) -> Result<Self, ExpressionError> {
        let wrong = |column: usize, problem: String| ExpressionError {
            expression: text.chars().take(EXPRESSION_BYTES_MAX).collect(),
            column,
            problem,
        };
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(wrong(1, format!("{} bytes, at most {EXPRESSION_BYTES_MAX} are taken", text.len())));
        }
        let fields = pieces(text);
        let Some(first) = fields.first() else {
            return Err(wrong(1, "it is empty; five to seven fields are wanted".to_owned()));
        };
        if first.text.starts_with('@') {
            let known = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
            let Some((_, meaning)) = known else {
                let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                return Err(wrong(first.column, format!("unknown name; known are {}", names.join(", "))));
            };
            return Self::parse(meaning);
        }
        let kinds = match fields.len() {
            5 => &KINDS[1..6],
            6 => &KINDS[..6],
            7 => &KINDS[..],
            found => {
                let column = fields.get(7).map_or_else(|| text.chars().count() + 1, |field| field.column);
                return Err(wrong(
                    column,
                    format!(
                        "{found} fields; wanted are 5 (minute hour day month weekday), 6 (with seconds first) or 7 \
                         (with a year last)"
                    ),
                ));
            }
        };
        for (field, kind) in fields.iter().zip(kinds) {
            check(*field, kind).map_err(|(column, problem)| wrong(column, problem))?;
        }
        let joined = fields.iter().map(|field| field.text).collect::<Vec<_>>().join(" ");
        let cron = CronParser::new().parse(&joined).map_err(|error| wrong(1, error.to_string()))?;
        let offset = usize::from(fields.len() > 5);
        let wildcard = fields[offset..offset + 2].iter().any(|field| field.text.starts_with('*'));
        Ok(Self { cron, wildcard })
    }
}

/// Each element of a field by itself, so that the first wrong one can be pointed at.
fn check(field: Piece<'_>, kind: &Kind) -> Result<(), (usize, String)> {
    let mut column = field.column;
    for element in field.text.split(',') {
        let refused = |why: &str| {
            let found = if element.is_empty() { "nothing" } else { element };
            Err((column, format!("{found} is no {}: {why}{} is wanted", kind.name, kind.takes)))
        };
        if element.is_empty() {
            return refused("");
        }
        if let Some((_, step)) = element.split_once('/')
            && step.parse::<u16>().is_ok_and(|step| step == 0)
        {
            return refused("a step of 0 never ends; ");
        }
        let mut fields = ["0", "*", "*", "*", "*", "*", "*"];
        fields[kind.place] = element;
        if CronParser::new().parse(&fields.join(" ")).is_err() {
            return refused("");
        }
        column += element.chars().count() + 1;
    }
    Ok(())
}

/// The words of a text, each with its column in characters from 1.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut start: Option<(usize, usize)> = None;
    for (column, (at, c)) in text.char_indices().enumerate() {
        match (c.is_whitespace(), start) {
            (false, None) => start = Some((at, column + 1)),
            (true, Some((from, column))) => {
                found.push(Piece { text: &text[from..at], column });
                start = None;
            }
            _ => {}
        }
    }
    if let Some((from, column)) = start {
        found.push(Piece { text: &text[from..], column });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_pointed_at() {
        let check = |text: &str, column: usize, words: &str| {
            let error = Expression::parse(text).map(|_| ()).unwrap_err();
            assert_eq!((error.column, error.problem.contains(words)), (column, true), "{text}: {error}");
        };
        check("", 1, "empty");
        check("* * *", 6, "3 fields");
        check("* * * * * * * *", 15, "8 fields");
        check("0 24 * * *", 3, "24 is no hour");
        check("0 1,2,99 * * *", 7, "99 is no hour");
        check("60 * * * * *", 1, "60 is no second");
        check("  5  61 * * *", 6, "61 is no hour");
        check("* * * * 8", 9, "day of the week");
        check("* * * FOO *", 7, "FOO is no month");
        check("*/0 * * * *", 1, "step of 0");
        check("1,,2 * * * *", 3, "nothing is no minute");
        check("@often", 1, "@hourly");
        check("@reboot", 1, "unknown name");
        check("9-5 * * * *", 1, "9-5");
        check(&"1,".repeat(400), 1, "at most 512");
    }

    #[test]
    fn every_form_is_read() {
        for text in [
            "* * * * *",
            "*/5 1-3 1,15 JAN-MAR mon-fri",
            "0 0 9 * * 1-5",
            "0 0 9 * * 1-5 2030",
            "@hourly",
            "@Daily",
            "0 0 L * *",
            "0 0 15W * *",
            "0 0 * * 5#2",
            "0 0 * * 7",
            "0 0 ? * 1",
            "5/15 * * * *",
        ] {
            let outcome = Expression::parse(text).map(|_| ());
            let sloppy = text.starts_with("5/");
            assert_eq!(outcome.is_err(), sloppy, "{text}: {outcome:?}");
        }
    }

    #[test]
    fn jobs_with_a_star_in_hour_or_minute_follow_the_wall_clock() {
        let check = |text: &str, wildcard: bool| {
            assert_eq!(Expression::parse(text).unwrap().wildcard, wildcard, "{text}");
        };
        check("*/15 * * * *", true);
        check("30 * * * *", true);
        check("*/30 2 * * *", true);
        check("@hourly", true);
        check("30 2 * * *", false);
        check("0,30 1-3 * * *", false);
        check("* 30 2 * * *", false);
        check("0 30 */2 * * *", true);
    }
}
