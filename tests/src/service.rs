//! The functions that killed and killing processes serve: one of every shape, and one for every point at which a process
//! may die. Used by the test's own program and by the tests themselves. It must not know who calls.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringway::{Encoding, ErrorCode, Failure, Function, Message, Payload, Request};
use ringway_ipc::clock::now_ns;
use rustix::process::{Signal, getpid, kill_process};

/// Payload bytes of the functions that carry some.
pub const BLOB_BYTES: usize = 200_000;

/// Points of a handler at which [`functions`] has one that dies there.
pub const DEATHS: &[&str] = &[
    "inline",
    "pooled",
    "async",
    "view",
    "loan",
    "reply",
    "queue",
    "stream-out",
    "stream-in",
    "nested",
    "register",
];

/// Writes a line to the standard output with one call of the kernel, so that it is whole and survives a kill that
/// follows at once.
pub fn tell(line: &str) {
    let line = format!("{line}\n");
    let _nobody_listens = rustix::io::write(rustix::stdio::stdout(), line.as_bytes());
}

/// Ends this process as `kill -9` does.
pub fn die() -> ! {
    tell(&format!("dying {}", now_ns()));
    loop {
        let _dies_here = kill_process(getpid(), Signal::KILL);
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Reads the number of a call from its body.
fn number(body: &[u8]) -> Result<u64, Failure> {
    let first = body.first_chunk().ok_or_else(|| Failure::invalid("a call has a number"))?;
    Ok(u64::from_le_bytes(*first))
}

fn echo(body: &[u8]) -> Result<Message, Failure> {
    Ok(Message::bytes(&number(body)?.to_le_bytes()))
}

/// Functions `PREFIX::inline`, `…::pooled`, `…::async`, `…::slow`, `…::blob` and `…::stream`. Each tells `ran` the number of
/// the call, which is the first eight bytes of its body, before it does anything else, and answers with it.
pub fn functions(prefix: &str, ran: impl Fn(u64) + Send + Sync + Clone + 'static) -> Vec<Function> {
    let name = |shape: &str| format!("{prefix}::{shape}");
    let counted = |ran: &dyn Fn(u64), request: &Request<'_>| -> Result<Message, Failure> {
        ran(number(request.body())?);
        echo(request.body())
    };
    let (inline, pooled, slow, not_waiting) = (ran.clone(), ran.clone(), ran.clone(), ran.clone());
    vec![
        Function::raw(&name("inline"), move |_, request| counted(&inline, request)).inline(),
        Function::raw(&name("pooled"), move |_, request| counted(&pooled, request)).pooled(),
        Function::raw(&name("slow"), move |_, request| {
            let reply = counted(&slow, request);
            std::thread::sleep(Duration::from_millis(3));
            reply
        })
        .pooled(),
        Function::raw_async(&name("async"), move |_, request| {
            let ran = not_waiting.clone();
            async move {
                ran(number(request.body())?);
                futures_lite::future::yield_now().await;
                echo(request.body())
            }
        }),
        blob(&name("blob"), ran.clone()),
        Function::stream(&name("stream"), move |_, request, input, output| {
            ran(number(request.body())?);
            while let Some(item) = input.recv()? {
                output.send(item)?;
            }
            echo(request.body())
        }),
    ]
}

/// A function that keeps the last few payloads it saw, and answers with one of its own.
fn blob(id: &str, ran: impl Fn(u64) + Send + Sync + 'static) -> Function {
    let kept: Mutex<std::collections::VecDeque<Payload>> = Mutex::default();
    Function::raw(id, move |context, request| {
        ran(number(request.body())?);
        let mut kept = kept.lock();
        kept.extend(request.payload().cloned());
        while kept.len() > 3 {
            kept.pop_front();
        }
        drop(kept);
        let mut loan = context.worker().loan(request.body().len())?;
        loan.copy_from_slice(request.body());
        Ok(Message::from_loan(Encoding::Bytes, loan))
    })
    .pooled()
}

/// Functions `PREFIX::die-POINT` for every point of [`DEATHS`]. `nested` calls the function that its body names.
pub fn deaths(prefix: &str) -> Vec<Function> {
    let name = |point: &str| format!("{prefix}::die-{point}");
    let kept: Arc<Mutex<Vec<Payload>>> = Arc::default();
    vec![
        Function::raw(&name("inline"), |_, _| die()).inline(),
        Function::raw(&name("pooled"), |_, _| die()).pooled(),
        Function::raw_async(&name("async"), |_, _| async {
            futures_lite::future::yield_now().await;
            die()
        }),
        Function::raw(&name("view"), move |_, request| {
            kept.lock().extend(request.payload().cloned());
            die()
        })
        .pooled(),
        Function::raw(&name("loan"), |context, _| {
            let _held = context.worker().loan(BLOB_BYTES)?;
            die()
        })
        .pooled(),
        Function::raw(&name("reply"), |context, request| {
            std::thread::spawn(|| die());
            let mut loan = context.worker().loan(BLOB_BYTES)?;
            loan[..8].copy_from_slice(&number(request.body())?.to_le_bytes());
            Ok(Message::from_loan(Encoding::Bytes, loan))
        })
        .pooled(),
        // Holds up the thread that reads the ring, so that what comes after it is published and not taken.
        Function::raw(&name("queue"), |_, _| {
            std::thread::sleep(Duration::from_millis(20));
            die()
        })
        .inline(),
        Function::stream(&name("stream-out"), |_, _, _, output| {
            for item in 0..5u64 {
                output.send(Message::bytes(&item.to_le_bytes()))?;
            }
            die()
        }),
        Function::stream(&name("stream-in"), |_, _, input, _| {
            for _ in 0..3 {
                input.recv()?;
            }
            die()
        }),
        Function::raw(&name("nested"), |context, request| {
            let id = String::from_utf8_lossy(&request.body()[8..]).into_owned();
            std::thread::spawn(|| {
                std::thread::sleep(Duration::from_millis(2));
                die()
            });
            loop {
                context.worker().handle(&id).call(&Message::bytes(&[0; 8]))?;
            }
        })
        .pooled(),
        Function::raw(&name("register"), |context, _| {
            std::thread::spawn(|| {
                std::thread::sleep(Duration::from_millis(3));
                die()
            });
            for count in 0.. {
                context
                    .worker()
                    .register(Function::raw(&format!("late::f{count}"), |_, _| Ok(Message::empty())))?;
            }
            Err(Failure::with_code(ErrorCode::Busy.as_str(), "it should be dead by now"))
        })
        .pooled(),
    ]
}
