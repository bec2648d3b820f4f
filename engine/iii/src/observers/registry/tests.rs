//! The life of observers, step by step and in any order.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use serde_json::json;

use super::super::spec::Declared;
use super::*;
use crate::limits::ACK_MS;
use crate::protocol::{self, NewObserver};

const OWNER: WorkerId = WorkerId::new(1);
const HOST: WorkerId = WorkerId::new(2);
const OTHER: WorkerId = WorkerId::new(3);

fn built_in(spec: &Spec) -> Option<Result<(), ErrorBody>> {
    (spec.source.id == "cron::on-tick").then_some(Ok(()))
}

fn name(id: &str) -> Name {
    Name::new("default", id)
}

fn wish(id: &str, source: &str, target: &str) -> NewObserver {
    NewObserver {
        id: id.to_owned(),
        source: json!({ "function_id": source }),
        target: json!({ "function_id": target }),
        metadata: None,
        max_fires: None,
        expires_in_ms: None,
        max_in_flight: None,
    }
}

fn spec(id: &str) -> Spec {
    Spec::read(&wish(id, "a::f", "a::t")).unwrap()
}

fn hosting(client: WorkerId, observes: bool) -> Hosting {
    Hosting { client, own: "a::f".to_owned(), declared: Declared::default(), observes, local: observes }
}

/// What connections hear, in short.
fn heard(effects: &[Effect]) -> Vec<String> {
    let reason = |error: &Option<ErrorBody>| {
        error.as_ref().map(|error| format!(" {}", error.code)).unwrap_or_default()
    };
    let mut words = Vec::new();
    for effect in effects {
        words.push(match effect {
            Effect::Tell(to, Told::Result { id, state, error, .. }) => {
                format!("{to:?} result {id} {}{}", state.word(), reason(error)).replace("WorkerId", "")
            }
            Effect::Tell(to, Told::Changed { id, state, reason: why, fires }) => {
                format!("{to:?} changed {id} {}{} {fires}", state.word(), reason(why)).replace("WorkerId", "")
            }
            Effect::Tell(to, Told::Registered { revision, observers, .. }) => {
                format!("{to:?} registered {revision} {}", observers.len()).replace("WorkerId", "")
            }
            Effect::Tell(to, Told::Added { revision, view, .. }) => {
                format!("{to:?} added {} {revision}", view["id"].as_str().unwrap()).replace("WorkerId", "")
            }
            Effect::Tell(to, Told::Removed { revision, id, .. }) => {
                format!("{to:?} removed {id} {revision}").replace("WorkerId", "")
            }
            Effect::Bind(spec) => format!("bind {}", spec.id),
            Effect::Unbind(id) => format!("unbind {id}"),
            Effect::Watch(_, spec) => format!("watch {}", spec.id),
            Effect::Unwatch(..) => "unwatch".to_owned(),
            Effect::Event { .. } => continue,
        });
    }
    words
}

#[track_caller]
fn says(effects: &[Effect], expected: &[&str]) {
    let short = |id: WorkerId| format!("{id:?}").replace("WorkerId", "");
    let names = [(OWNER, "owner"), (HOST, "host"), (OTHER, "other")];
    let found: Vec<String> = heard(effects)
        .into_iter()
        .map(|word| {
            names.iter().fold(word, |word, (id, name)| match word.strip_prefix(&format!("{} ", short(*id))) {
                Some(rest) => format!("{name} {rest}"),
                None => word,
            })
        })
        .collect();
    assert_eq!(found, expected);
}

fn registry() -> Registry<usize> {
    Registry::new(built_in)
}

fn known(names: &[(&str, bool)]) -> HashMap<Name, bool> {
    names.iter().map(|(id, native)| (name(id), *native)).collect()
}

fn ack(id: &str, revision: u64, error: Option<&str>) -> protocol::Ack {
    let error = error.map(|code| ErrorBody::new(code, "no"));
    protocol::Ack { function: "a::f".to_owned(), id: id.to_owned(), revision, error }
}

/// With a host and a target, and one observer that is active.
fn active() -> Registry<usize> {
    let mut registry = registry();
    registry.catalog(known(&[("a::t", true), ("a::f", false)]));
    registry.host(&name("a::f"), hosting(HOST, true), 0);
    registry.observe(OWNER, spec("o"), 0);
    says(&registry.ack(HOST, "default", &ack("o", 2, None)), &["watch o", "owner changed o active 0"]);
    registry
}

