//! Clients that do not read, and those beside them.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringway_worker_stream::Config as StreamConfig;
use ringway_worker_stream_socket::Config;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::stage::{config, join, stage, stage_with};

#[test]
fn a_client_that_does_not_read_harms_nobody_and_is_dropped() {
    let stage = stage(Config { stall_ms: 700, ..config() });
    let (mut slow, mut quick) = stage.run(async { (stage.connect().await, stage.connect().await) });
    stage.run(async {
        for client in [&mut slow, &mut quick] {
            client.say(join("s")).await;
            assert_eq!(client.hear().await["event"]["type"], "sync");
        }
    });
    let data = "x".repeat(200_000);
    let mut worst = Duration::ZERO;
    for number in 0..200 {
        let begun = Instant::now();
        stage.set("a", json!({"number": number, "data": data}));
        let heard = stage.run(quick.hear());
        assert_eq!(heard["event"]["data"]["number"], number);
        worst = worst.max(begun.elapsed());
    }
    // Each event reached the quick one while 40 MB lay before the slow one; had they waited for it, they had waited for its end.
    assert!(worst < Duration::from_secs(10), "{worst:?}");
    stage.bed.wait_until("the slow one is dropped", || stage.socket.counters().stalled == 1);
    stage.bed.wait_until("it is gone", || stage.socket.counters().clients == 1);
    // When it reads at last, it finds what was under way, and then the end.
    stage.run(async {
        let mut heard = 0;
        while let Some(Ok(message)) = slow.socket.next().await {
            heard += usize::from(matches!(message, Message::Text(_)));
        }
        assert!(heard < 200, "what it was sent was bounded, {heard}");
    });
}

#[test]
fn a_client_that_fell_behind_is_given_a_new_snapshot() {
    let stream = StreamConfig { subscriber_lag_max: 20, ..StreamConfig::default() };
    let stage = stage_with(config(), stream);
    let mut slow = stage.run(stage.connect());
    stage.run(async {
        slow.say(join("s")).await;
        assert_eq!(slow.hear().await["event"]["type"], "sync");
    });
    let data = "x".repeat(200_000);
    for number in 0..400 {
        stage.set("a", json!({"number": number, "data": data}));
    }
    stage.run(async {
        let (mut events, mut resync) = (0, false);
        loop {
            let heard = slow.hear().await;
            match heard["event"]["type"].as_str() {
                Some("resync") => resync = true,
                Some("sync") => {
                    assert!(resync, "a snapshot comes after the notice");
                    assert_eq!(heard["event"]["data"][0]["number"], 399, "it shows how things are");
                    break;
                }
                _ => events += 1,
            }
        }
        assert!(events < 400, "most were left out, {events}");
        slow.hear_nothing().await;
    });
}
