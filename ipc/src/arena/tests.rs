//! What loans and blocks promise, limits, growth and shrinking, and everything at once against a simple model.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn heap(change: impl FnOnce(&mut ArenaConfig)) -> Arc<Arena> {
    let mut config = ArenaConfig {
        source: SegmentSource::Heap,
        segment_bytes_first: 256 * KIB,
        segment_bytes: MIB,
        bytes_max: 8 * MIB as u64,
        block_bytes_max: 4 * MIB,
        keep_bytes: 4 * MIB as u64,
        ..ArenaConfig::default()
    };
    change(&mut config);
    Arena::new(config)
}

#[test]
fn what_a_loan_writes_a_block_shows() {
    let arena = heap(|_| {});
    let mut loan = arena.loan(1000, 1).unwrap();
    assert_eq!((loan.len(), loan.capacity()), (1000, 1024));
    loan.fill(7);
    loan[999] = 8;
    assert!(loan.set_len(1024) && !loan.set_len(1025));
    assert!(loan.set_len(1000));
    let block = loan.freeze();
    assert_eq!((block[0], block[999], block.len()), (7, 8, 1000));

    // The same bytes through the segment, as a peer sees them.
    let seen = crate::foreign::slice(&block.segment().view(), block.offset(), block.len(), 64).unwrap();
    assert_eq!(*seen, *block);

    let part = block.part(998..1000).unwrap();
    assert_eq!((&*part, part.offset()), (&[7, 8][..], block.offset() + 998));
    assert!(block.part(998..1001).is_none());
    drop(block);
    assert_eq!(arena.stats().live_blocks, 1, "a part keeps the block");
    drop(part);
    assert_eq!(arena.stats().live_blocks, 0);
}

#[test]
fn what_was_left_behind_stays_as_it_is_and_goes_with_its_last_reader() {
    let gone = Arc::new(std::sync::Mutex::new(Vec::new()));
    let arena = heap(|_| {});
    let told = Arc::clone(&gone);
    arena.on_segment_freed(move |id| told.lock().unwrap().push(id));
    let mut loan = arena.loan(5000, 1).unwrap();
    loan.fill(1);
    let kept = loan.freeze();
    // As a peer sees it, which says nothing when it is done.
    let seen = crate::foreign::slice(&kept.segment().view(), kept.offset(), kept.len(), 64).unwrap();
    let in_use = arena.loan(100_000, 1).unwrap();
    let segment = Arc::downgrade(kept.segment());
    let before: Vec<SegmentId> = arena.segments().iter().map(|(id, _)| *id).collect();
    let last = before[before.len() - 1];
    kept.leave_behind();
    drop(kept);
    assert_eq!(*gone.lock().unwrap(), before);
    let stats = arena.stats();
    assert_eq!((stats.segments, stats.held_bytes, stats.free_blocks, stats.live_blocks), (0, 0, 0, 1));
    for len in [5000, 100_000, 300_000] {
        let mut loan = arena.loan(len, 1).unwrap();
        loan.fill(2);
        assert!(loan.freeze().segment_id() > last);
    }
    assert!(seen.iter().all(|byte| *byte == 1));
    // Said again of the old memory, it leaves the new one as it is.
    let free = arena.stats().free_blocks;
    in_use.freeze().leave_behind();
    let stats = arena.stats();
    assert_eq!((stats.live_blocks, stats.free_blocks), (0, free));
    drop(seen);
    assert!(segment.upgrade().is_none(), "its last reader has gone");
}

#[test]
fn the_warmest_block_is_loaned_again() {
    let arena = heap(|_| {});
    let place = |loan: &Loan| loan.as_ptr().addr();
    let first = arena.loan(5000, 1).unwrap();
    let second = arena.loan(5000, 1).unwrap();
    let (first_at, second_at) = (place(&first), place(&second));
    drop(first);
    drop(second);
    assert_eq!(place(&arena.loan(5000, 1).unwrap()), second_at);
    let again = arena.loan(5000, 1).unwrap();
    assert_eq!(place(&again), second_at);
    assert_eq!(place(&arena.loan(5000, 1).unwrap()), first_at);
}

#[test]
fn clones_share_a_block_and_the_last_one_frees_it() {
    let arena = heap(|_| {});
    let block = arena.loan(10, 1).unwrap().freeze();
    let clones: Vec<Block> = (0..5).map(|_| block.clone()).collect();
    drop(block);
    assert_eq!(arena.stats().live_blocks, 1);
    drop(clones);
    assert_eq!(arena.stats().live_blocks, 0);
}

