//! One worker's part of the file: its name, its type, and what iii calls it. The registry of workers is a list of these.
//! It must not know any worker.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use jsonschema::Validator;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::{Fault, Position};
use crate::tree::{Entry, Kind, Node};
use crate::typed;

type Check = dyn Fn(&Node) -> Result<(Value, Arc<dyn Any + Send + Sync>), Vec<Fault>> + Send + Sync;

/// How the section of a worker is read and checked.
#[derive(Clone)]
pub struct Section {
    name: &'static str,
    iii_name: Option<&'static str>,
    iii_keys: &'static [(&'static str, Option<&'static str>)],
    iii_further: Option<&'static str>,
    is_at_top: bool,
    live: &'static [&'static str],
    check: Arc<Check>,
    schema: fn(&mut SchemaGenerator) -> Schema,
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section")
            .field("name", &self.name)
            .field("iii_name", &self.iii_name)
            .finish_non_exhaustive()
    }
}

impl Section {
    /// A section of this name that a type reads: its fields are the keys, and what its JSON Schema says beyond types is
    /// held too, such as the least and the greatest number.
    #[must_use]
    pub fn of<C>(name: &'static str) -> Self
    where
        C: DeserializeOwned + Serialize + JsonSchema + Send + Sync + 'static,
    {
        let check = |node: &Node| {
            let parsed: C = typed::read(node).map_err(|fault| vec![fault])?;
            let value = within::<C>(&parsed, node)?;
            Ok((value, Arc::new(parsed) as Arc<dyn Any + Send + Sync>))
        };
        let schema = |generator: &mut SchemaGenerator| generator.subschema_for::<C>();
        Self {
            name,
            iii_name: None,
            iii_keys: &[],
            iii_further: None,
            is_at_top: false,
            live: &[],
            check: Arc::new(check),
            schema,
        }
    }

    /// Holds the settings against what their types and schema cannot say, as the worker itself does when it starts.
    #[must_use]
    pub fn checked<C, E>(mut self, check: fn(&C) -> Result<(), E>) -> Self
    where
        C: Send + Sync + 'static,
        E: fmt::Display + 'static,
    {
        let read = self.check;
        self.check = Arc::new(move |node: &Node| {
            let (value, parsed) = read(node)?;
            match parsed.downcast_ref::<C>().map(check) {
                Some(Err(error)) => Err(vec![Fault::new(node.at, error.to_string())]),
                _ => Ok((value, parsed)),
            }
        });
        self
    }

    /// The same where several parts may be wrong: each is a JSON pointer within the section, and what is wrong about it.
    #[must_use]
    pub fn checked_parts<C: Send + Sync + 'static>(mut self, check: fn(&C) -> Vec<(String, String)>) -> Self {
        let read = self.check;
        self.check = Arc::new(move |node: &Node| {
            let (value, parsed) = read(node)?;
            let wrong = parsed.downcast_ref::<C>().map(check).unwrap_or_default();
            let mut faults: Vec<Fault> = wrong
                .into_iter()
                .map(|(pointer, message)| Fault::new(node.place_of(&pointer), message))
                .collect();
            faults.sort_by_key(|fault| fault.at);
            if faults.is_empty() { Ok((value, parsed)) } else { Err(faults) }
        });
        self
    }

    /// It stands at the top of the file, beside `engine` and `workers`, and what it is about runs only where it is there.
    #[must_use]
    pub fn at_top(mut self) -> Self {
        self.is_at_top = true;
        self
    }

    /// What iii calls this worker, and its keys that are called otherwise here (`Some`) or have no meaning here (`None`):
    /// these are left out with a warning. A key within a key is written after a dot; `*` stands for any one key. A meaning such
    /// as `other/key` is a key of another worker's section: what is one worker there may be two here.
    #[must_use]
    pub fn iii(mut self, name: &'static str, keys: &'static [(&'static str, Option<&'static str>)]) -> Self {
        (self.iii_name, self.iii_keys) = (Some(name), keys);
        self
    }

    /// The key of a list here whose items are what iii writes as further workers of that name.
    #[must_use]
    pub fn iii_further(mut self, key: &'static str) -> Self {
        self.iii_further = Some(key);
        self
    }

