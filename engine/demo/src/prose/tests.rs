//! Tables of texts and the sentences expected of them.

use super::*;

fn check(text: &str, format: Format, expected: &[(&str, u32, u32)]) {
    let found = sentences(text, format, 1, false);
    let found: Vec<_> = found
        .iter()
        .map(|sentence| (sentence.text.as_str(), sentence.first_line, sentence.last_line))
        .collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn markdown_prose_without_code_headings_and_tables() {
    check(
        "# Title\n\nOne sentence over\ntwo lines. Another!\n\n```rust\nlet x = 1. Not this.\n```\n| a | b |\n- Item one.\n- Item two\n  goes on.\n",
        Format::Markdown,
        &[
            ("One sentence over two lines.", 3, 4),
            ("Another!", 4, 4),
            ("Item one.", 10, 10),
            ("Item two goes on.", 11, 12),
        ],
    );
}

#[test]
fn links_images_and_tags_leave_their_text() {
    check(
        "[![badge](https://x.y/z.svg)](https://x.y) See [the **guide**](https://a.b/c_(d)) and [`Arc`] <b>now</b>.\n[x]: http://q\n",
        Format::Markdown,
        &[("See the guide) and `Arc` now.", 1, 1)],
    );
}

#[test]
fn abbreviations_numbers_and_code_do_not_end_sentences() {
    check(
        "Use e.g. Tokio 1.2 or similar. Call `a.b. C` first. Written by D. Knuth. Is it fast? Yes.",
        Format::Plain,
        &[
            ("Use e.g. Tokio 1.2 or similar.", 1, 1),
            ("Call `a.b. C` first.", 1, 1),
            ("Written by D. Knuth.", 1, 1),
            ("Is it fast?", 1, 1),
            ("Yes.", 1, 1),
        ],
    );
}

#[test]
fn rust_gives_documentation_comments_only() {
    check(
        "//! Shared state. It is\n//! counted.\n\n// a note to self. Not prose.\nfn f() { g(\"No. Never.\") }\n/// ```\n/// let x = 1. Code.\n/// ```\n/// Returns it.\nfn h() {}\n",
        Format::Rust,
        &[("Shared state.", 1, 1), ("It is counted.", 1, 2), ("Returns it.", 9, 9)],
    );
}

#[test]
fn other_formats() {
    check(
        "// One is here.\nint x;\n/* Two is\n * there. */\n",
        Format::SlashComments,
        &[("One is here.", 1, 1), ("Two is there.", 3, 4)],
    );
    check("#!/bin/sh\n# Runs it.\nx=1\n", Format::HashComments, &[("Runs it.", 2, 2)]);
    check("<p>Some <b>bold</b> text.</p>\n", Format::Html, &[("Some bold text.", 1, 1)]);
    check("{\"a\": \"Some text. Here.\"}", Format::Data, &[]);
}

#[test]
fn excerpt_inside_a_fence_is_known_as_code() {
    let file = "Intro.\n```\ncode one\ncode two. End.\n```\nOutro is here.\n";
    let split = file.find("code two").unwrap();
    let open = code_fence_open(&file[..split], Format::Markdown);
    assert!(open);
    let found = sentences(&file[split..], Format::Markdown, 4, open);
    assert_eq!(found, [Sentence { text: "Outro is here.".to_owned(), first_line: 6, last_line: 6 }]);
    assert!(!code_fence_open(file, Format::Markdown));
}

#[test]
fn completeness() {
    let complete = |text: &str| Sentence { text: text.to_owned(), first_line: 1, last_line: 1 }.is_complete();
    assert!(complete("A mutex protects shared data from races."));
    assert!(complete("`Arc` counts references across many threads (atomically)."));
    assert!(!complete("Installation"));
    assert!(!complete("and this goes on without a beginning."));
    assert!(!complete("A list of things that follows here:"));
    assert!(!complete("A == 0 && B != 1 || {C} <= [D;4]."));
}

proptest::proptest! {
    #[test]
    fn sentences_never_panic_and_stay_within_their_lines(text in "[a-zA-Z.!?`\\[\\]()<>*#\\-é \\n/]{0,200}") {
        let line_count = u32::try_from(text.lines().count()).unwrap();
        for format in [Format::Markdown, Format::Rust, Format::SlashComments, Format::HashComments, Format::Html, Format::Plain] {
            for sentence in sentences(&text, format, 1, false) {
                assert!(sentence.first_line >= 1 && sentence.first_line <= sentence.last_line);
                assert!(sentence.last_line <= line_count);
                assert!(!sentence.text.is_empty());
            }
            let _plain = plain_text(&text, format);
        }
    }
}
