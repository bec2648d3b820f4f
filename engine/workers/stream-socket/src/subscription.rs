//! One subscription of a client: `stream::subscribe`, its messages passed on as they come. Where the stream worker goes away
//! and comes back, it goes on behind the last event that was passed on, and the client notices nothing. It must not know
//! sockets.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway::{CallError, CallOptions, ErrorCode, Failure, Message as Native};
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio_tungstenite::tungstenite::Message;

use crate::counters::{count, uncount};
use crate::door::Place;
use crate::frames::{self, Join, Told};

/// The time before a stream worker that has gone is looked for again; doubled for each further look.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest time between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often it is looked for: some minutes in all.
const LOOKS_MAX: u32 = 40;

/// Counted while it runs.
struct Counted(Arc<Place>);

impl Drop for Counted {
    fn drop(&mut self) {
        uncount(&self.0.counters.subscriptions);
    }
}

/// Passes events on until the subscription ends, or whoever listens has gone. Dropped, it ends the subscription.
pub(crate) async fn run(place: Arc<Place>, context: Value, join: Join, out: Sender<Message>) {
    count(&place.counters.subscriptions);
    let counted = Counted(Arc::clone(&place));
    let mut after = join.after_sequence;
    if after.is_some() && out.send(Message::text(frames::resumed(&join))).await.is_err() {
        return;
    }
    let (mut pause, mut looks) = (PAUSE, 0);
    loop {
        let before = after;
        let failure = match follow(&place, &context, &join, &mut after, &out).await {
            Ok(()) => break,
            Err(failure) => failure,
        };
        if before != after {
            (pause, looks) = (PAUSE, 0);
        }
        looks += 1;
        if !may_come_back(&failure) || looks > LOOKS_MAX {
            let refused = failure.user_code.as_deref() == Some("STREAM_UNAUTHORIZED");
            let text =
                if refused { frames::unauthorized(&join, now_ms()) } else { frames::failed(&join, &failure) };
            // A client that has gone need not hear it.
            let _told = out.send(Message::text(text)).await;
            break;
        }
        tracing::debug!(%failure, "a subscription is taken up again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    drop(counted);
}

/// Whether the same request may go through a little later. A subscription changes nothing, so it may be begun anew.
fn may_come_back(failure: &CallError) -> bool {
    failure.code.is_transient()
        || matches!(failure.code, ErrorCode::NotFound | ErrorCode::Cancelled | ErrorCode::StreamClosed)
        || failure.user_code.as_deref() == Some("LEAVING")
}

/// One call of `stream::subscribe`, to its end.
async fn follow(
    place: &Place,
    context: &Value,
    join: &Join,
    after: &mut Option<u64>,
    out: &Sender<Message>,
) -> Result<(), CallError> {
    let request = json!({
        "stream_name": join.stream_name, "group_id": join.group_id, "id": join.id, "after_sequence": *after,
        "context": context, "told_as": join.subscription_id,
    });
    let request = Native::json(&request).map_err(Failure::into_error)?;
    let call = place.worker.handle("stream::subscribe").stream(&request, &CallOptions::new())?;
    while let Some(message) = call.recv_async().await? {
        let Ok(text) = std::str::from_utf8(message.body()) else { continue };
        let Ok(told) = serde_json::from_str::<Told>(text) else { continue };
        // What it answers first is for whoever calls it, not for iii's clients.
        if told.kind != "stream" {
            continue;
        }
        if out.send(Message::text(text)).await.is_err() {
            return Ok(());
        }
        *after = told.sequence.or(*after);
    }
    call.end_async().await.map(drop)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