#[test]
fn blocks_are_aligned() {
    let arena = heap(|_| {});
    let check = |len: usize, align: usize, expected: usize| {
        let loans: Vec<Loan> = (0..5).map(|_| arena.loan(len, align).unwrap()).collect();
        for loan in loans {
            assert!(loan.as_ptr().addr().is_multiple_of(expected), "{len} bytes aligned to {align}");
        }
    };
    check(1, 1, 64);
    check(300, 8, 64);
    check(300, 128, 128);
    check(300, 4096, 4096);
    check(5000, 2048, 2048);
    check(64 * KIB, 1, 4096);
    check(80 * KIB, 1, 4096);
    check(100 * KIB, 1, 4096);
    for wrong in [0, 3, 65, 8192, usize::MAX] {
        let error = arena.loan(1, wrong).unwrap_err();
        assert!(matches!(error, ArenaError::Alignment { align_max: 4096, .. }), "{wrong}: {error}");
    }
}

#[test]
fn the_largest_class_fits_the_strictest_alignment() {
    let arena = heap(|config| config.block_bytes_max = 5000);
    assert_eq!(arena.loan(5000, 4096).unwrap().capacity(), 8192);
    assert!(matches!(arena.loan(5001, 1), Err(ArenaError::TooLarge { wanted: 5001, block_bytes_max: 5000 })));
    assert_eq!(arena.stats().failures, 1);
}

#[test]
fn a_full_arena_says_so_and_recovers() {
    let arena = heap(|config| config.bytes_max = 2 * MIB as u64);
    let blocks: Vec<Loan> = (0..4).map(|_| arena.loan(512 * KIB, 1).unwrap()).collect();
    let error = arena.loan(1, 1).unwrap_err();
    assert!(matches!(error, ArenaError::Full { held_bytes: 0x20_0000, bytes_max: 0x20_0000, .. }), "{error}");
    assert!(error.to_string().contains("bytes_max"));
    drop(blocks);
    // Everything is cut into 512 KiB blocks; a block of another size takes their place.
    assert_eq!(arena.loan(2 * MIB, 1).unwrap().len(), 2 * MIB);
    assert_eq!(arena.stats().failures, 1);
}

#[test]
fn segments_double_up_to_their_full_size_and_large_blocks_have_their_own() {
    let arena = heap(|_| {});
    let sizes = |arena: &Arena| -> Vec<usize> {
        arena.segments().iter().map(|(_, segment)| segment.len() / KIB).collect()
    };
    let small: Vec<Loan> = (0..40).map(|_| arena.loan(64 * KIB, 1).unwrap()).collect();
    assert_eq!(sizes(&arena), [256, 256, 512, 1024, 1024]);
    let large = arena.loan(3 * MIB, 1).unwrap();
    assert_eq!(sizes(&arena), [256, 256, 512, 1024, 1024, 3072]);
    drop((small, large));
    arena.trim(u64::MAX);
    assert_eq!(arena.stats().segments, 6);
    arena.trim(0);
    let stats = arena.stats();
    assert_eq!((stats.segments, stats.held_bytes, stats.free_bytes, stats.uncut_bytes), (0, 0, 0, 0));
    assert_eq!((stats.grows, stats.shrinks), (6, 6));
}

#[test]
fn free_memory_beyond_the_threshold_goes_back_by_itself() {
    let arena = heap(|config| config.keep_bytes = 2 * MIB as u64);
    let kept = arena.loan(100, 1).unwrap();
    let large: Vec<Loan> = (0..3).map(|_| arena.loan(2 * MIB, 1).unwrap()).collect();
    assert_eq!(arena.stats().segments, 4);
    drop(large);
    let stats = arena.stats();
    assert_eq!((stats.segments, stats.shrinks), (2, 2), "one of the three stays warm: {stats:?}");
    drop(kept);
}

#[test]
fn a_trim_leaves_blocks_in_use_alone() {
    let arena = heap(|_| {});
    let mut loans: Vec<Loan> = (0..300).map(|_| arena.loan(1000, 1).unwrap()).collect();
    for (index, loan) in loans.iter_mut().enumerate() {
        loan.fill(u8::try_from(index % 256).unwrap());
    }
    let mut keep = true;
    let mut number = 0;
    loans.retain(|_| {
        keep = number % 64 == 5;
        number += 1;
        keep
    });
    arena.trim(0);
    for loan in &loans {
        assert!(loan.iter().all(|&byte| byte == loan[0] && byte % 64 == 5));
    }
    assert_eq!(arena.stats().live_blocks, 5);
}

#[test]
fn a_large_wish_takes_a_slightly_larger_warm_block() {
    let arena = heap(|_| {});
    drop(arena.loan(18 * MIB / 8, 1).unwrap());
    let grows = arena.stats().grows;
    let loan = arena.loan(17 * MIB / 8, 1).unwrap();
    assert_eq!((arena.stats().grows, loan.len(), loan.capacity()), (grows, 17 * MIB / 8, 18 * MIB / 8));
}

