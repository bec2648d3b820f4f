//! The engine of a demo in a process of its own, with its built-in workers over a store in a folder. It ends when its
//! standard input does, and takes the folder with it: whoever made that may be gone. It must not know what is kept.

use std::fs;

use ringway_config::Settings;
use ringway_engine::Engine;
use ringway_workers::{Workers, silent_sections};

use super::{WorkerError, wait_for_end_of_input};
use crate::setup::Setup;

pub(super) fn serve(setup: &Setup) -> Result<(), WorkerError> {
    let engine = Engine::builder().address(&setup.address).start()?;
    let settings = Settings::defaults(&silent_sections())
        .map_err(|problems| WorkerError::Settings(problems.to_string()))?;
    let workers = Workers::start(&setup.address, &setup.data.join("store"), &settings)?;
    wait_for_end_of_input()?;
    drop(workers);
    drop(engine);
    // Its maker removes it too, if it can.
    let _gone = fs::remove_dir_all(&setup.data);
    Ok(())
}
