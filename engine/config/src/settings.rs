//! The whole file: read, checked, compared with the one before. Used by the command line at a start and at every change.
//! It must not know what a change leads to.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::engine::{self, EngineSettings};
use crate::problem::{Fault, Position, Problem, Problems, known};
use crate::section::{self, Moved, Section};
use crate::tree::{Entry, Kind, Node};
use crate::variables::Variables;
use crate::{source, tree, typed};

/// The file that is read when none is named, if it is there.
pub const FILE_NAME: &str = "ringway.yaml";

/// The folder of everything durable beside a file that names none.
const DATA_FOLDER: &str = ".ringway";

/// Parts of iii that a file written for it may name, that are no workers here, and what is in their place.
const NOT_OURS: &[(&str, &str)] = &[
    ("iii-engine-functions", "these functions are always there"),
    (
        "iii-observability",
        "traces and logs are always kept, and sent on where OTEL_EXPORTER_OTLP_ENDPOINT says",
    ),
    ("iii-telemetry", "nothing is told to anybody"),
    ("iii-bridge", "`links` at the top of the file connects engines"),
    ("iii-exec", "start programs beside the engine"),
    ("iii-worker-ops", "start workers beside the engine"),
    ("iii-sandbox", "start workers beside the engine"),
];

/// What a file says, checked.
#[derive(Clone)]
pub struct Settings {
    /// The part under `engine`.
    pub engine: EngineSettings,
    /// What is no error and should be known, in the order of the file.
    pub warnings: Vec<Problem>,
    /// The folder to which paths in the file are relative; none without a file.
    folder: Option<PathBuf>,
    workers: BTreeMap<&'static str, Worker>,
}

/// What a file says of one worker.
#[derive(Clone)]
struct Worker {
    /// `None` where the worker is not to run.
    parsed: Option<Arc<dyn Any + Send + Sync>>,
    /// The same as JSON, defaults put in; null where the worker is not to run.
    value: Value,
}

impl fmt::Debug for Settings {
    /// Sections of workers by their names alone: what they hold may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.workers.iter().filter(|(_, worker)| !worker.value.is_null());
        f.debug_struct("Settings")
            .field("engine", &self.engine)
            .field("workers", &running.map(|(name, _)| name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A key whose value differs between two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path, such as `workers.queue.retries`.
    pub path: String,
    /// Whether it is applied while the engine runs; otherwise it needs a restart.
    pub live: bool,
}

impl Settings {
    /// What holds without a file: every worker runs as it is by default.
    ///
    /// # Errors
    /// [`Problems`] if a worker's own type refuses its defaults, which is a mistake in the worker.
    pub fn defaults(sections: &[Section]) -> Result<Self, Problems> {
        Self::parse("(defaults)", "", sections, &Variables::default())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, each thing with its place.
    pub fn read(path: &Path, sections: &[Section], variables: &Variables) -> Result<Self, Problems> {
        let name = path.display().to_string();
        Self::of_file(path, &source::read(path, &name)?, sections, variables)
    }

    /// Reads a file that changed. One that is empty, or no regular file, is an error here: an editor that saves by cutting
    /// the file off first, or a volume that is being changed, says nothing with it.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn read_again(path: &Path, sections: &[Section], variables: &Variables) -> Result<Self, Problems> {
        let name = path.display().to_string();
        Self::of_file(path, &source::read_changed(path, &name)?, sections, variables)
    }

    fn of_file(
        path: &Path,
        text: &str,
        sections: &[Section],
        variables: &Variables,
    ) -> Result<Self, Problems> {
        let mut settings = Self::parse(&path.display().to_string(), text, sections, variables)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        settings.folder = Some(folder.unwrap_or_else(|| Path::new(".")).to_owned());
        Ok(settings)
    }

    /// Reads the text of a file of this name.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn parse(
        name: &str,
        text: &str,
        sections: &[Section],
        variables: &Variables,
    ) -> Result<Self, Problems> {
        let problems = |mut faults: Vec<Fault>| {
            faults.sort_by_key(|fault| fault.at);
            Problems(faults.into_iter().map(|fault| fault.in_file(name)).collect())
        };
        // A mark at the beginning, as some editors write it, is no part of the text.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let root = if text.trim().is_empty() {
            Node::null(Position::START)
        } else {
            tree::parse(text, variables).map_err(problems)?
        };
        let mut reading =
            Reading { sections, found: BTreeMap::new(), faults: Vec::new(), warnings: Vec::new() };
        let engine = reading.root(root);
        let workers = reading.workers();
        if !reading.faults.is_empty() {
            return Err(problems(reading.faults));
        }
        let warnings = reading.warnings.into_iter().map(|fault| fault.in_file(name)).collect();
        Ok(Self { engine, warnings, folder: None, workers })
    }

