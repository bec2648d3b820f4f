//! The table of leases against a map: any lends, returns and drains, with any numbers a peer may send.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use ringway_ipc::lease::{LeaseBytes, LeaseLimits, LeaseTable};

struct Bytes(u64);

impl LeaseBytes for Bytes {
    fn bytes(&self) -> u64 {
        self.0
    }
}

const LIMITS: LeaseLimits = LeaseLimits { leases_max: 6, bytes_max: 1000 };

fuzz_target!(|data: &[u8]| {
    let mut table = LeaseTable::with_limits(LIMITS);
    let mut model: BTreeMap<u32, u64> = BTreeMap::new();
    let mut last = 0u32;
    for step in data.chunks_exact(2) {
        let (what, value) = (step[0] % 8, step[1]);
        match what {
            0..3 => {
                let (bytes, held) = (u64::from(value), model.values().sum::<u64>());
                let fits = model.len() < LIMITS.leases_max as usize && held + bytes <= LIMITS.bytes_max;
                match table.lend(Bytes(bytes)) {
                    Ok(lease) => {
                        assert!(fits && lease != 0);
                        assert_eq!(model.insert(lease, bytes), None, "a number given out twice");
                        last = lease;
                    }
                    Err(_) => assert!(!fits),
                }
            }
            3 | 4 => {
                let at = usize::from(value) % model.len().max(1);
                let lease = model.keys().nth(at).copied().unwrap_or(last);
                let returned = table.give_back(lease).ok().map(|bytes| bytes.0);
                assert_eq!(returned, model.remove(&lease));
            }
            5 | 6 => {
                let lease = last.rotate_left(u32::from(value % 32)) ^ u32::from(value);
                let returned = table.give_back(lease).ok().map(|bytes| bytes.0);
                assert_eq!(returned, model.remove(&lease));
            }
            _ if value < 16 => {
                let drained: u64 = table.drain().iter().map(|bytes| bytes.0).sum();
                assert_eq!(drained, std::mem::take(&mut model).values().sum::<u64>());
            }
            _ => {}
        }
        assert_eq!((table.len(), table.bytes()), (model.len(), model.values().sum::<u64>()));
        let listed: BTreeMap<u32, u64> = table.iter().map(|(lease, bytes)| (lease, bytes.0)).collect();
        assert_eq!(listed, model);
    }
});
