//! A typed call from one process to another.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "showing something is what an example is for")]

use std::time::Duration;

use ringway::{Failure, Function, Worker};
use ringway_example_stage::{Stage, until_told_to_leave};
use schemars::JsonSchema;
use serde_json::json;

/// Whom to greet. rkyv's traits let Rust callers send it without serializing, serde's let everybody else send JSON, and
/// schemars' tell everybody else what to send.
#[derive(
    rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, serde::Serialize, serde::Deserialize, JsonSchema,
)]
struct Guest {
    /// The guest's name
    name: String,
    /// How often to say hello
    times: u32,
}

#[derive(
    Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, serde::Serialize, serde::Deserialize, JsonSchema,
)]
struct Greeting {
    text: String,
    process: u32,
}

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("greeter") => greet(&Worker::connect("greeter")?),
        Some("visitor") => visit(&Worker::connect("visitor")?),
        Some(other) => anyhow::bail!("wanted greeter, visitor or nothing, found {other}"),
        None => {
            let stage = Stage::open()?;
            let _greeter = stage.start("greeter")?;
            visit(&Worker::builder("visitor").address(stage.address()).connect()?)
        }
    }
}

/// Serves `greet::hello` until told to leave.
fn greet(worker: &Worker) -> anyhow::Result<()> {
    let hello = Function::typed::<Guest, Greeting>("greet::hello", |_, guest| {
        // `guest` is read where it arrived: nothing has been deserialized.
        if guest.times > 3 {
            return Err(Failure::with_code("too_often", "three times is enough"));
        }
        let text = vec![format!("Hello, {}!", guest.name); guest.times.to_native() as usize].join(" ");
        Ok(Greeting { text, process: std::process::id() })
    });
    worker.register(hello.description("Greets somebody by name").idempotent())?;
    Ok(until_told_to_leave()?)
}

fn visit(worker: &Worker) -> anyhow::Result<()> {
    worker.wait_for("greet::hello", Duration::from_secs(10))?;

    // By name, with types.
    let guest = Guest { name: "Ada".to_owned(), times: 2 };
    let greeting: Greeting = worker.trigger("greet::hello", &guest)?;
    println!("by name:   {}", greeting.text);
    println!("processes: {}", if greeting.process == std::process::id() { "one" } else { "two" });

    // By a handle, which is resolved once and then follows the catalog.
    let hello = worker.function::<Guest, Greeting>("greet::hello");
    for name in ["Grace", "Edsger"] {
        let reply = hello.call(&Guest { name: name.to_owned(), times: 1 })?;
        // Read where it arrived; `reply.value()` would deserialize it.
        println!("by handle: {}", reply.archived().map_or("", |greeting| greeting.text.as_str()));
    }

    // With JSON, as `ringway trigger greet::hello name=Barbara times=1` does.
    let greeting = worker.trigger_json("greet::hello", &json!({"name": "Barbara", "times": 1}))?;
    println!("with JSON: {}", greeting["text"].as_str().unwrap_or_default());

    // An error has a stable code; the handler's own is beside it.
    let error =
        worker.trigger::<Guest, Greeting>("greet::hello", &Guest { name: "Ada".to_owned(), times: 9 });
    if let Err(error) = error {
        println!("an error:  {error}");
    }
    Ok(())
}
