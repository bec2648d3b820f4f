//! The house rules that a machine can check, over every file of the repository. Each rule is a function from a file
//! to complaints and is shown here to complain about a bad one. It must not know what the files are for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ringway_tests::repository::{self, Source};

/// Everything that the top level may hold, so that it stays a table of contents.
const ROOT: &[&str] = &[
    ".cargo",
    ".ci",
    ".config",
    ".git",
    ".github",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "benches",
    "clippy.toml",
    "deny.toml",
    "docs",
    "engine",
    "examples",
    "ipc",
    "out",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "sdk",
    "target",
    "tests",
];

/// Documents that a reader may expect.
const DOCUMENTS: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "docs/changes/README.md",
    "docs/glossary.md",
    "docs/promises.md",
    "docs/protocol.md",
    "docs/testing.md",
];

/// Lines of one file, its unit tests apart. Past that, it has two subjects.
const LINES_MAX: usize = 1000;

/// Endings of the files that people write.
const CODE: &[&str] = &[".rs", ".py", ".js", ".mjs", ".ts", ".sh", ".toml"];

/// Words that announce work not done, and homes of single machines; taken apart, so that this file may hold them.
const UNFINISHED: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("unimpl", "emented!")];
const MACHINES: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!(r"C:\Us", r"ers\")];

/// A rule: what is wrong with a file, in a few words each.
type Rule = fn(&Source) -> Vec<String>;

const RULES: &[Rule] =
    &[header, length, module_name, ignored_tests, unfinished, machine_paths, unsafe_forbidden];

#[test]
fn every_file_keeps_the_rules() {
    let sources = repository::sources().unwrap();
    assert!(sources.len() > 30, "the walk finds too few files: {}", sources.len());
    let mut wrong = Vec::new();
    for source in &sources {
        for rule in RULES {
            wrong.extend(rule(source).into_iter().map(|what| format!("{}: {what}", source.path)));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn is_rust(source: &Source) -> bool {
    source.path.ends_with(".rs")
}

/// A Rust file begins by saying what it is.
fn header(source: &Source) -> Vec<String> {
    let first = source.text.lines().find(|line| !line.starts_with("// ") && !line.starts_with("#!/"));
    let good = first.is_some_and(|line| line.starts_with("//! ") && line.len() > 20);
    complain(is_rust(source) && !good, "does not begin with a `//!` paragraph")
}

fn length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().take_while(|line| *line != "mod tests {").count();
    let message = format!("{lines} lines, more than {LINES_MAX}: there are two subjects in it");
    complain(is_rust(source) && !source.path.ends_with("/tests.rs") && lines > LINES_MAX, &message)
}

fn module_name(source: &Source) -> Vec<String> {
    complain(source.path.ends_with("/mod.rs"), "is called mod.rs: a module is `foo.rs` beside `foo/`")
}

fn ignored_tests(source: &Source) -> Vec<String> {
    let ignored = source.text.lines().any(|line| line.trim_start().starts_with(concat!("#[ign", "ore")));
    complain(is_rust(source) && ignored, "ignores a test: assert what happens today and say why")
}

fn unfinished(source: &Source) -> Vec<String> {
    if !CODE.iter().any(|ending| source.path.ends_with(ending)) {
        return Vec::new();
    }
    let found = UNFINISHED.iter().filter(|word| holds_word(&source.text, word));
    found.map(|word| format!("says {word}: finish it, or describe the limit in words")).collect()
}

/// Whether the word stands in the text by itself, not as a part of another.
fn holds_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part(text[..at].chars().next_back()) && !part(text[at + word.len()..].chars().next())
    })
}

fn machine_paths(source: &Source) -> Vec<String> {
    let found = MACHINES.iter().filter(|path| source.text.contains(**path));
    found.map(|path| format!("holds a path of one machine ({path})")).collect()
}

/// Unsafe code lives in `ipc`; the root of every other crate forbids it.
fn unsafe_forbidden(source: &Source) -> Vec<String> {
    let root = source.path.ends_with("src/lib.rs") || source.path.ends_with("src/main.rs");
    let exempt = source.path.starts_with("ipc/")
        || ["benches/peers/", "benches/links/"].iter().any(|rivals| source.path.starts_with(rivals));
    let forbids = source.text.contains("#![forbid(unsafe_code)]");
    complain(root && !exempt && !forbids, "is the root of a crate and does not forbid unsafe code")
}

fn complain(wrong: bool, what: &str) -> Vec<String> {
    if wrong { vec![what.to_owned()] } else { Vec::new() }
}

#[test]
fn every_rule_complains_about_a_bad_file() {
    let check = |path: &str, text: &str, rule: Rule, expected: usize| {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        assert_eq!(rule(&source).len(), expected, "{path}");
    };
    let good = "//! What this file is, in a sentence.\n\nfn f() {}\n";
    for rule in [header, length, module_name, ignored_tests, unfinished, machine_paths] {
        check("a/b.rs", good, rule, 0);
    }
    check("a/b.rs", "use std::fs;\n", header, 1);
    check("a/b.rs", "", header, 1);
    check("a/b.rs", &format!("{good}{}", "\n".repeat(LINES_MAX)), length, 1);
    check("a/b.rs", &format!("{good}mod tests {{\n{}", "\n".repeat(LINES_MAX)), length, 0);
    check("a/mod.rs", good, module_name, 1);
    check("a/b.rs", concat!("    #[ign", "ore = \"slow\"]\n"), ignored_tests, 1);
    check("a/b.py", concat!("# TO", "DO later\n"), unfinished, 1);
    check("a/b.rs", concat!("let MASTO", "DON = 1;\n"), unfinished, 0);
    check("a/b.md", concat!("see /ho", "me/me/x\n"), machine_paths, 1);
    check("a/src/lib.rs", good, unsafe_forbidden, 1);
    check("a/src/lib.rs", "//! Good.\n#![forbid(unsafe_code)]\n", unsafe_forbidden, 0);
}

