//! The thread with the connection: has [`Roll`] say who is there, opens links when they are asked for, and takes those that
//! others open. Used by whoever starts links over NATS. It must not know what goes over a link.
//!
//! Where two engines dial each other at the same time, the one with the smaller id goes first: the other waits for it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::net::UnixStream as Socket;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_nats::client::RequestErrorKind;
use async_nats::{Client, Subscriber};
use futures_lite::StreamExt;
use ringway_links::{Bus, BusInlet, BusSettings, Links};
use ringway_protocol::WorkerId;
use ringway_protocol::control::Change;
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use crate::connect::{Heard, SettingsError, connect};
use crate::limits::{
    CHUNK_BYTES, DIAL_MAX, GOODBYE_MAX, HEAD_BYTES, PAYLOAD_BYTES, PIECE_BYTES, ROUND_TRIP_US,
};
use crate::message::{Dial, Dialled, Message, Subjects};
use crate::pipe::{PipeError, carry};
use crate::roll::{Effect, Roll, To};
use crate::settings::NatsSettings;
use crate::status::{Board, NatsStatus};

/// Why links over NATS did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// What is wrong with the settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Threads or descriptors ran out.
    #[error("links over NATS cannot be started: {0}")]
    System(#[from] io::Error),
}

/// What the thread is told.
enum Command {
    Offer {
        reset: bool,
        changes: Vec<Change>,
    },
    Dial(WorkerId),
    /// An engine has answered, or not.
    Answered {
        engine: WorkerId,
        session: String,
        answer: Answer,
    },
    /// An engine that wanted to go first has had the time to.
    Waited {
        engine: WorkerId,
        session: String,
    },
    PipeOver {
        engine: WorkerId,
        session: String,
        why: PipeError,
    },
    Stop,
}

enum Answer {
    Accepted(Subscriber),
    TheirsGoesFirst,
    /// The server knows that nobody listens.
    Nobody,
    Failed(String),
}

/// Runs until it is dropped, which is to happen before the links that it was started for.
#[derive(Debug)]
pub struct NatsLinks {
    commands: UnboundedSender<Command>,
    board: Arc<Board>,
    thread: Option<JoinHandle<()>>,
}

struct Mouth(UnboundedSender<Command>);

impl Bus for Mouth {
    fn offer(&self, reset: bool, changes: Vec<Change>) {
        drop(self.0.send(Command::Offer { reset, changes }));
    }

    fn dial(&self, engine: WorkerId) {
        drop(self.0.send(Command::Dial(engine)));
    }
}

impl NatsLinks {
    /// Has the engine of these links see the others of its project, and be seen by them. The server need not be there yet:
    /// what is waited for, [`FIRST_MAX`](crate::limits::FIRST_MAX) at most, is whether it refuses us.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(links: &Links, settings: NatsSettings) -> Result<Self, StartError> {
        let (commands, inbox) = unbounded_channel();
        let (ready, started) = sync_channel(1);
        let engine = links.engine_id();
        let bus = BusSettings {
            bus: Arc::new(Mouth(commands.clone())),
            offer: settings.offer.clone(),
            call: settings.call.clone(),
            round_trip_us: ROUND_TRIP_US,
            idle_max: settings.idle_max,
        };
        let inlet = links.join(bus);
        let board = Arc::new(Board::new(settings.servers_told(), settings.project.clone()));
        let place = Place { engine, inlet: inlet.clone(), board: Arc::clone(&board), own: commands.clone() };
        let thread = std::thread::Builder::new().name("ringway-links-nats".to_owned());
        let thread = thread.spawn(move || live(place, settings, inbox, &ready))?;
        let mut nats = Self { commands, board, thread: Some(thread) };
        match started.recv() {
            Ok(Ok(())) => Ok(nats),
            Ok(Err(error)) => {
                nats.end();
                inlet.leave();
                Err(error)
            }
            Err(_) => Err(io::Error::other("the thread ended at once").into()),
        }
    }

    /// What is known of the server and of the other engines.
    #[must_use]
    pub fn status(&self) -> NatsStatus {
        self.board.read()
    }

    fn end(&mut self) {
        drop(self.commands.send(Command::Stop));
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of links over NATS panicked");
        }
    }
}

