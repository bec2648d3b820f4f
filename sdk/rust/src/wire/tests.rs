//! What is composed is what is read: bodies around the size of a slot, up to 255 attachments, long metadata, tensors. And
//! every lease ends.

use proptest::prelude::*;
use ringway_ipc::arena::{Arena, ArenaConfig};
use ringway_ipc::channel::{ChannelConfig, KIND_RELEASE, Opening, Role as EndRole};
use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::sys::socket::seqpacket_pair;

use super::*;

fn end(socket: std::os::fd::OwnedFd, role: EndRole, worker: u64, peer_worker: u64) -> Opening {
    let config = ChannelConfig {
        channel: 1,
        worker,
        peer_worker,
        worker_bell: Doorbell::new().unwrap(),
        slot_count: 4,
        segment_bytes_max: 1 << 34,
        barrier_registered: false,
        barrier_before_sleep: false,
    };
    Opening::start(socket, role, config).unwrap()
}

fn pair() -> (Arc<Channel>, Arc<Channel>) {
    let (here, there) = seqpacket_pair().unwrap();
    let (first, second) = (end(here, EndRole::Caller, 1, 2), end(there, EndRole::Callee, 2, 1));
    let finish = |opening: Opening| Arc::new(opening.finish().unwrap().expect("both are there"));
    (finish(first), finish(second))
}

/// A message as plain values: body, whether it lies in a block, attachments (type, length in elements, dimensions).
#[derive(Debug, Clone)]
struct Plan {
    body: Vec<u8>,
    in_block: bool,
    attachments: Vec<(bool, u64, u64)>,
    metadata: usize,
}

fn plan() -> impl Strategy<Value = Plan> {
    let body = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..=10),
        8 => prop::collection::vec(any::<u8>(), 180..=200),
        2 => prop::collection::vec(any::<u8>(), 0..=5000),
    ];
    let count = prop_oneof![6 => Just(0usize), 6 => 1..=8usize, 1 => 9..=255usize];
    let attachments = count
        .prop_flat_map(|count| prop::collection::vec((any::<bool>(), 0..=40u64, 1..=5u64), count..=count));
    let metadata = prop_oneof![4 => Just(0usize), 4 => 1..=200usize, 1 => 65_000..=70_000usize];
    (body, any::<bool>(), attachments, metadata).prop_map(|(body, in_block, attachments, metadata)| Plan {
        body,
        in_block,
        attachments,
        metadata,
    })
}

fn block(arena: &Arc<Arena>, bytes: &[u8]) -> Payload {
    let mut loan = arena.loan(bytes.len(), 64).unwrap();
    loan.copy_from_slice(bytes);
    loan.freeze().into()
}

fn message(plan: &Plan, arena: &Arc<Arena>) -> Message {
    let mut message = if plan.in_block {
        Message::from_payload(Encoding::Msgpack, block(arena, &plan.body))
    } else {
        Message::new(Encoding::Msgpack, &plan.body)
    };
    for (at, (tensor, rows, columns)) in (0u8..=u8::MAX).cycle().zip(&plan.attachments) {
        let bytes = vec![at; usize::try_from(rows * columns * 4).unwrap()];
        let payload = block(arena, &bytes);
        message = message.attach(if *tensor {
            Attachment::tensor(payload, DType::F32, &[*rows, *columns]).unwrap()
        } else {
            Attachment::bytes(payload)
        });
    }
    message
}

fn take(channel: &Arc<Channel>) -> Option<(Header, Inline)> {
    let mut inline = Inline::default();
    let header = channel.try_lead().unwrap().poll(&mut inline).unwrap()?;
    Some((header, inline))
}

/// Takes the releases that came back.
fn take_releases(channel: &Arc<Channel>, from: &Arc<Channel>) {
    loop {
        while let Some((header, inline)) = take(channel) {
            assert_eq!(header.kind, KIND_RELEASE);
            channel.take_release(&header, &inline).unwrap();
        }
        if !from.overflowing() {
            return;
        }
        from.flush();
    }
}

fn read(channel: &Arc<Channel>, header: Header, inline: Inline) -> Result<Received, CloseReason> {
    let mut received = Received { header, inline, blocks: None };
    received.resolve(channel)?;
    Ok(received)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn what_is_composed_is_what_is_read(plan in plan()) {
        let (caller, callee) = pair();
        let arena = Arena::new(ArenaConfig::default());
        let metadata = (plan.metadata > 0).then(|| serde_json::Value::from("m".repeat(plan.metadata)));
        let meta = Meta { metadata: metadata.clone(), ..Meta::default() };
        let mut header = Header { kind: 1, invocation: 7, ..Header::default() };
        let sent = message(&plan, &arena);
        let (inline, leases) = compose(&caller, &Memory::shared(&arena), &mut header, &sent, &meta).unwrap();
        drop(sent);
        prop_assert!(header.check());
        caller.send(&header, &inline).unwrap();
        prop_assert_eq!(caller.stats().leases, leases.len() as u64);

        let (header, inline) = take(&callee).unwrap();
        let received = read(&callee, header, inline).unwrap();
        prop_assert_eq!(received.body(), &plan.body[..]);
        // Metadata that does not fit its length field is left out, and nothing else with it.
        let text = serde_json::to_string(&metadata).unwrap_or_default();
        let expected = metadata.filter(|_| text.len() <= usize::from(u16::MAX));
        prop_assert_eq!(Meta::decode(received.meta()).metadata, expected);
        let read = received.into_message();
        prop_assert_eq!(read.encoding(), Encoding::Msgpack);
        prop_assert_eq!(read.body(), &plan.body[..]);
        prop_assert_eq!(read.attachments().len(), plan.attachments.len());
        for ((at, (tensor, rows, columns)), part) in (0u8..=u8::MAX).cycle().zip(&plan.attachments).zip(read.attachments()) {
            prop_assert_eq!(part.payload().len(), rows * columns * 4);
            prop_assert!(part.payload().iter().all(|byte| *byte == at));
            let shape = if *tensor { vec![*rows, *columns] } else { Vec::new() };
            prop_assert_eq!(part.shape(), &shape[..]);
        }

        drop(read);
        take_releases(&caller, &callee);
        prop_assert_eq!(caller.stats().leases, 0);
        prop_assert_eq!(arena.stats().live_blocks, 0);
        prop_assert_eq!((caller.close_reason(), callee.close_reason()), (None, None));
    }
}