#[test]
fn an_observer_is_active_once_its_target_exists_and_its_host_accepts_it() {
    let mut registry = registry();
    says(&registry.observe(OWNER, spec("o"), 0), &["owner result o pending"]);
    says(&registry.host(&name("a::f"), hosting(HOST, true), 0), &["host registered 1 1"]);
    // Of another revision, of another function, of somebody else.
    for (client, ack) in [(HOST, ack("o", 7, None)), (OTHER, ack("o", 1, None)), (HOST, ack("p", 1, None))] {
        says(&registry.ack(client, "default", &ack), &[]);
    }
    says(&registry.ack(HOST, "default", &ack("o", 1, None)), &[]);
    says(&registry.catalog(known(&[("a::t", true)])), &["watch o", "owner changed o active 0"]);
    says(&registry.catalog(known(&[])), &["unwatch", "owner changed o suspended TARGET_UNAVAILABLE 0"]);
    says(&registry.catalog(known(&[("a::t", true)])), &["watch o", "owner changed o active 0"]);
    says(&registry.unhost(HOST, &name("a::f")), &["unwatch", "owner changed o pending OWNER_UNAVAILABLE 0"]);
    // A host that knows no observers has nothing to accept.
    says(&registry.host(&name("a::f"), hosting(OTHER, false), 0), &["watch o", "owner changed o active 0"]);
}

#[test]
fn calls_are_watched_before_anybody_believes_so() {
    let mut registry = registry();
    registry.catalog(known(&[("a::t", true)]));
    registry.host(&name("a::f"), hosting(HOST, false), 0);
    says(&registry.observe(OWNER, spec("o"), 0), &["watch o", "owner result o active"]);
    registry.gone(OWNER, 0);
    says(&registry.observe(OTHER, spec("o"), 0), &["watch o", "other result o active"]);
}

#[test]
fn an_id_is_of_one_connection_until_it_gives_it_back() {
    let mut registry = active();
    says(&registry.observe(OTHER, spec("o"), 0), &["other result o error OBSERVER_ID_CONFLICT"]);
    says(&registry.observe(OWNER, spec("o"), 0), &["owner result o active"]);
    says(&registry.unobserve(OTHER, "o"), &[]);
    says(&registry.unobserve(OWNER, "none"), &[]);
    says(
        &registry.unobserve(OWNER, "o"),
        &["owner changed o disposed UNOBSERVED 0", "host removed o 3", "unwatch"],
    );
    assert!(registry.fire("o", &name("a::f"), 0, 0, &mut Vec::new()).is_none());
    says(&registry.observe(OTHER, spec("o"), 0), &["other result o pending", "host added o 4"]);
}

#[test]
fn a_client_that_comes_back_goes_on_where_it_was() {
    let mut registry = active();
    assert!(registry.fire("o", &name("a::f"), 0, 0, &mut Vec::new()).is_some());
    says(&registry.gone(OWNER, 0), &["host removed o 3", "unwatch"]);
    assert_eq!(registry.get("o").unwrap().state, State::Suspended);
    assert!(registry.fire("o", &name("a::f"), 0, 0, &mut Vec::new()).is_none());
    says(&registry.observe(OTHER, spec("o"), 5), &["other result o pending", "host added o 4"]);
    says(&registry.ack(HOST, "default", &ack("o", 4, None)), &["watch o", "other changed o active 1"]);
    says(&registry.tick(OBSERVER_AWAY_MS + 1), &[]);
    registry.gone(OTHER, 10);
    registry.tick(OBSERVER_AWAY_MS + 9);
    assert!(registry.get("o").is_some());
    registry.tick(OBSERVER_AWAY_MS + 10);
    assert!(registry.get("o").is_none() && registry.is_empty());
}

