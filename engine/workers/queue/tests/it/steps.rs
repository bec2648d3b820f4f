//! Steps of a handler: finished ones are not run again, whatever ends the attempt; an attempt that is over keeps nothing;
//! limits are told; results go with the receipt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use parking_lot::Mutex;
use ringway::{Context, Enqueue, Failure, Function, HandlerResult, MessageStatus};
use ringway_store::Scan;
use ringway_worker_queue::{Clock, Config};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

/// What ran, in order.
type Ran = Arc<Mutex<Vec<String>>>;

/// Registers a handler on a thread of the pool; what it returns comes out of the channel.
fn serve<T: Send + 'static>(
    stage: &Stage,
    id: &str,
    work: impl Fn(&Context, &dyn Fn(&str)) -> HandlerResult<T> + Send + Sync + 'static,
) -> (Ran, Receiver<HandlerResult<T>>) {
    let (tell, told) = channel();
    let ran: Ran = Arc::default();
    let of_handler = Arc::clone(&ran);
    let handler = move |context: &Context, _: Value| {
        let result = work(context, &|name| of_handler.lock().push(name.to_owned()));
        let succeeded = result.is_ok();
        let _nobody_listens = tell.send(result);
        if succeeded { Ok(()) } else { Err(Failure::with_code("E", "as the test wants")) }
    };
    stage.client.register(Function::json(id, handler).pooled()).unwrap();
    (ran, told)
}

fn steps_kept(stage: &Stage) -> usize {
    stage.count("queue.step")
}

#[test]
fn a_step_that_is_finished_is_not_run_again() {
    let stage = Stage::configured(json!({ "s": { "max_retries": 9, "backoff_ms": 1 } }));
    let (ran, told) = serve(&stage, "s::work", |context, run| {
        let attempt = context.delivery().unwrap().attempt;
        let base: u64 = context.step("base", || {
            run("base");
            Ok(40)
        })?;
        let mut sum = base;
        for number in 0..3 {
            // Steps of one name are told apart by their order.
            sum += context.step("add", || {
                run(&format!("add {number}"));
                if attempt <= number {
                    return Err(Failure::new("not in this attempt"));
                }
                Ok(u64::from(number))
            })?;
        }
        Ok(sum)
    });
    let receipt = stage.client.enqueue("s::work", &Value::Null, &Enqueue::to("s")).unwrap();
    assert_eq!(receipt.wait(SOON).unwrap().status, MessageStatus::Done);
    let sums: Vec<_> = told.try_iter().map(Result::ok).collect();
    assert_eq!(sums, [None, None, Some(43)]);
    assert_eq!(*ran.lock(), ["base", "add 0", "add 1", "add 1", "add 2", "add 2"]);
}

#[test]
fn an_async_handler_goes_on_after_a_restart_where_it_stopped() {
    let mut stage = Stage::new();
    let (tell, told) = channel();
    let held = Arc::new(AtomicBool::new(false));
    let work = move |context: Context, _: Value| {
        let (tell, held) = (tell.clone(), Arc::clone(&held));
        async move {
            let say = |word: &str| tell.send(word.to_owned()).unwrap();
            let one = context.step_async("one", || async {
                say("one");
                Ok("kept".to_owned())
            });
            let one = one.await?;
            let two = context.step_async("two", || async {
                say("two");
                if !held.swap(true, Ordering::SeqCst) {
                    context.cancel_token().cancelled().await;
                }
                Ok(2)
            });
            two.await?;
            say(&format!("end with {one}"));
            Ok(Value::Null)
        }
    };
    stage.client.register(Function::json_async("a::work", work)).unwrap();
    let receipt = stage.client.enqueue("a::work", &Value::Null, &Enqueue::to("a")).unwrap();
    let hear = || told.recv_timeout(SOON).unwrap();
    assert_eq!([hear(), hear()], ["one", "two"]);
    stage.restart();
    assert_eq!([hear(), hear()], ["two", "end with kept"]);
    assert_eq!(receipt.wait(SOON).unwrap().status, MessageStatus::Done);
}

