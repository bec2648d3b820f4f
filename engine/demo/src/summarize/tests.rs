//! Properties of the ranking, on a text with a known middle and on this crate's own documentation.

use super::*;
use crate::prose::Format;

fn passage(name: &str, first_line: u32, text: &str) -> Passage {
    let line_count = u32::try_from(text.lines().count()).unwrap();
    Passage {
        document: DocumentId::of_path(name),
        name: name.to_owned(),
        format: Format::of_name(name),
        first_line,
        last_line: first_line + line_count - 1,
        line_count,
        starts_in_code: false,
        text: text.to_owned(),
    }
}

fn request(passages: &[Passage], question: Option<&str>, sentences_max: u32) -> SummarizeRequest {
    SummarizeRequest { passages: passages.to_vec(), question: question.map(str::to_owned), sentences_max }
}

const HARBOUR: &str = "The harbour was built in the ninth century by fishermen.\n\
    Ships of the harbour traded salt, timber and cloth with the north.\n\
    The harbour and its ships brought trade and wealth to the town.\n\
    My aunt keeps seven cats in a small yellow kitchen.\n\
    Trade made the town rich, and the town made the harbour larger.\n\
    Salt from the town was traded by ships from many countries.\n";

#[test]
fn central_sentences_win_and_the_stranger_loses() {
    let all = summarize(&request(&[passage("a.txt", 1, HARBOUR)], None, 99));
    assert_eq!(all.ranked, 6);
    // It shares salt, town, trade and ships with three others, more than any other sentence does.
    assert!(all.sentences.first().unwrap().text.starts_with("Salt from the town"), "{all:?}");
    assert!(all.sentences.last().unwrap().text.contains("aunt"), "{all:?}");
    let total: f64 = all.sentences.iter().map(|sentence| sentence.score).sum();
    assert!((total - 1.0).abs() < 1e-6, "scores sum to one: {total}");
    assert!(all.steps < STEPS_MAX);
}

#[test]
fn a_question_moves_the_ranking() {
    let about = |question| summarize(&request(&[passage("a.txt", 1, HARBOUR)], Some(question), 1)).sentences;
    assert!(about("Who has cats?")[0].text.contains("aunt"));
    assert!(about("When was it built and by which fishermen?")[0].text.contains("ninth century"));
    let plain = summarize(&request(&[passage("a.txt", 1, HARBOUR)], None, 1)).sentences;
    assert_eq!(
        about("Quantum chromodynamics?"),
        plain,
        "a question about nothing in the text changes nothing"
    );
}

#[test]
fn sources_point_at_the_lines() {
    let text = "# Title\n\nA first sentence stands here alone.\n\nThe second sentence goes on\nover two whole lines.\n";
    let summary = summarize(&request(&[passage("x/README.md", 41, text)], None, 9));
    let mut places: Vec<_> =
        summary.sentences.iter().map(|sentence| (sentence.first_line, sentence.last_line)).collect();
    places.sort_unstable();
    assert_eq!(places, [(43, 43), (45, 46)]);
    assert!(summary.sentences.iter().all(|sentence| sentence.name == "x/README.md"));
}

#[test]
fn repeats_are_left_out() {
    let text = "The worker sends a message to the engine.\nThe worker sends its message to the engine.\nA completely different thing happens over there.\n";
    let summary = summarize(&request(&[passage("a.txt", 1, text)], None, 9));
    assert_eq!((summary.ranked, summary.sentences.len()), (3, 2), "{summary:?}");
}

#[test]
fn the_same_input_gives_the_same_summary() {
    let own: Vec<Passage> =
        [("words.rs", include_str!("../words.rs")), ("corpus.rs", include_str!("../corpus.rs"))]
            .map(|(name, text)| passage(name, 1, text))
            .to_vec();
    let first = summarize(&request(&own, Some("How are documents found and read?"), 5));
    let second = summarize(&request(&own, Some("How are documents found and read?"), 5));
    assert_eq!(first, second);
    assert_eq!(first.sentences.len(), 5);
    for sentence in &first.sentences {
        let source = own.iter().find(|passage| passage.document == sentence.document).unwrap();
        let lines: Vec<&str> = source.text.lines().collect();
        let (from, to) = (sentence.first_line as usize - 1, sentence.last_line as usize);
        let cited = crate::prose::plain_text(&lines[from..to].join("\n"), Format::Rust);
        let quoted = crate::words::literal_words(&sentence.text).join(" ");
        assert!(crate::words::literal_words(&cited).join(" ").contains(&quoted), "{sentence:?}");
    }
}

#[test]
fn scores_are_the_fixed_point() {
    // Three sentences in a chain a - b - c, and one alone, solved by hand: the mass s of the one alone is spread evenly, so
    // with j = (d + (1 - d) s) / 4: s = j, p(a) = p(c) = j + (1 - d) p(b) / 2, p(b) = j + (1 - d) (p(a) + p(c)).
    let similarity = vec![
        vec![0.0, 0.5, 0.0, 0.0],
        vec![0.5, 0.0, 0.5, 0.0],
        vec![0.0, 0.5, 0.0, 0.0],
        vec![0.0, 0.0, 0.0, 0.0],
    ];
    let (scores, _) = walk(&similarity, &Jump::even(4));
    let keep = 1.0 - JUMP;
    let alone = JUMP / (4.0 - keep);
    let middle = alone * (1.0 + 2.0 * keep) / (1.0 - keep * keep);
    let outer = alone + keep * middle / 2.0;
    for (score, expected) in scores.iter().zip([outer, middle, outer, alone]) {
        assert!((score - expected).abs() < 1e-6, "{scores:?} {expected}");
    }
    assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{scores:?}");
}

#[test]
fn nothing_to_summarize() {
    let empty = summarize(&request(&[], Some("What?"), 3));
    assert_eq!((empty.sentences.len(), empty.ranked), (0, 0));
    let code = summarize(&request(&[passage("a.rs", 1, "fn f() {}\n")], None, 3));
    assert_eq!(code.sentences.len(), 0);
}

#[test]
fn too_many_sentences_are_counted() {
    let text: String = (0..700)
        .fold(String::new(), |text, index| text + &format!("Sentence number {index} tells a story here.\n"));
    let summary = summarize(&request(&[passage("a.txt", 1, &text)], None, 2));
    assert_eq!((summary.ranked, summary.left_out), (600, 100));
}