    /// The folder of everything durable: the one that the file names, or `.ringway` beside it; none without a file.
    #[must_use]
    pub fn data_folder(&self) -> Option<PathBuf> {
        let named = self.engine.data_folder.clone();
        match &self.folder {
            Some(folder) => Some(folder.join(named.unwrap_or_else(|| PathBuf::from(DATA_FOLDER)))),
            None => named,
        }
    }

    /// A path of the file as the engine sees it: relative to the folder of the file.
    #[must_use]
    pub fn beside(&self, path: &Path) -> PathBuf {
        self.folder.as_deref().map_or_else(|| path.to_owned(), |folder| folder.join(path))
    }

    /// A worker's section as its own type; `None` where the file says that the worker is not to run, or where the section
    /// was registered with another type.
    #[must_use]
    pub fn worker<C: Clone + Send + Sync + 'static>(&self, name: &str) -> Option<C> {
        self.workers.get(name)?.parsed.as_ref()?.downcast_ref::<C>().cloned()
    }

    /// What differs in another file, in the order of the paths. Defaults that are written out differ from nothing.
    #[must_use]
    pub fn changes(&self, new: &Self, sections: &[Section]) -> Vec<Change> {
        let value = |engine: &EngineSettings| serde_json::to_value(engine).unwrap_or_default();
        let (old_engine, new_engine) = (value(&self.engine), value(&new.engine));
        let live = |key: &str| engine::LIVE.contains(&key);
        let mut changes = differing("engine", &old_engine, &new_engine, &live);
        for section in sections {
            let path = section.path();
            let (old, new) = (self.workers.get(section.name()), new.workers.get(section.name()));
            let (Some(old), Some(new)) = (old, new) else { continue };
            if old.value.is_null() != new.value.is_null() {
                changes.push(Change { path, live: false });
            } else {
                changes.extend(differing(&path, &old.value, &new.value, &|key| section.is_live(key)));
            }
        }
        changes
    }

    /// JSON Schema of a file with these sections, for editors.
    #[must_use]
    pub fn schema(sections: &[Section]) -> Value {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let engine = generator.subschema_for::<EngineSettings>();
        let mut workers = Map::new();
        let mut names: Vec<&str> = NOT_OURS.iter().map(|(name, _)| *name).collect();
        let mut top = Map::new();
        for section in sections {
            let own = section.schema(&mut generator);
            if section.is_at_top() {
                let whether = json!({ "enum": [false, null], "description": "nothing of it runs" });
                top.insert(section.name().to_owned(), json!({ "anyOf": [own, whether] }));
                continue;
            }
            let whether =
                json!({ "type": ["boolean", "null"], "description": "false: this worker does not run" });
            workers.insert(section.name().to_owned(), json!({ "anyOf": [own, whether] }));
            names.extend(section.names());
        }
        let definitions = generator.take_definitions(true);
        let item = json!({
            "type": "object",
            "properties": { "name": { "enum": names }, "config": {}, "image": { "type": "null" } },
            "required": ["name"],
            "additionalProperties": false,
        });
        let foreign = json!({
            "type": "object",
            "properties": { "name": { "type": "string" }, "config": {}, "image": { "type": "string" } },
            "required": ["name", "image"],
            "additionalProperties": false,
        });
        let list = json!({ "type": "array", "items": { "anyOf": [item, foreign] } });
        let mut schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": FILE_NAME,
            "description": "What a Ringway engine and its built-in workers are told. Texts may hold ${VAR} and ${VAR:-default}.",
            "type": ["object", "null"],
            "properties": {
                "engine": { "anyOf": [engine, { "type": "null" }] },
                "workers": {
                    "description": "A section for each worker; or iii's list of names and configs.",
                    "anyOf": [
                        { "type": ["object", "null"], "properties": workers, "additionalProperties": false },
                        list.clone(),
                    ],
                },
                "modules": list,
            },
            "additionalProperties": false,
            "$defs": definitions,
        });
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.append(&mut top);
        }
        schema
    }
}

