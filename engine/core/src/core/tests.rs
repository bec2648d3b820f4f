//! Conversations with the engine, message by message, and what a change costs in a large catalog.

use ringway_protocol::control::{
    ChannelEnd, FunctionSpec, GoneCause, Hello, KeptChannel, Register, RegistrationOutcome, TriggerSpec,
    TriggerTypeSpec, Unregister,
};
use ringway_protocol::error::{ErrorCode, Started};
use ringway_protocol::ids::FunctionId;
use ringway_protocol::limits;

use super::*;
use crate::event::Announcement;
use crate::policy::{Action, Rule};

const ENGINE: WorkerId = WorkerId::new(1);
const A: WorkerId = WorkerId::new(10);
const B: WorkerId = WorkerId::new(11);
/// A worker of the zone `sandbox`.
const S: WorkerId = WorkerId::new(12);

fn config(policy: Policy) -> Config {
    Config {
        engine_id: ENGINE,
        engine_pid: 1,
        engine_version: "test".into(),
        unix_anchor_ms: 1_000,
        zones: Zones::new(0),
        policy,
        limits: Limits::default(),
    }
}

fn core() -> Core {
    let policy = Policy::new(vec![Rule::new(Action::Allow, "sandbox", "docs::*")]);
    let mut core = Core::new(config(policy));
    hello(&mut core, Hello::new(ENGINE, "engine", 1));
    core
}

/// Attaches over the connection that has the worker's number, unless that is taken.
fn hello(core: &mut Core, hello: Hello) -> Vec<Effect> {
    let connection =
        (hello.worker_id.get()..).step_by(1000).find(|c| !core.connections.contains_key(c)).unwrap();
    let credentials = Credentials { uid: 0, pid: hello.pid, engine: hello.worker_id == ENGINE };
    assert_eq!(core.handle(0, Event::Opened { connection, credentials }), []);
    let message = WorkerMessage::Hello(Box::new(hello));
    let mut effects = core.handle(later(core), Event::Message { connection, message });
    effects.extend(core.handle(later(core), Event::NewsDue {}));
    effects
}

/// A time by which all news are told, and new ones need not wait.
fn later(core: &Core) -> u64 {
    core.now_ns + 2 * crate::view::GATHER_NS
}

fn attach(core: &mut Core, id: WorkerId, zone: Option<&str>) -> Vec<Effect> {
    let mut greeting = Hello::new(id, format!("w{}", id.get()), 7);
    greeting.zone = zone.map(str::to_owned);
    hello(core, greeting)
}

fn say(core: &mut Core, from: WorkerId, message: WorkerMessage) -> Vec<Effect> {
    let connection = core.worker(from).unwrap().connection;
    core.handle(later(core), Event::Message { connection, message })
}

fn function(id: &str, index: u32) -> FunctionSpec {
    FunctionSpec::new(FunctionId::new(id).unwrap(), index)
}

fn offer(core: &mut Core, from: WorkerId, functions: Vec<FunctionSpec>) -> Vec<Effect> {
    say(core, from, WorkerMessage::Register(Register { request: 1, functions, ..Register::default() }))
}

fn outcome(effects: &[Effect]) -> Vec<Result<RegistrationOutcome, ErrorCode>> {
    let Some(Effect::Send { message: EngineMessage::Registered { results, .. }, .. }) = effects.last() else {
        panic!("no answer in {effects:?}");
    };
    results
        .iter()
        .map(|result| result.error.as_ref().map_or(Ok(result.outcome), |error| Err(error.code)))
        .collect()
}

fn names(core: &Core, zone: &str) -> Vec<String> {
    core.view(zone)
        .functions
        .iter()
        .map(|function| format!("{}@{}", function.id, function.worker.get()))
        .collect()
}

fn refusal(effects: &[Effect]) -> Option<ErrorCode> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { message: EngineMessage::Refused { error }, .. }
        | Effect::Send { message: EngineMessage::ConnectFailed { error, .. }, .. } => Some(error.code),
        _ => None,
    })
}

