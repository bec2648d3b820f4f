//! Reading a JSON Schema as far as a command line needs it: fields, their kinds, what is required, what may be chosen.
//! A schema comes from a worker and may be anything: references that go in circles end, what is not understood allows
//! everything. The callee's own check is the one that counts.

use serde_json::Value;

/// How many references and alternatives are followed.
const DEPTH_MAX: usize = 16;

/// A kind of JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Integer,
    Number,
    Text,
    List,
    Object,
}

impl Kind {
    const ALL: [(Self, &'static str, &'static str); 7] = [
        (Self::Null, "null", "null"),
        (Self::Boolean, "boolean", "true or false"),
        (Self::Integer, "integer", "integer"),
        (Self::Number, "number", "number"),
        (Self::Text, "string", "text"),
        (Self::List, "array", "list"),
        (Self::Object, "object", "object"),
    ];

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name, _)| *name == word).map(|(kind, ..)| *kind)
    }

    /// Returns the word for people.
    pub(super) fn word(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., word)| word)
    }

    /// Returns the narrowest kind of a value.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(number) if number.is_i64() || number.is_u64() => Self::Integer,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::Text,
            Value::Array(_) => Self::List,
            Value::Object(_) => Self::Object,
        }
    }
}

/// A schema, or a part of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema<'a> {
    root: &'a Value,
    node: &'a Value,
}

/// What a schema says about a field.
#[derive(Debug)]
pub(super) enum Field<'a> {
    /// It has such a field.
    Known(Schema<'a>),
    /// It allows any field.
    Free,
    /// It lists its fields, and this is none of them.
    Unknown,
}

impl<'a> Schema<'a> {
    pub(super) const fn new(root: &'a Value) -> Self {
        Self { root, node: root }
    }

    const fn part(self, node: &'a Value) -> Self {
        Self { root: self.root, node }
    }

    /// Follows a reference within the document.
    fn target(self) -> Option<Self> {
        let pointer = self.node.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.root.pointer(pointer).map(|node| self.part(node))
    }

    /// Returns this node with its references, and every alternative of it.
    fn parts(self) -> Vec<Self> {
        let mut found = Vec::new();
        self.collect(DEPTH_MAX, true, &mut found);
        found
    }

    /// Returns what holds whichever alternative is taken; of alternatives only the one beside null.
    fn sure_parts(self) -> Vec<Self> {
        let mut found = Vec::new();
        self.collect(DEPTH_MAX, false, &mut found);
        found
    }

    fn collect(self, depth: usize, all: bool, found: &mut Vec<Self>) {
        if depth == 0 {
            return;
        }
        found.push(self);
        if let Some(target) = self.target() {
            target.collect(depth - 1, all, found);
        }
        for part in self.list("allOf") {
            part.collect(depth - 1, all, found);
        }
        for key in ["anyOf", "oneOf"] {
            let is_null = |part: &Self| part.node.get("type").and_then(Value::as_str) == Some("null");
            let choices: Vec<_> = self.list(key).filter(|part| !is_null(part)).collect();
            if all || choices.len() == 1 {
                choices.into_iter().for_each(|part| part.collect(depth - 1, all, found));
            }
        }
    }