    /// Keys that the worker applies while it runs. Every other change needs a restart.
    #[must_use]
    pub fn live(mut self, keys: &'static [&'static str]) -> Self {
        self.live = keys;
        self
    }

    /// The worker's name, which is the section's key.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn is_at_top(&self) -> bool {
        self.is_at_top
    }

    /// Its path in the file.
    pub(crate) fn path(&self) -> String {
        if self.is_at_top { self.name.to_owned() } else { format!("workers.{}", self.name) }
    }

    pub(crate) fn further(&self) -> Option<&'static str> {
        self.iii_further
    }

    pub(crate) fn is_live(&self, key: &str) -> bool {
        self.live.contains(&key)
    }

    pub(crate) fn is_called(&self, name: &str) -> bool {
        name == self.name || self.iii_name == Some(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        [Some(self.name), self.iii_name].into_iter().flatten()
    }

    pub(crate) fn read(&self, node: &Node) -> Result<(Value, Arc<dyn Any + Send + Sync>), Vec<Fault>> {
        (self.check)(node)
    }

    pub(crate) fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }

    /// Turns iii's keys into ours; what has no meaning here is told, unless it is nothing anyway. What belongs to other
    /// sections is moved to them.
    pub(crate) fn translate(&self, node: Node, moved: &mut Vec<Moved>, warnings: &mut Vec<Fault>) -> Node {
        self.translate_below(&[], node, moved, warnings)
    }

    fn translate_below(
        &self,
        above: &[String],
        node: Node,
        moved: &mut Vec<Moved>,
        warnings: &mut Vec<Fault>,
    ) -> Node {
        let Kind::Map(entries) = node.kind else { return node };
        let mut kept: Vec<Entry> = Vec::new();
        for mut entry in entries {
            let path = [above, std::slice::from_ref(&entry.key)].concat();
            let known = self.iii_keys.iter().find(|(pattern, _)| fits(pattern, &path));
            let Some((_, meaning)) = known else {
                entry.value = self.translate_below(&path, entry.value, moved, warnings);
                kept.push(entry);
                continue;
            };
            match meaning {
                // What iii leaves out so is as by default here too.
                _ if entry.value.is_null() => {}
                Some(ours) => match ours.split_once('/') {
                    Some((section, key)) => {
                        entry.key = key.to_owned();
                        moved.push(Moved { section, entry });
                    }
                    None => {
                        entry.key = (*ours).to_owned();
                        kept.push(entry);
                    }
                },
                None => {
                    let text =
                        format!("`{}` of `{}` means nothing here and is left out", path.join("."), self.name);
                    warnings.push(Fault::new(entry.key_at, text));
                }
            }
        }
        Node { at: node.at, kind: Kind::Map(kept) }
    }
}

/// A key that belongs to another section.
pub(crate) struct Moved {
    pub(crate) section: &'static str,
    pub(crate) entry: Entry,
}

/// Whether a path is of this pattern, in which `*` stands for any one key.
fn fits(pattern: &str, path: &[String]) -> bool {
    let wanted: Vec<&str> = pattern.split('.').collect();
    wanted.len() == path.len()
        && wanted.iter().zip(path).all(|(wanted, found)| *wanted == "*" || wanted == found)
}

/// Holds a value against the schema of its type, and returns it as JSON with defaults put in; each fault has the place of
/// the part that it is about.
pub(crate) fn within<C: Serialize + JsonSchema>(parsed: &C, node: &Node) -> Result<Value, Vec<Fault>> {
    let whole = |message: String| vec![Fault::new(node.at, message)];
    let value =
        serde_json::to_value(parsed).map_err(|error| whole(format!("this cannot be kept: {error}")))?;
    let validator: Validator = jsonschema::options()
        .build(&schemars::schema_for!(C).to_value())
        .map_err(|error| whole(format!("the schema of this section is wrong: {error}")))?;
    let mut faults: Vec<Fault> = validator
        .iter_errors(&value)
        .map(|error| {
            let at: Position = node.place_of(&error.instance_path().to_string());
            Fault::new(at, format!("this is out of bounds: {error}"))
        })
        .collect();
    faults.sort_by_key(|fault| fault.at);
    if faults.is_empty() { Ok(value) } else { Err(faults) }
}