#[test]
fn what_a_host_refuses_is_to_be_seen_until_it_is_taken_back() {
    let mut registry = active();
    registry.observe(OWNER, spec("p"), 0);
    says(&registry.ack(HOST, "default", &ack("p", 3, Some("NO"))), &["owner changed p error NO 0"]);
    assert_eq!(registry.get("p").unwrap().reason.as_ref().unwrap().code, "NO");
    // Late, after it was accepted: the host is to forget it.
    says(
        &registry.ack(HOST, "default", &ack("o", 2, Some("LATE"))),
        &["host removed o 4", "unwatch", "owner changed o error LATE 0"],
    );
    // What is refused is not told to a host again.
    says(&registry.host(&name("a::f"), hosting(HOST, true), 0), &["host registered 5 0"]);
    registry.gone(OWNER, 0);
    says(&registry.observe(OTHER, spec("p"), 0), &["other result p error NO"]);
    assert!(registry.get("p").is_none());
    registry.observe(OTHER, spec("p"), 0);
    says(&registry.ack(HOST, "default", &ack("p", 6, Some("NO"))), &["other changed p error NO 0"]);
    says(&registry.unobserve(OTHER, "p"), &["other changed p disposed UNOBSERVED 0"]);
}

#[test]
fn a_host_has_so_long_to_answer() {
    let mut registry = registry();
    registry.host(&name("a::f"), hosting(HOST, true), 0);
    registry.observe(OWNER, spec("o"), 100);
    says(&registry.tick(ACK_MS + 99), &[]);
    says(&registry.tick(ACK_MS + 100), &["host removed o 3", "owner changed o error OWNER_TIMEOUT 0"]);
}

#[test]
fn it_fires_as_often_and_as_long_as_it_may() {
    let mut registry = active();
    let fire = |registry: &mut Registry<usize>, id: &str, depth: u32, now: u64, expected: &[&str]| {
        let mut effects = Vec::new();
        let fired = registry.fire(id, &name("a::f"), depth, now, &mut effects).is_some();
        says(&effects, expected);
        fired
    };
    let mut twice = wish("twice", "a::f", "a::t");
    (twice.max_fires, twice.expires_in_ms) = (Some(json!(2)), Some(json!(50)));
    registry.observe(OWNER, Spec::read(&twice).unwrap(), 100);
    registry.ack(HOST, "default", &ack("twice", 3, None));
    assert!(fire(&mut registry, "twice", 0, 100, &[]));
    let ends = ["owner changed twice disposed MAX_FIRES 2", "host removed twice 4", "unwatch"];
    assert!(fire(&mut registry, "twice", 0, 100, &ends));
    assert!(!fire(&mut registry, "twice", 0, 100, &[]));
    twice.id = "short".to_owned();
    registry.observe(OWNER, Spec::read(&twice).unwrap(), 100);
    registry.ack(HOST, "default", &ack("short", 5, None));
    // The time is over, although nobody has looked yet.
    let ends = ["owner changed short disposed EXPIRED 0", "host removed short 6", "unwatch"];
    assert!(!fire(&mut registry, "short", 0, 150, &ends));
    // Eight observers, and no ninth.
    assert!(fire(&mut registry, "o", 7, 0, &[]));
    assert!(!fire(&mut registry, "o", 8, 0, &[]));
    assert_eq!(registry.get("o").unwrap().dropped, BTreeMap::from([(code::LOOP_GUARD, 1)]));
    assert!(registry.fire("o", &name("a::other"), 0, 0, &mut Vec::new()).is_none());
}

#[test]
fn a_host_calls_through_its_observers_and_nobody_else_does() {
    let mut registry = active();
    let mut one = wish("one", "a::f", "a::t");
    one.max_in_flight = Some(json!(1));
    registry.observe(OWNER, Spec::read(&one).unwrap(), 0);
    let through = |registry: &mut Registry<usize>, client, id: &str, depth| {
        registry.call_through(client, id, depth, 0, &mut Vec::new()).map_err(|error| error.code)
    };
    let refused = |found: Result<Through<usize>, String>| found.unwrap_err();
    assert_eq!(refused(through(&mut registry, HOST, "one", 0)), "OBSERVER_NOT_ACTIVE");
    registry.ack(HOST, "default", &ack("one", 3, None));
    assert_eq!(refused(through(&mut registry, OWNER, "one", 0)), "NOT_FUNCTION_OWNER");
    assert_eq!(refused(through(&mut registry, HOST, "none", 0)), "OBSERVER_NOT_FOUND");
    assert_eq!(refused(through(&mut registry, HOST, "one", 8)), "LOOP_GUARD");
    let first = through(&mut registry, HOST, "one", 7).unwrap();
    assert_eq!(refused(through(&mut registry, HOST, "one", 0)), "OVERFLOW");
    first.lane.leave();
    assert!(through(&mut registry, HOST, "one", 0).is_ok());
    assert_eq!(registry.get("one").unwrap().fires, 2);
}