#[test]
fn who_wants_no_catalog_is_told_of_none_and_others_of_it() {
    let mut core = core();
    attach(&mut core, A, None);
    offer(&mut core, A, vec![function("a::f", 1)]);
    let mut greeting = Hello::new(B, "quiet", 7);
    greeting.catalog = false;
    let effects = hello(&mut core, greeting);
    let welcome = effects.iter().find_map(|effect| match effect {
        Effect::Send { message: EngineMessage::Welcome(welcome), .. } => Some(welcome),
        _ => None,
    });
    assert_eq!(welcome.unwrap().catalog, ringway_protocol::control::Catalog::default());
    let told = |effects: &[Effect], connection: ConnectionId| {
        effects.iter().any(|effect| match effect {
            Effect::Broadcast { to, message: EngineMessage::CatalogChange { .. } } => {
                to.contains(&connection)
            }
            _ => false,
        })
    };
    let (a, b) = (core.worker(A).unwrap().connection, core.worker(B).unwrap().connection);
    assert!(told(&effects, a), "others hear of it");
    for effects in [
        offer(&mut core, B, vec![function("b::f", 1)]),
        offer(&mut core, A, vec![function("a::f", 1), function("a::g", 2)]),
    ] {
        assert_eq!((told(&effects, a), told(&effects, b)), (true, false));
    }
}

