//! The loop run against a real index and critic, and single steps against the plan.

use std::time::Duration;

use super::*;
use crate::corpus::{Corpus, CorpusBudget};
use crate::critic;
use crate::search::{Library, TermCount};
use crate::summarize::summarize;

/// Runs the loop as the demo's workers do, with plain calls between them, stored and taken up again at every step.
fn run(library: &Library, question: &str) -> (Answer, Vec<Stage>) {
    let mut research = Research::new(question).unwrap();
    let mut stages = Vec::new();
    loop {
        let kept = serde_json::to_string(&research).unwrap();
        research = serde_json::from_str(&kept).unwrap();
        stages.push(research.stage());
        match research.next_step() {
            Step::Search(searches) => {
                let replies: Vec<_> =
                    searches.iter().filter_map(|search| library.search(search).ok()).collect();
                research.take_hits(&replies).unwrap();
            }
            Step::Read(reads) => {
                let passages = reads.iter().filter_map(|read| library.corpus().read(read).ok()).collect();
                research.take_passages(passages).unwrap();
            }
            Step::Summarize(request) => research.take_summary(summarize(&request)).unwrap(),
            Step::Judge(draft) => {
                let evidence: Vec<_> = critic::reads(&draft)
                    .iter()
                    .filter_map(|read| library.corpus().read(read).ok())
                    .collect();
                research.take_verdict(critic::judge(&draft, &evidence)).unwrap();
            }
            Step::Finish => return (research.answer().unwrap(), stages),
        }
        assert!(stages.len() <= 9, "the loop ends: {stages:?}");
    }
}

fn library(files: &[(&str, &str)]) -> (tempfile::TempDir, Library) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let corpus = Corpus::folder(folder.path(), CorpusBudget::default()).unwrap();
    let library = Library::build(corpus, Duration::from_secs(60)).unwrap();
    (folder, library)
}

const LOCKS: &str =
    "# Locks\n\nA mutex lets threads share a value safely.\nOnly one thread holds the lock at a time.\n";
const COUNTS: &str = "//! Reference counting.\n\n/// An `Arc` keeps a shared value alive while any thread still needs it.\nstruct Arc;\n";
const COOKING: &str = "# Soup\n\nBoil the carrots slowly and share them with many friends.\n";

#[test]
fn answers_from_the_right_documents_in_one_round() {
    let (_folder, library) =
        library(&[("a/README.md", LOCKS), ("b/src/lib.rs", COUNTS), ("c/README.md", COOKING)]);
    let (answer, stages) = run(&library, DEFAULT_QUESTIONS[0]);
    assert!(answer.verdict.accepted, "{answer:?}");
    assert_eq!(answer.rounds, 1);
    use Stage::{Finished, Judging, Reading, Searching, Summarizing};
    assert_eq!(stages, [Searching, Reading, Summarizing, Judging, Finished]);
    let names: Vec<_> =
        answer.draft.sources.iter().map(|source| format!("{}:{}", source.name, source.first_line)).collect();
    assert_eq!(names[0], "a/README.md:3");
    assert!(names.contains(&"b/src/lib.rs:3".to_owned()), "{names:?}");
    assert_eq!(answer.draft.statements[0].text, "A mutex lets threads share a value safely.");
    assert_eq!(answer.draft.statements[0].source, 1);
}

#[test]
fn a_second_round_is_asked_for_and_the_loop_ends() {
    let (_folder, library) = library(&[
        ("a.md", "Threads are cheap to start in this library of ours.\n"),
        ("b.md", "Nothing else that matters is written down in here.\n"),
    ]);
    let (answer, stages) = run(&library, "How do threads share channels across processes?");
    assert!(!answer.verdict.accepted);
    assert_eq!((answer.rounds, stages.len()), (2, 9));
}

#[test]
fn nothing_found_is_an_empty_answer_with_reasons() {
    let (_folder, library) = library(&[("a.md", "Words of another kind altogether.\n")]);
    let (answer, _) = run(&library, "Where are submarines painted?");
    assert_eq!(answer.draft.statements.len(), 0);
    assert!(answer.verdict.objections.contains(&Objection::NoStatements));
}

#[test]
fn order_is_enforced() {
    let mut research = Research::new("Who locks values?").unwrap();
    let error = research.take_passages(Vec::new()).unwrap_err();
    assert_eq!(error, ResearchError::OutOfOrder { waiting: Stage::Searching, given: Stage::Reading });
    assert!(research.answer().is_none());
    assert!(matches!(Research::new("How do I?"), Err(ResearchError::NoTerms { .. })));
}

#[test]
fn searches_use_the_words_as_written() {
    let research = Research::new(DEFAULT_QUESTIONS[0]).unwrap();
    let Step::Search(searches) = research.next_step() else { panic!("it begins with searches") };
    let queries: Vec<_> = searches.iter().map(|search| search.query.as_str()).collect();
    assert_eq!(queries, ["share value threads safely", "share value", "value threads", "threads safely"]);
}

fn hit(name: &str, first_line: u32, matched: usize) -> Hit {
    Hit {
        document: DocumentId::of_path(name),
        name: name.to_owned(),
        kind: DocumentKind::Source,
        score: 1.0,
        matched: vec!["word".to_owned(); matched],
        first_line,
        last_line: first_line + 7,
        snippet: String::new(),
    }
}

#[test]
fn rankings_are_fused_nearness_counts_and_no_crate_crowds_out_the_rest() {
    let count = |term: &str| TermCount { term: term.to_owned(), documents: 1 };
    let reply = |hits: Vec<Hit>| SearchReply { documents: 9, terms: vec![count("a"), count("b")], hits };

    let replies = [
        reply(vec![hit("a/1.rs", 100, 1), hit("a/2.rs", 1, 1), hit("a/3.rs", 1, 1), hit("b/1.rs", 1, 1)]),
        reply(vec![hit("b/1.rs", 50, 2), hit("a/1.rs", 10, 1)]),
    ];
    let reads = choose_reads(&replies, &[]);
    let order: Vec<_> = reads.iter().map(|read| (read.document, read.first_line, read.last_line)).collect();
    let id = DocumentId::of_path;
    assert_eq!(
        order,
        [(id("b/1.rs"), 25, Some(117)), (id("a/1.rs"), 75, Some(167)), (id("a/2.rs"), 1, Some(68)),]
    );
}

#[test]
fn unsupported_statements_are_dropped_and_sources_renumbered() {
    let source = |name: &str| Source {
        document: DocumentId::of_path(name),
        name: name.to_owned(),
        first_line: 1,
        last_line: 1,
    };
    let statement = |text: &str, source| Statement { text: text.to_owned(), source };
    let draft = Draft {
        question: "q".to_owned(),
        statements: vec![
            statement("one", 1),
            statement("two", 2),
            statement("three", 3),
            statement("four", 2),
        ],
        sources: vec![source("a"), source("b"), source("c")],
    };
    let verdict = Verdict {
        accepted: false,
        score: 0.5,
        supported: 0.5,
        coverage: 1.0,
        objections: vec![Objection::NotInSource { statement: 0, source: 1 }],
    };
    let kept = without_unsupported(&draft, &verdict);
    assert_eq!(kept.statements, [statement("two", 1), statement("three", 2), statement("four", 1)]);
    assert_eq!(kept.sources, [source("b"), source("c")]);
}

#[test]
fn headings_make_questions() {
    let questions = questions_about(
        ["# Shared memory\ntext", "no heading", "# Shared memory\n", "# How?\n", "# Rings"],
        5,
    );
    assert_eq!(questions, ["What about Shared memory?", "What about Rings?"]);
}