#[test]
fn what_cannot_be_observed_is_said_so() {
    let mut registry = registry();
    registry.catalog(known(&[("a::f", true)]));
    says(&registry.observe(OWNER, spec("o"), 0), &["owner result o error NOT_OBSERVABLE"]);
    assert!(registry.is_empty());
    // One that turns out to be such later.
    let later = Spec::read(&wish("p", "b::f", "a::t")).unwrap();
    says(&registry.observe(OWNER, later, 0), &["owner result p pending"]);
    says(&registry.catalog(known(&[("b::f", true)])), &["owner changed p error NOT_OBSERVABLE 0"]);
    let closed =
        Hosting { declared: Declared { closed: true, ..Declared::default() }, ..hosting(HOST, true) };
    registry.host(&name("c::f"), closed, 0);
    let wanted = Spec::read(&wish("q", "c::f", "a::t")).unwrap();
    says(&registry.observe(OWNER, wanted, 0), &["owner result q error NOT_OBSERVABLE"]);
}

#[test]
fn arguments_that_come_before_their_function_are_looked_at_when_it_comes() {
    let mut registry = registry();
    let mut said = wish("o", "a::f", "a::t");
    said.source["args"] = json!({ "x": 1 });
    says(&registry.observe(OWNER, Spec::read(&said).unwrap(), 0), &["owner result o pending"]);
    says(
        &registry.host(&name("a::f"), hosting(HOST, true), 0),
        &["host registered 1 0", "owner changed o error INVALID_ARGS 0"],
    );
}

/// The engine answers of the observer that there is now.
fn bound(registry: &mut Registry<usize>, outcome: Result<(), ErrorBody>) -> Vec<Effect> {
    let spec = Arc::clone(&registry.get("o").unwrap().spec);
    registry.bound(&spec, outcome)
}

#[test]
fn what_the_engine_says_of_an_earlier_wish_is_out_of_date() {
    let mut registry = registry();
    registry.catalog(known(&[("a::t", true), ("a::u", true)]));
    let wish = |target: &str| Spec::read(&wish("o", "cron::on-tick", target)).unwrap();
    registry.observe(OWNER, wish("a::t"), 0);
    let earlier = Arc::clone(&registry.get("o").unwrap().spec);
    registry.unobserve(OWNER, "o");
    registry.observe(OWNER, wish("a::u"), 0);
    says(&registry.bound(&earlier, Err(ErrorBody::new("HTTP_ROUTE_CONFLICT", "x"))), &[]);
    says(&bound(&mut registry, Ok(())), &["watch o", "owner changed o active 0"]);
}

#[test]
fn the_engines_events_are_asked_for_where_nobody_else_brings_them() {
    let mut registry = registry();
    registry.catalog(known(&[("a::t", true)]));
    let tick = || Spec::read(&wish("o", "cron::on-tick", "a::t")).unwrap();
    says(&registry.observe(OWNER, tick(), 0), &["owner result o pending", "bind o"]);
    says(&bound(&mut registry, Ok(())), &["watch o", "owner changed o active 0"]);
    let cron = || Hosting { own: "cron::on-tick".to_owned(), ..hosting(HOST, true) };
    says(
        &registry.host(&name("cron::on-tick"), cron(), 0),
        &["host registered 1 1", "unbind o", "unwatch", "owner changed o pending OWNER_UNAVAILABLE 0"],
    );
    says(&bound(&mut registry, Ok(())), &[]);
    says(&registry.unhost(HOST, &name("cron::on-tick")), &["bind o"]);
    says(
        &bound(&mut registry, Err(ErrorBody::new("HTTP_ROUTE_CONFLICT", "x"))),
        &["unbind o", "owner changed o error HTTP_ROUTE_CONFLICT 0"],
    );
    says(&registry.unobserve(OWNER, "o"), &["owner changed o disposed UNOBSERVED 0"]);
}

