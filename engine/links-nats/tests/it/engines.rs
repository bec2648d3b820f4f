//! What all linked engines promise, and what is promised of links over NATS beside that.

use ringway::{ErrorCode, Function};
use ringway_access::Grant;
use serde_json::json;

use crate::drains::no_call_is_lost;
use crate::stage::{OnNats, Stage, until};
use crate::suite::{self, Host, host, wait_for};

#[test]
fn workers_of_linked_engines_call_each_other() {
    suite::workers_of_linked_engines_call_each_other(&OnNats::start());
}

#[test]
fn local_replicas_are_called_before_far_ones_and_far_ones_when_there_is_no_other() {
    suite::local_replicas_are_called_before_far_ones_and_far_ones_when_there_is_no_other(&OnNats::start());
}

#[test]
fn three_engines_in_a_ring_see_everything_once() {
    suite::three_engines_in_a_ring_see_everything_once(&OnNats::start());
}

#[test]
fn a_cut_link_heals_and_both_catalogs_are_whole_again() {
    suite::a_cut_link_heals_and_both_catalogs_are_whole_again(&OnNats::start());
}

#[test]
fn streams_go_both_ways() {
    suite::streams_go_both_ways(&OnNats::start());
}

#[test]
fn payloads_of_all_sizes_go_both_ways() {
    suite::payloads_of_all_sizes_go_both_ways(&OnNats::start());
}

#[test]
fn engines_of_two_projects_do_not_see_each_other() {
    let nats = OnNats::start();
    let first = host(&nats, &[]);
    let second = host(&nats, &[&first]);
    let engine = crate::stage::engine();
    let stranger = Host { joined: Some(nats.join_project(&engine, "shop2")), engine };
    let (a, b, c) = (first.worker("a"), second.worker("b"), stranger.worker("c"));
    a.register(Function::json("a::double", |_, number: u64| Ok(number * 2))).unwrap();
    c.register(Function::json("c::triple", |_, number: u64| Ok(number * 3))).unwrap();
    wait_for(&b, "a::double");
    let (all, theirs) = (b.catalog(), c.catalog());
    assert!(all.functions.iter().all(|function| function.id.as_str() != "c::triple"));
    assert!(theirs.functions.iter().all(|function| function.id.as_str() != "a::double"));
    let error = c.trigger_json("a::double", &json!(1)).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
}

#[test]
fn engines_that_dial_each_other_at_the_same_time_have_one_link() {
    let nats = OnNats::start();
    for round in 0..10 {
        let first = host(&nats, &[]);
        let second = host(&nats, &[&first]);
        let (a, b) = (first.worker("a"), second.worker("b"));
        let (double, triple) = (format!("a::double_{round}"), format!("b::triple_{round}"));
        a.register(Function::json(&double, |_, number: u64| Ok(number * 2))).unwrap();
        b.register(Function::json(&triple, |_, number: u64| Ok(number * 3))).unwrap();
        wait_for(&a, &triple);
        wait_for(&b, &double);
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(a.trigger_json(&triple, &json!(2)).unwrap(), json!(6)));
            scope.spawn(|| assert_eq!(b.trigger_json(&double, &json!(2)).unwrap(), json!(4)));
        });
        for host in [&first, &second] {
            until("there is one link", || host.joined.as_ref().unwrap().links.status().len() == 1);
        }
    }
}

/// A worker that drains waits for what is on its way to it from other engines, too.
#[test]
fn a_replica_of_another_engine_that_drains_loses_no_call() {
    for stage in Stage::all(&Grant::everything()) {
        no_call_is_lost(&stage);
    }
}