#[test]
fn a_change_is_told_before_its_answer() {
    let mut core = core();
    attach(&mut core, A, None);
    let effects = attach(&mut core, B, None);
    assert!(
        matches!(&effects[..], [Effect::Attached { .. }, Effect::Send { .. }, Effect::Broadcast { to, .. }] if to.len() == 2)
    );
    let effects = offer(&mut core, A, vec![function("a::f", 1), function("a::g", 2)]);
    let [
        Effect::Broadcast { to, message: EngineMessage::CatalogChange { changes, .. } },
        Effect::Send { .. },
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((to.len(), changes.len()), (3, 2));
    assert_eq!(offer(&mut core, A, vec![function("a::f", 1)]).len(), 1, "the same again tells nobody");
}

#[test]
fn bad_entries_fail_alone() {
    let mut core = core();
    attach(&mut core, A, None);
    let mut long = function("a::long", 9);
    long.description = Some("x".repeat(limits::DESCRIPTION_BYTES_MAX + 1));
    let functions = vec![
        function("a::f", 1),
        function("a::zero", 0),
        function("a::high", limits::FUNCTION_INDEX_END),
        function("a::g", 1),
        function("engine::mine", 3),
        long,
        function("a::h", 2),
    ];
    let (good, bad, taken) = (
        Ok(RegistrationOutcome::Registered),
        Err(ErrorCode::InvalidRegistration),
        Err(ErrorCode::RegistrationConflict),
    );
    assert_eq!(outcome(&offer(&mut core, A, functions)), [good, bad, bad, taken, taken, bad, good]);
    assert_eq!(names(&core, "default"), ["a::f@10", "a::h@10"]);
    let inspect = function(ringway_protocol::naming::WORKER_INSPECT, 0);
    assert_eq!(outcome(&offer(&mut core, A, vec![inspect])), [good]);
    assert_eq!(names(&core, "default").len(), 2, "inspection is not listed");
}

#[test]
fn the_queues_ids_are_for_a_worker_in_the_engines_process() {
    let mut core = core();
    attach(&mut core, A, None);
    hello(&mut core, Hello::new(B, "queue", 1));
    let offered = |core: &mut Core, worker| {
        let ids = ["engine::queue::enqueue", "engine::functions::list"];
        outcome(&offer(core, worker, ids.iter().zip(1..).map(|(id, index)| function(id, index)).collect()))
    };
    let taken = Err(ErrorCode::RegistrationConflict);
    assert_eq!(offered(&mut core, A), [taken, taken], "it lives in a process of its own");
    assert_eq!(
        offered(&mut core, B),
        [Ok(RegistrationOutcome::Registered), taken],
        "no replica of the engine's own"
    );
}

#[test]
fn exclusive_functions_have_no_replicas_in_their_zone() {
    let mut core = core();
    attach(&mut core, A, None);
    attach(&mut core, B, None);
    attach(&mut core, S, Some("sandbox"));
    let alone = |id| FunctionSpec { exclusive: true, ..function(id, 1) };
    let conflict = [Err(ErrorCode::RegistrationConflict)];
    assert_eq!(outcome(&offer(&mut core, A, vec![alone("a::f")])).len(), 1);
    assert_eq!(outcome(&offer(&mut core, B, vec![function("a::f", 1)])), conflict);
    assert_eq!(
        outcome(&offer(&mut core, S, vec![alone("a::f")])),
        [Ok(RegistrationOutcome::Registered)],
        "zones do not compete"
    );
    offer(&mut core, B, vec![function("a::g", 2)]);
    assert_eq!(outcome(&offer(&mut core, A, vec![FunctionSpec { index: 2, ..alone("a::g") }])), conflict);
}

#[test]
fn strangers_are_refused() {
    let check = |change: fn(&mut Hello), expected: ErrorCode| {
        let mut core = core();
        attach(&mut core, A, None);
        let mut greeting = Hello::new(B, "b", 8);
        change(&mut greeting);
        let effects = hello(&mut core, greeting);
        assert_eq!(refusal(&effects), Some(expected));
        assert!(matches!(effects.last(), Some(Effect::Close { .. })));
        assert_eq!(core.workers().count(), 2);
    };
    check(|hello| hello.protocol = 99, ErrorCode::IncompatibleVersion);
    check(|hello| hello.namespace = " ".into(), ErrorCode::InvalidRegistration);
    check(|hello| hello.name = "a\u{7}".into(), ErrorCode::InvalidRegistration);
    check(|hello| hello.worker_id = A, ErrorCode::RegistrationConflict);
    let mut core = core();
    let credentials = Credentials { uid: 0, pid: 8, engine: false };
    assert_eq!(core.handle(0, Event::Opened { connection: 50, credentials }), []);
    let message = WorkerMessage::Hello(Box::new(Hello::new(ENGINE, "engine", 8)));
    assert_eq!(
        refusal(&core.handle(0, Event::Message { connection: 50, message })),
        Some(ErrorCode::Forbidden)
    );
    assert_eq!(core.handle(0, Event::Opened { connection: 51, credentials }), []);
    let early = core.handle(0, Event::Message { connection: 51, message: WorkerMessage::Heartbeat {} });
    assert_eq!(refusal(&early), Some(ErrorCode::ProtocolViolation));
}

#[test]
fn channels_are_given_to_those_who_may_call() {
    let mut core = core();
    for (id, zone) in [(A, None), (B, None), (S, Some("sandbox"))] {
        attach(&mut core, id, zone);
    }
    let connect = |core: &mut Core, from, to| say(core, from, WorkerMessage::Connect { request: 1, to });
    assert_eq!(refusal(&connect(&mut core, A, B)), Some(ErrorCode::StaleHandle), "nothing to call there");
    offer(&mut core, B, vec![function("b::f", 70)]);
    let effects = connect(&mut core, A, B);
    assert!(
        matches!(&effects[..], [Effect::OpenChannel { permissions, .. }] if permissions[..] == [0, 1 << 6])
    );
    assert_eq!(refusal(&connect(&mut core, A, A)), Some(ErrorCode::StaleHandle), "nor at itself");
    let effects = connect(&mut core, B, B);
    assert!(
        matches!(&effects[..], [Effect::OpenChannel { permissions, .. }] if permissions[..] == [0, 1 << 6]),
        "a worker calls itself like any other: {effects:?}"
    );
    assert_eq!(
        refusal(&connect(&mut core, S, B)),
        Some(ErrorCode::Forbidden),
        "zones call through the engine"
    );
    assert!(matches!(&connect(&mut core, S, ENGINE)[..], [Effect::OpenChannel { .. }]));
    assert_eq!(refusal(&connect(&mut core, A, WorkerId::new(99))), Some(ErrorCode::WorkerGone));
    say(&mut core, B, WorkerMessage::Draining {});
    assert_eq!(refusal(&connect(&mut core, A, B)), Some(ErrorCode::Draining));
}

#[test]
fn permission_comes_before_the_news_and_goes_with_the_policy() {
    let mut core = core();
    attach(&mut core, A, None);
    attach(&mut core, B, None);
    offer(&mut core, B, vec![function("b::f", 1)]);
    say(&mut core, A, WorkerMessage::Connect { request: 1, to: B });
    let effects = offer(&mut core, B, vec![function("b::g", 2)]);
    assert!(matches!(&effects[0], Effect::SetPermissions { words, .. } if words[..] == [(0, 0b110)]));
    assert!(matches!(&effects[1], Effect::Broadcast { .. }));
    let policy = Policy::new(vec![Rule::new(Action::Deny, "*", "b::g")]);
    let effects = core.handle(0, Event::PolicyChanged { policy });
    assert!(matches!(&effects[0], Effect::SetPermissions { words, .. } if words[..] == [(0, 0b010)]));
    assert_eq!(names(&core, "default"), ["b::f@11"]);
    let policy = Policy::new(vec![Rule::new(Action::Deny, "*", "b::*")]);
    let effects = core.handle(0, Event::PolicyChanged { policy });
    let revoked = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Send { message: EngineMessage::Revoked { .. }, .. }));
    assert_eq!(revoked.count(), 2, "both ends are told");
}