    fn list(self, key: &str) -> impl Iterator<Item = Self> + use<'a> {
        let list = self.node.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter().map(move |node| self.part(node))
    }

    /// Returns the kinds of value that are allowed; none stands for all.
    pub(super) fn kinds(self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        if !self.add_kinds(DEPTH_MAX, &mut kinds) {
            kinds.clear();
        }
        kinds
    }

    /// Adds the kinds of this node; false where it allows all.
    fn add_kinds(self, depth: usize, kinds: &mut Vec<Kind>) -> bool {
        let mut add = |kind: Kind| {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        };
        if depth == 0 {
            return false;
        }
        match self.node.get("type") {
            Some(Value::String(word)) => {
                Kind::parse(word).into_iter().for_each(add);
                return true;
            }
            Some(Value::Array(words)) => {
                words.iter().filter_map(|word| Kind::parse(word.as_str()?)).for_each(add);
                return true;
            }
            _ => {}
        }
        if let Some(value) = self.node.get("const") {
            add(Kind::of(value));
            return true;
        }
        if let Some(values) = self.node.get("enum").and_then(Value::as_array) {
            values.iter().for_each(|value| add(Kind::of(value)));
            return true;
        }
        if let Some(target) = self.target() {
            return target.add_kinds(depth - 1, kinds);
        }
        let mut alternatives =
            self.list("anyOf").chain(self.list("oneOf")).chain(self.list("allOf")).peekable();
        alternatives.peek().is_some() && alternatives.all(|part| part.add_kinds(depth - 1, kinds))
    }

    /// Looks a field up.
    pub(super) fn field(self, name: &str) -> Field<'a> {
        let parts = self.parts();
        let known = |part: &Self| part.node.get("properties")?.get(name).map(|node| self.part(node));
        if let Some(field) = parts.iter().find_map(known) {
            return Field::Known(field);
        }
        let further =
            |part: &Self| part.node.get("additionalProperties").filter(|more| **more != Value::Bool(false));
        if let Some(further) = parts.iter().find_map(further) {
            return Field::Known(self.part(further));
        }
        if parts.iter().any(|part| part.node.get("properties").is_some_and(Value::is_object)) {
            Field::Unknown
        } else {
            Field::Free
        }
    }

    /// Returns every field that is listed, with whether it must be given: in the order of the schema.
    pub(super) fn fields(self) -> Vec<(&'a str, Self, bool)> {
        let required = self.required();
        let mut fields: Vec<(&str, Self, bool)> = Vec::new();
        for part in self.parts() {
            let listed = part.node.get("properties").and_then(Value::as_object);
            for (name, node) in listed.into_iter().flatten() {
                if !fields.iter().any(|(known, ..)| known == name) {
                    fields.push((name, self.part(node), required.contains(&name.as_str())));
                }
            }
        }
        fields
    }

    /// Returns the names of the fields that must be given.
    pub(super) fn required(self) -> Vec<&'a str> {
        let lists = self.sure_parts().into_iter().filter_map(|part| part.node.get("required")?.as_array());
        lists.flatten().filter_map(Value::as_str).collect()
    }

    /// Returns the schema of a list's items.
    pub(super) fn item(self) -> Option<Self> {
        self.parts().iter().find_map(|part| part.node.get("items").map(|node| self.part(node)))
    }

    /// Returns the only values that are allowed, where they are listed.
    pub(super) fn choices(self) -> Vec<&'a Value> {
        let parts = self.parts();
        let listed = parts.iter().filter_map(|part| part.node.get("enum")?.as_array()).flatten();
        let single = parts.iter().filter_map(|part| part.node.get("const"));
        let mut choices: Vec<&Value> = Vec::new();
        for value in listed.chain(single) {
            if !choices.contains(&value) {
                choices.push(value);
            }
        }
        // An alternative that is no list of values allows more than those that are.
        let open = |part: &Self| {
            let leaf = ["enum", "const", "$ref", "anyOf", "oneOf", "allOf"]
                .iter()
                .all(|key| part.node.get(key).is_none());
            leaf && !choices.is_empty()
        };
        if parts.iter().any(open) { Vec::new() } else { choices }
    }

    /// Returns the description.
    pub(super) fn description(self) -> Option<&'a str> {
        self.sure_parts().iter().find_map(|part| part.node.get("description")?.as_str())
    }

    /// Returns the value that is taken where none is given.
    pub(super) fn default(self) -> Option<&'a Value> {
        self.node.get("default").filter(|value| !value.is_null())
    }

    /// Says in words what is wanted.
    pub(super) fn wanted(self) -> String {
        let choices = self.choices();
        if !choices.is_empty() {
            let words =
                choices.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            return words.collect::<Vec<_>>().join("|");
        }
        let kinds = self.kinds();
        if kinds.is_empty() {
            return "anything".to_owned();
        }
        let word = |kind: &Kind| match (kind, self.item()) {
            (Kind::List, Some(item)) if item.item().is_none() => format!("list of {}", item.wanted()),
            _ => kind.word().to_owned(),
        };
        kinds.iter().map(word).collect::<Vec<_>>().join(" or ")
    }
}
