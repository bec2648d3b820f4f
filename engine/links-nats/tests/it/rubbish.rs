//! Somebody on the server who publishes rubbish on every subject of a project: whatever it is, no engine ends, and when it is
//! over everybody knows and calls what is there.

use std::time::Duration;

use futures_lite::StreamExt;
use ringway::{Function, Worker};
use serde_json::json;

use crate::stage::{OnNats, until};
use crate::suite::{host, wait_for};
use crate::world::Random;

const SEEDS: u64 = 3;

/// All that is said in a project for a while.
async fn listen(client: &async_nats::Client, time: Duration) -> Vec<(String, Vec<u8>)> {
    let mut heard = Vec::new();
    let mut all = client.subscribe("ringway.shop.>").await.unwrap();
    let end = tokio::time::Instant::now() + time;
    while let Ok(Some(message)) = tokio::time::timeout_at(end, all.next()).await {
        // Of links there is much, and a part will do.
        if heard.len() < 4000 {
            heard.push((message.subject.to_string(), message.payload.to_vec()));
        }
    }
    heard
}

/// One message made of what was heard: replayed, cut off, with bytes that differ, or of nothing but chance.
fn rubbish(random: &mut Random, heard: &[(String, Vec<u8>)]) -> (String, Vec<u8>) {
    let mut index = |end: usize| usize::try_from(random.below(end.max(1) as u64)).unwrap();
    let (subject, _) = &heard[index(heard.len())];
    let (_, bytes) = &heard[index(heard.len())];
    let mut bytes = bytes.clone();
    match index(5) {
        0 => {}
        1 => bytes.truncate(index(bytes.len() + 1)),
        2 if !bytes.is_empty() => {
            for _ in 0..=index(8) {
                let at = index(bytes.len());
                bytes[at] ^= u8::try_from(1 + index(255)).unwrap();
            }
        }
        3 if !bytes.is_empty() => {
            // A digit of a number, so that it stays a message.
            let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
            if !digits.is_empty() {
                bytes[digits[index(digits.len())]] = b'0' + u8::try_from(index(10)).unwrap();
            }
        }
        _ => {
            let kind = [b'D', b'C', b'E', b'{', 0][index(5)];
            bytes = (0..index(3000)).map(|_| u8::try_from(index(256)).unwrap()).collect();
            bytes.insert(0, kind);
        }
    }
    (subject.clone(), bytes)
}

#[test]
fn rubbish_on_every_subject_harms_nobody_for_long() {
    let nats = OnNats::start();
    let first = host(&nats, &[]);
    let second = host(&nats, &[&first]);
    let (a, b) = (first.worker("a"), second.worker("b"));
    a.register(Function::json("a::double", |_, number: u64| Ok(number * 2))).unwrap();
    b.register(Function::json("b::triple", |_, number: u64| Ok(number * 3))).unwrap();
    wait_for(&a, "b::triple");
    wait_for(&b, "a::double");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        runtime.block_on(async {
            let client = async_nats::connect(nats.server.url()).await.unwrap();
            let listening = listen(&client, Duration::from_secs(2));
            let talk = tokio::task::spawn_blocking({
                // A host that comes and goes says everything that there is to say.
                let (server, caller) = (nats.server.url(), a.handle("b::triple"));
                move || {
                    let engine = crate::stage::engine();
                    let mut settings = ringway_links_nats::NatsSettings::new("shop", "guest");
                    settings.servers = vec![server];
                    let joined = crate::stage::join(&engine, settings, ringway_link::driver::Path::Probe);
                    let guest = Worker::builder("guest").address(engine.address()).connect().unwrap();
                    guest.register(Function::json("guest::own", |_, number: u64| Ok(number))).unwrap();
                    wait_for(&guest, "a::double");
                    for number in 0..50u64 {
                        assert_eq!(
                            guest.trigger_json("a::double", &json!(number)).unwrap(),
                            json!(number * 2)
                        );
                        caller.call(&ringway::Message::json(&number).unwrap()).unwrap();
                    }
                    drop((guest, joined));
                }
            });
            let (heard, talked) = futures_lite::future::zip(listening, talk).await;
            talked.unwrap();
            let of = |part: &str| heard.iter().filter(|(subject, _)| subject.contains(part)).count();
            for part in [".catalog", ".hello", ".to.", ".dial.", ".link."] {
                assert!(of(part) > 0, "nothing was said on {part} among {}", heard.len());
            }
            for _ in 0..10_000 {
                let (subject, bytes) = rubbish(&mut random, &heard);
                client.publish_with_reply(subject, "_INBOX.rubbish", bytes.into()).await.unwrap();
            }
            client.flush().await.unwrap();
        });
        until("both call each other", || {
            a.trigger_json("b::triple", &json!(seed)).is_ok_and(|told| told == json!(seed * 3))
                && b.trigger_json("a::double", &json!(seed)).is_ok_and(|told| told == json!(seed * 2))
        });
        until("both know what is there, and nothing else", || {
            [(&a, "b::triple"), (&b, "a::double")].iter().all(|(worker, far)| {
                let all = worker.catalog();
                let foreign =
                    all.workers.iter().filter(|worker| worker.remote.is_some()).map(|worker| worker.id);
                let foreign: Vec<_> = foreign.collect();
                let functions = all.functions.iter().filter(|function| foreign.contains(&function.worker));
                functions.map(|function| function.id.as_str()).eq([*far])
            })
        });
    }
}