#[test]
fn other_zones_see_what_they_may_call_as_the_engines() {
    let mut core = core();
    attach(&mut core, A, None);
    attach(&mut core, S, Some("sandbox"));
    offer(&mut core, A, vec![function("docs::search", 1), function("orders::list", 2)]);
    assert_eq!(names(&core, "sandbox"), ["docs::search@1"]);
    let index = core.view("sandbox").functions[0].index;
    assert!(index >= limits::RELAY_INDEX_START);
    assert_eq!(core.relay(S, index).unwrap().replicas, [(A, 1, 0)]);
    let other = WorkerId::new(13);
    attach(&mut core, other, Some("elsewhere"));
    let hidden = core.relay(other, index).unwrap_err();
    let absent = core.relay(other, index + 1).unwrap_err();
    assert_eq!(hidden.code, ErrorCode::StaleHandle, "an index of another zone tells no name: {hidden}");
    assert_eq!(
        hidden.message.replace(&index.to_string(), ""),
        absent.message.replace(&(index + 1).to_string(), "")
    );
    attach(&mut core, B, None);
    let effects = offer(&mut core, B, vec![function("docs::search", 5)]);
    let zones = effects.iter().filter(|effect| matches!(effect, Effect::Broadcast { .. }));
    assert_eq!(zones.count(), 1, "a second replica changes nothing for the sandbox");
    assert_eq!(core.relay(S, index).unwrap().replicas.len(), 2);
    for id in [A, B] {
        say(&mut core, id, WorkerMessage::Goodbye {});
    }
    assert_eq!(names(&core, "sandbox"), [""; 0]);
    assert_eq!(core.relay(S, index).unwrap_err().code, ErrorCode::StaleHandle);
    attach(&mut core, A, None);
    offer(&mut core, A, vec![function("docs::search", 1)]);
    assert_ne!(core.view("sandbox").functions[0].index, index, "an index is never used again");
}

#[test]
fn a_relay_promises_what_all_replicas_do_and_no_typed_memory() {
    use ringway_protocol::header::Encoding;
    let mut core = core();
    let spec = |encodings: &[Encoding], idempotent| FunctionSpec {
        encodings: encodings.to_vec(),
        idempotent,
        type_key: Some("t".into()),
        ..function("docs::search", 1)
    };
    for (id, zone) in [(A, None), (B, None), (S, Some("sandbox"))] {
        attach(&mut core, id, zone);
    }
    offer(&mut core, A, vec![spec(&[Encoding::Rkyv, Encoding::Json, Encoding::Bytes], true)]);
    let seen = core.view("sandbox").functions.remove(0);
    assert_eq!((&seen.encodings[..], seen.idempotent), (&[Encoding::Json, Encoding::Bytes][..], true));
    assert_eq!((seen.type_key, seen.relay.unwrap().zone.as_str()), (None, "default"));
    offer(&mut core, B, vec![spec(&[Encoding::Json], false)]);
    let seen = core.view("sandbox").functions.remove(0);
    assert_eq!((&seen.encodings[..], seen.idempotent), (&[Encoding::Json][..], false));
}

