//! Channels over real sockets, and between those and native workers.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::select;
use futures_util::{SinkExt, StreamExt};
use ringway::{CallError, ChannelPair, ChannelRef, ErrorCode, Message as Native, Worker};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::stage::Stage as Bed;

pub(crate) type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long something may take that must happen, and how long something is waited for that must not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(200);

pub(crate) struct Stage {
    pub(crate) worker: Worker,
    runtime: Runtime,
    pub(crate) bed: Bed,
}

pub(crate) fn stage() -> Stage {
    let bed = Bed::new();
    let worker = bed.native("client");
    worker.wait_for("engine::channels::create", PATIENCE).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    Stage { worker, runtime, bed }
}

impl Stage {
    fn pair(&self) -> ChannelPair {
        self.worker.create_channel().unwrap()
    }

    fn address(&self, end: &ChannelRef) -> String {
        let ChannelRef { channel_id, access_key, direction } = end;
        format!(
            "ws://{}/ws/channels/{channel_id}?key={access_key}&dir={direction}",
            self.bed.face.addresses()[0]
        )
    }

    async fn open(&self, end: &ChannelRef) -> Client {
        connect_async(self.address(end)).await.unwrap().0
    }

    async fn refused(&self, address: &str) -> u16 {
        match connect_async(address).await {
            Err(Error::Http(response)) => response.status().as_u16(),
            other => panic!("{address}: {other:?}"),
        }
    }

    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
    }
}