#[test]
fn a_host_that_returns_hears_of_all_who_observe_it() {
    let mut registry = active();
    registry.observe(OWNER, spec("p"), 0);
    registry.gone(HOST, 0);
    assert_eq!(registry.get("o").unwrap().state, State::Pending);
    says(&registry.host(&name("a::f"), hosting(OTHER, true), 0), &["other registered 4 2"]);
    says(&registry.ack(OTHER, "default", &ack("p", 4, None)), &["watch p", "owner changed p active 0"]);
    says(&registry.ack(OTHER, "default", &ack("o", 4, None)), &["watch o", "owner changed o active 0"]);
}

#[test]
fn a_connection_has_so_many_observers() {
    let mut registry = registry();
    for number in 0..OBSERVERS_MAX {
        registry.observe(OWNER, spec(&number.to_string()), 0);
    }
    says(&registry.observe(OWNER, spec("more"), 0), &["owner result more error LIMIT_EXCEEDED"]);
    assert_eq!(heard(&registry.observe(OTHER, spec("more"), 0)).len(), 1);
}

/// What a test does in any order.
#[derive(Debug, Clone)]
enum Step {
    Observe(u64, u8),
    Unobserve(u64, u8),
    Host(u64, bool),
    Unhost(u64),
    /// Accepts the last that it was told of this observer, or not.
    Ack(u64, u8, bool),
    Gone(u64),
    Target(bool),
    Fire(u8),
    Tick(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let (client, id) = (1..4_u64, 0..3_u8);
    prop_oneof![
        (client.clone(), id.clone()).prop_map(|(client, id)| Step::Observe(client, id)),
        (client.clone(), id.clone()).prop_map(|(client, id)| Step::Unobserve(client, id)),
        (client.clone(), any::<bool>()).prop_map(|(client, observes)| Step::Host(client, observes)),
        client.clone().prop_map(Step::Unhost),
        (client.clone(), id.clone(), any::<bool>())
            .prop_map(|(client, id, well)| Step::Ack(client, id, well)),
        client.prop_map(Step::Gone),
        any::<bool>().prop_map(Step::Target),
        id.prop_map(Step::Fire),
        (0..60_000_u32).prop_map(Step::Tick),
    ]
}

/// What connections know by what they were told, and nothing else.
#[derive(Default)]
struct World {
    /// What each host holds, with the revision of the last word about each.
    held: HashMap<u64, HashMap<String, u64>>,
    revisions: HashMap<u64, u64>,
    /// What each client believes of its observers.
    believed: HashMap<u64, HashMap<String, State>>,
    watched: HashSet<String>,
    numbers: HashMap<u64, String>,
}

impl World {
    fn hear(&mut self, effects: &[Effect]) -> Result<(), TestCaseError> {
        for effect in effects {
            match effect {
                Effect::Tell(to, told) => self.told(to.get(), told)?,
                Effect::Watch(number, spec) => {
                    prop_assert!(self.watched.insert(spec.id.clone()), "watched twice: {}", spec.id);
                    self.numbers.insert(*number, spec.id.clone());
                }
                Effect::Unwatch(number, _) => {
                    let id = self.numbers.remove(number);
                    prop_assert!(id.is_some_and(|id| self.watched.remove(&id)));
                }
                Effect::Bind(_) | Effect::Unbind(_) | Effect::Event { .. } => {}
            }
        }
        Ok(())
    }