impl Drop for NatsLinks {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whom the thread works for, and whom it tells.
struct Place {
    engine: WorkerId,
    inlet: BusInlet,
    board: Arc<Board>,
    own: UnboundedSender<Command>,
}

fn live(
    place: Place,
    settings: NatsSettings,
    inbox: UnboundedReceiver<Command>,
    ready: &SyncSender<Result<(), StartError>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error.into()))),
    };
    runtime.block_on(async {
        let (tell, heard) = unbounded_channel();
        match connect(&settings, &tell).await {
            Err(error) => drop(ready.send(Err(error.into()))),
            Ok((client, why_not)) => {
                if let Some(why) = why_not {
                    place.board.said(&why);
                    let servers = settings.servers_told();
                    tracing::warn!(
                        servers,
                        why,
                        "no connection to NATS yet; other engines are seen once there is one"
                    );
                }
                drop(ready.send(Ok(())));
                let inlet = place.inlet.clone();
                Hub::new(place, settings, client).run(inbox, heard).await;
                inlet.leave();
            }
        }
    });
    // The client's own threads look up names, and may take their time.
    runtime.shutdown_timeout(GOODBYE_MAX);
}

/// A link to an engine.
enum Line {
    Dialling { session: String },
    Up { session: String, pump: AbortHandle },
}

impl Line {
    fn session(&self) -> &str {
        match self {
            Self::Dialling { session } | Self::Up { session, .. } => session,
        }
    }
}

struct Hub {
    engine: WorkerId,
    name: String,
    subjects: Subjects,
    client: Client,
    own: UnboundedSender<Command>,
    inlet: BusInlet,
    board: Arc<Board>,
    roll: Option<Roll>,
    /// What was offered before the server said how long a message may be.
    early: Vec<(bool, Vec<Change>)>,
    lines: HashMap<WorkerId, Line>,
    begun: Instant,
    is_up: bool,
    chunk_bytes: usize,
}

impl Hub {
    fn new(place: Place, settings: NatsSettings, client: Client) -> Self {
        let Place { engine, inlet, board, own } = place;
        Self {
            engine,
            name: settings.name,
            subjects: Subjects::of(&settings.project),
            client,
            own,
            inlet,
            board,
            roll: None,
            early: Vec::new(),
            lines: HashMap::new(),
            begun: Instant::now(),
            is_up: false,
            chunk_bytes: CHUNK_BYTES,
        }
    }

    async fn run(mut self, mut inbox: UnboundedReceiver<Command>, mut heard: UnboundedReceiver<Heard>) {
        let subjects = [
            self.subjects.catalog(),
            self.subjects.hello(),
            self.subjects.to(self.engine),
            self.subjects.dial(self.engine),
        ];
        let mut subscribed = Vec::new();
        for subject in subjects {
            match self.client.subscribe(subject).await {
                Ok(subscriber) => subscribed.push(subscriber),
                Err(error) => return tracing::error!(%error, "NATS takes no subscription"),
            }
        }
        let Ok([mut catalog, mut hello, mut own, mut dials]) = <[Subscriber; 4]>::try_from(subscribed) else {
            return;
        };
        loop {
            let due = self.roll.as_ref().map_or(Duration::from_secs(1), Roll::due);
            let due = tokio::time::Instant::from_std(self.begun + due);
            tokio::select! {
                command = inbox.recv() => match command {
                    None | Some(Command::Stop) => break,
                    Some(command) => self.carry_out(command).await,
                },
                Some(heard) = heard.recv() => self.hear(heard).await,
                Some(message) = catalog.next() => self.take(&message.payload).await,
                Some(message) = hello.next() => self.take(&message.payload).await,
                Some(message) = own.next() => self.take(&message.payload).await,
                Some(message) = dials.next() => self.dialled(&message).await,
                () = tokio::time::sleep_until(due), if self.roll.is_some() => self.tick().await,
            }
        }
        let effects = self.roll.as_mut().map(Roll::leave).unwrap_or_default();
        let goodbye = async {
            self.carry_effects(effects).await;
            for (_, line) in self.lines.drain() {
                if let Line::Up { pump, session } = line {
                    tracing::debug!(session, "a link ends with its engine");
                    pump.abort();
                }
            }
            self.client.flush().await
        };
        if !matches!(tokio::time::timeout(GOODBYE_MAX, goodbye).await, Ok(Ok(()))) {
            tracing::debug!("NATS was gone first");
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    async fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Up => self.connected().await,
            Heard::Down => {
                self.board.disconnected();
                if std::mem::take(&mut self.is_up) {
                    tracing::warn!("no connection to NATS; other engines are not heard until it is back");
                }
            }
            // The same is said once.
            Heard::Said(what) if self.board.said(&what) => tracing::warn!(what, "NATS"),
            Heard::Said(what) => tracing::debug!(what, "NATS, again"),
        }
    }