#[test]
fn the_top_level_is_a_table_of_contents() {
    let entries = fs::read_dir(repository::root()).unwrap();
    let names: BTreeSet<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    let strange: Vec<_> = names.iter().filter(|name| !ROOT.contains(&name.as_str())).collect();
    assert!(strange.is_empty(), "the top level may not hold {strange:?}");
}

#[test]
fn the_documents_are_there() {
    let missing: Vec<_> = DOCUMENTS.iter().filter(|path| !repository::root().join(path).is_file()).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

#[test]
fn every_crate_is_on_the_map_and_has_a_readme() {
    let root = repository::root();
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let metadata = repository::metadata(&["--no-deps"]).unwrap();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if !holds_name(&map, name) {
            wrong.push(format!("{name} is missing from ARCHITECTURE.md"));
        }
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
        let readme = fs::read_to_string(folder.join("README.md")).unwrap_or_default();
        if readme.lines().count() < 5 {
            wrong.push(format!("{name} has no README.md that says what it is"));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Whether the text holds the crate's name in code type, so that `ringway-engine` does not pass for `ringway`.
fn holds_name(text: &str, name: &str) -> bool {
    text.contains(&format!("`{name}`"))
}

#[test]
fn a_longer_name_does_not_stand_for_a_shorter_one() {
    assert!(holds_name("the crate `ringway` is", "ringway"));
    assert!(!holds_name("the crate `ringway-engine` is", "ringway"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = repository::root();
    let sources = repository::sources().unwrap();
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".md")) {
        for link in links(&source.text) {
            if let Some(what) = broken(&root, &source.path, &link) {
                wrong.push(format!("{}: {what}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn files_named_in_documents_are_there() {
    let root = repository::root();
    let mut wrong = Vec::new();
    for source in repository::sources().unwrap() {
        let ours = source.path.starts_with("docs/") || !source.path.contains('/');
        if !ours || !source.path.ends_with(".md") {
            continue;
        }
        for path in paths(&source.text) {
            if !root.join(&path).exists() {
                wrong.push(format!("{}: there is no {path}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Words in code type that are paths of source files, from the root.
fn paths(markdown: &str) -> Vec<String> {
    let code = prose(markdown).into_iter().flat_map(|line| line.split('`').skip(1).step_by(2));
    let rust = code.filter(|word| word.contains('/') && word.ends_with(".rs") && !word.contains(' '));
    rust.map(str::to_owned).collect()
}

#[test]
fn a_path_is_told_from_other_code() {
    assert_eq!(paths("see `a/b.rs`, `c.rs`, `d/`, a/e.rs and `cargo test x/y.rs`"), ["a/b.rs"]);
}

/// The targets of `[text](target)` outside code.
fn links(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(markdown) {
        // Every other piece between backticks is code.
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (at, _) in plain.match_indices("](") {
            let target = plain[at + 2..].split(')').next().unwrap_or_default();
            found.push(target.to_owned());
        }
    }
    found
}

/// The lines of a document that do not stand in a fence.
fn prose(markdown: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push(line);
        }
    }
    lines
}

/// Why a link in the document `from` leads nowhere. Links to the world outside are not followed.
fn broken(root: &Path, from: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let here = root.join(from);
    let file = if path.is_empty() { here.clone() } else { here.parent().unwrap_or(root).join(path) };
    if !file.exists() {
        return Some(format!("the link to {link} leads nowhere"));
    }
    if anchor.is_empty() || file.extension().is_none_or(|ending| ending != "md") {
        return None;
    }
    let text = fs::read_to_string(&file).unwrap_or_default();
    let known = prose(&text).iter().any(|line| line.starts_with('#') && slug(line) == anchor);
    (!known).then(|| format!("there is no heading #{anchor} in {path}"))
}

/// A heading as it is named in links: lower case, blanks as hyphens, other signs left out.
fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn a_broken_link_is_found() {
    assert_eq!(links("see [a](b.md#c) and `[x](y)`\n```\n[no](no)\n```\n[d](e)"), ["b.md#c", "e"]);
    assert_eq!(slug("## How a call ends: P3"), "how-a-call-ends-p3");
    let root = repository::root();
    assert!(broken(&root, "tests/README.md", "no-such-file.md").is_some());
    assert!(broken(&root, "tests/README.md", "README.md#no-such-heading").is_some());
    assert!(broken(&root, "tests/README.md", "#ringway-tests").is_none());
    assert!(broken(&root, "tests/README.md", "https://example.org/").is_none());
}

#[test]
fn every_decision_names_its_price() {
    let mut wrong = Vec::new();
    for source in repository::sources().unwrap() {
        if !source.path.starts_with("docs/decisions/0") {
            continue;
        }
        for heading in ["## Context", "## Choice", "## Price"] {
            if !source.text.contains(heading) {
                wrong.push(format!("{}: no `{heading}`", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