#[test]
fn a_frame_that_is_not_sent_lends_nothing() {
    let (caller, _callee) = pair();
    let arena = Arena::new(ArenaConfig::default());
    let mut message = Message::bytes(&[1; 500]);
    for _ in 0..=ATTACHMENTS_MAX {
        message = message.attach(Attachment::bytes(block(&arena, &[1])));
    }
    let error = compose(&caller, &Memory::shared(&arena), &mut Header::default(), &message, &Meta::default())
        .unwrap_err();
    drop(message);
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    assert_eq!((caller.stats().leases, arena.stats().live_blocks), (0, 0));
}

#[test]
fn plain_bytes_may_lie_beside_a_tensor() {
    let (caller, callee) = pair();
    let arena = Arena::new(ArenaConfig::default());
    let plan =
        Plan { body: vec![1], in_block: false, attachments: vec![(false, 2, 1), (true, 2, 1)], metadata: 0 };
    let mut header = Header { kind: 1, ..Header::default() };
    let (inline, _leases) =
        compose(&caller, &Memory::shared(&arena), &mut header, &message(&plan, &arena), &Meta::default())
            .unwrap();
    caller.send(&header, &inline).unwrap();
    let (header, inline) = take(&callee).unwrap();
    let received = read(&callee, header, inline).unwrap().into_message();
    assert_eq!(received.attachments()[1].shape(), [2, 1]);
}

#[test]
fn a_scalar_has_the_size_of_its_type() {
    for (bytes, sound) in [(4, true), (3, false)] {
        let (caller, callee) = pair();
        let arena = Arena::new(ArenaConfig::default());
        let mut descriptor = caller.lend(block(&arena, &vec![0; bytes])).unwrap();
        descriptor.dtype = DType::F32.to_u8();
        let mut inline = Inline::default();
        inline.set_descriptor(0, &descriptor);
        let header = Header { kind: 1, inline_len: 32, attachments: 1, ..Header::default() };
        assert_eq!(read(&callee, header, inline).is_ok(), sound);
    }
}

#[test]
fn what_is_kept_apart_is_copied() {
    let (caller, callee) = pair();
    let (own, apart) = (Arena::new(ArenaConfig::default()), Arena::new(ArenaConfig::default()));
    let message = Message::from_payload(Encoding::Bytes, block(&own, &[7; 3000]))
        .attach(Attachment::bytes(block(&own, &[8; 10])))
        .attach(Attachment::bytes(block(&own, &[])));
    let memory = Memory { arena: Arc::clone(&apart), apart: true };
    let mut header = Header { kind: 1, ..Header::default() };
    let (inline, leases) = compose(&caller, &memory, &mut header, &message, &Meta::default()).unwrap();
    drop(message);
    assert_eq!(own.stats().live_blocks, 0, "nothing of the first arena is lent");
    assert_eq!((apart.stats().live_blocks, leases.len()), (3, 3));
    caller.send(&header, &inline).unwrap();
    let (header, inline) = take(&callee).unwrap();
    let read = self::read(&callee, header, inline).unwrap().into_message();
    assert_eq!((read.body(), read.attachments().len()), (&[7; 3000][..], 2));
    assert_eq!(&read.attachments()[0].payload()[..], [8; 10]);
}

#[test]
fn an_archive_in_a_block_is_copied_before_it_is_read() {
    let (caller, callee) = pair();
    let arena = Arena::new(ArenaConfig::default());
    let message = Message::from_payload(Encoding::Rkyv, block(&arena, &[7; 3000]));
    let mut header = Header { kind: 1, ..Header::default() };
    let (inline, _leases) =
        compose(&caller, &Memory::shared(&arena), &mut header, &message, &Meta::default()).unwrap();
    caller.send(&header, &inline).unwrap();
    let (header, inline) = take(&callee).unwrap();
    let received = read(&callee, header, inline).unwrap();
    let archive = received.archive();
    assert_eq!(archive.bytes(), [7; 3000]);
    let lent = received.blocks.as_ref().unwrap().body.as_ref().unwrap();
    assert!(!std::ptr::eq(archive.bytes().as_ptr(), lent.as_ptr()), "read where the peer can write");
}
