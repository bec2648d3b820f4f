//! `docs/layout.md` against the code: every offset and constant of a segment that the page names, seen in real bytes.
//! It must not know what frames mean.

use ringway_ipc::frame::{DESCRIPTOR_BYTES, Descriptor, Header};
use ringway_ipc::layout;
use ringway_tests::repository;

/// A row of the page: offset, bytes, and the words behind them.
fn rows(heading: &str) -> Vec<(usize, usize, String)> {
    let page = std::fs::read_to_string(repository::root().join("docs/layout.md")).unwrap();
    let section = page.split(&format!("\n## {heading}\n")).nth(1).expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells =
        section.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let numbers = cells.filter_map(|cells| match cells.as_slice() {
        [offset, bytes, rest @ ..] => Some((offset.parse().ok()?, bytes.parse().ok()?, rest.join(" "))),
        _ => None,
    });
    numbers.collect()
}

/// Offset and bytes of the row that names the field.
fn place(rows: &[(usize, usize, String)], field: &str) -> (usize, usize) {
    let row = rows.iter().find(|(_, _, words)| words.contains(&format!("`{field}`")));
    let (offset, bytes, _) = row.unwrap_or_else(|| panic!("no row names `{field}`"));
    (*offset, *bytes)
}

/// Rows must follow each other without a gap or an overlap.
fn end_of(rows: &[(usize, usize, String)], start: usize) -> usize {
    rows.iter().fold(start, |end, (offset, bytes, words)| {
        assert_eq!(*offset, end, "{words}");
        end + bytes
    })
}

#[test]
fn a_header_lies_where_the_page_says() {
    let rows = rows("Header");
    assert_eq!(end_of(&rows, 8), layout::HEADER_BYTES);
    let check = |field: &str, header: Header| {
        let bytes: Vec<u8> = header.to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
        let (offset, len) = place(&rows, field);
        // The words begin behind the stamp.
        let start = offset - 8;
        let expected: Vec<bool> = (0..bytes.len()).map(|at| (start..start + len).contains(&at)).collect();
        let found: Vec<bool> = bytes.iter().map(|&byte| byte == 0xff).collect();
        assert_eq!(found, expected, "{field}");
    };
    let none = Header::default();
    check("invocation", Header { invocation: u64::MAX, ..none });
    check("trace_id", Header { trace_id: [0xff; 16], ..none });
    check("span_id", Header { span_id: u64::MAX, ..none });
    check("deadline_ns", Header { deadline_ns: u64::MAX, ..none });
    check("function", Header { function: u32::MAX, ..none });
    check("function_generation", Header { function_generation: u16::MAX, ..none });
    check("kind", Header { kind: u8::MAX, ..none });
    check("trace_flags", Header { trace_flags: u8::MAX, ..none });
    check("inline_len", Header { inline_len: u16::MAX, ..none });
    check("attachments", Header { attachments: u8::MAX, ..none });
    check("encoding", Header { encoding: u8::MAX, ..none });
    check("meta_len", Header { meta_len: u16::MAX, ..none });
    check("flags", Header { flags: u16::MAX, ..none });
}

#[test]
fn a_descriptor_lies_where_the_page_says() {
    let rows = rows("Descriptor");
    assert_eq!(end_of(&rows, 0), DESCRIPTOR_BYTES);
    let check = |field: &str, descriptor: Descriptor| {
        let bytes: Vec<u8> = descriptor.to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
        let (offset, len) = place(&rows, field);
        let expected: Vec<bool> = (0..bytes.len()).map(|at| (offset..offset + len).contains(&at)).collect();
        let found: Vec<bool> = bytes.iter().map(|&byte| byte == 0xff).collect();
        assert_eq!(found, expected, "{field}");
    };
    let none = Descriptor::default();
    check("segment", Descriptor { segment: u32::MAX, ..none });
    check("lease", Descriptor { lease: u32::MAX, ..none });
    check("offset", Descriptor { offset: u64::MAX, ..none });
    check("len", Descriptor { len: u64::MAX, ..none });
    check("dtype", Descriptor { dtype: u8::MAX, ..none });
    check("ndim", Descriptor { ndim: u8::MAX, ..none });
    check("align_log2", Descriptor { align_log2: u8::MAX, ..none });
    check("role", Descriptor { role: u8::MAX, ..none });
}

#[test]
fn a_segment_begins_as_the_page_says() {
    use layout::{EndPage, Slot};
    use std::mem::{offset_of, size_of};

    let rows = rows("Segment");
    assert_eq!(place(&rows, "consumed").0, offset_of!(EndPage, consumed));
    assert_eq!(place(&rows, "attention").0, offset_of!(EndPage, attention));
    assert_eq!(rows[0].1, offset_of!(EndPage, consumed));
    let (offset, bytes, _) = rows.iter().find(|(_, _, words)| words.starts_with("unused")).unwrap();
    assert_eq!((*offset, offset + bytes), (size_of::<EndPage>(), layout::SLOTS_OFFSET));

    let slot = self::rows("Slot");
    assert_eq!(end_of(&slot, 0), size_of::<Slot>());
    assert_eq!(slot[2].0, offset_of!(Slot, inline));
}

#[test]
fn the_facts_are_those_of_the_page() {
    use layout::{EndPage, Facts};
    use ringway_ipc::sync::Ordering;

    assert_eq!(end_of(&rows("Facts"), 0), 128);
    let page = EndPage::empty();
    page.initialise(Facts { slot_count: 256, flags: 1, owner: 0x0706_0504_0302_0100, channel: 9 });
    let bytes: Vec<u8> =
        page.facts.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
    let mut expected = vec![0; 128];
    expected[..8].copy_from_slice(b"RINGWAY\0");
    expected[8..16].copy_from_slice(&[1, 0, 0, 0, 0, 1, 0, 0]);
    expected[16..24].copy_from_slice(&[0, 1, 0, 0, 1, 0, 0, 0]);
    expected[24..32].copy_from_slice(&[0, 1, 2, 3, 4, 5, 6, 7]);
    expected[32] = 9;
    assert_eq!(bytes, expected);
    let attention =
        [layout::ATTENTION_POLLING, layout::ATTENTION_CHANNEL_BELL, layout::ATTENTION_WORKER_BELL];
    assert_eq!(attention, [0, 1, 2]);
}
