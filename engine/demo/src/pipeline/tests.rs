//! The whole pipeline over planted trees, held against a naive one that looks at whole files and keeps plain sets.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::ledger::{BlockDigests, LedgerError, Totals};
use super::*;

const SIZES: ChunkSizes = ChunkSizes { min: 256, average: 1024, max: 4096 };

/// Bytes that repeat nothing and are always the same: BLAKE3's extended output.
fn noise(seed: &str, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    blake3::Hasher::new_derive_key("ringway demo tests")
        .update(seed.as_bytes())
        .finalize_xof()
        .fill(&mut data);
    data
}

fn plant(root: &Path, files: &[(&str, Vec<u8>)]) {
    for (name, content) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// Runs the stages one after another with blocks of a given size, as the demo's workers do at the same time.
fn run(list: &FileList, block_bytes: usize, sizes: ChunkSizes) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.announce(list.entries());
    let mut digester = Digester::new(digest::LEVEL).unwrap();
    let mut buffer = vec![0; block_bytes];
    for entry in list.entries() {
        let reader = list.open(entry.index).unwrap();
        let mut offset = 0;
        loop {
            let read = reader.read(offset, &mut buffer).unwrap();
            let block = &buffer[..usize::try_from(read.bytes).unwrap()];
            let cut = cut::cut(block, read.is_last, sizes).unwrap();
            let chunks = digester.digest(block, &cut.chunks).unwrap();
            ledger.take(&BlockDigests { file: entry.index, block_offset: offset, chunks }).unwrap();
            offset += cut.consumed;
            if read.is_last {
                assert_eq!(offset, entry.bytes);
                break;
            }
        }
    }
    ledger
}

/// The same sums the slow way: whole files in memory, every distinct chunk's bytes kept and compared as bytes.
fn naive(files: &BTreeMap<String, Vec<u8>>, sizes: ChunkSizes) -> Totals {
    let mut kept: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut totals = Totals { files: files.len() as u64, ..Totals::default() };
    for data in files.values() {
        let size = |bytes: u32| bytes as usize;
        for chunk in fastcdc::v2020::FastCDC::new(data, size(sizes.min), size(sizes.average), size(sizes.max))
        {
            let piece = &data[chunk.offset..chunk.offset + chunk.length];
            totals.chunks += 1;
            totals.bytes += piece.len() as u64;
            let copies = kept.entry(piece.to_vec()).or_insert(0);
            *copies += 1;
            if *copies == 1 {
                totals.unique_chunks += 1;
                totals.unique_bytes += piece.len() as u64;
                totals.compressed_bytes += zstd::bulk::compress(piece, digest::LEVEL).unwrap().len() as u64;
            } else {
                totals.duplicate_bytes += piece.len() as u64;
            }
        }
    }
    totals
}

fn planted() -> Vec<(&'static str, Vec<u8>)> {
    let base = noise("base", 200_000);
    let shifted = [b"a few bytes in front".to_vec(), base.clone()].concat();
    let mut changed = base.clone();
    changed[100_000] ^= 1;
    vec![
        ("a/base.bin", base.clone()),
        ("b/copy.bin", base.clone()),
        ("c/shifted.bin", shifted),
        ("d/changed.bin", changed),
        ("e/other.bin", noise("other", 50_001)),
        ("f/text.txt", "all work and no play makes a dull file\n".repeat(3_000).into_bytes()),
        ("g/tiny", b"x".to_vec()),
        ("h/empty", Vec::new()),
    ]
}

#[test]
fn accounts_agree_with_the_naive_ones_for_any_block_size() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), &planted());
    let list = FileList::folder(folder.path(), FilesBudget::default()).unwrap();
    let files = planted()
        .into_iter()
        .filter(|(_, data)| !data.is_empty())
        .map(|(name, data)| (name.to_owned(), data))
        .collect();
    let expected = naive(&files, SIZES);
    assert_eq!(list.skipped().empty, 1);
    let mut reports = Vec::new();
    for block_bytes in [4096, 4097, 10_000, 65_536, 1 << 20] {
        let report = run(&list, block_bytes, SIZES).report();
        assert_eq!(report.total, expected, "blocks of {block_bytes}");
        reports.push(report);
    }
    assert!(reports.windows(2).all(|pair| pair[0] == pair[1]), "block size shows in the report");
    assert_eq!(expected.unique_bytes + expected.duplicate_bytes, expected.bytes);
}

