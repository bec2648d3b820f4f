//! A YAML file as a tree that knows where each part of it stands. Built from the events of a parser within the limits, so
//! that neither depth nor aliases of aliases can take more than they may. It must not know what keys mean.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use crate::limits::{DEPTH_MAX, NODES_MAX, TEXT_BYTES_MAX};
use crate::problem::{Fault, Position, known};
use crate::scalar::{self, Scalar};
use crate::variables::{Unexpanded, Variables, expand};

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Scalar(Scalar),
    /// What a variable that stands alone means; read as a text where a text is wanted.
    Variable {
        means: Scalar,
        text: String,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Position,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) const fn null(at: Position) -> Self {
        Self { at, kind: Kind::Scalar(Scalar::Null) }
    }

    /// Adds an item to the list below a key of a map; there will be both, where there was a map or nothing.
    pub(crate) fn push_below(&mut self, key: &str, item: Self) {
        let at = item.at;
        if self.is_null() {
            self.kind = Kind::Map(Vec::new());
        }
        let Kind::Map(entries) = &mut self.kind else { return };
        match entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value.kind) {
            Some(Kind::List(items)) => items.push(item),
            _ => {
                let value = Self { at, kind: Kind::List(vec![item]) };
                entries.push(Entry { key: key.to_owned(), key_at: at, value });
            }
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Scalar(Scalar::Null) | Kind::Variable { means: Scalar::Null, .. })
    }

    /// True or false, also where a variable says so.
    pub(crate) fn as_bool(&self) -> Option<bool> {
        match &self.kind {
            Kind::Scalar(Scalar::Bool(value)) | Kind::Variable { means: Scalar::Bool(value), .. } => {
                Some(*value)
            }
            _ => None,
        }
    }

    /// A text, also one that a variable holds, whatever it would mean elsewhere.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(Scalar::Text(text)) | Kind::Variable { text, .. } => Some(text),
            _ => None,
        }
    }

    /// What it is, in a word for people.
    pub(crate) fn word(&self) -> &'static str {
        match &self.kind {
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
            Kind::Scalar(scalar) | Kind::Variable { means: scalar, .. } => match scalar {
                Scalar::Null => "nothing",
                Scalar::Bool(_) => "true or false",
                Scalar::Number(_) => "a number",
                Scalar::Text(_) => "a text",
            },
        }
    }

    /// Where the part stands to which a JSON pointer leads, or as far as it leads.
    pub(crate) fn place_of(&self, pointer: &str) -> Position {
        let mut node = self;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let inner = match &node.kind {
                Kind::List(items) => step.parse().ok().and_then(|at: usize| items.get(at)),
                Kind::Map(entries) => {
                    entries.iter().find(|entry| entry.key == step).map(|entry| &entry.value)
                }
                _ => None,
            };
            match inner {
                Some(inner) => node = inner,
                None => break,
            }
        }
        node.at
    }

    /// Values in it, itself included, and bytes of its texts.
    fn size(&self) -> (usize, usize) {
        let inner = |found: (usize, usize), node: &Self, key: usize| {
            let (nodes, bytes) = node.size();
            (found.0 + nodes, found.1 + bytes + key)
        };
        match &self.kind {
            Kind::Scalar(Scalar::Text(text)) | Kind::Variable { text, .. } => (1, text.len()),
            Kind::Scalar(_) => (1, 0),
            Kind::List(items) => items.iter().fold((1, 0), |found, item| inner(found, item, 0)),
            Kind::Map(entries) => {
                entries.iter().fold((1, 0), |found, entry| inner(found, &entry.value, entry.key.len()))
            }
        }
    }
}

/// Reads a file's text. Faults are in the order of their places; a text that is no YAML has one.
pub(crate) fn parse(text: &str, variables: &Variables) -> Result<Node, Vec<Fault>> {
    let mut builder = Builder::new(variables);
    for event in Parser::new_from_str(text) {
        let taken = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => {
                Err(Fault::new(position(*error.marker()), format!("this is no YAML: {}", error.info())))
            }
        };
        if let Err(fault) = taken {
            builder.faults.push(fault);
            return Err(builder.faults);
        }
    }
    if builder.faults.is_empty() {
        Ok(builder.root.unwrap_or(Node::null(Position::START)))
    } else {
        Err(builder.faults)
    }
}

fn position(marker: Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A list or a map that has not ended.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value.
    key: Option<(String, Position)>,
    /// Where each key of a map stands.
    keys: HashMap<String, Position>,
}

struct Builder<'a> {
    variables: &'a Variables,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    bytes: usize,
    faults: Vec<Fault>,
}

