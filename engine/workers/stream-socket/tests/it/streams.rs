//! What is told of streams: snapshot, events, the end, and what comes after a drop.

use futures_util::SinkExt;
use ringway::{Function, Worker};
use ringway_worker_bed::{PATIENCE, bind, hear};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::stage::{config, join, stage};

#[test]
fn a_client_is_told_what_is_there_and_what_happens() {
    let stage = stage(config());
    stage.set("a", json!({"text": "hello"}));
    stage.run(async {
        let mut client = stage.connect().await;
        client.say(join("s1")).await;
        let sync = client.hear().await;
        let wrapper = |event: Value, id: Value, heard: &Value| {
            json!({"type": "stream", "timestamp": heard["timestamp"], "streamName": "chat", "groupId": "room", "id": id,
                "event": event, "sequence": heard["sequence"]})
        };
        assert_eq!(sync, wrapper(json!({"type": "sync", "data": [{"text": "hello"}]}), Value::Null, &sync));
        assert_eq!(sync["sequence"], 1);
        let change = |item: &'static str, data: Value| tokio::task::block_in_place(|| stage.set(item, data));
        change("a", json!(2));
        change("b", json!(3));
        for (number, event, id) in [
            (2, json!({"type": "update", "data": 2}), "a"),
            (3, json!({"type": "create", "data": 3}), "b"),
        ] {
            let heard = client.hear().await;
            assert_eq!(heard, wrapper(event, json!(id), &heard));
            assert_eq!(heard["sequence"], number);
        }
        // One item alone, and the same name again.
        client.say(json!({"type": "join", "data": {"subscriptionId": "s2", "streamName": "chat", "groupId": "room", "id": "b"}})).await;
        assert_eq!(client.hear().await["event"], json!({"type": "sync", "data": 3}));
        client.say(json!({"type": "leave", "data": {"subscriptionId": "s1", "streamName": "chat", "groupId": "room"}})).await;
        // Whatever was asked before is done before this is answered.
        client.say(json!({"type": "ping"})).await;
        assert_eq!(client.hear().await, json!({"type": "pong"}));
        change("a", json!(4));
        change("b", json!(5));
        let heard = client.hear().await;
        assert_eq!((&heard["event"]["data"], &heard["id"]), (&json!(5), &json!("b")), "s1 has ended");
        client.hear_nothing().await;
        assert_eq!(stage.socket.counters().clients, 1);
    });
}

#[test]
fn after_a_drop_it_goes_on_behind_the_last_event() {
    let stage = stage(config());
    stage.run(async {
        let mut client = stage.connect().await;
        client.say(join("s")).await;
        assert_eq!(client.hear().await["event"]["type"], "sync");
        tokio::task::block_in_place(|| stage.set("a", json!(1)));
        let seen = client.hear().await["sequence"].clone();
        drop(client);
        tokio::task::block_in_place(|| (2..5).for_each(|data| stage.set("a", json!(data))));
        let mut client = stage.connect().await;
        let mut again = join("s");
        again["data"]["afterSequence"] = seen.clone();
        client.say(again).await;
        let resumed = json!({"type": "subscribed", "data": {"subscriptionId": "s", "afterSequence": seen}});
        assert_eq!(client.hear().await, resumed);
        for data in 2..5 {
            let heard = client.hear().await;
            assert_eq!(
                (&heard["event"], &heard["sequence"]),
                (&json!({"type": "update", "data": data}), &json!(data))
            );
        }
        client.hear_nothing().await;
    });
}

#[test]
fn the_stream_worker_may_go_and_come_back() {
    let mut stage = stage(config());
    stage.set("a", json!(1));
    let mut client = stage.run(stage.connect());
    stage.run(async {
        client.say(join("s")).await;
        assert_eq!(client.hear().await["event"]["type"], "sync");
    });
    stage.bed.restart();
    stage.set("a", json!(2));
    stage.run(async {
        let heard = client.hear().await;
        assert_eq!(
            (&heard["event"], &heard["sequence"]),
            (&json!({"type": "update", "data": 2}), &json!(2)),
            "{heard}"
        );
        client.hear_nothing().await;
    });
}

#[test]
fn what_cannot_be_read_is_answered_and_ends_nothing() {
    let stage = stage(config());
    stage.run(async {
        let mut client = stage.connect().await;
        for wrong in [json!("hello"), json!({"type": "shout"}), json!({"type": "join", "data": {}})] {
            client.say(wrong).await;
            let heard = client.hear().await;
            assert_eq!((&heard["type"], &heard["error"]["code"]), (&json!("error"), &json!("invalid_request")), "{heard}");
        }
        client.say(json!({"type": "join", "data": {"subscriptionId": "s", "streamName": "", "groupId": "x\u{0}".repeat(400)}})).await;
        let heard = client.hear().await;
        assert!(heard["type"] == "error" && heard["subscriptionId"] == "s" || heard["event"]["type"] == "sync", "{heard}");
        client.say(join("t")).await;
        assert_eq!(client.hear().await["event"]["type"], "sync");
        for _ in 0..120 {
            // It may be told to leave meanwhile.
            let _sent = client.socket.send(Message::text("7")).await;
        }
        let mut last = json!(null);
        for _ in 0..120 {
            last = client.hear().await;
            if last == json!(1008) {
                break;
            }
        }
        assert_eq!(last, 1008, "who says nothing else is no client");
    });
    assert!(stage.socket.counters().malformed > 100);
}

#[test]
fn those_who_join_and_leave_are_told_with_their_own_names() {
    let stage = stage(config());
    let keeper = Worker::builder("keeper").address(&stage.bed.address).connect().unwrap();
    let join_asked =
        |_: &ringway::Context, asked: Value| Ok(json!({"unauthorized": asked["group_id"] == "secret"}));
    keeper.register(Function::json("gate::ask", join_asked)).unwrap();
    bind(&keeper, "j", "stream:join", "gate::ask", json!({})).unwrap();
    let left = hear(&keeper, "gate::left");
    bind(&keeper, "l", "stream:leave", "gate::left", json!({})).unwrap();
    stage.run(async {
        let mut client = stage.connect().await;
        // Until the trigger is bound everybody is let in.
        let mut refused = join("mine");
        refused["data"]["groupId"] = json!("secret");
        loop {
            client.say(refused.clone()).await;
            let heard = client.hear().await;
            if heard["event"]["type"] == "unauthorized" {
                assert_eq!((&heard["groupId"], &heard["subscriptionId"]), (&json!("secret"), &json!("mine")));
                break;
            }
            assert_eq!(heard["event"]["type"], "sync", "{heard}");
        }
        client.say(join("mine")).await;
        assert_eq!(client.hear().await["event"]["type"], "sync");
    });
    // The client has gone; its subscription too.
    stage.bed.wait_until("all subscriptions end", || stage.socket.counters().subscriptions == 0);
    let told = loop {
        let told = left.recv_timeout(PATIENCE).unwrap();
        if told["group_id"] == "room" {
            break told;
        }
    };
    assert_eq!((&told["subscription_id"], &told["stream_name"]), (&json!("mine"), &json!("chat")), "{told}");
}