#[test]
fn planted_duplicates_are_found_even_when_shifted() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), &planted());
    let list = FileList::folder(folder.path(), FilesBudget::default()).unwrap();
    let report = run(&list, 30_000, SIZES).report();
    let duplicate_bytes = |name: &str| {
        report.files.iter().find(|file| file.name == name).map(|file| file.sums.duplicate_bytes).unwrap()
    };
    assert_eq!(duplicate_bytes("a/base.bin"), 0, "the first copy is no duplicate");
    assert_eq!(duplicate_bytes("b/copy.bin"), 200_000, "a copy is one whole duplicate");
    // Content-defined boundaries find themselves again after an insertion; fixed ones never would.
    assert!(duplicate_bytes("c/shifted.bin") > 190_000, "{}", duplicate_bytes("c/shifted.bin"));
    assert!(duplicate_bytes("d/changed.bin") > 190_000 && duplicate_bytes("d/changed.bin") < 200_000);
    assert_eq!(duplicate_bytes("e/other.bin"), 0);
    let top = &report.top_duplicates[0];
    assert_eq!(top.wasted_bytes, u64::from(top.bytes) * (top.copies - 1));
    assert!(report.top_duplicates.windows(2).all(|pair| pair[0].wasted_bytes >= pair[1].wasted_bytes));
    assert!(report.top_duplicates.iter().any(|duplicate| duplicate.places[0].starts_with("a/base.bin@")));
}

#[test]
fn fixed_size_chunks_would_miss_the_shift() {
    // Shows that the property above is content-defined chunking's, not an accident of the data.
    let base = noise("base", 200_000);
    let shifted = [b"a few bytes in front".to_vec(), base.clone()].concat();
    let pieces: std::collections::HashSet<&[u8]> = base.chunks(1024).collect();
    assert_eq!(shifted.chunks(1024).filter(|piece| pieces.contains(piece)).count(), 0);
}

#[test]
fn order_of_arrival_changes_nothing() {
    let data = noise("order", 20_000);
    let entries: Vec<_> =
        (0..2).map(|index| FileEntry { index, name: format!("f{index}"), bytes: 20_000 }).collect();
    let cut = cut::cut(&data, true, SIZES).unwrap();
    let chunks = Digester::new(1).unwrap().digest(&data, &cut.chunks).unwrap();
    let block = |file| BlockDigests { file, block_offset: 0, chunks: chunks.clone() };
    let book = |order: [u32; 2]| {
        let mut ledger = Ledger::default();
        ledger.announce(&entries);
        for file in order {
            ledger.take(&block(file)).unwrap();
        }
        ledger.report()
    };
    assert_eq!(book([0, 1]), book([1, 0]));
    assert_eq!(book([1, 0]).files[1].sums.duplicate_bytes, 20_000);
}

#[test]
fn what_is_compressed_can_be_restored() {
    let mut digester = Digester::new(3).unwrap();
    for data in [noise("z", 70_000), b"abc".repeat(40_000), Vec::new(), vec![7]] {
        let compressed = digester.compress(&data).unwrap().to_vec();
        assert_eq!(zstd::bulk::decompress(&compressed, data.len()).unwrap(), data);
    }
    let text = "the same words again and again\n".repeat(1_000);
    assert!(digester.compress(text.as_bytes()).unwrap().len() < text.len() / 20);
}

#[test]
fn hashes_are_blake3_of_the_slice() {
    let data = noise("hash", 9_000);
    let cut = cut::cut(&data, true, SIZES).unwrap();
    for digest in Digester::new(1).unwrap().digest(&data, &cut.chunks).unwrap() {
        let start = usize::try_from(digest.offset).unwrap();
        let piece = &data[start..start + digest.bytes as usize];
        assert_eq!(digest.hash.0, *blake3::hash(piece).as_bytes());
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<ChunkDigest>(&text).unwrap(), digest);
    }
}

#[test]
fn chunks_outside_their_block_are_refused() {
    let mut digester = Digester::new(1).unwrap();
    for (offset, bytes) in [(0, 11), (10, 1), (u64::MAX, 1), (5, u32::MAX)] {
        let error = digester.digest(&[0; 10], &[Chunk { offset, bytes }]).unwrap_err();
        assert!(matches!(error, digest::DigestError::OutsideBlock { .. }), "{error}");
    }
}

#[test]
fn sizes_are_checked() {
    assert!(ChunkSizes::default().checked().is_ok());
    for (min, average, max) in
        [(0, 1024, 4096), (255, 1024, 4096), (2048, 1024, 4096), (256, 8192, 4096), (256, 1024, 32 << 20)]
    {
        assert!(ChunkSizes { min, average, max }.checked().is_err(), "{min} {average} {max}");
    }
}

