//! The actor on crates.io's iii-sdk 0.25.

#![expect(deprecated, reason = "it says that observers are to replace triggers; triggers are what is tested")]

use helpers_025 as iii_helpers;
use sdk_025 as iii_sdk;

#[path = "../actor.rs"]
mod actor;
#[path = "../channels.rs"]
mod channels;
#[path = "../observers.rs"]
mod observers;
#[path = "../triggers.rs"]
mod triggers;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let actor = actor::Actor::start()?;
    triggers::serve(&actor);
    observers::serve(&actor);
    actor.until_told().await
}
