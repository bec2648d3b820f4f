//! The bytes of a link, as another host may send them, to channels with local peers behind: the harness stands beside the code.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    ringway_link::fuzzing::digest(data);
});