#[test]
fn the_ledger_refuses_what_cannot_be() {
    let mut ledger = Ledger::default();
    ledger.announce(&[FileEntry { index: 0, name: "f".to_owned(), bytes: 100 }]);
    let hash = |byte| ChunkHash([byte; 32]);
    let chunk = |offset, bytes, hash| ChunkDigest { offset, bytes, hash, compressed_bytes: 9 };
    let take = |ledger: &mut Ledger, file, block_offset, chunks: &[ChunkDigest]| {
        ledger.take(&BlockDigests { file, block_offset, chunks: chunks.to_vec() })
    };
    take(&mut ledger, 0, 10, &[chunk(0, 10, hash(1)), chunk(10, 10, hash(2))]).unwrap();
    let before = ledger.report();
    assert_eq!(before.total.missing_bytes, 80);
    assert_eq!(take(&mut ledger, 7, 0, &[]), Err(LedgerError::UnknownFile { file: 7 }));
    let overlaps: [(u64, &[ChunkDigest]); 6] = [
        (10, &[chunk(0, 10, hash(1))]),
        (0, &[chunk(0, 11, hash(3))]),
        (25, &[chunk(0, 5, hash(3))]),
        (95, &[chunk(0, 6, hash(3))]),
        (40, &[chunk(0, 5, hash(3)), chunk(4, 5, hash(4))]),
        (u64::MAX, &[chunk(u64::MAX, 5, hash(3))]),
    ];
    for (block_offset, chunks) in overlaps {
        let refused = take(&mut ledger, 0, block_offset, chunks);
        assert!(matches!(refused, Err(LedgerError::Overlap { .. })), "{block_offset} {refused:?}");
    }
    let disagreeing = take(&mut ledger, 0, 50, &[chunk(0, 5, hash(1))]);
    assert_eq!(disagreeing, Err(LedgerError::Disagrees { hash: hash(1) }));
    let disagreeing = take(&mut ledger, 0, 50, &[chunk(0, 5, hash(5)), chunk(5, 6, hash(5))]);
    assert_eq!(disagreeing, Err(LedgerError::Disagrees { hash: hash(5) }));
    assert_eq!(ledger.report(), before, "a refusal changes nothing");
}

#[test]
fn budget_and_missing_folders() {
    let folder = tempfile::tempdir().unwrap();
    let error = FileList::folder(folder.path(), FilesBudget::default()).unwrap_err();
    assert!(matches!(error, files::FilesError::Empty { .. }), "{error}");
    let error = FileList::folder(&folder.path().join("none"), FilesBudget::default()).unwrap_err();
    assert!(matches!(error, files::FilesError::Folder { .. }), "{error}");
    plant(folder.path(), &[("a", vec![0; 60]), ("b", vec![0; 50]), ("c", vec![0; 40])]);
    let list =
        FileList::folder(folder.path(), FilesBudget { bytes_max: 100, ..FilesBudget::default() }).unwrap();
    let names: Vec<_> = list.entries().iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!((names, list.bytes()), (vec!["a", "c"], 100));
    assert_eq!((list.skipped().beyond_budget, list.skipped().beyond_budget_bytes), (1, 50));
    assert!(matches!(list.open(2), Err(files::FilesError::Unknown { index: 2 })));
}

#[test]
fn a_file_that_shrinks_or_grows_ends_once() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), &[("a", vec![1; 100])]);
    let list = FileList::folder(folder.path(), FilesBudget::default()).unwrap();
    let reader = list.open(0).unwrap();
    let mut buffer = [0; 64];
    let read = |offset, buffer: &mut [u8]| reader.read(offset, buffer).unwrap();
    assert_eq!(read(0, &mut buffer), files::BlockRead { bytes: 64, is_last: false });
    assert_eq!(reader.block_bytes(64, 64), 36);
    std::fs::write(folder.path().join("a"), vec![1; 200]).unwrap();
    assert_eq!(read(64, &mut buffer), files::BlockRead { bytes: 36, is_last: true });
    std::fs::write(folder.path().join("a"), vec![1; 80]).unwrap();
    assert_eq!(read(64, &mut buffer), files::BlockRead { bytes: 16, is_last: true });
}

#[test]
fn the_toolchain_has_libraries() {
    let list = FileList::toolchain(FilesBudget::default()).unwrap();
    assert!(list.bytes() > 10 << 20, "{} bytes", list.bytes());
    assert!(list.bytes() <= FilesBudget::default().bytes_max);
}

proptest::proptest! {
    #[test]
    fn boundaries_never_depend_on_blocks(
        seed in "[a-z]{4}",
        bytes in 0_usize..60_000,
        block_bytes in 4096_usize..20_000,
    ) {
        let data = noise(&seed, bytes);
        let whole: Vec<(u64, u32)> =
            cut::cut(&data, true, SIZES).unwrap().chunks.iter().map(|chunk| (chunk.offset, chunk.bytes)).collect();
        let mut pieces = Vec::new();
        let mut start = 0;
        loop {
            let end = (start + block_bytes).min(data.len());
            let found = cut::cut(&data[start..end], end == data.len(), SIZES).unwrap();
            pieces.extend(found.chunks.iter().map(|chunk| (start as u64 + chunk.offset, chunk.bytes)));
            start += usize::try_from(found.consumed).unwrap();
            if end == data.len() {
                break;
            }
        }
        assert_eq!(whole, pieces);
        assert_eq!(whole.iter().map(|(_, bytes)| u64::from(*bytes)).sum::<u64>(), bytes as u64);
    }
}
