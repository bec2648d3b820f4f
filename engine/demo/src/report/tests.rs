//! Numbers, tables, and a whole report held against its text.

use super::*;
use crate::corpus::DocumentId;
use crate::critic::{Draft, Source, Statement, Verdict};
use crate::pipeline::ChunkHash;
use crate::pipeline::ledger::{Duplicate, FileReport, Totals};

#[test]
fn numbers() {
    for (bytes, expected) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_048_575, "1.0 MiB"),
        (1 << 30, "1.0 GiB"),
        (u64::MAX, "16384.0 PiB"),
    ] {
        assert_eq!(bytes_text(bytes), expected);
    }
    for (count, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(count_text(count), expected);
    }
    for (ns, expected) in
        [(0, "0 ns"), (999, "999 ns"), (1500, "1.50 µs"), (12_340_000, "12.3 ms"), (123_400_000_000, "123 s")]
    {
        assert_eq!(duration_text(Duration::from_nanos(ns)), expected);
    }
    for (share, expected) in [(0.0, "0 %"), (0.1234, "12.3 %"), (1.0, "100 %")] {
        assert_eq!(percent_text(share), expected);
    }
}

#[test]
fn tables_line_up() {
    let mut table = Table::new(&[("name", Align::Left), ("n", Align::Right)]);
    table.row(["é".to_owned(), "10".to_owned(), "dropped".to_owned()]);
    table.row(["longer".to_owned()]);
    assert_eq!(table.text(" "), " name     n\n ──────  ──\n é       10\n longer\n");
}

#[test]
fn wrapping_and_shortening() {
    assert_eq!(wrapped("one two three", 8, "  "), "one two\n  three\n");
    assert_eq!(wrapped("   one two three", 8, "  "), "   one\n  two\n  three\n");
    assert_eq!(wrapped("unbreakable", 3, "  "), "unbreakable\n");
    assert_eq!(table::shortened("abcdefghij", 7), "ab…ghij");
    assert_eq!(table::shortened("abc", 7), "abc");
}

fn run() -> AgentRun {
    AgentRun {
        answer: Answer {
            draft: Draft {
                question: "What is it?".to_owned(),
                statements: vec![Statement { text: "It is a ring.".to_owned(), source: 1 }],
                sources: vec![Source {
                    document: DocumentId(1),
                    name: "a.md".to_owned(),
                    first_line: 3,
                    last_line: 4,
                }],
            },
            verdict: Verdict {
                accepted: false,
                score: 0.5,
                supported: 1.0,
                coverage: 0.5,
                objections: vec![Objection::OneDocument],
            },
            rounds: 2,
            searches: 3,
            reads: 4,
        },
        steps: vec![
            StepTime { stage: Stage::Searching, calls: 3, elapsed_ns: 1_500_000 },
            StepTime { stage: Stage::Judging, calls: 1, elapsed_ns: 500_000 },
        ],
    }
}

#[test]
fn an_answer_as_text() {
    let expected = "\
Q: What is it?
A: It is a ring. [1]
   [1] a.md:3-4
   critic: not accepted (0.50 of 1: 100 % of the statements supported, 50.0 % of the question covered); 3 searches, 4 reads, 2 rounds
   objection: it rests on one document
   step           calls     time
   ────────  ──────────  ───────
   search             3  1.50 ms
   judge              1   500 µs
   together  4 (2000/s)  2.00 ms
";
    assert_eq!(run().text(100), expected);
}

#[test]
fn json_comes_back_as_it_was() {
    let agents = AgentReport {
        documents: 2,
        document_bytes: 10,
        skipped: Skipped { binary: 1, ..Skipped::default() },
        index: IndexReport { documents: 2, bytes: 10, left_out: 3, ..IndexReport::default() },
        runs: vec![run()],
    };
    assert_eq!(serde_json::from_str::<AgentReport>(&agents.json().unwrap()).unwrap(), agents);
    assert!(agents.text(80).contains("Left out: 3 when time ran out, 1 binary.\n"), "{}", agents.text(80));
}

#[test]
fn the_accounts_as_text() {
    let sums = Totals {
        files: 1,
        bytes: 4096,
        missing_bytes: 1,
        chunks: 4,
        unique_chunks: 3,
        unique_bytes: 3072,
        duplicate_bytes: 1024,
        compressed_bytes: 1536,
    };
    let report = PipelineReport {
        ledger: LedgerReport {
            total: sums,
            files: vec![FileReport { index: 0, name: "lib.so".to_owned(), sums }],
            top_duplicates: vec![Duplicate {
                hash: ChunkHash([0xab; 32]),
                bytes: 1024,
                copies: 2,
                wasted_bytes: 1024,
                places: vec!["lib.so@0".to_owned()],
            }],
            duplicated_chunks: 1,
        },
        skipped: FilesSkipped::default(),
        stages: vec![StageTime {
            name: "hash".to_owned(),
            calls: 1,
            bytes: 4096,
            bytes_copied: 0,
            busy_ns: 2_000_000,
        }],
        elapsed_ns: 4_000_000,
    };
    let expected = "\
Read 4.0 KiB in 1 file, 4 chunks, in 4.00 ms (1000.0 KiB/s).
                        bytes  of all  chunks
  ──────────────────  ───────  ──────  ──────
  duplicate           1.0 KiB  25.0 %       1
  unique              3.0 KiB  75.0 %       3
  unique, compressed  1.5 KiB  37.5 %
  1 B announced and not seen: files shrank or could not be read

  largest files    bytes  duplicate  compressed
  ─────────────  ───────  ─────────  ──────────
  lib.so         4.0 KiB    1.0 KiB     1.5 KiB

  duplicates      bytes  copies   wasted  first at
  ────────────  ───────  ──────  ───────  ────────
  abababababab  1.0 KiB       2  1.0 KiB  lib.so@0

  stage  calls  looked at  copied     busy      speed
  ─────  ─────  ─────────  ──────  ───────  ─────────
  hash       1    4.0 KiB     0 B  2.00 ms  2.0 MiB/s
";
    assert_eq!(report.text(), expected);
    assert_eq!(serde_json::from_str::<PipelineReport>(&report.json().unwrap()).unwrap(), report);
}