    async fn connected(&mut self) {
        self.is_up = true;
        let info = self.client.server_info();
        self.board.connected(format!("{}, version {}", info.server_name, info.version));
        tracing::info!(server = info.server_name, "connected to NATS");
        let told = info.max_payload;
        let taken = if told == 0 { PAYLOAD_BYTES } else { told };
        let room = taken.saturating_sub(HEAD_BYTES).max(HEAD_BYTES);
        self.chunk_bytes = CHUNK_BYTES.min(room);
        let now = self.now();
        let roll = self
            .roll
            .get_or_insert_with(|| Roll::new(self.engine, &self.name, random(), PIECE_BYTES.min(room)));
        let mut effects = Vec::new();
        for (reset, changes) in self.early.drain(..) {
            effects.extend(roll.offer(reset, changes));
        }
        effects.extend(roll.connected(now));
        self.carry_effects(effects).await;
    }

    async fn tick(&mut self) {
        let (now, is_up) = (self.now(), self.is_up);
        let Some(roll) = &mut self.roll else { return };
        let effects = if is_up { roll.tick(now) } else { roll.tick_alone(now) };
        self.carry_effects(effects).await;
    }

    async fn take(&mut self, bytes: &[u8]) {
        let now = self.now();
        let Some(roll) = &mut self.roll else { return };
        match Message::decode(bytes) {
            Ok(message) => {
                let effects = roll.take(message, now);
                self.carry_effects(effects).await;
            }
            // A later release may say what this one does not know.
            Err(error) => tracing::debug!(%error, "a message about the catalog was passed over"),
        }
    }

