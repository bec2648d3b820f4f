//! An arena against a list of what was loaned: any loans, parts, clones and trims. Every block is aligned, no two overlap
//! (each is filled with its own byte and read again before it goes), and at the end nothing is live.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_ipc::arena::{Arena, ArenaConfig, Block, SegmentSource};

fuzz_target!(|data: &[u8]| {
    let source = SegmentSource::Heap;
    let arena = Arena::new(ArenaConfig {
        source,
        bytes_max: 8 << 20,
        segment_bytes: 1 << 20,
        ..ArenaConfig::default()
    });
    let mut held: Vec<(u8, Block)> = Vec::new();
    for (mark, step) in (0..=u8::MAX).cycle().zip(data.chunks_exact(4)) {
        let value = usize::from(step[1]) | usize::from(step[2]) << 8;
        match step[0] % 6 {
            0..3 => {
                let len = value << (step[3] % 6);
                let align = 1usize << (step[0] / 6 % 13);
                let Ok(mut loan) = arena.loan(len, align) else { continue };
                assert!(loan.len() == len && loan.capacity() >= len);
                assert!(loan.as_ptr().addr().is_multiple_of(align));
                loan.fill(mark);
                let block = loan.freeze();
                assert_eq!(block.len(), len as u64);
                held.push((mark, block));
            }
            3 if !held.is_empty() => {
                let (mark, block) = held.swap_remove(value % held.len());
                assert!(block.iter().all(|byte| *byte == mark), "another block's bytes");
            }
            4 if !held.is_empty() => {
                let (mark, block) = held[value % held.len()].clone();
                let (start, end) = (u64::from(step[3]), u64::from(step[3]) + value as u64);
                match block.part(start..end) {
                    Some(part) => held.push((mark, part)),
                    None => assert!(end > block.len()),
                }
            }
            _ => arena.trim(value as u64),
        }
    }
    assert!(held.iter().all(|(mark, block)| block.iter().all(|byte| byte == mark)));
    drop(held);
    let stats = arena.stats();
    assert_eq!((stats.live_blocks, stats.live_bytes), (0, 0));
});
