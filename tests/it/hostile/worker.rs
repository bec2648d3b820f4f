//! A worker that lies to another one. It attaches to a real engine by its control socket, registers functions as any
//! worker does, and holds the bare ends of its channels: as the victim's caller and, since the victim calls its functions,
//! as its callee. What it says there is said by [`Aim`] and the attacker. It must not know what its victim is.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway::WorkerId;
use ringway::protocol::FunctionId;
use ringway::protocol::control::{
    CatalogFunction, EngineMessage, FunctionSpec, Hello, Register, WorkerMessage,
};
use ringway::protocol::header::{Encoding, Kind};
use ringway_ipc::frame::{Header, Inline};
use ringway_ipc::packet::PacketStream;
use ringway_ipc::sys::event::{self, PollFd, PollFlags};
use ringway_ipc::sys::socket;

use super::aim::Aim;
use super::attacker::{Attacker, Identity, Interest};
use super::choices::Choices;

/// How long an answer that must come may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Steps between two looks at the control socket.
const STEPS_PER_LOOK: u64 = 32;
/// One channel in so many belongs to a peer that never reads what it is sent.
const DEAF_ONCE_IN: u64 = 12;
/// A channel is hung up, for no reason, once in so many steps.
const STEPS_PER_CHANNEL: u64 = 4000;

/// What a lying worker has done.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    /// Steps on channels that the victim can notice.
    pub(crate) steps: u64,
    /// Of these, lies about the ring, the socket or the bells.
    pub(crate) lies: u64,
    /// Channels that it opened.
    pub(crate) as_caller: u64,
    /// Channels that the victim opened.
    pub(crate) as_callee: u64,
    /// Channels that the victim closed.
    pub(crate) hung_up: u64,
}

/// One end of a channel.
struct End {
    attacker: Attacker,
    aim: Aim,
    steps: u64,
}

/// The worker.
pub(crate) struct LyingWorker {
    stream: PacketStream,
    id: WorkerId,
    victim: WorkerId,
    targets: Vec<CatalogFunction>,
    request: u64,
    asked: Option<(u64, OwnedFd)>,
    caller: Option<End>,
    callee: Option<End>,
    until_look: u64,
    pub(crate) deeds: Deeds,
}

impl LyingWorker {
    /// Attaches, and registers functions with the names under `prefix` that the victim's calls have.
    pub(crate) fn attach(address: &str, prefix: &str, victim: WorkerId, choices: &mut Choices<'_>) -> Self {
        let stream = PacketStream::connect(address).expect("the engine listens");
        let id = WorkerId::new(choices.word() | 1);
        let mut worker = Self {
            stream,
            id,
            victim,
            targets: Vec::new(),
            request: 0,
            asked: None,
            caller: None,
            callee: None,
            until_look: 0,
            deeds: Deeds::default(),
        };
        let hello = Hello::new(id, "liar", std::process::id());
        worker.say(&WorkerMessage::Hello(Box::new(hello)), Vec::new());
        while worker.targets.is_empty() {
            let (message, _) = worker.hear();
            if let EngineMessage::Welcome(welcome) = message {
                let all = welcome.catalog.functions.into_iter();
                worker.targets = all.filter(|function| function.worker == victim).collect();
                assert!(!worker.targets.is_empty(), "the victim serves nothing");
            }
        }
        worker.register(prefix);
        worker
    }

    /// The victim's typed functions tell the name of the types' layout, so that its calls are archives here too.
    fn register(&mut self, prefix: &str) {
        let typed = self.targets.iter().find(|function| function.type_key.is_some()).cloned();
        let names = ["typed", "json", "bytes", "blob", "stream"];
        let spec = |(name, index): (&str, u32)| {
            let id = FunctionId::new(&format!("{prefix}::{name}")).expect("a sound name");
            let mut spec = FunctionSpec::new(id, index);
            if let Some(typed) = typed.as_ref().filter(|_| name == "typed") {
                (spec.encodings, spec.type_key) = (typed.encodings.clone(), typed.type_key.clone());
            }
            spec
        };
        let functions = names.into_iter().zip(1..).map(spec).collect();
        self.request += 1;
        let register = Register { request: self.request, functions, ..Register::default() };
        self.say(&WorkerMessage::Register(register), Vec::new());
        while !matches!(self.hear().0, EngineMessage::Registered { .. }) {}
    }

    fn say(&mut self, message: &WorkerMessage, fds: Vec<Arc<OwnedFd>>) {
        let bytes = serde_json::to_vec(message).expect("a message is JSON");
        self.stream.queue(&bytes, fds).expect("the queue has room");
        while !self.stream.flush().expect("the engine listens") {
            let _sooner_or_later = event::poll(&mut [PollFd::new(&self.stream, PollFlags::OUT)], None);
        }
    }

