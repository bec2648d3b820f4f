//! Ranges that a lying peer may send, and a peer that writes while we read.

use super::*;
use crate::segment::Segment;

fn counted_segment() -> Arc<Segment> {
    let segment = Segment::heap(8192);
    for offset in 0..segment.len() {
        let value = u8::try_from(offset % 251).unwrap();
        // SAFETY: inside the segment, and no other thread has it yet.
        unsafe { segment.base().wrapping_add(offset).write(value) }
    }
    segment
}

#[test]
fn only_parts_of_the_segment_are_given_out() {
    let view = counted_segment().view();
    let check = |offset: u64, bytes: u64, good: bool| {
        let result = slice(&view, offset, bytes, 1);
        assert_eq!(result.is_ok(), good, "{bytes} bytes at {offset}");
        if let Ok(part) = result {
            let expected = (offset..offset + bytes).map(|at| u8::try_from(at % 251).unwrap());
            assert!(part.iter().copied().eq(expected.clone()), "in place");
            assert!(part.to_private().into_iter().eq(expected), "copied");
            assert_eq!(part.offset(), offset);
        }
    };
    check(0, 0, true);
    check(0, 8192, true);
    check(8192, 0, true);
    check(8191, 1, true);
    for offset in 0..9 {
        for bytes in 0..20 {
            check(offset, bytes, true);
        }
    }
    check(8191, 2, false);
    check(8193, 0, false);
    check(0, 8193, false);
    check(u64::MAX, 1, false);
    check(1, u64::MAX, false);
    check(u64::MAX, u64::MAX, false);
    check(1 << 63, 1 << 63, false);
}

#[test]
fn alignment_is_checked() {
    let view = counted_segment().view();
    let check = |offset, align, good: bool| {
        assert_eq!(slice(&view, offset, 8, align).is_ok(), good, "offset {offset} align {align}");
    };
    check(64, 64, true);
    check(4096, 4096, true);
    check(72, 64, false);
    check(7, 1, true);
    check(0, 0, false);
    check(0, 3, false);
}

#[test]
fn parts_stay_inside_their_whole() {
    let view = counted_segment().view();
    let whole = slice(&view, 100, 50, 1).unwrap();
    assert_eq!(*whole.part(10, 5).unwrap(), whole[10..15]);
    assert_eq!(whole.part(10, 40).unwrap().len(), 40);
    assert!(whole.part(10, 41).is_err());
    assert!(whole.part(u64::MAX, 2).is_err());
    assert!(whole.part(51, 0).is_err());
}

#[test]
fn bytes_keep_their_memory() {
    let bytes = slice(&counted_segment().view(), 3, 4, 1).unwrap();
    assert_eq!(*bytes, [3, 4, 5, 6]);
}

/// The writer changes every word between any two reads; each copied word must be one that it wrote.
#[test]
#[cfg(all(target_os = "linux", not(miri)))]
fn a_copy_taken_under_a_writer_is_made_of_whole_words() {
    use crate::segment::SegmentOptions;
    use std::sync::atomic::AtomicBool;

    let segment = Segment::create("test", 4096, SegmentOptions::default()).unwrap();
    let fd = segment.fd().unwrap().try_clone_to_owned().unwrap();
    let view = SegmentView::map(fd, 4096).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 0_u8;
            while !done.load(Ordering::Relaxed) {
                value = value.wrapping_add(1);
                for word in 0..512 {
                    let pattern = u64::from_ne_bytes([value; 8]);
                    #[expect(clippy::cast_ptr_alignment, reason = "multiples of 8 from a page")]
                    let place = segment.base().wrapping_add(word * 8).cast::<u64>();
                    // SAFETY: inside the segment and aligned; as atomics, so that no reader sees half a word.
                    let place = unsafe { AtomicU64::from_ptr(place) };
                    place.store(pattern, Ordering::Relaxed);
                }
            }
        });
        for _ in 0..2_000 {
            let copy = slice(&view, 0, 4096, 8).unwrap().to_private();
            for word in copy.chunks_exact(8) {
                assert!(word.iter().all(|&byte| byte == word[0]), "torn word {word:?}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
