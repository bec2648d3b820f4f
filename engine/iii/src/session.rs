//! One worker's connection, from its first frame to its last: who it is, what it has been asked and not answered, and what
//! becomes of each message. Each kind of message has a module of its own below.

mod access;

mod announce;

mod bodies;

mod calls;

mod legacy;

mod observe;

mod registrar;

mod outbound;

mod requests;

mod triggers;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(crate) use access::authenticate;
use axum::extract::Request;
use futures_util::{SinkExt, StreamExt};
use parking_lot::{Mutex, RwLock};
use ringway::{BindAnswer, Worker, WorkerId};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::channels::is_same;
use crate::connection::{Connection, News};
use crate::limits::{PARTING, REATTACH_MAX, REGISTERING_BYTES_MAX, TURN_MESSAGES};
use crate::listener::Place;
use crate::otel;
use crate::outbox::{Outbox, outbox};
use crate::protocol::{
    ErrorBody, Features, Frame, Incoming, Invocations, OURS, Registration, decode, uuid_of, uuid_random,
};
use crate::rbac::Granted;
use crate::session::announce::Announcement;
use crate::session::calls::Route;
use crate::session::registrar::Registering;
use crate::session::requests::Open;
use crate::session::triggers::Refused;
use crate::shared::Shared;
use crate::socket::Socket;

/// How a client serves one of its functions.
#[derive(Debug, Clone)]
struct Serving {
    /// As it calls it itself.
    own: Arc<str>,
    /// Somebody else serves it over HTTP: the client is never asked itself.
    elsewhere: bool,
    /// Nobody but the client calls it.
    private: bool,
}

/// How a connection began: what its authentication is told.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) query: String,
    pub(crate) peer: SocketAddr,
}

impl Opening {
    pub(crate) fn of(request: &Request, peer: SocketAddr) -> Self {
        let query = request.uri().query().unwrap_or_default().to_owned();
        Self { headers: request.headers().clone(), query, peer }
    }
}

/// Who a client is, once it has said so.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its place in the engine.
    pub(crate) worker: Worker,
    /// The namespace of all that it registers.
    pub(crate) namespace: String,
    /// The longest message that it takes, in bytes.
    pub(crate) bytes_max: usize,
    /// What it calls itself.
    pub(crate) name: Option<String>,
    /// What it can do beyond the oldest clients.
    pub(crate) features: Features,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) place: Arc<Place>,
    pub(crate) opening: Opening,
    pub(crate) worker_id: WorkerId,
    /// The same as clients know it.
    pub(crate) uuid: String,
    /// What it may do.
    pub(crate) granted: Granted,
    /// Its functions that are not what they seem, by the ids under which they are registered.
    serving: RwLock<HashMap<String, Serving>>,
    /// Proves that a later connection is of the same client.
    token: String,
    pub(crate) outbox: Outbox,
    pub(crate) peer: OnceLock<Peer>,
    /// The ids of its own invocations.
    invocations: Invocations,
    /// What it was asked and has not answered; none once it is over.
    waiting: Mutex<Option<HashMap<u64, Open>>>,
    /// What it calls.
    routes: RwLock<HashMap<String, HashMap<String, Arc<Route>>>>,
    /// Triggers that it was asked to watch for and has not answered.
    bindings: Mutex<HashMap<String, BindAnswer>>,
    /// Its triggers that are observers.
    bridged: Mutex<HashMap<String, Refused>>,
    registrations: mpsc::UnboundedSender<Registering>,
    /// Bytes of registrations that may yet wait.
    registering: Arc<Semaphore>,
    announcements: mpsc::UnboundedSender<Announcement>,
    /// It is to stop, because a later connection has taken its place.
    stopping: watch::Sender<bool>,
    ended: AtomicBool,
}

/// Serves a connection until its end.
pub(crate) async fn serve(place: Arc<Place>, opening: Opening, socket: Socket) {
    let config = &place.shared.config;
    let (ping, idle) = (Duration::from_millis(config.ping_ms), Duration::from_millis(config.idle_ms));
    let granted = match access::authenticate(&place, &opening).await {
        Ok(granted) => granted,
        Err(error) => return send_away(socket, &error).await,
    };
    let (outbox, outgoing) = outbox();
    let mut connection = Connection::new(socket, outgoing, ping, idle, Arc::clone(&place.shared.linger));
    let (registrations, to_register) = mpsc::unbounded_channel();
    let (announcements, announced) = mpsc::unbounded_channel();
    let session = Session::new(place, opening, granted, outbox, registrations, announcements);
    let shared = Arc::clone(&session.place.shared);
    shared.add(&session);
    session.send(
        Frame::new("workerregistered")
            .plain("worker_id", &session.uuid)
            .plain("reattach_token", &session.token)
            .json("features", OURS),
    );
    let registrar = tokio::spawn(registrar::run(Arc::clone(&session), announced, to_register));
    let mut stopping = session.stopping.subscribe();
    let stop = stopping.wait_for(|stop| *stop);
    tokio::pin!(stop);
    let mut in_turn = 0;
    loop {
        let news = tokio::select! {
            // Whoever is to stop hears of it when nothing more has come, or at the end of a turn.
            biased;
            news = connection.next() => news,
            _ = &mut stop => News::Over,
        };
        match news {
            News::Message(Message::Text(text)) => session.take(&text).await,
            News::Message(Message::Binary(bytes)) => session.take_bytes(&bytes).await,
            News::Message(_) => {}
            News::Over => break,
        }
        in_turn += 1;
        if in_turn == TURN_MESSAGES {
            in_turn = 0;
            tokio::select! {
                biased;
                _ = &mut stop => break,
                () = tokio::task::yield_now() => {}
            }
        }
    }
    registrar.abort();
    let _aborted = registrar.await;
    session.end(&shared).await;
}