impl<'a> Builder<'a> {
    fn new(variables: &'a Variables) -> Self {
        Self {
            variables,
            open: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            documents: 0,
            nodes: 0,
            bytes: 0,
            faults: Vec::new(),
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let at = position(span.start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Fault::new(at, "wanted one document, found a second one after `---`"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(tag) =
                    tag.as_ref().filter(|tag| !(tag.is_yaml_core_schema() && tag.suffix == "str"))
                {
                    return Err(Fault::new(at, format!("found the tag `{tag}`, tags are not taken"))
                        .hint("leave it out, or quote what is meant as a text"));
                }
                let plain = style == ScalarStyle::Plain && tag.is_none();
                if self.wants_key() {
                    return self.key(text.into_owned(), at);
                }
                let node = self.scalar(&text, plain, style, span);
                self.value(node, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(Kind::List(Vec::new()), at, anchor, tag.is_some())?;
            }
            Event::MappingStart(anchor, tag) => {
                self.begin(Kind::Map(Vec::new()), at, anchor, tag.is_some())?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.value(open.node, open.anchor)?;
                }
            }
            Event::Alias(anchor) => {
                let Some(known) = self.anchors.get(&anchor) else {
                    return Err(Fault::new(at, "found an alias of something that has not ended yet"));
                };
                let (nodes, bytes) = known.size();
                if self.wants_key() {
                    return Err(Fault::new(at, "wanted a key, found an alias"));
                }
                // Checked by count before it is copied, so that aliases of aliases end here.
                self.nodes = self.nodes.saturating_add(nodes);
                self.bytes = self.bytes.saturating_add(bytes);
                self.within_limits(at)?;
                let copy = known.clone();
                self.place(copy);
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn begin(&mut self, kind: Kind, at: Position, anchor: usize, tagged: bool) -> Result<(), Fault> {
        if tagged {
            return Err(Fault::new(at, "found a tag, tags are not taken").hint("leave it out"));
        }
        if self.wants_key() {
            return Err(Fault::new(at, "wanted a key that is a text, found a list or a map"));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(Fault::new(
                at,
                format!("lists and maps lie deeper than {DEPTH_MAX}, which is the limit"),
            ));
        }
        self.open.push(Open { node: Node { at, kind }, anchor, key: None, keys: HashMap::new() });
        Ok(())
    }

    /// Whether the next scalar is a key.
    fn wants_key(&self) -> bool {
        self.open.last().is_some_and(|open| matches!(open.node.kind, Kind::Map(_)) && open.key.is_none())
    }

    fn key(&mut self, text: String, at: Position) -> Result<(), Fault> {
        self.count(0, text.len(), at)?;
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        if let Some(first) = open.keys.insert(text.clone(), at) {
            let (line, column) = (first.line, first.column);
            return Err(Fault::new(at, format!("the key `{text}` is here a second time"))
                .hint(format!("it stands at {line}:{column} already; leave one of them out")));
        }
        open.key = Some((text, at));
        Ok(())
    }

    fn scalar(&mut self, text: &str, plain: bool, style: ScalarStyle, span: Span) -> Node {
        let at = position(span.start);
        let read = |text: &str| if plain { scalar::plain(text) } else { Scalar::Text(text.to_owned()) };
        let kind = match expand(text, self.variables) {
            Ok(None) => Kind::Scalar(read(text)),
            Ok(Some(expanded)) if plain && expanded.alone => {
                Kind::Variable { means: scalar::plain(&expanded.text), text: expanded.text }
            }
            Ok(Some(expanded)) => Kind::Scalar(Scalar::Text(expanded.text)),
            Err(why) => {
                // Columns within a text of one line; longer ones are named by where they begin.
                let quote = usize::from(style != ScalarStyle::Plain);
                let inside = |before: usize| match span.start.line() == span.end.line() {
                    true => Position { column: at.column + quote + before, ..at },
                    false => at,
                };
                self.faults.push(self.unexpanded(why, &inside));
                Kind::Scalar(Scalar::Null)
            }
        };
        Node { at, kind }
    }

    fn unexpanded(&self, why: Unexpanded, inside: &dyn Fn(usize) -> Position) -> Fault {
        match why {
            Unexpanded::Unset { name, before } => {
                let close = crate::suggest::closest(&name, self.variables.names());
                let hint = match close {
                    Some(_) => known(&name, self.variables.names()),
                    None => format!("set it, or write `${{{name}:-DEFAULT}}`"),
                };
                Fault::new(inside(before), format!("the variable `{name}` is not set")).hint(hint)
            }
            Unexpanded::Malformed { found, before } => Fault::new(
                inside(before),
                format!("wanted `${{NAME}}` or `${{NAME:-DEFAULT}}`, found `${{{found}`"),
            )
            .hint("write `$${` where no variable is meant"),
            Unexpanded::TooMuch { limit, before } => {
                Fault::new(inside(before), format!("{limit}, which is the limit"))
            }
        }
    }

    fn value(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        let own = match &node.kind {
            Kind::Scalar(Scalar::Text(text)) | Kind::Variable { text, .. } => text.len(),
            _ => 0,
        };
        self.count(1, own, node.at)?;
        if anchor > 0 {
            // The copy that the anchor keeps counts too.
            let (nodes, bytes) = node.size();
            self.count(nodes, bytes, node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node);
        Ok(())
    }

    fn place(&mut self, node: Node) {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut open.node.kind {
            Kind::List(items) => items.push(node),
            Kind::Map(entries) => {
                if let Some((key, key_at)) = open.key.take() {
                    entries.push(Entry { key, key_at, value: node });
                }
            }
            Kind::Scalar(_) | Kind::Variable { .. } => {}
        }
    }

    fn count(&mut self, nodes: usize, bytes: usize, at: Position) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        self.within_limits(at)
    }

    fn within_limits(&self, at: Position) -> Result<(), Fault> {
        if self.nodes > NODES_MAX {
            return Err(Fault::new(
                at,
                format!("the file holds more than {NODES_MAX} values, which is the limit"),
            ));
        }
        if self.bytes > TEXT_BYTES_MAX {
            let limit =
                format!("the file holds more than {TEXT_BYTES_MAX} bytes of text, which is the limit");
            return Err(Fault::new(at, limit));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
