//! The page that `ringway trigger FN --help` shows: made from what the function's worker registered, so it is right for the
//! function as it runs now.

use serde_json::Value;

use super::function_id;
use super::schema::Schema;
use crate::commands::{list, word};
use crate::output::words::{printable, several};
use crate::output::{Paint, Terminal};

/// Columns of the widest field name that the descriptions are set beside.
const FIELD_WIDTH_MAX: usize = 36;

/// Makes the page from an answer of `engine::functions::info`.
pub(super) fn page(info: &Value, terminal: Terminal) -> String {
    let id = printable(function_id(info));
    let mut page = terminal.paint(Paint::Bold, &id);
    if !word(info, "description").is_empty() {
        page.push_str(&format!("\n{}", printable(word(info, "description"))));
    }
    let given = |key: &str| info.get(key).filter(|schema| !schema.is_null());
    let request = given("request_schema").map(Schema::new);
    let usage = terminal.paint(Paint::Bold, "Usage:");
    page.push_str(&format!(
        "\n\n{usage} ringway trigger {id}{}\n",
        request.map(usage_of).unwrap_or_default()
    ));
    match request {
        Some(schema) if !schema.fields().is_empty() => fields("Fields:", schema, terminal, &mut page),
        Some(_) => {}
        None => page.push_str("\nIts worker gave no schema: any JSON may be sent.\n"),
    }
    if let Some(reply) = given("response_schema").map(Schema::new) {
        if reply.fields().is_empty() {
            page.push_str(&format!("\n{} {}\n", terminal.paint(Paint::Bold, "Reply:"), reply.wanted()));
        } else {
            fields("Reply:", reply, terminal, &mut page);
        }
    }
    page.push_str(&format!("\n{}\n", served_by(info)));
    page
}

/// Returns the arguments of the usage line: what must be given, then that there is more.
fn usage_of(schema: Schema<'_>) -> String {
    let fields = schema.fields();
    if fields.is_empty() {
        let kinds = schema.kinds();
        return if kinds.is_empty() || kinds == [super::schema::Kind::Null] {
            String::new()
        } else {
            format!(" <{}>", schema.wanted())
        };
    }
    let required = fields.iter().filter(|(.., required)| *required);
    let mut usage: String =
        required.map(|(name, field, _)| format!(" {name}=<{}>", field.wanted())).collect();
    if fields.iter().any(|(.., required)| !required) {
        usage.push_str(" [FIELD=VALUE]...");
    }
    printable(&usage)
}

fn fields(title: &str, schema: Schema<'_>, terminal: Terminal, page: &mut String) {
    let mut lines = Vec::new();
    field_lines(schema, "", 0, &mut lines);
    let widest = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(FIELD_WIDTH_MAX);
    page.push_str(&format!("\n{}\n", terminal.paint(Paint::Bold, title)));
    for (name, text) in lines {
        let line = format!("  {:<widest$}  {}", printable(&name), printable(&text));
        page.push_str(line.trim_end());
        page.push('\n');
    }
}

/// How deep fields of fields are shown.
const DEPTH_MAX: usize = 3;

fn field_lines(schema: Schema<'_>, prefix: &str, depth: usize, lines: &mut Vec<(String, String)>) {
    for (name, field, required) in schema.fields() {
        let path = format!("{prefix}{name}");
        let mut words = Vec::new();
        if required {
            words.push("(required)".to_owned());
        }
        words.extend(field.description().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")));
        words.extend(field.default().map(|value| format!("[default: {value}]")));
        lines.push((format!("{path}=<{}>", field.wanted()), words.join(" ")));
        if depth + 1 < DEPTH_MAX {
            field_lines(field, &format!("{path}."), depth + 1, lines);
        }
    }
}

fn served_by(info: &Value) -> String {
    let replicas = list(info, "replicas");
    let mut names: Vec<&str> = replicas.iter().map(|replica| word(replica, "worker_name")).collect();
    names.sort_unstable();
    names.dedup();
    let names = if names.is_empty() { word(info, "worker_name").to_owned() } else { names.join(", ") };
    let encodings: Vec<&str> = list(info, "encodings").iter().filter_map(Value::as_str).collect();
    let is = |key: &str| info.get(key) == Some(&Value::Bool(true));
    let mut text = format!("Served by {} ({})", printable(&names), several(replicas.len().max(1), "replica"));
    if !encodings.is_empty() {
        text.push_str(&format!(", takes {}", encodings.join(", ")));
    }
    for (key, words) in [
        ("idempotent", "may be repeated"),
        ("streams_in", "reads a stream"),
        ("streams_out", "writes a stream: one item on a line"),
    ] {
        if is(key) {
            text.push_str(&format!(", {words}"));
        }
    }
    text.push('.');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLAIN: Terminal = Terminal { interactive: true, colour: false, width: 100 };

    fn check(info: Value, expected: &str) {
        let found = page(&info, PLAIN);
        assert_eq!(found, expected, "\n{found}");
    }

    #[test]
    fn an_object_is_shown_by_its_fields() {
        let info = json!({
            "function_id": "calc::add", "worker_name": "calc", "description": "Adds two numbers.",
            "request_schema": {
                "type": "object",
                "properties": {
                    "a": {"type": "integer", "description": "The first\nnumber"},
                    "how": {"type": "object", "properties": {"exact": {"type": "boolean", "default": true}}}
                },
                "required": ["a"]
            },
            "response_schema": {"type": "integer"},
            "encodings": ["rkyv", "json"], "idempotent": true, "streams_out": false,
            "replicas": [{"worker_name": "calc"}, {"worker_name": "calc"}]
        });
        check(
            info,
            "calc::add\nAdds two numbers.\n\n\
             Usage: ringway trigger calc::add a=<integer> [FIELD=VALUE]...\n\n\
             Fields:\n  \
               a=<integer>                (required) The first number\n  \
               how=<object>\n  \
               how.exact=<true or false>  [default: true]\n\n\
             Reply: integer\n\n\
             Served by calc (2 replicas), takes rkyv, json, may be repeated.\n",
        );
    }

    #[test]
    fn one_value_and_no_schema_are_shown_too() {
        check(
            json!({"function_id": "hello::greet", "worker_name": "greeter", "request_schema": {"type": "string"}}),
            "hello::greet\n\nUsage: ringway trigger hello::greet <text>\n\nServed by greeter (1 replica).\n",
        );
        check(
            json!({"function_id": "raw::x", "worker_name": "w"}),
            "raw::x\n\nUsage: ringway trigger raw::x\n\nIts worker gave no schema: any JSON may be sent.\n\n\
             Served by w (1 replica).\n",
        );
    }

    #[test]
    fn workers_cannot_paint_the_terminal() {
        let info =
            json!({"function_id": "a::b", "worker_name": "w\u{1b}[2J", "description": "x\u{1b}]0;t\u{7}"});
        assert!(!page(&info, PLAIN).contains('\u{1b}'));
    }
}
