//! Lanes without threads: what is next, what waits, what is left of an event.

use super::*;

const SHARE: usize = 2;

fn notice(number: u64, key: &str, labels: &[&str]) -> Notice {
    let targets: Vec<Target> = (0..).zip(labels).map(|(at, label)| (at, Arc::from(*label))).collect();
    let targets_in_all = u32::try_from(labels.len()).unwrap();
    Notice { number, key: key.as_bytes().into(), targets, targets_in_all }
}

fn of(notices: Vec<Notice>) -> Lanes {
    let mut lanes = Lanes::new(SHARE);
    notices.into_iter().for_each(|notice| lanes.push(notice));
    lanes
}

fn never(_: &str) -> bool {
    false
}

const UNBOUND: Ended = Ended::Unbound { until_ms: 1000 };

#[test]
fn a_trigger_that_is_bound_while_its_lane_is_looked_at_is_not_missed() {
    let mut lanes = of(vec![notice(0, "k", &["a"])]);
    let taken = lanes.pop().unwrap();
    // The thread has found nobody; now somebody binds, and finds nothing parked.
    lanes.bound("a");
    assert_eq!(lanes.put_back(&taken, UNBOUND, |label| label == "a"), None);
    assert_eq!(lanes.pop().map(|taken| taken.number), Some(0), "it is parked until the event is too old");
}

#[test]
fn a_binding_wakes_the_lanes_of_its_label_and_no_others() {
    let mut lanes = of(vec![notice(0, "k", &["a", "b"]), notice(1, "l", &["a", "c"])]);
    for ended in [UNBOUND, UNBOUND, Ended::Failed { retry_at_ms: 500 }, UNBOUND] {
        let taken = lanes.pop().unwrap();
        lanes.put_back(&taken, ended, never);
    }
    assert!(lanes.pop().is_none());
    lanes.bound("nobody");
    assert!(lanes.pop().is_none());
    lanes.bound("a");
    let woken = [lanes.pop(), lanes.pop()].map(|taken| taken.map(|taken| taken.lane.label.to_string()));
    assert_eq!(woken, [Some("a".to_owned()), Some("a".to_owned())]);
    assert!(lanes.pop().is_none(), "a lane of another label was woken");
    assert_eq!(lanes.wake(499), Some(500));
}

#[test]
fn a_lane_that_waits_comes_back_once_by_its_time_or_by_a_binding() {
    for bind in [false, true] {
        let mut lanes = of(vec![notice(0, "k", &["a"])]);
        let taken = lanes.pop().unwrap();
        lanes.put_back(&taken, Ended::Failed { retry_at_ms: 500 }, never);
        assert_eq!(lanes.wake(499), Some(500));
        if bind {
            lanes.bound("a");
        }
        lanes.wake(500);
        let taken = lanes.pop().unwrap();
        assert_eq!((taken.number, taken.failures), (0, 1));
        assert!(lanes.pop().is_none(), "twice");
    }
}

#[test]
fn what_is_left_of_an_event_is_known() {
    let mut lanes = of(vec![notice(7, "k", &["a", "b"])]);
    assert_eq!(lanes.oldest(), Some("a"));
    let (first, second) = (lanes.pop().unwrap(), lanes.pop().unwrap());
    let told = |target: u32, last: bool| Some(Told { number: 7, target, targets_in_all: 2, last });
    assert_eq!(lanes.put_back(&first, Ended::Told, never), told(0, false));
    assert_eq!(lanes.oldest(), Some("b"), "it waits for somebody who was told");
    assert_eq!(lanes.put_back(&second, Ended::Told, never), told(1, true));
    assert_eq!(lanes.oldest(), None);
}

#[test]
fn an_event_that_somebody_could_not_be_told_stays() {
    let mut lanes = of(vec![notice(7, "k", &["a", "b"])]);
    let (first, second) = (lanes.pop().unwrap(), lanes.pop().unwrap());
    assert_eq!(lanes.put_back(&first, Ended::Unreadable, never), None);
    assert!(!lanes.put_back(&second, Ended::Told, never).unwrap().last);
}

#[test]
fn a_trigger_has_its_share_of_the_threads_and_keys_keep_their_order() {
    let keys = ["k", "l", "m"].into_iter().cycle();
    let events = (0..6).zip(keys).map(|(number, key)| notice(number, key, &["a"])).collect();
    let mut lanes = of(events);
    lanes.push(notice(6, "k", &["b"]));
    let taken: Vec<Taken> = std::iter::from_fn(|| lanes.pop()).collect();
    let numbers = |taken: &[Taken]| taken.iter().map(|taken| taken.number).collect::<Vec<_>>();
    assert_eq!(numbers(&taken), [0, 6, 1], "two for `a`, one for `b`");
    lanes.put_back(&taken[0], Ended::Told, never);
    assert_eq!(lanes.pop().map(|taken| taken.number), Some(2));
    lanes.put_back(&taken[2], Ended::Told, never);
    assert_eq!(lanes.pop().map(|taken| taken.number), Some(3));
}
