//! Engines that see each other through a real NATS server: what all linked engines promise, what is promised of workers that
//! dial, and what is NATS's own.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is a failure")]

#[path = "../../../links/tests/it/crowds.rs"]
mod crowds;
#[path = "../../../links/tests/it/drains.rs"]
mod drains;
#[path = "../../../links/tests/it/ends.rs"]
mod ends;
mod engines;
mod grants;
mod outages;
mod processes;
mod rubbish;
mod secured;
#[path = "../../../links/tests/it/shapes.rs"]
mod shapes;
mod simulation;
mod stage;
#[path = "../../../links/tests/it/suite.rs"]
mod suite;
#[expect(dead_code, reason = "the example has more to ask of it")]
#[path = "../../examples/sizing/world.rs"]
mod world;