    async fn carry_effects(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                // Whoever misses it sees that by the next beat.
                Effect::Send(..) if !self.is_up => {}
                Effect::Send(to, bytes) => {
                    let subject = match to {
                        To::All => self.subjects.catalog(),
                        To::Everybody => self.subjects.hello(),
                        To::One(engine) => self.subjects.to(engine),
                    };
                    if let Err(error) = self.client.publish(subject, bytes.into()).await {
                        tracing::warn!(%error, "a message about the catalog was not sent");
                    }
                }
                Effect::Offered { engine, name, reset, changes } => {
                    self.board.met(engine, &name);
                    self.inlet.offered(engine, name, reset, changes);
                }
                Effect::Silent(engine) => {
                    self.board.silent(engine, true);
                    self.inlet.silent(engine);
                }
                Effect::Back(engine) => {
                    self.board.silent(engine, false);
                    self.inlet.back(engine);
                }
                Effect::Gone(engine) => {
                    self.board.gone(engine);
                    self.inlet.gone(engine);
                }
            }
        }
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::Offer { reset, changes } => match &mut self.roll {
                Some(roll) => {
                    let effects = roll.offer(reset, changes);
                    self.carry_effects(effects).await;
                }
                None => self.early.push((reset, changes)),
            },
            Command::Dial(engine) => self.dial(engine),
            Command::Answered { engine, session, answer } => self.answered(engine, session, answer).await,
            Command::Waited { engine, session } => {
                if self.is_dialling(engine, &session) {
                    self.lines.remove(&engine);
                    self.inlet.not_linked(engine, "it wanted to dial, and did not".to_owned());
                }
            }
            Command::PipeOver { engine, session, why } => {
                tracing::debug!(%engine, session, %why, "a link over NATS is over");
                if self.lines.get(&engine).is_some_and(|line| line.session() == session) {
                    self.lines.remove(&engine);
                    self.board.linked(engine, false);
                }
            }
            Command::Stop => {}
        }
    }

    fn is_dialling(&self, engine: WorkerId, session: &str) -> bool {
        matches!(self.lines.get(&engine), Some(Line::Dialling { session: own }) if own == session)
    }

    fn dial(&mut self, engine: WorkerId) {
        if matches!(self.lines.get(&engine), Some(Line::Dialling { .. })) {
            return;
        }
        self.hang_up(engine);
        let inbox = self.client.new_inbox();
        let session = inbox.rsplit('.').next().unwrap_or_default().to_owned();
        self.lines.insert(engine, Line::Dialling { session: session.clone() });
        let dial = Dial { engine: self.engine, name: self.name.clone(), session: session.clone() };
        let (client, own) = (self.client.clone(), self.own.clone());
        let (listen, ask) = (self.subjects.link(&session, true), self.subjects.dial(engine));
        tokio::spawn(async move {
            let answer = ask_for_link(&client, listen, ask, &dial).await;
            drop(own.send(Command::Answered { engine, session, answer }));
        });
    }

    async fn answered(&mut self, engine: WorkerId, session: String, answer: Answer) {
        if !self.is_dialling(engine, &session) {
            // The other end went first.
            return;
        }
        match answer {
            Answer::Accepted(from) => self.open(engine, session, from, true),
            Answer::TheirsGoesFirst => {
                let own = self.own.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(DIAL_MAX).await;
                    drop(own.send(Command::Waited { engine, session }));
                });
            }
            Answer::Nobody => {
                self.lines.remove(&engine);
                self.inlet.not_linked(engine, "nobody listens there".to_owned());
                let effects = self.roll.as_mut().map(|roll| roll.unreachable(engine)).unwrap_or_default();
                self.carry_effects(effects).await;
            }
            Answer::Failed(why) => {
                self.lines.remove(&engine);
                self.inlet.not_linked(engine, why);
            }
        }
    }

    /// An engine dials this one.
    async fn dialled(&mut self, message: &async_nats::Message) {
        let Some(reply) = message.reply.clone() else { return };
        let Ok(Dial { engine, name, session }) = serde_json::from_slice(&message.payload) else { return };
        let is_plain = session.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if engine == self.engine || session.is_empty() || !is_plain {
            return;
        }
        let dialling = matches!(self.lines.get(&engine), Some(Line::Dialling { .. }));
        let answer = if dialling && self.engine < engine {
            Dialled::MineGoesFirst
        } else {
            let listen = self.subjects.link(&session, false);
            let from = match self.client.subscribe(listen).await {
                Ok(from) => from,
                Err(error) => return tracing::warn!(%error, "NATS takes no subscription"),
            };
            let now = self.now();
            let effects = self.roll.as_mut().map(|roll| roll.met(engine, &name, now)).unwrap_or_default();
            self.carry_effects(effects).await;
            self.board.met(engine, &name);
            self.inlet.offered(engine, name, false, Vec::new());
            self.hang_up(engine);
            self.open(engine, session, from, false);
            Dialled::Accepted
        };
        let json = serde_json::to_vec(&answer).unwrap_or_default();
        if let Err(error) = self.client.publish(reply, json.into()).await {
            tracing::warn!(%error, "an engine that dialled was not answered");
        }
    }

    fn hang_up(&mut self, engine: WorkerId) {
        if let Some(Line::Up { pump, .. }) = self.lines.remove(&engine) {
            self.board.linked(engine, false);
            // Its socket closes with it.
            pump.abort();
        }
    }

    fn open(&mut self, engine: WorkerId, session: String, from: Subscriber, dialled: bool) {
        let sockets = Socket::pair().and_then(|(ours, theirs)| {
            ours.set_nonblocking(true)?;
            theirs.set_nonblocking(true)?;
            Ok((UnixStream::from_std(ours)?, theirs))
        });
        let (ours, theirs) = match sockets {
            Ok(sockets) => sockets,
            Err(error) => {
                self.lines.remove(&engine);
                return self.inlet.not_linked(engine, error.to_string());
            }
        };
        let (client, own) = (self.client.clone(), self.own.clone());
        let to = self.subjects.link(&session, !dialled);
        let (of, chunk_bytes) = (session.clone(), self.chunk_bytes);
        let pump = tokio::spawn(async move {
            let why = carry(ours, &client, &to, from, chunk_bytes).await;
            drop(own.send(Command::PipeOver { engine, session: of, why }));
        });
        self.lines.insert(engine, Line::Up { session, pump: pump.abort_handle() });
        self.board.linked(engine, true);
        self.inlet.linked(engine, theirs.into(), dialled);
    }
}

async fn ask_for_link(client: &Client, listen: String, ask: String, dial: &Dial) -> Answer {
    let from = match client.subscribe(listen).await {
        Ok(from) => from,
        Err(error) => return Answer::Failed(error.to_string()),
    };
    let json = serde_json::to_vec(dial).unwrap_or_default();
    match client.request(ask, json.into()).await {
        Ok(answer) => match serde_json::from_slice(&answer.payload) {
            Ok(Dialled::Accepted) => Answer::Accepted(from),
            Ok(Dialled::MineGoesFirst) => Answer::TheirsGoesFirst,
            Err(error) => Answer::Failed(error.to_string()),
        },
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Answer::Nobody,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// A number that no other run has. The standard library's hash keys come from the system's random source.
fn random() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}
