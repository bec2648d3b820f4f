//! The table of calls in flight: entries are given back once, whoever finds first that a call is over.

use super::*;

fn gone() -> Outcome {
    Err(CallError::new(ErrorCode::WorkerGone, "gone"))
}

#[test]
fn an_entry_is_given_back_once() {
    let table = PendingTable::new();
    let first = table.take().unwrap();
    table.give_back(first);
    table.give_back(first);
    assert_eq!(table.taken(), 0);
    let (second, third) = (table.take().unwrap(), table.take().unwrap());
    assert_ne!(second.index(), third.index(), "one entry for two calls");
    table.give_back(first);
    assert!(table.find(second).is_some(), "a stale number gives back nobody else's entry");
}

#[test]
fn an_outcome_counts_once_and_only_while_somebody_waits() {
    let table = PendingTable::new();
    let call = table.take().unwrap();
    let entry = table.find(call).unwrap();
    assert!(entry.complete(gone()));
    assert!(!entry.complete(gone()), "a second reply is nobody's");
    assert!(!entry.abandon(), "it was done already");
    assert!(entry.take_outcome().is_some() && entry.take_outcome().is_none());
    table.give_back(call);
    assert!(table.find(call).is_none());
    let call = table.take().unwrap();
    let entry = table.find(call).unwrap();
    assert!(entry.abandon());
    assert!(!entry.complete(gone()));
}

/// Callers that give up, a reader that answers, and two threads that find the channel closed, all at once.
#[test]
fn threads_that_race_to_end_calls_never_share_an_entry() {
    for _ in 0..200 {
        let table = PendingTable::new();
        let calls: Vec<InvocationId> = (0..8).map(|_| table.take().unwrap()).collect();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for call in &calls {
                        let Some(entry) = table.find(*call) else { continue };
                        if !entry.complete(gone()) {
                            table.give_back(*call);
                        }
                    }
                });
            }
            scope.spawn(|| {
                for call in &calls {
                    let _done_or_over = table.find(*call).map(Entry::abandon);
                }
            });
        });
        for call in &calls {
            table.give_back(*call);
        }
        assert_eq!(table.taken(), 0);
        let mut again: Vec<u32> = (0..8).map(|_| table.take().unwrap().index()).collect();
        again.sort_unstable();
        again.dedup();
        assert_eq!(again.len(), 8, "one entry for two calls");
    }
}