fn differing(path: &str, old: &Value, new: &Value, live: &dyn Fn(&str) -> bool) -> Vec<Change> {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return Vec::new() };
    let mut keys: Vec<&String> = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).collect();
    keys.sort_unstable();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| Change { path: format!("{path}.{key}"), live: live(key) })
        .collect()
}

/// A file on its way from tree to settings.
struct Reading<'a> {
    sections: &'a [Section],
    /// The node of each section that the file has, and the place of its name.
    found: BTreeMap<&'static str, Node>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Reading<'_> {
    fn root(&mut self, root: Node) -> EngineSettings {
        let mut engine = EngineSettings::default();
        if root.is_null() {
            return engine;
        }
        let at = root.at;
        let word = root.word();
        let Kind::Map(entries) = root.kind else {
            self.faults.push(
                Fault::new(at, format!("wanted a map with `engine` and `workers`, found {word}"))
                    .hint("an empty file is fine too"),
            );
            return engine;
        };
        for Entry { key, key_at, value } in entries {
            match key.as_str() {
                "engine" => match read_engine(&value) {
                    Ok(read) => engine = read,
                    Err(faults) => self.faults.extend(faults),
                },
                "workers" => self.take_workers(value),
                // iii's older name of its list.
                "modules" if matches!(value.kind, Kind::List(_)) => self.take_workers(value),
                _ => match self.at_top(&key) {
                    Some(name) => {
                        self.found.insert(name, value);
                    }
                    None => {
                        let top = self.sections.iter().filter(|section| section.is_at_top());
                        let names = ["engine", "workers"].into_iter().chain(top.map(Section::name));
                        let fault = Fault::new(key_at, format!("unknown key `{key}`"));
                        self.faults.push(fault.hint(known(&key, names)));
                    }
                },
            }
        }
        engine
    }

    /// The name of the section at the top that is called so.
    fn at_top(&self, key: &str) -> Option<&'static str> {
        self.sections.iter().find(|section| section.is_at_top() && section.name() == key).map(Section::name)
    }

    fn take_workers(&mut self, node: Node) {
        let (at, word) = (node.at, node.word());
        if node.is_null() {
            return;
        }
        match node.kind {
            Kind::Map(entries) => {
                for entry in entries {
                    self.take_worker(&entry.key, entry.key_at, entry.value, false);
                }
            }
            Kind::List(items) => items.into_iter().for_each(|item| self.take_item(item)),
            _ => self.faults.push(
                Fault::new(at, format!("wanted a map of workers, found {word}"))
                    .hint("write `workers:` and under it a section for each, such as `state:`"),
            ),
        }
    }

    /// An item of iii's list: a name, and a section under `config`.
    fn take_item(&mut self, item: Node) {
        let (at, word) = (item.at, item.word());
        let Kind::Map(entries) = item.kind else {
            let fault = Fault::new(at, format!("wanted `name` and `config` of a worker, found {word}"));
            return self.faults.push(fault);
        };
        let (mut name, mut config, mut image) = (None, Node::null(at), false);
        for Entry { key, key_at, value } in entries {
            match key.as_str() {
                "name" => match value.as_text() {
                    Some(text) => name = Some((text.to_owned(), value.at)),
                    None => {
                        let text = format!("wanted a name, found {}", value.word());
                        return self.faults.push(Fault::new(value.at, text));
                    }
                },
                "config" => config = value,
                "image" => image = !value.is_null(),
                _ => self.faults.push(
                    Fault::new(key_at, format!("unknown key `{key}` of a worker"))
                        .hint(known(&key, ["name", "config"].into_iter())),
                ),
            }
        }
        match name {
            Some((name, name_at)) if image => {
                let text = format!(
                    "`{name}` is run from an image, which Ringway does not do, and is left out; start it beside the engine"
                );
                self.warnings.push(Fault::new(name_at, text));
            }
            Some((name, name_at)) => self.take_worker(&name, name_at, config, true),
            None => self.faults.push(Fault::new(at, "a worker has no `name`")),
        }
    }

    fn take_worker(&mut self, name: &str, at: Position, node: Node, from_iii: bool) {
        if self.at_top(name).is_some() {
            let fault = Fault::new(at, format!("`{name}` is no worker"));
            return self
                .faults
                .push(fault.hint(format!("write `{name}:` at the top of the file, beside `workers:`")));
        }
        let Some(section) = self.sections.iter().find(|section| section.is_called(name)) else {
            let theirs = NOT_OURS.iter().find(|(known, _)| from_iii && *known == name);
            if let Some((_, instead)) = theirs {
                let text = format!("`{name}` is no worker of Ringway's and is left out: {instead}");
                return self.warnings.push(Fault::new(at, text));
            }
            let workers = self.sections.iter().filter(|section| !section.is_at_top());
            let names = workers.flat_map(Section::names);
            let names: Vec<&str> = names.filter(|known| from_iii || !known.starts_with("iii-")).collect();
            let fault = Fault::new(at, format!("there is no built-in worker `{name}`"));
            return self.faults.push(fault.hint(known(name, names.into_iter())));
        };
        let mut moved = Vec::new();
        let node = if from_iii { section.translate(node, &mut moved, &mut self.warnings) } else { node };
        for Moved { section, entry } in moved {
            let theirs = self
                .found
                .entry(section)
                .or_insert_with(|| Node { at: entry.key_at, kind: Kind::Map(Vec::new()) });
            if let Kind::Map(entries) = &mut theirs.kind {
                entries.push(entry);
            }
        }
        if from_iii && let Some((key, first)) = section.further().zip(self.found.get_mut(section.name())) {
            // One without a config is one as by default, as far as there is such.
            let node = if node.is_null() { Node { at, kind: Kind::Map(Vec::new()) } } else { node };
            match no_section(section, first) {
                Some(fault) => self.faults.push(fault),
                None => first.push_below(key, node),
            }
            return;
        }
        if self.found.insert(section.name(), node).is_some() {
            self.faults.push(
                Fault::new(at, format!("the worker `{}` is here a second time", section.name()))
                    .hint("each runs once; leave one of them out"),
            );
        }
    }

    fn workers(&mut self) -> BTreeMap<&'static str, Worker> {
        let mut workers = BTreeMap::new();
        for section in self.sections {
            let node = self.found.remove(section.name()).unwrap_or(Node::null(Position::START));
            let is_off = node.as_bool() == Some(false) || (section.is_at_top() && node.is_null());
            if is_off {
                workers.insert(section.name(), Worker { parsed: None, value: Value::Null });
                continue;
            }
            // What runs by default can be told to; what stands at the top says what it is to do.
            let node = match node.as_bool() {
                Some(true) if !section.is_at_top() => Node::null(node.at),
                _ => node,
            };
            if let Some(fault) = no_section(section, &node) {
                self.faults.push(fault);
                continue;
            }
            match section.read(&node) {
                Ok((value, parsed)) => {
                    workers.insert(section.name(), Worker { parsed: Some(parsed), value });
                }
                Err(faults) => self.faults.extend(faults),
            }
        }
        workers
    }
}