    fn hear(&mut self) -> (EngineMessage, Vec<OwnedFd>) {
        loop {
            if let Some(heard) = self.try_hear() {
                return heard;
            }
            let _sooner_or_later = event::poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], None);
        }
    }

    fn try_hear(&mut self) -> Option<(EngineMessage, Vec<OwnedFd>)> {
        let (bytes, fds) = self.stream.receive().expect("the engine stays")?;
        Some((serde_json::from_slice(&bytes).expect("the engine speaks JSON"), fds))
    }

    /// Does one thing on one of its channels.
    pub(crate) fn step(&mut self, choices: &mut Choices<'_>) {
        if self.until_look == 0 {
            self.look(choices);
            self.until_look = STEPS_PER_LOOK;
        }
        self.until_look -= 1;
        let as_caller = choices.once_in(2);
        let place = if as_caller { &mut self.caller } else { &mut self.callee };
        let Some(end) = place else { return std::thread::yield_now() };
        let done = if end.attacker.lies(choices) {
            self.deeds.lies += 1;
            end.attacker.lie(choices);
            true
        } else if as_caller {
            end.aim.call(&mut end.attacker, choices)
        } else {
            end.aim.serve(&mut end.attacker, choices)
        };
        if !done {
            std::thread::yield_now();
        }
        end.steps += 1;
        self.deeds.steps += u64::from(done);
        // One that reads nothing does not hear of the end either.
        if end.steps.is_multiple_of(1024) {
            end.attacker.listen();
        }
        let over = end.attacker.hung_up();
        if over || choices.once_in(STEPS_PER_CHANNEL) {
            self.deeds.hung_up += u64::from(over);
            // Without a goodbye the victim would take the whole worker for dead, and call it no more.
            end.attacker.leave();
            *place = None;
            if as_caller {
                self.say(&WorkerMessage::Disconnected { peer: self.victim }, Vec::new());
            }
        }
    }

    /// Makes so many calls of one of the victim's functions, each with a number of its own, without waiting for an answer
    /// in between. Then waits until `answers` have come, and returns their headers.
    pub(crate) fn flood(
        &mut self,
        function: &str,
        calls: u64,
        answers: usize,
        choices: &mut Choices<'_>,
    ) -> Vec<Header> {
        while self.caller.is_none() {
            self.look(choices);
            std::thread::yield_now();
        }
        let end = self.caller.as_mut().expect("it is there now");
        end.attacker.lie_once_in = 0;
        let target = self.targets.iter().find(|target| target.id.as_str() == function).expect("it is served");
        let mut header = Header {
            kind: Kind::Call.to_u8(),
            function: target.index,
            function_generation: target.generation,
            encoding: Encoding::Bytes.to_u8(),
            inline_len: 8,
            ..Header::default()
        };
        let mut heard = Vec::new();
        for invocation in 0..calls {
            header.invocation = invocation;
            while !end.attacker.deliver(&header, &Inline::default()) && !end.attacker.hung_up() {
                end.attacker.ring();
                end.attacker.listen();
                heard.extend(end.attacker.take_fresh());
                std::thread::yield_now();
            }
        }
        end.attacker.ring();
        let begun = Instant::now();
        while heard.len() < answers && begun.elapsed() < PATIENCE {
            end.attacker.listen();
            heard.extend(end.attacker.take_fresh());
            std::thread::yield_now();
        }
        assert!(!end.attacker.hung_up(), "the victim closed the channel");
        heard
    }

    /// Takes what the engine says, and asks for a channel where there is none.
    fn look(&mut self, choices: &mut Choices<'_>) {
        while let Some((message, fds)) = self.try_hear() {
            match message {
                EngineMessage::Connected { request, channel } => {
                    let asked = self.asked.take().filter(|(asked, _)| *asked == request);
                    if let Some((_, socket)) = asked {
                        self.deeds.as_caller += 1;
                        self.caller = Some(self.end(socket, channel, true, choices));
                    }
                }
                EngineMessage::ConnectFailed { .. } => self.asked = None,
                EngineMessage::Incoming { channel, from, .. } if from == self.victim => {
                    if let Some(socket) = fds.into_iter().next() {
                        self.deeds.as_callee += 1;
                        self.callee = Some(self.end(socket, channel, false, choices));
                    }
                }
                EngineMessage::Refused { error } => panic!("the engine put the liar out: {error}"),
                _ => {}
            }
        }
        if self.caller.is_none() && self.asked.is_none() {
            let (ours, theirs) = socket::seqpacket_pair().expect("descriptors for a socket");
            self.request += 1;
            self.asked = Some((self.request, ours));
            let connect = WorkerMessage::Connect { request: self.request, to: self.victim };
            self.say(&connect, vec![Arc::new(theirs)]);
        }
    }

    fn end(&self, socket: OwnedFd, channel: u64, caller: bool, choices: &mut Choices<'_>) -> End {
        let identity = Identity { worker: self.id.get(), channel, caller };
        let functions = self.targets.iter().map(|function| (function.index, function.generation)).collect();
        let kinds = if caller { vec![1, 2, 5, 6, 7, 8] } else { vec![3, 4, 6, 7, 8] };
        let interest = Interest { kinds, functions };
        let lie_once_in = choices.pick(&[0, 64, 512, 4096]).unwrap_or(512);
        let mut attacker = Attacker::open(socket, identity, interest, lie_once_in, choices);
        attacker.concurrent = true;
        let aim = Aim::new(self.targets.clone(), choices.once_in(DEAF_ONCE_IN));
        End { attacker, aim, steps: 0 }
    }
}
