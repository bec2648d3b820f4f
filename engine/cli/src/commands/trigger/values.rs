//! What `key=value` means: where the value goes, and the text of it. Knows no schema.

/// One step from a value into a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The field of an object.
    Field(String),
    /// One more item at the end of a list.
    Append,
}

/// One `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment<'a> {
    pub(super) path: Vec<Step>,
    pub(super) text: &'a str,
}

/// Reads `key=value`. A dot goes one object deeper, `\.` is a dot in a name, `[]` at the end adds to a list.
pub(super) fn parse(argument: &str) -> Result<Assignment<'_>, String> {
    let wanted = |what: &str| format!("wanted {what}, found `{argument}`");
    let (key, text) = argument.split_once('=').ok_or_else(|| wanted("KEY=VALUE"))?;
    let (key, append) = match key.strip_suffix("[]") {
        Some(key) => (key, true),
        None => (key, false),
    };
    let mut path = Vec::new();
    let mut name = String::new();
    let mut letters = key.chars();
    loop {
        match letters.next() {
            Some('\\') => name.push(letters.next().unwrap_or('\\')),
            Some('.') => path.push(Step::Field(std::mem::take(&mut name))),
            Some(letter) => name.push(letter),
            None => break,
        }
    }
    path.push(Step::Field(name));
    if path.iter().any(|step| matches!(step, Step::Field(name) if name.is_empty())) {
        return Err(wanted("a name before `=`, and on both sides of each dot"));
    }
    if append {
        path.push(Step::Append);
    }
    Ok(Assignment { path, text })
}

/// Writes a path as it is typed.
pub(super) fn display(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&name.replace('\\', "\\\\").replace('.', "\\."));
            }
            Step::Append => text.push_str("[]"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_paths() {
        let check = |argument: &str, path: &str, depth: usize, text: &str| {
            let found = parse(argument).unwrap();
            assert_eq!((display(&found.path).as_str(), found.path.len(), found.text), (path, depth, text));
        };
        check("a=1", "a", 1, "1");
        check("a.b.c=x", "a.b.c", 3, "x");
        check(r"a\.b=x", r"a\.b", 1, "x");
        check("a.b[]=x", "a.b[]", 3, "x");
        check("a=b=c", "a", 1, "b=c");
        check("a=", "a", 1, "");
        check(r"a\\=1", r"a\\", 1, "1");
    }

    #[test]
    fn what_has_no_name_is_refused() {
        for wrong in ["a", "=1", ".a=1", "a.=1", "a..b=1", "[]=1", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