#[test]
fn an_attempt_that_is_over_keeps_nothing() {
    let mut stage = Stage::new();
    let (tell, told) = channel();
    let (give, go) = channel::<()>();
    let (go, begun) = (Mutex::new(go), AtomicBool::new(false));
    // Does not notice that it was given up, as code that computes does not.
    let work = move |context: &Context, _: Value| {
        let first = !begun.swap(true, Ordering::SeqCst);
        let result = context.step("only", || {
            if first {
                tell.send("in the step".to_owned()).unwrap();
                go.lock().recv_timeout(SOON).unwrap();
            }
            Ok(if first { "of the first" } else { "of the second" }.to_owned())
        });
        let code = |failure: &Failure| format!("{failure}").contains("LEASE_LOST");
        tell.send(match &result {
            Ok(result) => result.clone(),
            Err(failure) => format!("lost: {}", code(failure)),
        })
        .unwrap();
        result
    };
    stage.client.register(Function::json("z::work", work).pooled()).unwrap();
    let receipt = stage.client.enqueue("z::work", &Value::Null, &Enqueue::to("z")).unwrap();
    assert_eq!(told.recv_timeout(SOON).unwrap(), "in the step");
    stage.restart();
    assert_eq!(receipt.wait(SOON).unwrap().status, MessageStatus::Done);
    assert_eq!(told.recv_timeout(SOON).unwrap(), "of the second");
    give.send(()).unwrap();
    assert_eq!(told.recv_timeout(SOON).unwrap(), "lost: true");
    let entries = stage.store().scan(&Scan::table("queue.step")).unwrap();
    assert_eq!(entries.len(), 1);
    assert!(entries[0].value.bytes.ends_with(b"\"of the second\""));
}

#[test]
fn a_result_that_does_not_fit_the_code_is_told_by_its_name() {
    let stage = Stage::configured(json!({ "c": { "max_retries": 1, "backoff_ms": 1 } }));
    let (_, told) = serve(&stage, "c::work", |context, _| {
        if context.delivery().unwrap().attempt == 1 {
            context.step("price", || Ok("12 EUR".to_owned()))?;
            return Err(Failure::new("again"));
        }
        // The code was changed meanwhile; what has another name is run, what is gone is passed over.
        context.step("added", || Ok(()))?;
        context.step("price", || Ok(12u64))
    });
    let receipt = stage.client.enqueue("c::work", &Value::Null, &Enqueue::to("c")).unwrap();
    receipt.wait(SOON).unwrap();
    let error = told.iter().nth(1).unwrap().unwrap_err().into_error();
    assert_eq!(error.user_code.as_deref(), Some("STEP_CHANGED"));
    assert!(error.message.contains("`price`") && error.message.contains("another name"), "{error}");
}

#[test]
fn a_result_that_is_too_large_makes_a_dead_letter_that_says_so() {
    let stage = Stage::configured(json!({ "l": { "backoff_ms": 3_600_000 } }));
    let large = |context: &Context, _: Value| context.step("all", || Ok("x".repeat(300_000))).map(drop);
    stage.client.register(Function::json("l::work", large).pooled()).unwrap();
    let receipt = stage.client.enqueue("l::work", &Value::Null, &Enqueue::to("l")).unwrap();
    let ended = receipt.wait(SOON).unwrap();
    assert_eq!((ended.status, ended.attempts), (MessageStatus::Dead, 1));
    let error = ended.error.unwrap();
    assert!(error.starts_with("STEP_TOO_LARGE") && error.contains("`all`"), "{error}");
    let many = |context: &Context, _: Value| {
        (0..40).try_for_each(|_| context.step("part", || Ok("x".repeat(250_000))).map(drop))
    };
    stage.client.register(Function::json("l::many", many).pooled()).unwrap();
    let receipt = stage.client.enqueue("l::many", &Value::Null, &Enqueue::to("l")).unwrap();
    let error = receipt.wait(SOON).unwrap().error.unwrap();
    assert!(error.starts_with("STEP_LIMIT") && error.contains("found 34 with"), "{error}");
}

#[test]
fn results_go_with_the_receipt() {
    let check = |retention_ms: u64| {
        let config = Config { receipt_retention_ms: retention_ms, ..Config::default() };
        let stage = Stage::with(config, Clock::manual(1_000_000));
        let (_, told) = serve(&stage, "g::work", |context, _| context.step("a", || Ok(1)));
        let receipt = stage.client.enqueue("g::work", &Value::Null, &Enqueue::to("g")).unwrap();
        told.recv_timeout(SOON).unwrap().unwrap();
        receipt.wait(SOON).unwrap();
        assert_eq!(steps_kept(&stage), 1);
        let mut waited = 0;
        while steps_kept(&stage) > 0 {
            waited += 500;
            assert!(waited < 600_000, "they are still there");
            stage.clock.set(stage.clock.now_ms() + 500);
            stage.stats("g");
        }
        assert!(waited >= retention_ms, "{waited}");
        assert_eq!(receipt.state().unwrap_err().user_code.as_deref(), Some("NOT_FOUND"));
    };
    check(60_000);
    check(0);
}

#[test]
fn a_step_of_a_call_by_hand_just_runs() {
    let stage = Stage::new();
    let (ran, _told) = serve(&stage, "h::work", |context, run| {
        context.step("a", || {
            run("a");
            Ok(5)
        })
    });
    stage.call("h::work", Value::Null);
    stage.call("h::work", Value::Null);
    assert_eq!(*ran.lock(), ["a", "a"]);
    assert_eq!(steps_kept(&stage), 0);
}
