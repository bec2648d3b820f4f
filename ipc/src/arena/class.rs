//! Size classes: which block size serves a wish, and how many blocks are cut from one run. Pure arithmetic, used by
//! `arena` only. It must not know where blocks lie.
//!
//! From 256 B to 1 MiB there are 4 classes per doubling (at most a fifth of a block is unused), above it 16 (at most a
//! seventeenth). Every size is a multiple of 64 bytes, from 64 KiB on of a page, and above 1 MiB of a granule.

use crate::limits::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, GRANULE_BYTES, PAGE_BYTES};

/// Number of the class of 1 MiB, the last one with coarse steps.
const FINE: usize = 48;
const FINE_EXPONENT: usize = 20;
const FINE_STEPS: usize = 16;
const COARSE_EXPONENT: usize = 8;
const COARSE_STEPS: usize = 4;

const _: () = assert!(1 << COARSE_EXPONENT == BLOCK_BYTES_MIN);
const _: () = assert!(FINE == (FINE_EXPONENT - COARSE_EXPONENT) * COARSE_STEPS);
const _: () = assert!((1_usize << FINE_EXPONENT).is_multiple_of(FINE_STEPS * GRANULE_BYTES));
const _: () = assert!(bytes(FINE) == 1 << FINE_EXPONENT);

/// From this class on a block is cut from a run of its own.
pub(super) const LARGE: usize = FINE + 1;

/// Returns the smallest class with blocks of at least `wanted` bytes; `wanted` is at most [`BLOCK_BYTES_MAX`].
#[inline]
pub(super) const fn of(wanted: usize) -> usize {
    if wanted <= BLOCK_BYTES_MIN {
        return 0;
    }
    let exponent = (wanted - 1).ilog2() as usize;
    let above = wanted - (1 << exponent);
    if exponent < FINE_EXPONENT {
        let step = 1 << (exponent - 2);
        (exponent - COARSE_EXPONENT) * COARSE_STEPS + above.div_ceil(step)
    } else {
        let step = 1 << (exponent - 4);
        FINE + (exponent - FINE_EXPONENT) * FINE_STEPS + above.div_ceil(step)
    }
}

/// Returns the block size of a class.
#[inline]
pub(super) const fn bytes(class: usize) -> usize {
    if class == 0 {
        return BLOCK_BYTES_MIN;
    }
    if class <= FINE {
        let base = 1 << (COARSE_EXPONENT + (class - 1) / COARSE_STEPS);
        base + ((class - 1) % COARSE_STEPS + 1) * (base / COARSE_STEPS)
    } else {
        let base = 1 << (FINE_EXPONENT + (class - FINE - 1) / FINE_STEPS);
        base + ((class - FINE - 1) % FINE_STEPS + 1) * (base / FINE_STEPS)
    }
}

/// Returns the smallest class whose blocks have at least `wanted` bytes and start at a multiple of `align`, a power of
/// two up to a page.
#[inline]
pub(super) const fn aligned(wanted: usize, align: usize) -> usize {
    let mut class = of(if wanted > align { wanted } else { align });
    // Each doubling has a class that is a power of two, so this ends within one doubling.
    while !bytes(class).is_multiple_of(align) {
        class += 1;
    }
    class
}

/// Returns how many blocks of a class are cut from one run, and the run's size, a multiple of the granule.
pub(super) const fn run(class: usize) -> (usize, usize) {
    let block = bytes(class);
    if block <= PAGE_BYTES {
        (GRANULE_BYTES / block, GRANULE_BYTES)
    } else if block < GRANULE_BYTES {
        let run = 4 * GRANULE_BYTES;
        (run / block, run)
    } else {
        let mut blocks = 1;
        while !(block * blocks).is_multiple_of(GRANULE_BYTES) {
            blocks += 1;
        }
        (blocks, block * blocks)
    }
}

const _: () = assert!(bytes(of(1 << 40)) as u64 == BLOCK_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_gets_the_smallest_class_that_holds_it() {
        let check = |wanted, expected| assert_eq!(bytes(of(wanted)), expected, "{wanted}");
        check(0, 256);
        check(1, 256);
        check(256, 256);
        check(257, 320);
        check(320, 320);
        check(321, 384);
        check(512, 512);
        check(513, 640);
        check(65_537, 81_920);
        check((1 << 20) - 1, 1 << 20);
        check(1 << 20, 1 << 20);
        check((1 << 20) + 1, (1 << 20) + (1 << 16));
        check(1 << 32, 1 << 32);
        check(1 << 40, 1 << 40);
    }

    #[test]
    fn classes_rise_and_each_size_is_its_own_class() {
        for class in 0..=of(1 << 40) {
            let size = bytes(class);
            assert_eq!(of(size), class);
            assert_eq!(of(size - 1), class);
            assert!(class == 0 || bytes(class - 1) < size);
            assert!(size.is_multiple_of(64));
            assert!(size < 64 << 10 || size.is_multiple_of(PAGE_BYTES));
        }
    }

    #[test]
    fn runs_are_whole_granules_and_mostly_used() {
        for class in 0..=of(1 << 40) {
            let (blocks, run) = run(class);
            assert!(blocks >= 1 && run.is_multiple_of(GRANULE_BYTES) && blocks * bytes(class) <= run);
            let unused = run - blocks * bytes(class);
            assert!(unused * 8 <= run, "class {class} leaves {unused} of {run}");
            assert!(class < LARGE || (blocks, run) == (1, bytes(class)));
        }
    }

    #[test]
    fn blocks_of_an_aligned_class_are_aligned() {
        for shift in 0..=12 {
            let align = 1 << shift;
            for wanted in [1, 100, 300, 5000, 70_000, 2_000_000] {
                let size = bytes(aligned(wanted, align));
                assert!(size >= wanted && size.is_multiple_of(align), "{wanted} {align}");
                assert!(size <= (2 * wanted).max(2 * align).max(BLOCK_BYTES_MIN), "{wanted} {align}: {size}");
            }
        }
    }
}
