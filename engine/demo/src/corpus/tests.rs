//! Corpora made of small planted folders, and the registry of the machine that runs the tests.

use super::*;

fn plant(root: &Path, files: &[(&str, &[u8])]) {
    for (name, content) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn names(corpus: &Corpus) -> Vec<&str> {
    corpus.documents().iter().map(|document| document.name.as_str()).collect()
}

#[test]
fn folder_takes_text_and_counts_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    plant(
        root,
        &[
            ("README.md", b"# Hello\n"),
            ("notes/a.txt", b"some text\n"),
            ("src/main.rs", b"fn main() {}\n"),
            ("tests/it.rs", b"fn it() {}\n"),
            ("config.toml", b"a = 1\n"),
            ("empty.md", b""),
            ("fake.txt", b"\x00\x01\x02"),
            ("latin.txt", b"caf\xe9 au lait"),
            ("picture.png", b"\x89PNG"),
            ("big.txt", &vec![b'x'; 2000]),
            (".git/HEAD.txt", b"ref\n"),
            ("target/x.txt", b"built\n"),
        ],
    );
    std::os::unix::fs::symlink(root, root.join("loop")).unwrap();
    let budget = CorpusBudget { file_bytes_max: 1000, ..CorpusBudget::default() };
    let corpus = Corpus::folder(root, budget).unwrap();
    assert_eq!(names(&corpus), ["README.md", "notes/a.txt", "src/main.rs", "tests/it.rs", "config.toml"]);
    let skipped = corpus.skipped();
    let counts = (
        skipped.other_kind,
        skipped.binary,
        skipped.too_large,
        skipped.empty,
        skipped.links,
        skipped.unreadable,
    );
    assert_eq!(counts, (1, 2, 1, 1, 1, 0));
    let named: Vec<_> = skipped.named.iter().map(|file| (file.name.as_str(), file.reason.as_str())).collect();
    assert!(named.contains(&("big.txt", "2000 bytes")), "{named:?}");
    assert!(named.contains(&("fake.txt", "binary data")), "{named:?}");
}

#[test]
fn budget_keeps_the_most_useful_and_counts_what_it_leaves() {
    let folder = tempfile::tempdir().unwrap();
    plant(
        folder.path(),
        &[
            ("reg-1/zeta-1.0.0/README.md", &[b'r'; 100]),
            ("reg-1/zeta-1.0.0/src/lib.rs", &[b'l'; 100]),
            ("reg-1/alpha-1.0.0/src/deep.rs", &[b'd'; 100]),
            ("reg-1/alpha-1.0.0/tests/t.rs", &[b't'; 100]),
            ("reg-1/alpha-1.0.0/Cargo.toml", b"[package]"),
        ],
    );
    let all = Corpus::registry_at(folder.path(), CorpusBudget::default()).unwrap();
    let order = [
        "zeta-1.0.0/README.md",
        "zeta-1.0.0/src/lib.rs",
        "alpha-1.0.0/src/deep.rs",
        "alpha-1.0.0/tests/t.rs",
    ];
    assert_eq!(names(&all), order);
    let some = Corpus::registry_at(folder.path(), CorpusBudget { bytes_max: 250, ..CorpusBudget::default() })
        .unwrap();
    assert_eq!(names(&some), order[..2]);
    assert_eq!((some.skipped().beyond_budget, some.skipped().beyond_budget_bytes), (2, 200));
    let one =
        Corpus::registry_at(folder.path(), CorpusBudget { documents_max: 1, ..CorpusBudget::default() })
            .unwrap();
    assert_eq!(names(&one), order[..1]);
}

#[test]
fn missing_and_empty_folders_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere");
    let error = Corpus::folder(&missing, CorpusBudget::default()).unwrap_err();
    assert!(matches!(error, CorpusError::Folder { .. }), "{error}");
    let error = Corpus::folder(folder.path(), CorpusBudget::default()).unwrap_err();
    assert!(error.to_string().starts_with("wanted a folder with texts"), "{error}");
    let error = Corpus::registry_at(&missing, CorpusBudget::default()).unwrap_err();
    assert!(error.to_string().contains("--input"), "{error}");
    let error = Corpus::registry_at(folder.path(), CorpusBudget::default()).unwrap_err();
    assert!(matches!(error, CorpusError::NoRegistry { .. }), "{error}");
    plant(folder.path(), &[("file.txt", b"x")]);
    let error = Corpus::folder(&folder.path().join("file.txt"), CorpusBudget::default()).unwrap_err();
    assert!(matches!(error, CorpusError::NotAFolder { .. }), "{error}");
}

#[test]
fn reads_exactly_the_lines_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), &[("a.md", b"one\n```\nthree\n```\nfive")]);
    let corpus = Corpus::folder(folder.path(), CorpusBudget::default()).unwrap();
    let document = DocumentId::of_path("a.md");
    let read = |first_line, last_line| corpus.read(&ReadRequest { document, first_line, last_line });
    let passage = read(3, Some(4)).unwrap();
    assert_eq!((passage.text.as_str(), passage.first_line, passage.last_line), ("three\n```\n", 3, 4));
    assert!(passage.starts_in_code);
    assert_eq!(passage.line_count, 5);
    assert_eq!(read(0, None).unwrap().text, "one\n```\nthree\n```\nfive");
    assert_eq!(read(5, Some(900)).unwrap().text, "five");
    assert!(!read(5, None).unwrap().starts_in_code);
    assert!(matches!(read(6, None), Err(ReadError::PastEnd { line_count: 5, .. })));
    assert!(matches!(read(4, Some(3)), Err(ReadError::Backwards { .. })));
    let unknown = ReadRequest { document: DocumentId(1), first_line: 1, last_line: None };
    assert!(matches!(corpus.read(&unknown), Err(ReadError::Unknown { .. })));
}

#[test]
fn replicas_agree_and_a_vanished_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), &[("a.md", b"one\n"), ("b.md", b"two\n")]);
    let first = Corpus::folder(folder.path(), CorpusBudget::default()).unwrap();
    let second = Corpus::folder(folder.path(), CorpusBudget::default()).unwrap();
    assert_eq!(first.documents(), second.documents());
    fs::remove_file(folder.path().join("a.md")).unwrap();
    let request = ReadRequest { document: DocumentId::of_path("a.md"), first_line: 1, last_line: None };
    assert!(matches!(first.read(&request), Err(ReadError::File { .. })));
}

#[test]
fn long_documents_are_read_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), &[("long.txt", "line\n".repeat(5_000).as_bytes())]);
    let corpus = Corpus::folder(folder.path(), CorpusBudget::default()).unwrap();
    let request = ReadRequest { document: DocumentId::of_path("long.txt"), first_line: 10, last_line: None };
    let passage = corpus.read(&request).unwrap();
    assert_eq!((passage.first_line, passage.last_line), (10, 9 + READ_LINES_MAX));
}

#[test]
fn ids_fit_a_json_number() {
    assert!(DocumentId::of_path("anything").0 < 1 << 48);
}