/// Tells a client why it may not connect, and ends the connection.
pub(crate) async fn send_away(mut socket: Socket, error: &ErrorBody) {
    let text = Frame::new("error").error(error).end();
    let told = async {
        socket.send(Message::text(text)).await?;
        socket.close(None).await?;
        while let Some(Ok(_)) = socket.next().await {}
        Ok::<_, tungstenite::Error>(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(PARTING, told).await {
        tracing::debug!(%error, "a client left before it was sent away");
    }
}

impl Session {
    fn new(
        place: Arc<Place>,
        opening: Opening,
        granted: Granted,
        outbox: Outbox,
        registrations: mpsc::UnboundedSender<Registering>,
        announcements: mpsc::UnboundedSender<Announcement>,
    ) -> Arc<Self> {
        let worker_id =
            WorkerId::new(uuid::Uuid::new_v4().as_u64_pair().1 ^ uuid::Uuid::new_v4().as_u64_pair().0);
        Arc::new(Self {
            place,
            opening,
            worker_id,
            uuid: uuid_of(worker_id),
            granted,
            serving: RwLock::default(),
            token: uuid_random(),
            outbox,
            peer: OnceLock::new(),
            invocations: Invocations::new(),
            waiting: Mutex::new(Some(HashMap::new())),
            routes: RwLock::default(),
            bindings: Mutex::default(),
            bridged: Mutex::default(),
            registrations,
            registering: Arc::new(Semaphore::new(REGISTERING_BYTES_MAX)),
            announcements,
            stopping: watch::Sender::new(false),
            ended: AtomicBool::new(false),
        })
    }

    /// Has a message written. A connection that is over needs none.
    pub(crate) fn send(&self, frame: Frame) {
        let _over = self.outbox.send(frame.end());
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The worker by which this client calls: its own, or the listener's until it has said who it is.
    pub(crate) fn caller(&self) -> &Worker {
        self.peer.get().map_or(&self.place.shared.worker, |peer| &peer.worker)
    }

    async fn take_bytes(self: &Arc<Self>, bytes: &[u8]) {
        if otel::ingest(&self.place, self.caller(), bytes) {
            return;
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => self.take(text).await,
            Err(_) => tracing::debug!(worker = %self.uuid, "a binary message is neither telemetry nor text"),
        }
    }

    /// Takes a message. Whatever is wrong with it, the connection goes on.
    async fn take(self: &Arc<Self>, text: &str) {
        if text.trim_ascii().is_empty() {
            return;
        }
        let incoming = match decode(text) {
            Ok(incoming) => incoming,
            Err(error) => {
                tracing::debug!(worker = %self.uuid, %error, "a message was dropped");
                return;
            }
        };
        match incoming {
            Incoming::Invoke(invoke) => self.call(&invoke),
            Incoming::Result { invocation_id, outcome, delivered } => {
                self.answered(&invocation_id, outcome, &delivered);
            }
            Incoming::ObserverAck(ack) => self.acked(&ack),
            Incoming::Observed(items) => self.observed(&items),
            Incoming::LocalStats(stats) => self.local_stats(&stats),
            Incoming::TriggerResult { id, error } => self.trigger_answered(&id, error),
            Incoming::Reattach { previous, token } => self.replace(&previous, token.as_deref()).await,
            Incoming::Ping => self.send(Frame::new("pong")),
            Incoming::Nothing => {}
            Incoming::Register(registration) => self.queue(registration, text.len()),
        }
    }

    /// Has something registered in its turn. The client is not kept waiting, as it may be asked something before its turn comes.
    fn queue(&self, registration: Registration, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(held) = Arc::clone(&self.registering).try_acquire_many_owned(bytes) else {
            tracing::warn!(worker = %self.uuid, "a client registers more than can wait; its connection is closed");
            return self.outbox.close();
        };
        let _over = self.registrations.send(Registering { registration, _held: held });
    }

    /// Ends this client's earlier connection, and waits until nothing of it is left.
    async fn replace(&self, previous: &str, token: Option<&str>) {
        let Some(earlier) = self.place.shared.session_of(previous) else { return };
        if earlier.worker_id == self.worker_id || !token.is_some_and(|token| is_same(&earlier.token, token)) {
            tracing::warn!(worker = %self.uuid, previous, "a reattach was ignored: its token is not that connection's");
            return;
        }
        let _no_longer_there = earlier.stopping.send(true);
        let ended = earlier.stopping.closed();
        drop(
            tokio::time::timeout(REATTACH_MAX, async {
                ended.await;
                while !earlier.is_ended() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await,
        );
    }

    /// Clears up: whoever waits for this client hears that it is gone, and the engine forgets its worker.
    async fn end(self: &Arc<Self>, shared: &Shared) {
        // First nobody finds it any more, then those who wait hear that it is gone.
        if let Some(peer) = self.peer.get() {
            let worker = peer.worker.clone();
            // It waits for the engine to say good-bye.
            let left = tokio::task::spawn_blocking(move || worker.shut_down()).await;
            if let Err(error) = left {
                tracing::error!(%error, "a worker could not leave");
            }
        }
        self.stop_waiting();
        shared.observers.gone(self.worker_id);
        self.bindings.lock().clear();
        self.routes.write().clear();
        self.ended.store(true, Ordering::Release);
        shared.remove(self);
    }
}
