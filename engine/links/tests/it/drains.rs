//! A replica at the other end of a link that drains and leaves while calls go on: a remote worker, or one of another engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringway::Function;
use serde_json::json;

use crate::stage::{PATIENCE, Stage, Until, until};

/// Has one of two replicas drain and leave; all calls succeed.
pub(crate) fn no_call_is_lost(stage: &Stage) {
    let caller = stage.local("caller");
    let served = Arc::new(AtomicU64::new(0));
    let replica = |name: &str| {
        let worker = stage.remote(name);
        let count = Arc::clone(&served);
        let work = Function::json("work::once", move |_, number: u64| {
            std::thread::sleep(Duration::from_micros(300));
            count.fetch_add(1, Ordering::Relaxed);
            Ok(number)
        });
        worker.register(work.pooled()).unwrap();
        worker
    };
    let (first, second) = (replica("first"), replica("second"));
    until("both are known", || caller.handle("work::once").replicas() == 2);
    let over = AtomicBool::new(false);
    let ended = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let _until = Until(&over);
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    let number = ended.fetch_add(1, Ordering::Relaxed);
                    let told = caller.trigger_json("work::once", &json!(number));
                    assert_eq!(told.unwrap(), json!(number), "no call is lost");
                }
            });
        }
        until("calls are under way", || served.load(Ordering::Relaxed) > 200);
        assert!(first.drain(PATIENCE), "what ran has ended");
        drop(first);
        let then = served.load(Ordering::Relaxed);
        until("the other one goes on", || served.load(Ordering::Relaxed) > then + 200);
    });
    assert!(served.load(Ordering::Relaxed) >= ended.load(Ordering::Relaxed), "each has run");
    assert!(second.is_attached());
}