#[test]
fn a_death_is_told_once() {
    let mut core = core();
    attach(&mut core, A, None);
    attach(&mut core, B, None);
    offer(&mut core, A, vec![function("a::f", 1), function("a::g", 2)]);
    let connection = core.worker(A).unwrap().connection;
    let effects = core.handle(0, Event::Closed { connection });
    let [
        Effect::Broadcast { message: EngineMessage::CatalogChange { changes, .. }, .. },
        Effect::Left { .. },
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(changes[..], [Change::WorkerGone { id: A, cause: GoneCause::Died }]);
    assert_eq!(core.handle(0, Event::Closed { connection }), []);
    assert_eq!(names(&core, "default"), [""; 0]);
}

#[test]
fn a_broken_connection_loses_nothing() {
    let mut core = core();
    attach(&mut core, A, None);
    attach(&mut core, B, None);
    offer(&mut core, A, vec![function("a::f", 1), function("a::g", 2)]);
    let old = core.worker(A).unwrap().connection;
    let effects = attach(&mut core, A, None);
    assert_eq!(effects[0], Effect::Close { connection: old });
    assert_eq!(core.handle(0, Event::Closed { connection: old }), [], "the late hang-up kills nobody");
    assert_eq!(names(&core, "default"), ["a::f@10", "a::g@10"]);
    let effects = offer(&mut core, A, vec![function("a::g", 2), function("a::h", 1)]);
    assert_eq!(
        outcome(&effects),
        [Ok(RegistrationOutcome::Registered); 2],
        "an index that is free again can be used"
    );
    assert_eq!(names(&core, "default"), ["a::g@10", "a::h@10"], "what was not named again is gone");
}

#[test]
fn channels_outlive_the_engine() {
    let kept = |peer, end| vec![KeptChannel { peer, end }];
    let mut core = core();
    let back = |id, channels| Hello { reattach: true, channels, ..Hello::new(id, "w", 7) };
    hello(&mut core, back(A, kept(B, ChannelEnd::Caller)));
    let effects = hello(&mut core, back(B, kept(A, ChannelEnd::Callee)));
    let adopted = |effects: &[Effect]| {
        effects.iter().any(
            |effect| matches!(effect, Effect::AdoptChannel { permissions, .. } if permissions[..] == [2]),
        )
    };
    assert!(!adopted(&effects), "before the callee has registered, its old page stands");
    let effects = offer(&mut core, B, vec![function("b::f", 1)]);
    assert!(adopted(&effects));
    assert!(!adopted(&offer(&mut core, B, vec![function("b::f", 1)])), "once");
}

#[test]
fn bindings_wait_for_their_type_and_follow_it() {
    let mut core = core();
    attach(&mut core, A, None);
    attach(&mut core, B, None);
    let trigger = TriggerSpec::new("t", "cron", FunctionId::new("a::f").unwrap());
    let bind = Register { request: 1, triggers: vec![trigger], ..Register::default() };
    let provide = || Register {
        request: 1,
        trigger_types: vec![TriggerTypeSpec { id: "cron".into(), ..TriggerTypeSpec::default() }],
        ..Register::default()
    };
    let told = |effects: &[Effect]| -> Vec<(ConnectionId, &'static str)> {
        effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Send { to, message } => Some((*to, message.name())),
                _ => None,
            })
            .filter(|(_, name)| name.starts_with("trigger"))
            .collect()
    };
    assert_eq!(
        outcome(&say(&mut core, A, WorkerMessage::Register(bind.clone()))),
        [Ok(RegistrationOutcome::Parked)]
    );
    assert_eq!(told(&say(&mut core, ENGINE, WorkerMessage::Register(provide()))), [(1, "trigger_bind")]);
    assert_eq!(
        told(&say(&mut core, B, WorkerMessage::Register(provide()))),
        [(1, "trigger_unbind"), (11, "trigger_bind")]
    );
    assert_eq!(
        told(&say(&mut core, A, WorkerMessage::Register(bind.clone()))),
        [],
        "nobody has answered yet"
    );
    let refused = WorkerMessage::TriggerBound { binding: "t".into(), error: Some(CallError::handler("no")) };
    assert_eq!(told(&say(&mut core, A, refused.clone())), [], "only the provider has a say");
    let accepted = WorkerMessage::TriggerBound { binding: "t".into(), error: None };
    assert_eq!(told(&say(&mut core, B, accepted.clone())), [(10, "trigger_accepted")]);
    assert_eq!(told(&say(&mut core, B, accepted)), [], "once");
    assert_eq!(
        told(&say(&mut core, A, WorkerMessage::Register(bind.clone()))),
        [(10, "trigger_accepted")],
        "the same binding again"
    );
    // Another one under the same id takes its place where it is watched for.
    let mut another = bind.clone();
    another.triggers[0].config = serde_json::json!({ "other": true });
    assert_eq!(told(&say(&mut core, A, WorkerMessage::Register(another))), [(11, "trigger_bind")]);
    assert_eq!(told(&say(&mut core, B, refused.clone())), [(11, "trigger_unbind"), (10, "trigger_refused")]);
    assert_eq!(told(&say(&mut core, B, refused.clone())), [], "it is parked");
    assert_eq!(told(&say(&mut core, A, WorkerMessage::Register(bind))), [(11, "trigger_bind")]);
    assert_eq!(told(&say(&mut core, B, refused)), [(10, "trigger_refused")]);
    assert_eq!(
        told(&say(&mut core, B, WorkerMessage::Goodbye {})),
        [(1, "trigger_bind")],
        "the former provider has it back"
    );
    let taken = Unregister { request: 2, triggers: vec!["t".into()], ..Unregister::default() };
    assert_eq!(told(&say(&mut core, A, WorkerMessage::Unregister(taken))), [(1, "trigger_unbind")]);
}