#[test]
fn segments_are_announced_before_their_blocks_and_told_when_they_go() {
    let arena = heap(|_| {});
    let early = arena.loan(100, 1).unwrap().freeze();
    let known = Arc::new(Mutex::new(BTreeMap::new()));
    {
        let known = Arc::clone(&known);
        arena.on_segment(move |id, segment| assert!(known.lock().insert(id, segment.len()).is_none()));
    }
    {
        let known = Arc::clone(&known);
        arena.on_segment_freed(move |id| assert!(known.lock().remove(&id).is_some()));
    }
    assert!(known.lock().contains_key(&early.segment_id()), "what was there is announced too");
    let later: Vec<Block> = (0..20).map(|_| arena.loan(100 * KIB, 1).unwrap().freeze()).collect();
    for block in &later {
        assert_eq!(known.lock().get(&block.segment_id()), Some(&block.segment().len()));
    }
    drop((early, later));
    arena.trim(0);
    assert!(known.lock().is_empty());
}

#[test]
fn reserved_blocks_cost_no_growth() {
    let arena = heap(|_| {});
    arena.reserve(100 * KIB, 1, 5).unwrap();
    let grows = arena.stats().grows;
    let _loans: Vec<Loan> = (0..5).map(|_| arena.loan(100 * KIB, 1).unwrap()).collect();
    assert_eq!(arena.stats().grows, grows);
}

#[test]
fn a_block_outlives_its_arena() {
    let arena = heap(|_| {});
    let mut loan = arena.loan(3000, 1).unwrap();
    loan.fill(5);
    let block = loan.freeze();
    let segment = Arc::downgrade(block.segment());
    drop(arena);
    assert!(block.iter().all(|&byte| byte == 5));
    drop(block);
    assert_eq!(segment.strong_count(), 0, "the last block takes its segment along");
}

#[test]
fn threads_share_one_arena() {
    let arena = heap(|config| config.keep_bytes = MIB as u64);
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (arena, total) = (&arena, &total);
            scope.spawn(move || {
                let mut held: Vec<Block> = Vec::new();
                for round in 0..if cfg!(miri) { 20 } else { 2_000 } {
                    let len = (usize::from(thread) * 977 + round * 331)
                        % (if round % 97 == 0 { 300 * KIB } else { 3000 });
                    let mut loan = arena.loan(len, 1).unwrap();
                    loan.fill(thread);
                    held.push(loan.freeze());
                    if held.len() > 8 {
                        let block = held.swap_remove(round % 8);
                        assert!(block.iter().all(|&byte| byte == thread), "another thread wrote our block");
                    }
                    if round % 500 == 0 {
                        arena.trim(0);
                    }
                }
                total.fetch_add(held.len() as u64, Ordering::Relaxed);
            });
        }
    });
    let stats = arena.stats();
    assert_eq!(stats.live_blocks, 0);
    assert_eq!(total.into_inner(), 32);
}

/// On a heap segment, whose pages exist only once they are touched, so the test needs three of them.
#[cfg(not(miri))]
#[test]
fn a_block_of_more_than_four_gib_is_one_block() {
    let len = (4_usize << 30) + 5;
    let arena = heap(|config| {
        config.block_bytes_max = 8 << 30;
        config.bytes_max = 8 << 30;
    });
    let mut loan = arena.loan(len, 4096).unwrap();
    for (offset, value) in [(0, 1), (4 << 30, 2), (len - 1, 3)] {
        loan[offset] = value;
    }
    let block = loan.freeze();
    assert_eq!((block.len(), block[0], block[4 << 30], block[len - 1]), (len as u64, 1, 2, 3));
    let part = block.part(4 << 30..(4 << 30) + 5).unwrap();
    let seen = crate::foreign::slice(&part.segment().view(), part.offset(), part.len(), 64).unwrap();
    assert_eq!(seen.to_private(), [2, 0, 0, 0, 3]);
    drop((block, part));
    assert_eq!(arena.stats().held_bytes, 0, "far beyond what is kept warm");
}

/// Handles travel in requests and tables; a size that changes should be a decision.
#[test]
#[cfg(target_pointer_width = "64")]
fn handles_have_their_sizes() {
    assert_eq!((size_of::<Loan>(), size_of::<Block>(), size_of::<Option<Block>>()), (24, 24, 32));
    assert_eq!((size_of::<Class>(), align_of::<Class>()), (128, 64));
}

