//! One client: what it says becomes subscriptions, what they give goes out. A bounded queue lies between them; where it is
//! full, the client's streams wait, and the stream worker, which reads a log for each at its own pace, gives one that fell too
//! far behind a new snapshot. A client that takes nothing for long is told and dropped. It must not know how streams are read.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{self, Either};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::counters::count;
use crate::door::Place;
use crate::frames::{self, Asked};
use crate::socket::{Progress, Socket};
use crate::subscription;

/// How often a client is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(20);

/// How long a client may be silent: browsers answer pings by themselves.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long a Close may take.
const PARTING: Duration = Duration::from_secs(2);

/// Messages of one client in a row that are none; then it is no client.
const MALFORMED_MAX: u32 = 100;

/// Why a client is left.
enum End {
    /// It left.
    Left,
    /// It takes nothing.
    Stalled,
    /// It says nothing, not even that it is there.
    Silent,
    /// It says what cannot be read, again and again.
    Nonsense,
    /// The engine ends.
    Closing,
}

/// A subscription; dropped, it ends.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves a client until it leaves or has to.
pub(crate) async fn serve(place: Arc<Place>, context: Value, socket: Socket) {
    let progress = socket.get_ref().progress();
    let (sink, stream) = socket.split();
    let (out, queue) = channel(place.config.queue_max);
    let end = {
        let reading = pin!(read(&place, &context, stream, &out));
        let writing = pin!(write(&place, sink, queue, &progress));
        future::select(reading, writing).await.factor_first().0
    };
    if matches!(end, End::Stalled) {
        count(&place.counters.stalled);
        tracing::info!("a client that took nothing was dropped");
    }
}

fn farewell(end: &End) -> (CloseCode, &'static str) {
    match end {
        End::Left => (CloseCode::Normal, ""),
        End::Stalled => {
            (CloseCode::Again, "nothing was taken for too long; connect again, with afterSequence")
        }
        End::Silent => {
            (CloseCode::Again, "nothing was heard for too long; connect again, with afterSequence")
        }
        End::Nonsense => (CloseCode::Policy, "too many messages that cannot be read"),
        End::Closing => (CloseCode::Restart, "the engine ends; connect again, with afterSequence"),
    }
}

/// Hears a client until it leaves, or is told to.
async fn read(
    place: &Arc<Place>,
    context: &Value,
    mut stream: SplitStream<Socket>,
    out: &Sender<Message>,
) -> End {
    let end = hear(place, context, &mut stream, out).await;
    let parting = async {
        if !matches!(end, End::Left) {
            let (code, reason) = farewell(&end);
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            let _told = out.send(Message::Close(Some(frame))).await;
        }
        // Its Close is answered, and ours arrives, when all that it says is read.
        while let Some(Ok(_)) = stream.next().await {}
    };
    let _in_time = timeout(PARTING, parting).await;
    end
}

async fn hear(
    place: &Arc<Place>,
    context: &Value,
    stream: &mut SplitStream<Socket>,
    out: &Sender<Message>,
) -> End {
    let mut running: HashMap<String, Running> = HashMap::new();
    let (mut heard, mut nonsense) = (Instant::now(), 0);
    let mut closing = pin!(place.closed());
    loop {
        let next = pin!(timeout_at(heard + SILENCE_MAX, stream.next()));
        let message = match future::select(closing.as_mut(), next).await {
            Either::Left(_) => return End::Closing,
            Either::Right((Err(_), _)) => return End::Silent,
            Either::Right((Ok(message), _)) => message,
        };
        heard = Instant::now();
        let asked = match message {
            Some(Ok(Message::Text(text))) => Asked::read(&text),
            // iii's server reads text alone.
            Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                continue;
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Left,
        };
        running.retain(|_, running| !running.0.is_finished());
        let answer = match asked {
            Ok(Asked::Join(join)) => {
                let id = join.subscription_id.clone();
                // A subscription of the same name is replaced.
                drop(running.remove(&id));
                if running.len() >= place.config.subscriptions_max {
                    let text = format!("{} subscriptions are all that one client may have", running.len());
                    Some(frames::error(Some(&id), "busy", &text))
                } else {
                    let task = subscription::run(Arc::clone(place), context.clone(), join, out.clone());
                    running.insert(id, Running(place.runtime.spawn(task).abort_handle()));
                    None
                }
            }
            Ok(Asked::Leave { subscription_id }) => {
                drop(running.remove(&subscription_id));
                None
            }
            Ok(Asked::Ping) => Some(frames::PONG.to_owned()),
            Err(error) => {
                count(&place.counters.malformed);
                nonsense += 1;
                if nonsense > MALFORMED_MAX {
                    return End::Nonsense;
                }
                Some(frames::error(None, "invalid_request", &error.to_string()))
            }
        };
        if let Some(text) = answer
            && out.send(Message::text(text)).await.is_err()
        {
            return End::Left;
        }
    }
}

/// Tells a client what is queued for it, until a Close or the end.
async fn write(
    place: &Arc<Place>,
    mut sink: SplitSink<Socket, Message>,
    mut queue: Receiver<Message>,
    progress: &Progress,
) -> End {
    let stall = place.config.stall();
    loop {
        let first = match timeout(PING_EVERY, queue.recv()).await {
            Err(_) => Message::Ping(Vec::new().into()),
            Ok(Some(first)) => first,
            Ok(None) => return End::Left,
        };
        match while_taken(progress, stall, send_all(place, &mut sink, &mut queue, first)).await {
            Some(Ok(false)) => {}
            // The reading side waits until the Close is answered.
            Some(Ok(true)) => future::pending().await,
            Some(Err(_)) => return End::Left,
            None => {
                // Whoever reads again finds out why; whoever does not is not waited for.
                let (code, reason) = farewell(&End::Stalled);
                let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
                let _told = timeout(PARTING, sink.send(Message::Close(Some(frame)))).await;
                return End::Stalled;
            }
        }
    }
}

/// Waits for something to be sent, as long as the other side takes any of it now and then.
async fn while_taken<T>(progress: &Progress, stall: Duration, sending: impl Future<Output = T>) -> Option<T> {
    let mut sending = pin!(sending);
    let mut taken = Instant::now();
    loop {
        if let Ok(sent) = timeout_at(taken + stall, sending.as_mut()).await {
            return Some(sent);
        }
        let last = progress.last();
        if last <= taken {
            return None;
        }
        taken = last;
    }
}

/// Sends what there is with one write; whether it was a Close.
async fn send_all(
    place: &Place,
    sink: &mut SplitSink<Socket, Message>,
    queue: &mut Receiver<Message>,
    first: Message,
) -> Result<bool, Error> {
    let mut next = Some(first);
    while let Some(message) = next {
        let is_last = message.is_close();
        sink.feed(message).await?;
        count(&place.counters.sent);
        if is_last {
            sink.flush().await?;
            return Ok(true);
        }
        next = queue.try_recv().ok();
    }
    sink.flush().await?;
    Ok(false)
}
