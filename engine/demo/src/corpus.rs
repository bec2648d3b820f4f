//! Finds the documents that the agent loop answers from and reads pieces of them: by default the READMEs and Rust
//! sources of every crate in cargo's registry folder, or the text files of a folder. `docs::search` indexes what this
//! finds and `docs::read` serves [`Corpus::read`]; replicas that discover the same folder agree on every document id.
//! It knows nothing of words, ranking or questions.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::prose::{Format, code_fence_open};

/// Folder depth at which a walk stops; deeper trees are generated or cyclic.
const DEPTH_MAX: usize = 24;
/// Bytes looked at to tell text from binary data.
const SNIFF_BYTES: usize = 8 * 1024;
/// Skipped files named in a report, beyond which they are only counted.
const SKIPPED_NAMED_MAX: usize = 8;
/// Most lines that one read returns.
pub const READ_LINES_MAX: u32 = 2_000;

/// What a document's file is, most useful first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    /// A README.
    Readme,
    /// Other prose: Markdown, text, HTML.
    Prose,
    /// Source code of a library or program.
    Source,
    /// Tests, benchmarks and examples.
    Example,
    /// Settings and data.
    Data,
}

/// Names a document; the same on every replica that discovers the same folder, and exact as a JSON number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DocumentId(pub u64);

impl DocumentId {
    /// Derives the id from a path relative to the corpus folder: the first 48 bits of its BLAKE3 hash.
    #[must_use]
    pub fn of_path(relative: &str) -> Self {
        let hash = blake3::hash(relative.as_bytes());
        Self(hash.as_bytes().iter().take(6).fold(0, |id, byte| (id << 8) | u64::from(*byte)))
    }
}

/// One document that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Document {
    /// Its id.
    pub id: DocumentId,
    /// Its name for people, such as `serde-1.0.0/README.md`.
    pub name: String,
    /// What it is.
    pub kind: DocumentKind,
    /// Its size when it was found.
    pub bytes: u64,
}

/// How much to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CorpusBudget {
    /// Bytes of text in all.
    pub bytes_max: u64,
    /// Documents in all.
    pub documents_max: u32,
    /// Bytes of one document; larger files are skipped.
    pub file_bytes_max: u64,
}

impl Default for CorpusBudget {
    /// 48 MiB in 20,000 documents of 1 MiB at most.
    fn default() -> Self {
        Self { bytes_max: 48 << 20, documents_max: 20_000, file_bytes_max: 1 << 20 }
    }
}

/// Files that were seen and not taken, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skipped {
    /// Not a kind of file that holds text, by name.
    pub other_kind: u64,
    /// Named like text and full of binary data.
    pub binary: u64,
    /// Larger than the limit for one file.
    pub too_large: u64,
    /// Empty.
    pub empty: u64,
    /// Symbolic links, which are not followed.
    pub links: u64,
    /// Files and folders that could not be read.
    pub unreadable: u64,
    /// Good documents beyond the budget.
    pub beyond_budget: u64,
    /// Bytes of those.
    pub beyond_budget_bytes: u64,
    /// The first few binary, too large and unreadable ones, each with its reason.
    pub named: Vec<SkippedFile>,
}

/// One file that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SkippedFile {
    /// Its path below the corpus folder.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Skipped {
    fn name(&mut self, name: &str, reason: impl std::fmt::Display) {
        if self.named.len() < SKIPPED_NAMED_MAX {
            self.named.push(SkippedFile { name: name.to_owned(), reason: reason.to_string() });
        }
    }
}

/// Why no corpus could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// The folder is missing or cannot be opened.
    #[error("cannot read the folder {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something other than a folder.
    #[error("{path} is not a folder")]
    NotAFolder {
        /// What was named.
        path: PathBuf,
    },
    /// No document was in it.
    #[error(
        "wanted a folder with texts (Markdown, source code, …), found none in {path}; files of other kinds: \
         {other_kind}, binary: {binary}, unreadable: {unreadable}"
    )]
    Empty {
        /// The folder.
        path: PathBuf,
        /// Files that do not hold text, by name.
        other_kind: u64,
        /// Files that turned out to be binary.
        binary: u64,
        /// Files that could not be read.
        unreadable: u64,
    },
    /// There is no cargo registry folder to take documents from.
    #[error(
        "no crate sources in {path}: build any project with dependencies first, or name a folder of documents with --input"
    )]
    NoRegistry {
        /// Where it was expected.
        path: PathBuf,
    },
    /// Neither `CARGO_HOME` nor `HOME` is set.
    #[error(
        "cannot tell where cargo keeps its registry: neither CARGO_HOME nor HOME is set; name a folder with --input"
    )]
    NoHome,
}