    fn told(&mut self, to: u64, told: &Told) -> Result<(), TestCaseError> {
        let rises = |revisions: &mut HashMap<u64, u64>, revision: u64| {
            let last = revisions.insert(to, revision);
            last.is_none_or(|last| last < revision)
        };
        let held = self.held.entry(to).or_default();
        let believed = self.believed.entry(to).or_default();
        match told {
            Told::Result { id, state: State::Error, .. }
            | Told::Changed { id, state: State::Disposed, .. } => {
                believed.remove(id);
            }
            Told::Result { id, state, .. } => {
                believed.insert(id.clone(), *state);
            }
            Told::Changed { id, state, .. } => {
                prop_assert!(believed.insert(id.clone(), *state).is_some(), "a stranger's observer: {id}");
            }
            Told::Registered { revision, observers, .. } => {
                self.revisions.insert(to, *revision);
                let ids = observers.iter().map(|view| view["id"].as_str().unwrap().to_owned());
                *held = ids.map(|id| (id, *revision)).collect();
            }
            Told::Added { revision, view, .. } => {
                prop_assert!(rises(&mut self.revisions, *revision));
                held.insert(view["id"].as_str().unwrap().to_owned(), *revision);
            }
            Told::Removed { revision, id, .. } => {
                prop_assert!(rises(&mut self.revisions, *revision));
                prop_assert!(held.remove(id).is_some(), "removed, and never added: {id}");
            }
        }
        Ok(())
    }
}

proptest! {
    /// Whatever happens in whatever order: clients believe what is, hosts hold those observers that they can be asked for
    /// and no others, calls are watched for those that are active, and no observer is told of a call else.
    #[test]
    fn everybody_knows_what_is(steps in proptest::collection::vec(step(), 0..120)) {
        let (mut registry, mut world) = (registry(), World::default());
        let mut now = 0_u64;
        for step in steps {
            let id = |id: u8| format!("o{id}");
            let effects = match step {
                Step::Observe(client, o) => registry.observe(WorkerId::new(client), spec(&id(o)), now),
                Step::Unobserve(client, o) => registry.unobserve(WorkerId::new(client), &id(o)),
                Step::Host(client, false) => {
                    world.held.remove(&client);
                    registry.unhost(WorkerId::new(client), &name("a::f"))
                }
                Step::Host(client, true) => {
                    registry.host(&name("a::f"), hosting(WorkerId::new(client), true), now)
                }
                Step::Unhost(client) => {
                    world.held.remove(&client);
                    registry.unhost(WorkerId::new(client), &name("a::f"))
                }
                Step::Ack(client, o, well) => {
                    let revision = world.held.get(&client).and_then(|held| held.get(&id(o))).copied();
                    let Some(revision) = revision else { continue };
                    let ack = ack(&id(o), revision, (!well).then_some("NO"));
                    let accepted = registry.get(&id(o)).is_some_and(|o| {
                        o.acks.get(&WorkerId::new(client)).is_some_and(|ack| ack.accepted)
                    });
                    // Hosts hold only what they have accepted.
                    if !well && !accepted && let Some(held) = world.held.get_mut(&client) {
                        held.remove(&id(o));
                    }
                    registry.ack(WorkerId::new(client), "default", &ack)
                }
                Step::Gone(client) => {
                    world.held.remove(&client);
                    world.believed.remove(&client);
                    registry.gone(WorkerId::new(client), now)
                }
                Step::Target(exists) => registry.catalog(known(if exists { &[("a::t", true)] } else { &[] })),
                Step::Fire(o) => {
                    let mut effects = Vec::new();
                    let was = registry.get(&id(o)).map(|observer| observer.state);
                    let fired = registry.fire(&id(o), &name("a::f"), 0, now, &mut effects).is_some();
                    prop_assert_eq!(fired, was == Some(State::Active));
                    effects
                }
                Step::Tick(ms) => {
                    now += u64::from(ms);
                    registry.tick(now)
                }
            };
            world.hear(&effects)?;
            for observer in registry.all() {
                let id = &observer.spec.id;
                prop_assert_eq!(world.watched.contains(id), observer.state == State::Active);
                if let Some(client) = observer.client {
                    let believed = world.believed.get(&client.get()).and_then(|all| all.get(id));
                    prop_assert_eq!(believed, Some(&observer.state), "{}", id);
                }
                let hosts = registry.sources.get(&name("a::f")).map(|source| &source.hosts);
                for host in hosts.into_iter().flatten().map(|(client, _)| client) {
                    let holds = world.held.get(&host.get()).is_some_and(|held| held.contains_key(id));
                    let should = observer.client.is_some() && observer.refused.is_none();
                    prop_assert_eq!(holds, should, "{} at {:?}", id, host);
                }
            }
            let ids: HashSet<&str> = registry.all().map(|observer| observer.spec.id.as_str()).collect();
            for held in world.held.values().flat_map(HashMap::keys) {
                prop_assert!(ids.contains(held.as_str()), "a host holds what is no more: {}", held);
            }
            prop_assert!(world.watched.iter().all(|id| ids.contains(id.as_str())));
        }
    }
}