#[test]
fn a_kept_binding_outlives_its_maker_and_stays_in_its_zone() {
    let mut core = core();
    let spec = TriggerSpec::new("kept", "cron", FunctionId::new("a::f").unwrap());
    let (zone, other) = (Zone::from("default"), Zone::from("sandbox"));
    core.check_kept_trigger(&zone, &spec).unwrap();
    let parked = Effect::TriggerSettled { id: "kept".into(), error: None };
    assert_eq!(core.handle(0, Event::TriggerKept { zone: zone.clone(), spec: spec.clone() }), [parked]);
    assert_eq!(core.check_kept_trigger(&other, &spec).unwrap_err().code, ErrorCode::RegistrationConflict);
    assert_eq!(core.handle(0, Event::TriggerRemoved { zone: other, id: "kept".into() }), []);
    attach(&mut core, A, None);
    let trigger_types = vec![TriggerTypeSpec { id: "cron".into(), ..TriggerTypeSpec::default() }];
    let provide = Register { request: 1, trigger_types, ..Register::default() };
    let bound = |effects: &[Effect], name: &str| {
        effects.iter().any(|effect| matches!(effect, Effect::Send { message, .. } if message.name() == name))
    };
    assert!(bound(&say(&mut core, A, WorkerMessage::Register(provide)), "trigger_bind"));
    say(&mut core, A, WorkerMessage::Goodbye {});
    assert!(core.bindings.get("kept").is_some_and(|binding| binding.provider.is_none()), "parked");
    assert_eq!(core.handle(0, Event::TriggerRemoved { zone, id: "kept".into() }), []);
    assert!(core.bindings.get("kept").is_none());
}

#[test]
fn a_relay_with_nobody_ready_says_so() {
    let mut core = core();
    attach(&mut core, A, None);
    attach(&mut core, S, Some("sandbox"));
    offer(&mut core, A, vec![function("docs::read", 1)]);
    let index = core.view("sandbox").functions[0].index;
    say(&mut core, A, WorkerMessage::Draining {});
    assert_eq!(core.relay(S, index).unwrap_err().code, ErrorCode::Draining);
    assert_eq!(core.function_at(ENGINE, index).unwrap().id.as_str(), "docs::read");
    let gone = CallError::worker_gone(A, Started::No);
    assert_eq!(gone.started, Some(Started::No));
}

/// Fills an engine with workers that have as many functions each as asked.
fn filled(workers: u64, functions: u32) -> Core {
    let mut core = core();
    for worker in 0..workers {
        let id = WorkerId::new(1000 + worker);
        attach(&mut core, id, None);
        let functions =
            (1..=functions).map(|index| function(&format!("w{worker}::f{index}"), index)).collect();
        offer(&mut core, id, functions);
    }
    core
}

#[test]
fn a_push_costs_the_same_in_a_small_and_a_large_catalog() {
    let push = |per_worker: u32| {
        let mut core = filled(200, per_worker);
        let visits = crate::view::visits();
        let effects = offer(&mut core, WorkerId::new(1000), vec![function("late::function", 9_000)]);
        let visits = crate::view::visits() - visits;
        let broadcast = effects.iter().find_map(|effect| match effect {
            Effect::Broadcast { to, message } => Some((to.len(), serde_json::to_vec(message).unwrap().len())),
            _ => None,
        });
        (effects.len(), broadcast.unwrap(), visits)
    };
    let (small, large) = (push(1), push(50));
    assert_eq!((small.0, small.1.0, small.2), (large.0, large.1.0, large.2));
    assert_eq!(large.1.0, 201, "every worker and the engine hear it");
    assert!(large.1.1 < 400, "one short message, encoded once: {} bytes", large.1.1);
}

#[test]
fn ten_thousand_functions_on_two_hundred_workers_are_seen_by_all() {
    let core = filled(200, 50);
    let view = core.view("default");
    assert_eq!((view.workers.len(), view.functions.len()), (201, 10_000));
    let bytes = serde_json::to_vec(&view).unwrap().len();
    assert!(bytes < limits::CONTROL_JSON_BYTES_MAX as usize / 16, "{bytes} bytes at attach");
}

