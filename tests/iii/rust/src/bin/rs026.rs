//! The actor on crates.io's iii-sdk 0.26, which knows no triggers any more.

#![expect(deprecated, reason = "it has new names for what the others have")]

use helpers_026 as iii_helpers;
use sdk_026 as iii_sdk;

#[path = "../actor.rs"]
mod actor;
#[path = "../channels.rs"]
mod channels;
#[path = "../observed_triggers.rs"]
mod observed_triggers;
#[path = "../observers.rs"]
mod observers;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let actor = actor::Actor::start()?;
    observed_triggers::serve(&actor);
    observers::serve(&actor);
    actor.until_told().await
}