/// The next message, none for a Close, whose code is then told.
async fn next(client: &mut Client) -> Result<Message, Option<u16>> {
    loop {
        match client.next().await {
            Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(message)) => return Ok(message),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn messages_pass_as_they_are_and_in_order() {
    let stage = stage();
    let pair = stage.pair();
    stage.run(async {
        let (mut writer, mut reader) = (stage.open(&pair.writer).await, stage.open(&pair.reader).await);
        let sent: Vec<Message> = (0..500)
            .map(|number: u32| match number % 3 {
                0 => Message::text(format!("tëxt {number}")),
                1 => Message::binary(vec![u8::try_from(number % 251).unwrap(); 64 << 10]),
                _ => Message::binary(Vec::new()),
            })
            .collect();
        let write = async {
            for message in &sent {
                writer.send(message.clone()).await.unwrap();
            }
            writer.close(None).await.unwrap();
            // The server's Close comes back.
            while let Some(Ok(_)) = writer.next().await {}
        };
        let read = async {
            for message in &sent {
                assert_eq!(next(&mut reader).await.as_ref(), Ok(message));
            }
            assert_eq!(next(&mut reader).await, Err(Some(1000)));
        };
        futures_util::future::join(write, read).await;
    });
}

#[test]
fn a_writer_may_be_done_before_its_reader_comes() {
    let stage = stage();
    let pair = stage.pair();
    stage.run(async {
        let mut writer = stage.open(&pair.writer).await;
        for number in 0..60 {
            writer.send(Message::text(number.to_string())).await.unwrap();
        }
        writer.close(None).await.unwrap();
        while let Some(Ok(_)) = writer.next().await {}
        drop(writer);
        let mut reader = stage.open(&pair.reader).await;
        for number in 0..60 {
            assert_eq!(next(&mut reader).await, Ok(Message::text(number.to_string())));
        }
        assert_eq!(next(&mut reader).await, Err(Some(1000)));
    });
}

#[test]
fn a_writer_that_vanishes_is_no_end() {
    let stage = stage();
    let pair = stage.pair();
    stage.run(async {
        let (mut writer, mut reader) = (stage.open(&pair.writer).await, stage.open(&pair.reader).await);
        writer.send(Message::text("half")).await.unwrap();
        drop(writer);
        assert_eq!(next(&mut reader).await, Ok(Message::text("half")));
        assert_eq!(next(&mut reader).await, Err(Some(1011)));
    });
}

#[test]
fn a_writer_hears_that_its_reader_has_gone() {
    let stage = stage();
    let pair = stage.pair();
    stage.run(async {
        let (mut writer, reader) = (stage.open(&pair.writer).await, stage.open(&pair.reader).await);
        drop(reader);
        assert_eq!(next(&mut writer).await, Err(Some(1001)));
    });
}

#[test]
fn ends_are_given_to_those_who_have_the_key_and_once() {
    let stage = stage();
    let pair = stage.pair();
    let address = stage.address(&pair.reader);
    let at = |path: &str| format!("ws://{}{path}", stage.bed.face.addresses()[0]);
    stage.run(async {
        let id = &pair.reader.channel_id;
        for (path, expected) in [
            (format!("/ws/channels/{id}"), 400),
            (format!("/ws/channels/{id}?dir=read"), 400),
            (format!("/ws/channels/{id}?key={}&dir=up", pair.reader.access_key), 400),
            (format!("/ws/channels/{id}?key=wrong&dir=read"), 404),
            (format!("/ws/channels/nowhere?key={}&dir=read", pair.reader.access_key), 404),
        ] {
            assert_eq!(stage.refused(&at(&path)).await, expected, "{path}");
        }
        let (mut first, _) = connect_async(format!("{address}&trace=1&trace=2")).await.unwrap();
        let mut second = stage.open(&pair.reader).await;
        // A handshake is answered before the end is taken, so either may be the one that has it; the other is sent away.
        let (first, second) = (pin!(next(&mut first)), pin!(next(&mut second)));
        assert_eq!(select(first, second).await.factor_first().0, Err(Some(1008)));
        // A request without a handshake takes nothing.
        let mut writer = stage.open(&pair.writer).await;
        writer.send(Message::text("a")).await.unwrap();
    });
}

#[test]
fn a_message_that_is_too_large_breaks_the_channel_and_says_so() {
    let stage = stage();
    let pair = stage.pair();
    stage.run(async {
        let (mut writer, mut reader) = (stage.open(&pair.writer).await, stage.open(&pair.reader).await);
        writer.send(Message::binary(vec![0; (16 << 20) + 1])).await.unwrap();
        let Some(Ok(Message::Close(Some(frame)))) = writer.next().await else { panic!("no Close") };
        assert_eq!(frame.code, CloseCode::Size);
        assert!(frame.reason.contains("16777216"), "{frame:?}");
        assert_eq!(next(&mut reader).await, Err(Some(1011)));
    });
}

#[test]
fn a_reader_that_rests_stops_its_writer_and_loses_nothing() {
    const FRAMES: u32 = 2048;
    let stage = stage();
    let pair = stage.pair();
    stage.run(async {
        let (mut writer, mut reader) = (stage.open(&pair.writer).await, stage.open(&pair.reader).await);
        let frame = |number: u32| {
            let mut bytes = vec![0; 64 << 10];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            Message::binary(bytes)
        };
        let mut sent = 0;
        while sent < FRAMES
            && tokio::time::timeout(MOMENT, writer.send(frame(sent))).await.is_ok_and(|sent| sent.is_ok())
        {
            sent += 1;
        }
        // 128 MiB were offered; 4 MiB wait in the channel, and what sockets hold.
        assert!((64..FRAMES).contains(&sent), "{sent} frames were taken");
        // A frame that was given up halfway is completed first; then the rest.
        let write = async {
            writer.flush().await.unwrap();
            for number in sent + 1..FRAMES {
                writer.send(frame(number)).await.unwrap();
            }
            writer.close(None).await.unwrap();
            while let Some(Ok(_)) = writer.next().await {}
        };
        let read = async {
            for number in 0..FRAMES {
                assert!(next(&mut reader).await == Ok(frame(number)), "frame {number}");
            }
            assert_eq!(next(&mut reader).await, Err(Some(1000)));
        };
        futures_util::future::join(write, read).await;
    });
}

#[test]
fn native_workers_read_what_sockets_write() {
    let stage = stage();
    let pair = stage.pair();
    let mut writer = stage.run(stage.open(&pair.writer));
    stage.run(async {
        writer.send(Message::text(r#"say "hi""#)).await.unwrap();
        writer.send(Message::binary(vec![5; 100_000])).await.unwrap();
        writer.close(None).await.unwrap();
    });
    let call = stage.worker.open_channel(&pair.reader).unwrap();
    let said = call.recv().unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<String>(said.body()).unwrap(), r#"say "hi""#);
    assert_eq!(call.recv().unwrap().unwrap().body(), vec![5; 100_000]);
    assert!(call.recv().unwrap().is_none());
    call.end().unwrap();
    let error = stage.worker.open_channel(&pair.reader).unwrap().end().unwrap_err();
    assert!(matches!(error.code, ErrorCode::Busy | ErrorCode::NotFound), "{error}");
}

#[test]
fn native_workers_write_what_sockets_read() {
    let stage = stage();
    let pair = stage.pair();
    let call = stage.worker.open_channel(&pair.writer).unwrap();
    let mut reader = stage.run(stage.open(&pair.reader));
    call.send(Native::json("plain").unwrap()).unwrap();
    call.send(Native::json(&serde_json::json!({"type": "set_status", "status_code": 201})).unwrap()).unwrap();
    call.send(Native::bytes(&[1, 2, 3])).unwrap();
    call.end().unwrap();
    stage.run(async {
        assert_eq!(next(&mut reader).await, Ok(Message::text("plain")));
        let Ok(Message::Text(control)) = next(&mut reader).await else { panic!("no text") };
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&control).unwrap(),
            serde_json::json!({"type": "set_status", "status_code": 201})
        );
        assert_eq!(next(&mut reader).await, Ok(Message::binary(vec![1, 2, 3])));
        assert_eq!(next(&mut reader).await, Err(Some(1000)));
    });
}

#[test]
fn native_workers_stream_to_each_other_through_a_slow_reader() {
    let stage = stage();
    let pair = stage.pair();
    let writing = stage.worker.open_channel(&pair.writer).unwrap();
    let reading = stage.worker.open_channel(&pair.reader).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..5000u32 {
                writing.send(Native::bytes(&number.to_le_bytes())).unwrap();
            }
            writing.end().unwrap();
        });
        for number in 0..5000u32 {
            assert_eq!(reading.recv().unwrap().unwrap().body(), number.to_le_bytes());
        }
        assert!(reading.recv().unwrap().is_none());
    });
}

