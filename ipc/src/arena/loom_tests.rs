//! Every interleaving of readers that drop a block, the writer that loans it again, and a trim.

use loom::thread;

use super::*;

/// An arena whose class has one block in all, so that the next loan must be the same one.
fn one_block() -> Arc<Arena> {
    let size = limits::GRANULE_BYTES;
    Arena::new(ArenaConfig {
        segment_bytes_first: size,
        segment_bytes: size,
        bytes_max: size as u64,
        block_bytes_max: size,
        keep_bytes: size as u64,
        source: SegmentSource::Heap,
        ..ArenaConfig::default()
    })
}

/// Explores every schedule with up to three preemptions: a trim looks at each size class, which is too many steps for all
/// of them.
fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 20_000;
    builder.check(check);
}

fn read(block: &Block) {
    let _recorded: &[u8] = block;
}

fn write(loan: &mut Loan) {
    let _recorded: &mut [u8] = loan;
}

/// The path of a loan that finds a recycled block, and only that: growth would look at every size class.
fn recycled(arena: &Arena) -> Option<Loan> {
    let size = limits::GRANULE_BYTES;
    Some(Loan::new(arena.classes[class::of(size)].pop()?, size))
}

/// Needs Release and Acquire on `refs`: without them the write is not ordered after the other thread's read.
#[test]
fn loom_a_block_is_loaned_again_only_after_its_last_read() {
    model(|| {
        let arena = one_block();
        let mut loan = arena.loan(limits::GRANULE_BYTES, 1).unwrap();
        write(&mut loan);
        let block = loan.freeze();
        let reader = {
            let block = block.clone();
            thread::spawn(move || {
                read(&block);
                drop(block);
            })
        };
        read(&block);
        drop(block);
        // Succeeds once the other thread has let go.
        if let Some(mut again) = recycled(&arena) {
            write(&mut again);
        }
        reader.join().unwrap();
        let mut last = recycled(&arena).expect("both readers are gone");
        write(&mut last);
    });
}

/// Two threads never hold the same block, whoever comes first.
#[test]
fn loom_one_block_has_one_writer() {
    model(|| {
        let arena = one_block();
        drop(arena.loan(limits::GRANULE_BYTES, 1).unwrap());
        let other = {
            let arena = Arc::clone(&arena);
            thread::spawn(move || {
                if let Some(mut loan) = recycled(&arena) {
                    write(&mut loan);
                }
            })
        };
        if let Some(mut loan) = recycled(&arena) {
            write(&mut loan);
        }
        other.join().unwrap();
        let stats = arena.stats();
        assert_eq!((stats.live_blocks, stats.free_blocks), (0, 1));
    });
}

/// A trim takes only what nobody has, and nothing is lost.
#[test]
fn loom_a_trim_and_a_loan_agree_on_who_has_the_block() {
    model(|| {
        let arena = one_block();
        let block = arena.loan(limits::GRANULE_BYTES, 1).unwrap().freeze();
        let trimmer = {
            let arena = Arc::clone(&arena);
            thread::spawn(move || arena.trim(0))
        };
        drop(block);
        let mut loan = arena.loan(limits::GRANULE_BYTES, 1).expect("nobody else holds anything");
        write(&mut loan);
        trimmer.join().unwrap();
        let stats = arena.stats();
        assert_eq!((stats.live_blocks, stats.segments), (1, 1));
        drop(loan);
        arena.trim(0);
        assert_eq!(arena.stats().held_bytes, 0);
    });
}

/// A block that comes back while its arena is left behind is not loaned again, whichever is first.
#[test]
fn loom_what_is_left_behind_is_loaned_no_more() {
    model(|| {
        let arena = one_block();
        let block = arena.loan(limits::GRANULE_BYTES, 1).unwrap().freeze();
        let reader = block.clone();
        let other = thread::spawn(move || {
            read(&reader);
            drop(reader);
        });
        block.leave_behind();
        drop(block);
        other.join().unwrap();
        assert!(recycled(&arena).is_none());
        assert_eq!(arena.classes[class::of(limits::GRANULE_BYTES)].0.lock().chunks, 0);
    });
}