/// What is wrong with something that is no section.
fn no_section(section: &Section, node: &Node) -> Option<Fault> {
    if node.is_null() || matches!(node.kind, Kind::Map(_)) {
        return None;
    }
    let name = section.name();
    let found = node.as_text().map_or_else(|| node.word().to_owned(), |text| format!("`{text}`"));
    if section.is_at_top() {
        let text = format!("wanted a map of settings under `{name}`, found {found}");
        return Some(Fault::new(node.at, text).hint("left out, nothing of it runs"));
    }
    let text = format!("wanted the section of `{name}`, or true or false, found {found}");
    Some(Fault::new(node.at, text).hint("`false`, without quotes, keeps it from running"))
}

fn read_engine(node: &Node) -> Result<EngineSettings, Vec<Fault>> {
    let read: EngineSettings = typed::read(node).map_err(|fault| vec![fault])?;
    section::within(&read, node)?;
    let mut faults: Vec<Fault> =
        engine::contradictions(&read).into_iter().map(|found| found.at(node)).collect();
    let of_store = read
        .store
        .faults()
        .into_iter()
        .map(|(key, message)| Fault::new(node.place_of(&format!("/store/{key}")), message));
    faults.extend(of_store);
    if faults.is_empty() { Ok(read) } else { Err(faults) }
}

#[cfg(test)]
mod tests;