#[test]
fn a_native_writer_hears_that_its_reader_has_gone() {
    let stage = stage();
    let pair = stage.pair();
    let call = stage.worker.open_channel(&pair.writer).unwrap();
    drop(stage.run(stage.open(&pair.reader)));
    // Who ends before the reader is known to be gone has written all that it wanted; who goes on hears of it.
    let until = std::time::Instant::now() + PATIENCE;
    while call.send(Native::bytes(&[1])).is_ok() {
        assert!(std::time::Instant::now() < until, "nobody reads, and nobody says so");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let error: CallError = call.end().unwrap_err();
    assert_eq!(error.code, ErrorCode::StreamClosed, "{error}");
    let unknown = ChannelRef { channel_id: "x".to_owned(), ..stage.pair().reader };
    assert_eq!(stage.worker.open_channel(&unknown).unwrap().end().unwrap_err().code, ErrorCode::NotFound);
    let wrong = ChannelRef { direction: ringway::Direction::Read, ..stage.pair().writer };
    assert!(stage.worker.open_channel(&wrong).is_ok(), "one key is for both ends, as with iii");
}

#[test]
fn a_native_reader_hears_that_its_writer_vanished() {
    let stage = stage();
    let pair = stage.pair();
    let mut writer = stage.run(stage.open(&pair.writer));
    stage.run(writer.send(Message::text("half"))).unwrap();
    drop(writer);
    let call = stage.worker.open_channel(&pair.reader).unwrap();
    assert_eq!(call.recv().unwrap().unwrap().body(), br#""half""#);
    let error = call.end().unwrap_err();
    assert_eq!(error.code, ErrorCode::StreamClosed, "{error}");
}