#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn a_peer_maps_the_segment_of_a_shared_block() {
    let config = ArenaConfig { bytes_max: 64 * MIB as u64, prefault: true, ..ArenaConfig::default() };
    let arena = Arena::new(config);
    let mut loan = arena.loan(16 * MIB, 1).unwrap();
    loan[16 * MIB - 1] = 9;
    let block = loan.freeze();
    let fd = block.segment().fd().unwrap().try_clone_to_owned().unwrap();
    let view = crate::segment::SegmentView::map(fd, 1 << 30).unwrap();
    let bytes = crate::foreign::slice(&view, block.offset(), block.len(), 4096).unwrap();
    assert_eq!(bytes[16 * MIB - 1], 9);
}

#[derive(Clone, Debug)]
enum Step {
    Loan(usize, usize),
    Freeze(usize),
    Clone(usize),
    Drop(usize),
    Trim(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![5 => 0..2000_usize, 3 => 0..200 * KIB, 1 => 0..5 * MIB];
    prop_oneof![
        8 => (len, 0..13_u32).prop_map(|(len, shift)| Step::Loan(len, 1 << shift)),
        3 => any::<usize>().prop_map(Step::Freeze),
        3 => any::<usize>().prop_map(Step::Clone),
        8 => any::<usize>().prop_map(Step::Drop),
        1 => (0..4 * MIB as u64).prop_map(Step::Trim),
    ]
}

enum Held {
    Loan(Loan),
    Block(Block),
}

impl Held {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Loan(loan) => loan,
            Self::Block(block) => block,
        }
    }
}

/// Marks both ends of a loan: an overlap with any other shows, without touching every byte.
fn mark(bytes: &mut [u8], tag: u64) {
    let tag = tag.to_le_bytes();
    let ends = bytes.len().min(8);
    bytes[..ends].copy_from_slice(&tag[..ends]);
    let tail = bytes.len() - ends;
    bytes[tail..].copy_from_slice(&tag[..ends]);
}

fn is_marked(bytes: &[u8], tag: u64) -> bool {
    let mut expected = bytes.to_vec();
    mark(&mut expected, tag);
    expected == bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The model: a list of what is held, each with its own tag, and the places it covers.
    #[test]
    fn held_blocks_never_overlap_and_keep_their_bytes(steps in prop::collection::vec(step(), 0..120)) {
        let arena = heap(|_| {});
        let mut held: Vec<(Held, u64)> = Vec::new();
        for (tag, step) in (1_u64..).zip(steps) {
            match step {
                Step::Loan(len, align) => match arena.loan(len, align) {
                    Ok(mut loan) => {
                        prop_assert!(loan.len() == len && loan.as_ptr().addr().is_multiple_of(align.max(64)));
                        mark(&mut loan, tag);
                        held.push((Held::Loan(loan), tag));
                    }
                    Err(ArenaError::TooLarge { .. }) => prop_assert!(len > 4 * MIB),
                    Err(ArenaError::Full { wanted, held_bytes, bytes_max }) => {
                        prop_assert!(wanted + held_bytes > bytes_max && !held.is_empty());
                    }
                    Err(error) => prop_assert!(false, "{error}"),
                },
                Step::Freeze(choice) if !held.is_empty() => {
                    let index = choice % held.len();
                    let (entry, tag) = held.swap_remove(index);
                    let entry = match entry {
                        Held::Loan(loan) => Held::Block(loan.freeze()),
                        block @ Held::Block(_) => block,
                    };
                    held.push((entry, tag));
                }
                Step::Clone(choice) if !held.is_empty() => {
                    let (entry, tag) = &held[choice % held.len()];
                    if let Held::Block(block) = entry {
                        let (clone, tag) = (block.clone(), *tag);
                        held.push((Held::Block(clone), tag));
                    }
                }
                Step::Drop(choice) if !held.is_empty() => {
                    held.swap_remove(choice % held.len());
                }
                Step::Freeze(_) | Step::Clone(_) | Step::Drop(_) => {}
                Step::Trim(keep) => arena.trim(keep),
            }
            let mut places: BTreeMap<usize, (usize, u64)> = BTreeMap::new();
            for (entry, tag) in &held {
                places.insert(entry.bytes().as_ptr().addr(), (entry.bytes().len(), *tag));
            }
            let pairs = places.iter().zip(places.iter().skip(1));
            for ((start, (len, _)), (next, _)) in pairs {
                prop_assert!(start + len <= *next, "two blocks overlap");
            }
            let stats = arena.stats();
            prop_assert_eq!(stats.live_blocks, places.len() as u64);
            prop_assert!(stats.held_bytes <= 8 * MIB as u64);
            prop_assert!(stats.live_bytes + stats.free_bytes + stats.uncut_bytes <= stats.held_bytes);
        }
        for (entry, tag) in &held {
            prop_assert!(is_marked(entry.bytes(), *tag));
        }
        drop(held);
        arena.trim(0);
        prop_assert_eq!(arena.stats().held_bytes, 0);
    }
}