/// Two hundred workers come back to a new engine, in turn, each with its fifty functions: every one of them is told of
/// each function once, in the greeting or by a change, and what is looked at grows with what changes.
#[test]
fn a_fleet_that_returns_is_told_of_each_function_once() {
    const WORKERS: u64 = 200;
    const FUNCTIONS: u32 = 50;
    let mut core = core();
    let mut told = BTreeMap::<ConnectionId, (usize, usize)>::new();
    let mut hear = |effects: &[Effect]| {
        for effect in effects {
            let (to, functions) = match effect {
                Effect::Send { to, message: EngineMessage::Welcome(welcome) } => {
                    (vec![*to], welcome.catalog.functions.len())
                }
                Effect::Broadcast { to, message: EngineMessage::CatalogChange { changes, .. } } => {
                    let added =
                        changes.iter().filter(|change| matches!(change, Change::FunctionAdded { .. }));
                    (to.clone(), added.count())
                }
                _ => continue,
            };
            for to in to {
                let (messages, entries) = told.entry(to).or_default();
                *messages += 1;
                *entries += functions;
            }
        }
    };
    let visits = crate::view::visits();
    for number in 0..WORKERS {
        let id = WorkerId::new(1000 + number);
        let mut greeting = Hello::new(id, "fleet", 7);
        greeting.reattach = true;
        hear(&hello(&mut core, greeting));
        let functions = (1..=FUNCTIONS).map(|index| function(&format!("fleet::w{number}-f{index}"), index));
        hear(&offer(&mut core, id, functions.collect()));
    }
    let all = WORKERS * u64::from(FUNCTIONS);
    assert_eq!(
        crate::view::visits() - visits,
        2 * all,
        "each function and its one replica are looked at once"
    );
    told.retain(|connection, _| *connection >= 1000);
    assert_eq!(told.len(), 200);
    assert!(told.values().all(|(_, entries)| *entries as u64 == all), "{told:?}");
    let messages: usize = told.values().map(|(messages, _)| messages).sum();
    // A greeting, one's own functions, and two changes for each who comes later.
    assert_eq!(messages as u64, WORKERS * (2 + WORKERS - 1));
}

#[test]
fn a_worker_names_itself_later_and_is_judged_by_that_name() {
    let policy = Policy::new(vec![Rule::new(Action::Deny, "*", "b::secret").with_caller("guest*")]);
    let mut core = Core::new(config(policy));
    hello(&mut core, Hello::new(ENGINE, "engine", 1));
    attach(&mut core, A, None);
    attach(&mut core, B, None);
    offer(&mut core, B, vec![function("b::f", 1), function("b::secret", 2)]);
    say(&mut core, A, WorkerMessage::Connect { request: 1, to: B });
    let announced = |core: &mut Core, said: Announcement| {
        core.handle(9_000_000, Event::WorkerAnnounced { worker: A, announcement: Box::new(said) })
    };
    let named = |name: &str| Announcement { name: Some(name.into()), ..Announcement::default() };
    let effects = announced(&mut core, named(" guest-7\u{7} "));
    assert!(
        matches!(&effects[..], [Effect::SetPermissions { words, .. }, Effect::Described { worker: A }, ..]
            if words[..] == [(0, 0b010)]),
        "{effects:?}"
    );
    assert_eq!(core.worker(A).unwrap().hello.name, "guest-7");
    assert_eq!(announced(&mut core, named("guest-7")), [], "the same again tells nobody");
    let runtime = Announcement { runtime: Some("node".into()), ..Announcement::default() };
    announced(&mut core, runtime);
    let hello = &core.worker(A).unwrap().hello;
    assert_eq!((hello.name.as_str(), hello.runtime.as_str()), ("guest-7", "node"), "what is left out stays");
    let elsewhere = Announcement { namespace: Some("blue".into()), ..named("other") };
    assert_eq!(core.check_announcement(A, &elsewhere).unwrap_err().code, ErrorCode::InvalidRegistration);
    assert_eq!(announced(&mut core, elsewhere), []);
    assert!(core.check_announcement(WorkerId::new(99), &named("x")).is_err(), "nobody");
}

