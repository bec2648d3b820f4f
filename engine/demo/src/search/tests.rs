//! Ranking and snippets over planted documents, held against counting by hand.

use super::*;
use crate::corpus::CorpusBudget;

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

fn found(library: &Library, query: &str) -> Vec<String> {
    let request = SearchRequest { query: query.to_owned(), limit: 10 };
    library.search(&request).unwrap().hits.into_iter().map(|hit| hit.name).collect()
}

#[test]
fn ranks_by_relevance_and_matches_inflections() {
    let (_folder, library) = library(&[
        ("locks.md", "A mutex locks shared data. The mutex guard unlocks it.\n"),
        ("queue.md", "A queue passes values between threads. A lock is never taken.\n"),
        ("cooking.md", "Boil the potatoes for twenty minutes.\n"),
    ]);
    assert_eq!(found(&library, "locking mutexes"), ["locks.md", "queue.md"]);
    assert_eq!(found(&library, "potato"), ["cooking.md"]);
    assert_eq!(found(&library, "submarine"), Vec::<String>::new());
    assert_eq!(library.report().documents, 3);
}

#[test]
fn names_count_and_half_of_the_words_must_occur() {
    let (_folder, library) = library(&[
        ("tokio/runtime.md", "This page tells about starting.\n"),
        ("other.md", "Words, starting here, about many things and more things besides them all.\n"),
    ]);
    assert_eq!(found(&library, "tokio starting"), ["tokio/runtime.md", "other.md"]);
    assert_eq!(found(&library, "starting zebra giraffe"), Vec::<String>::new());
}

#[test]
fn snippets_name_the_lines_where_the_words_stand_together() {
    let mut text = "filler line\n".repeat(40);
    // One word many times over is worth less than several together.
    text.push_str(&"A channel is a channel is a channel.\n".repeat(4));
    text.push_str(&"more filler\n".repeat(40));
    text.push_str("Send a value\nthrough the channel to another thread.\n");
    text.push_str(&"tail\n".repeat(40));
    let (_folder, library) = library(&[("guide.md", &text)]);
    let request = SearchRequest { query: "send value channel thread".to_owned(), limit: 1 };
    let reply = library.search(&request).unwrap();
    let hit = &reply.hits[0];
    assert_eq!((hit.first_line, hit.last_line), (85, 92));
    assert!(hit.snippet.starts_with("Send a value\nthrough the channel"), "{}", hit.snippet);
    assert_eq!(hit.matched, ["send", "valu", "channel", "thread"]);
    let passage = library
        .corpus()
        .read(&crate::corpus::ReadRequest {
            document: hit.document,
            first_line: hit.first_line,
            last_line: Some(hit.last_line),
        })
        .unwrap();
    assert_eq!(passage.text.trim_end(), hit.snippet);
}

#[test]
fn term_counts_are_exact() {
    let (_folder, library) =
        library(&[("a.md", "one lock"), ("b.md", "two locks"), ("c.md", "locked three"), ("d.md", "four")]);
    let request = SearchRequest { query: "locking four".to_owned(), limit: 3 };
    let reply = library.search(&request).unwrap();
    let counts: Vec<_> = reply.terms.iter().map(|term| (term.term.as_str(), term.documents)).collect();
    assert_eq!(counts, [("lock", 3), ("four", 1)]);
    assert_eq!(reply.hits.len(), 3);
    assert_eq!(reply.hits[0].name, "d.md");
}

#[test]
fn a_query_without_words_is_an_error() {
    let (_folder, library) = library(&[("a.md", "text")]);
    for query in ["", "  ", "how do I", "?!"] {
        let error = library.search(&SearchRequest { query: query.to_owned(), limit: 5 }).unwrap_err();
        assert!(matches!(error, SearchError::NoTerms { .. }), "{error}");
    }
}

#[test]
fn time_runs_out_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.md"), "text").unwrap();
    let corpus = Corpus::folder(folder.path(), CorpusBudget::default()).unwrap();
    let library = Library::build(corpus, Duration::ZERO).unwrap();
    assert_eq!((library.report().documents, library.report().left_out), (0, 1));
}
