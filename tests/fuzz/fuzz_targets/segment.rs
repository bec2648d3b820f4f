//! A channel segment with any bytes in it, sealed as a peer must seal it: its facts, the frames in its slots, its
//! progress line. Whatever it says ends in frames that fit a slot, or in an error.
#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use libfuzzer_sys::fuzz_target;
use ringway_ipc::frame::{Header, Inline};
use ringway_ipc::layout::{self, Facts};
use ringway_ipc::ring::{Consumer, EndMemory, Producer, SleepFence};
use ringway_ipc::segment::SegmentView;
use rustix::fs::{MemfdFlags, SealFlags};

const SLOTS: u32 = 4;

fuzz_target!(|data: &[u8]| {
    let Some((&sound, bytes)) = data.split_first() else { return };
    let Ok(view) = SegmentView::map(sealed(sound & 1 == 1, bytes), 1 << 20) else { return };
    let Ok((peer, facts)) = EndMemory::map(view) else { return };
    assert!(facts.slot_count.is_power_of_two());
    consume(&peer);
    produce(&peer);
});

/// A memfd of two pages, sealed for good. With `sound` facts the bytes fill progress lines and slots; without, all.
fn sealed(sound: bool, bytes: &[u8]) -> OwnedFd {
    let mut content = vec![0; 8192];
    let start = if sound { 128 } else { 0 };
    if sound {
        let facts = Facts { slot_count: SLOTS, flags: 0, owner: 1, channel: 1 };
        let page = layout::EndPage::empty();
        page.initialise(facts);
        for (place, word) in content.chunks_exact_mut(8).zip(&page.facts) {
            place.copy_from_slice(&word.load(std::sync::atomic::Ordering::Relaxed).to_le_bytes());
        }
    }
    // The unused rest of page 0 is left out, so that short inputs reach the slots.
    let (front, slots) = bytes.split_at(bytes.len().min(512 - start));
    content[start..start + front.len()].copy_from_slice(front);
    let slots = &slots[..slots.len().min(4096)];
    content[layout::SLOTS_OFFSET..layout::SLOTS_OFFSET + slots.len()].copy_from_slice(slots);

    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("fuzz", flags).expect("a memfd"));
    file.write_all(&content).expect("room for two pages");
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).expect("seals");
    file.into()
}

fn consume(peer: &EndMemory) {
    let mut consumer = Consumer::new(EndMemory::heap(SLOTS), peer.clone());
    let mut inline = Inline::default();
    for _ in 0..=layout::SLOT_COUNT_MAX {
        match consumer.poll(&mut inline) {
            Ok(Some(header)) => assert!(header.check()),
            Ok(None) | Err(_) => return,
        }
    }
    panic!("a segment that nobody writes gave more frames than it has slots");
}

fn produce(peer: &EndMemory) {
    let mut producer = Producer::new(EndMemory::heap(SLOTS), peer.clone(), SleepFence::Both);
    for _ in 0..64 {
        if producer.push(&Header::default(), &Inline::default()).is_err() {
            return;
        }
    }
    panic!("a peer that consumes nothing was sent more frames than fit");
}