/// Has a worker attach and register functions in so many messages, 100 µs apart as over a socket, and returns how many
/// messages about it each of some others got.
fn news_of_an_arrival(functions: u32, per_message: usize) -> Vec<usize> {
    const OTHERS: u64 = 20;
    const STEP_NS: u64 = 100_000;
    let mut core = core();
    let others: Vec<WorkerId> = (0..OTHERS).map(|n| WorkerId::new(100 + n)).collect();
    for other in &others {
        attach(&mut core, *other, None);
    }
    let mut now = later(&core);
    let connection = 5_000;
    let credentials = Credentials { uid: 0, pid: 9, engine: false };
    let mut events = vec![
        Event::Opened { connection, credentials },
        Event::Message { connection, message: WorkerMessage::Hello(Box::new(Hello::new(A, "new", 9))) },
    ];
    let specs: Vec<_> = (1..=functions).map(|index| function(&format!("a::f{index}"), index)).collect();
    events.extend(specs.chunks(per_message).map(|specs| {
        let message = WorkerMessage::Register(Register {
            request: 1,
            functions: specs.to_vec(),
            ..Register::default()
        });
        Event::Message { connection, message }
    }));
    let mut counts = vec![0; others.len()];
    let mut take = |core: &Core, effects: Vec<Effect>| {
        for effect in effects {
            let Effect::Broadcast { to, .. } = effect else { continue };
            for (other, count) in others.iter().zip(&mut counts) {
                *count += usize::from(to.contains(&core.worker(*other).unwrap().connection));
            }
        }
    };
    for event in events {
        while let Some(due_ns) = core.news_due_ns().filter(|due_ns| *due_ns <= now) {
            let effects = core.handle(due_ns, Event::NewsDue {});
            take(&core, effects);
        }
        let effects = core.handle(now, event);
        take(&core, effects);
        now += STEP_NS;
    }
    while let Some(due_ns) = core.news_due_ns() {
        let effects = core.handle(due_ns, Event::NewsDue {});
        take(&core, effects);
    }
    assert_eq!(names(&core, "default").len(), functions as usize);
    counts
}

#[test]
fn an_arrival_costs_the_others_few_messages() {
    assert_eq!(news_of_an_arrival(50, 50), [1; 20], "its functions come with it");
    // 50 at 100 µs are 5 ms: the first at once, the rest together.
    assert_eq!(news_of_an_arrival(50, 1), [2; 20]);
    // 1000 are 100 ms: one message in 5 ms.
    assert!(news_of_an_arrival(1000, 1).iter().all(|count| *count <= 22));
    assert_eq!(news_of_an_arrival(0, 1), [1; 20]);
}

#[test]
fn whoever_registers_knows_before_the_answer_and_hears_it_once() {
    let mut core = core();
    attach(&mut core, A, None);
    attach(&mut core, B, None);
    let connections = [A, B].map(|id| core.worker(id).unwrap().connection);
    let mut views: BTreeMap<_, _> = connections.iter().map(|c| (*c, core.view("default"))).collect();
    let mut now = later(&core);
    for round in 1..=4 {
        let register = Register {
            request: 1,
            functions: vec![function(&format!("a::f{round}"), round)],
            ..Register::default()
        };
        let event = Event::Message { connection: connections[0], message: WorkerMessage::Register(register) };
        now += 1_000;
        let effects = core.handle(now, event);
        assert!(
            matches!(effects.last(), Some(Effect::Send { message: EngineMessage::Registered { .. }, .. })),
            "{effects:?}"
        );
        hear(&mut views, effects);
        assert_eq!(views[&connections[0]], core.view("default"), "round {round}");
        assert_eq!(views[&connections[1]].functions.len(), 1, "the first at once, the others together");
    }
    let due_ns = core.news_due_ns().unwrap();
    let effects = core.handle(due_ns, Event::NewsDue {});
    hear(&mut views, effects);
    assert_eq!(views[&connections[1]], core.view("default"));
    assert_eq!(core.news_due_ns(), None);
}

#[test]
fn a_death_waits_for_nothing() {
    let mut core = core();
    attach(&mut core, A, None);
    attach(&mut core, B, None);
    let connections = [A, B].map(|id| core.worker(id).unwrap().connection);
    let mut views: BTreeMap<_, _> = connections.iter().map(|c| (*c, core.view("default"))).collect();
    let now = later(&core);
    for index in 1..=2 {
        let functions = vec![function(&format!("a::f{index}"), index)];
        let message = WorkerMessage::Register(Register { request: 1, functions, ..Register::default() });
        let effects = core.handle(now, Event::Message { connection: connections[0], message });
        hear(&mut views, effects);
    }
    assert_eq!(views[&connections[1]].functions.len(), 1, "the second is kept for a moment");
    let effects = core.handle(now, Event::Closed { connection: connections[0] });
    hear(&mut views, effects);
    assert_eq!(views[&connections[1]], core.view("default"));
}

/// Applies the catalog's changes among effects to the views of whom they go to.
fn hear(views: &mut BTreeMap<ConnectionId, ringway_protocol::control::Catalog>, effects: Vec<Effect>) {
    for effect in effects {
        if let Effect::Broadcast { to, message: EngineMessage::CatalogChange { revision, changes } } = effect
        {
            for to in to {
                if let Some(view) = views.get_mut(&to) {
                    view.apply(revision, &changes).unwrap();
                }
            }
        }
    }
}