/// Asks for lines of a document, counted from one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReadRequest {
    /// The document, as a search named it.
    pub document: DocumentId,
    /// First line wanted; 0 counts as 1.
    #[serde(default)]
    pub first_line: u32,
    /// Last line wanted; absent means as many as are allowed.
    #[serde(default)]
    pub last_line: Option<u32>,
}

/// Lines of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Passage {
    /// The document.
    pub document: DocumentId,
    /// Its name.
    pub name: String,
    /// How prose is marked in it.
    pub format: Format,
    /// Number of the first line in `text`.
    pub first_line: u32,
    /// Number of the last line in `text`.
    pub last_line: u32,
    /// Lines that the whole document has.
    pub line_count: u32,
    /// Whether the first line lies inside a fenced code block.
    pub starts_in_code: bool,
    /// The lines.
    pub text: String,
}

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The id names no document of this corpus.
    #[error("no document has the id {}", id.0)]
    Unknown {
        /// The id asked for.
        id: DocumentId,
    },
    /// The document ends before the first line asked for.
    #[error("{name} has {line_count} lines, line {first_line} was asked for")]
    PastEnd {
        /// The document's name.
        name: String,
        /// Lines it has.
        line_count: u32,
        /// First line asked for.
        first_line: u32,
    },
    /// The last line asked for lies before the first.
    #[error("lines {first_line} to {last_line} were asked for: the last comes before the first")]
    Backwards {
        /// First line asked for.
        first_line: u32,
        /// Last line asked for.
        last_line: u32,
    },
    /// Its file cannot be read, or no longer holds text.
    #[error("cannot read {name}: {source}")]
    File {
        /// The document's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The documents of one folder. Only these can be read through it, whatever a request names.
#[derive(Debug, Clone)]
pub struct Corpus {
    documents: Vec<Document>,
    paths: Vec<PathBuf>,
    by_id: HashMap<DocumentId, usize>,
    skipped: Skipped,
    file_bytes_max: u64,
}

impl Corpus {
    /// Finds the READMEs and Rust sources of every crate in cargo's registry folder.
    ///
    /// # Errors
    /// [`CorpusError`] where that folder is missing or holds no crate.
    pub fn cargo_registry(budget: CorpusBudget) -> Result<Self, CorpusError> {
        let cargo_home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
            .ok_or(CorpusError::NoHome)?;
        Self::registry_at(&cargo_home.join("registry").join("src"), budget)
    }

    /// Finds the same below `root`, a folder that holds one folder for each registry.
    ///
    /// # Errors
    /// [`CorpusError`] where the folder is missing or holds no crate.
    pub fn registry_at(root: &Path, budget: CorpusBudget) -> Result<Self, CorpusError> {
        let missing = || CorpusError::NoRegistry { path: root.to_owned() };
        if !root.is_dir() {
            return Err(missing());
        }
        Self::discover(root, budget, Selection::Crates).map_err(|error| match error {
            CorpusError::Empty { .. } => missing(),
            other => other,
        })
    }

    /// Finds the text files below `root`. Hidden folders, `target` and `node_modules` are passed over.
    ///
    /// # Errors
    /// [`CorpusError`] where the folder is missing or holds no text.
    pub fn folder(root: &Path, budget: CorpusBudget) -> Result<Self, CorpusError> {
        Self::discover(root, budget, Selection::TextFiles)
    }

    /// Returns the documents, most useful kind first.
    #[must_use]
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// Returns what was seen and not taken.
    #[must_use]
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Returns the document with this id.
    #[must_use]
    pub fn document(&self, id: DocumentId) -> Option<&Document> {
        self.by_id.get(&id).and_then(|index| self.documents.get(*index))
    }

    /// Reads all of a document from its file. Blocks on the file system and allocates.
    ///
    /// # Errors
    /// [`ReadError`] for an unknown id or a file that cannot be read as UTF-8 text.
    pub fn text(&self, id: DocumentId) -> Result<String, ReadError> {
        let index = *self.by_id.get(&id).ok_or(ReadError::Unknown { id })?;
        let (Some(document), Some(path)) = (self.documents.get(index), self.paths.get(index)) else {
            return Err(ReadError::Unknown { id });
        };
        read_text(path, self.file_bytes_max)
            .map_err(|source| ReadError::File { name: document.name.clone(), source })
    }

    /// Reads lines of a document, at most [`READ_LINES_MAX`]; this is `docs::read`. Blocks and allocates.
    ///
    /// # Errors
    /// [`ReadError`] for an unknown id, lines that do not exist, or a file that cannot be read.
    pub fn read(&self, request: &ReadRequest) -> Result<Passage, ReadError> {
        let text = self.text(request.document)?;
        let document = self.document(request.document).ok_or(ReadError::Unknown { id: request.document })?;
        let first_line = request.first_line.max(1);
        let wanted_last = request.last_line.unwrap_or(u32::MAX);
        if wanted_last < first_line {
            return Err(ReadError::Backwards { first_line, last_line: wanted_last });
        }
        let line_count = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
        if first_line > line_count {
            return Err(ReadError::PastEnd { name: document.name.clone(), line_count, first_line });
        }
        let last_line = wanted_last.min(line_count).min(first_line.saturating_add(READ_LINES_MAX - 1));
        let start = line_offset(&text, first_line);
        let end = line_offset(&text, last_line.saturating_add(1));
        let format = Format::of_name(&document.name);
        Ok(Passage {
            document: document.id,
            name: document.name.clone(),
            format,
            first_line,
            last_line,
            line_count,
            starts_in_code: code_fence_open(&text[..start], format),
            text: text[start..end].to_owned(),
        })
    }

    fn discover(root: &Path, budget: CorpusBudget, selection: Selection) -> Result<Self, CorpusError> {
        let folder_error = |source| CorpusError::Folder { path: root.to_owned(), source };
        if !fs::metadata(root).map_err(folder_error)?.is_dir() {
            return Err(CorpusError::NotAFolder { path: root.to_owned() });
        }
        drop(fs::read_dir(root).map_err(folder_error)?);
        let mut walk = Walk { root, selection, budget, found: Vec::new(), skipped: Skipped::default() };
        walk.folder(root, 0);
        let Walk { mut found, mut skipped, .. } = walk;
        found.sort_by(|a, b| {
            (a.kind, a.rank, a.depth, &a.relative).cmp(&(b.kind, b.rank, b.depth, &b.relative))
        });
        Self::take(root, budget, selection, found, &mut skipped)
    }

    fn take(
        root: &Path,
        budget: CorpusBudget,
        selection: Selection,
        found: Vec<Candidate>,
        skipped: &mut Skipped,
    ) -> Result<Self, CorpusError> {
        let mut corpus = Self {
            documents: Vec::new(),
            paths: Vec::new(),
            by_id: HashMap::new(),
            skipped: Skipped::default(),
            file_bytes_max: budget.file_bytes_max,
        };
        let mut bytes_total = 0_u64;
        for candidate in found {
            let full = corpus.documents.len() >= usize::try_from(budget.documents_max).unwrap_or(usize::MAX);
            if full || bytes_total.saturating_add(candidate.bytes) > budget.bytes_max {
                skipped.beyond_budget += 1;
                skipped.beyond_budget_bytes += candidate.bytes;
                continue;
            }
            match is_text(&candidate.path) {
                Ok(true) => {}
                Ok(false) => {
                    skipped.binary += 1;
                    skipped.name(&candidate.relative, "binary data");
                    continue;
                }
                Err(error) => {
                    skipped.unreadable += 1;
                    skipped.name(&candidate.relative, error);
                    continue;
                }
            }
            let id = DocumentId::of_path(&candidate.relative);
            if corpus.by_id.contains_key(&id) {
                skipped.unreadable += 1;
                skipped.name(&candidate.relative, "its id is taken by another document");
                continue;
            }
            bytes_total += candidate.bytes;
            corpus.by_id.insert(id, corpus.documents.len());
            let name = selection.shown_name(&candidate.relative).to_owned();
            corpus.documents.push(Document { id, name, kind: candidate.kind, bytes: candidate.bytes });
            corpus.paths.push(candidate.path);
        }
        corpus.skipped = std::mem::take(skipped);
        if corpus.documents.is_empty() {
            let Skipped { other_kind, binary, unreadable, .. } = corpus.skipped;
            return Err(CorpusError::Empty { path: root.to_owned(), other_kind, binary, unreadable });
        }
        Ok(corpus)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Selection {
    Crates,
    TextFiles,
}

impl Selection {
    /// Says what a file is, or `None` where it is not wanted.
    fn kind_of(self, relative: &str) -> Option<DocumentKind> {
        let lower = relative.to_ascii_lowercase();
        let base = lower.rsplit('/').next().unwrap_or(&lower);
        let extension = base.rsplit_once('.').map_or("", |(_, extension)| extension);
        let in_examples = lower.split('/').any(|part| {
            matches!(part, "tests" | "test" | "benches" | "examples" | "fuzz")
                || part == "tests.rs"
                || part == "test.rs"
        });
        let prose_like =
            matches!(extension, "md" | "markdown" | "mdx" | "txt" | "rst" | "adoc" | "html" | "htm" | "");
        let is_readme = base.starts_with("readme") && prose_like;
        match (self, extension) {
            _ if is_readme && !in_examples => Some(DocumentKind::Readme),
            (Self::Crates, "rs") if in_examples => Some(DocumentKind::Example),
            (Self::Crates, "rs") => Some(DocumentKind::Source),
            (Self::Crates, _) => is_readme.then_some(DocumentKind::Example),
            (
                Self::TextFiles,
                "md" | "markdown" | "mdx" | "txt" | "rst" | "adoc" | "html" | "htm" | "tex" | "org",
            ) => Some(DocumentKind::Prose),
            (
                Self::TextFiles,
                "rs" | "py" | "c" | "h" | "cc" | "cpp" | "hpp" | "go" | "java" | "js" | "jsx" | "ts" | "tsx"
                | "rb" | "sh" | "swift" | "kt" | "proto" | "sql" | "css" | "lua" | "zig" | "hs" | "ml",
            ) => Some(if in_examples { DocumentKind::Example } else { DocumentKind::Source }),
            (
                Self::TextFiles,
                "toml" | "json" | "yaml" | "yml" | "ini" | "cfg" | "conf" | "xml" | "csv" | "tsv",
            ) => Some(DocumentKind::Data),
            (Self::TextFiles, _) => None,
        }
    }

    /// Crates lie one folder down, in a folder named after their registry, which readers need not see.
    fn shown_name(self, relative: &str) -> &str {
        match self {
            Self::Crates => relative.split_once('/').map_or(relative, |(_, rest)| rest),
            Self::TextFiles => relative,
        }
    }
}

/// A file that may become a document.
#[derive(Debug)]
struct Candidate {
    kind: DocumentKind,
    rank: u8,
    depth: usize,
    relative: String,
    path: PathBuf,
    bytes: u64,
}

struct Walk<'a> {
    root: &'a Path,
    selection: Selection,
    budget: CorpusBudget,
    found: Vec<Candidate>,
    skipped: Skipped,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, depth: usize) {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(path, &error),
        };
        for entry in entries {
            match entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))) {
                Ok((_, kind)) if kind.is_symlink() => self.skipped.links += 1,
                Ok((path, kind)) if kind.is_dir() => {
                    if depth < DEPTH_MAX && !self.passes_over(&path) {
                        self.folder(&path, depth + 1);
                    }
                }
                Ok((path, kind)) if kind.is_file() => self.file(path, depth),
                Ok(_) => self.skipped.other_kind += 1,
                Err(error) => self.unreadable(path, &error),
            }
        }
    }

    fn file(&mut self, path: PathBuf, depth: usize) {
        let relative = self.relative(&path);
        let Some(kind) = self.selection.kind_of(&relative) else {
            self.skipped.other_kind += 1;
            return;
        };
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() == 0 => self.skipped.empty += 1,
            Ok(metadata) if metadata.len() > self.budget.file_bytes_max => {
                self.skipped.too_large += 1;
                self.skipped.name(&relative, format_args!("{} bytes", metadata.len()));
            }
            Ok(metadata) => {
                // The root module of a crate carries its documentation, so it comes before its other sources.
                let rank = u8::from(!relative.ends_with("/lib.rs"));
                self.found.push(Candidate { kind, rank, depth, relative, path, bytes: metadata.len() });
            }
            Err(error) => self.unreadable(&path, &error),
        }
    }

    fn passes_over(&self, path: &Path) -> bool {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| {
            name.starts_with('.')
                || (self.selection == Selection::TextFiles
                    && matches!(&*name, "target" | "node_modules" | "__pycache__"))
        })
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.skipped.unreadable += 1;
        let relative = self.relative(path);
        self.skipped.name(&relative, error);
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.root).unwrap_or(path).to_string_lossy().into_owned()
    }
}

fn is_text(path: &Path) -> io::Result<bool> {
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    fs::File::open(path)?.take(SNIFF_BYTES as u64).read_to_end(&mut head)?;
    let valid = match std::str::from_utf8(&head) {
        Ok(_) => true,
        // A character cut by the end of the sample is no sign of binary data.
        Err(error) => error.error_len().is_none() && head.len() == SNIFF_BYTES,
    };
    Ok(valid && !head.contains(&0))
}

fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = fs::File::open(path)?.take(bytes_max.saturating_add(1)).read_to_string(&mut text)?;
    if read as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has grown beyond {bytes_max} bytes"),
        ));
    }
    Ok(text)
}

/// Returns the byte offset at which a line, counted from one, begins; the text's length for lines past its end.
pub(crate) fn line_offset(text: &str, line: u32) -> usize {
    if line <= 1 {
        return 0;
    }
    let breaks_before = usize::try_from(line - 2).unwrap_or(usize::MAX);
    text.match_indices('\n').nth(breaks_before).map_or(text.len(), |(offset, _)| offset + 1)
}

#[cfg(test)]
mod tests;
