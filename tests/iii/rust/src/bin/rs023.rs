//! The actor on crates.io's iii-sdk 0.23.

use helpers_023 as iii_helpers;
use sdk_023 as iii_sdk;

#[path = "../actor.rs"]
mod actor;
#[path = "../channels.rs"]
mod channels;

#[path = "../triggers.rs"]
mod triggers;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let actor = actor::Actor::start()?;
    triggers::serve(&actor);

    actor.until_told().await
}
