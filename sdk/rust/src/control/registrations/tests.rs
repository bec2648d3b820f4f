//! What is remembered, in orders that are hard to bring about over a socket.

use std::sync::mpsc::{self, Receiver};

use super::*;

fn add(ids: &[&str]) -> Wanted {
    let spec = |id: &&str| FunctionSpec::new(FunctionId::new(id).unwrap(), 1);
    Wanted::Add(Register { functions: ids.iter().map(spec).collect(), ..Register::default() })
}

fn take_back(ids: &[&str]) -> Wanted {
    let functions = ids.iter().map(|id| FunctionId::new(id).unwrap()).collect();
    Wanted::TakeBack(Unregister { functions, ..Unregister::default() })
}

fn results(ids: &[&str], outcome: RegistrationOutcome) -> Vec<RegistrationResult> {
    ids.iter().map(|id| RegistrationResult::done(*id, outcome)).collect()
}

type Outcome = Receiver<Result<Vec<RegistrationResult>, CallError>>;

fn done() -> (RegistrationDone, Outcome) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(move |outcome| drop(sender.send(outcome))), receiver)
}

fn replayed(registrations: &mut Registrations) -> Vec<String> {
    match registrations.replay(99) {
        Some(WorkerMessage::Register(register)) => {
            names_of(&register).into_iter().map(|(_, id)| id).collect()
        }
        None => Vec::new(),
        Some(other) => panic!("{other:?}"),
    }
}

#[test]
fn what_was_taken_back_while_its_registration_was_under_way_stays_gone() {
    let mut registrations = Registrations::default();
    assert!(registrations.ask(1, add(&["a", "b"]), done().0, true).is_some());
    assert!(registrations.ask(2, take_back(&["a"]), done().0, true).is_some());
    registrations.answer(1, results(&["a", "b"], RegistrationOutcome::Registered));
    registrations.answer(2, results(&["a"], RegistrationOutcome::Unregistered));
    assert_eq!(replayed(&mut registrations), ["b"]);
}

#[test]
fn an_engine_that_dies_between_the_two_does_not_bring_it_back() {
    let mut registrations = Registrations::default();
    registrations.ask(1, add(&["a", "b"]), done().0, true);
    let (told, outcome) = done();
    registrations.ask(2, take_back(&["a"]), told, true);
    registrations.ask(3, add(&["c"]), done().0, true);
    registrations.engine_gone();
    assert_eq!(outcome.try_recv().unwrap().unwrap(), results(&["a"], RegistrationOutcome::Unregistered));
    assert_eq!(replayed(&mut registrations), ["b", "c"]);
}

#[test]
fn a_replay_answers_the_requests_it_carries() {
    let mut registrations = Registrations::default();
    registrations.ask(1, add(&["a"]), done().0, true);
    registrations.answer(1, results(&["a"], RegistrationOutcome::Registered));
    let (told, outcome) = done();
    registrations.ask(2, add(&["c", "b"]), told, false);
    assert_eq!(replayed(&mut registrations), ["a", "b", "c"]);
    let mut answer = results(&["a", "b", "c"], RegistrationOutcome::Registered);
    answer[2] = RegistrationResult::refused("c", CallError::registration_conflict("c", "other"));
    registrations.answer(99, answer.clone());
    assert_eq!(outcome.try_recv().unwrap().unwrap(), [answer[2].clone(), answer[1].clone()]);
    registrations.engine_gone();
    assert_eq!(replayed(&mut registrations), ["a", "b"]);
}

#[test]
fn what_was_taken_back_without_an_engine_is_not_replayed() {
    let mut registrations = Registrations::default();
    let (told, added) = done();
    registrations.ask(1, add(&["a"]), told, false);
    let (told, gone) = done();
    assert!(registrations.ask(2, take_back(&["a"]), told, false).is_none());
    assert_eq!(gone.try_recv().unwrap().unwrap().len(), 1);
    assert_eq!(replayed(&mut registrations), Vec::<String>::new());
    assert_eq!(added.try_recv().unwrap().unwrap(), []);
}

#[test]
fn a_late_answer_counts_although_nobody_waits() {
    let mut registrations = Registrations::default();
    let (told, outcome) = done();
    registrations.ask(1, add(&["a"]), told, true);
    registrations
        .expire(1, |sent| CallError::new(ringway_protocol::ErrorCode::DeadlineExceeded, sent.to_string()));
    assert_eq!(outcome.try_recv().unwrap().unwrap_err().message, "true");
    registrations.answer(1, results(&["a"], RegistrationOutcome::Registered));
    assert_eq!(replayed(&mut registrations), ["a"]);
}
