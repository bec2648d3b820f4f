//! A store of one number that is written to a new file and renamed, as many programs keep theirs: with the syncs that this
//! takes, or without some of them. The test of power cuts must find out the latter. It must not know what it runs on.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use ringway_tests::service::tell;

use super::Played;

/// Counts until the disk fails, and tells each number that it holds for kept. `syncs` is `nothing`, `file` or `both`.
pub(super) fn play(folder: &str, syncs: &str) -> Played {
    let folder = Path::new(folder);
    for number in 1_u64.. {
        if keep(folder, syncs, number).is_err() {
            break;
        }
        tell(&format!("kept {number}"));
    }
    Ok(())
}

fn keep(folder: &Path, syncs: &str, number: u64) -> io::Result<()> {
    let new = folder.join("number.new");
    let mut file = File::create(&new)?;
    file.write_all(number.to_string().as_bytes())?;
    if syncs != "nothing" {
        file.sync_all()?;
    }
    fs::rename(&new, folder.join("number"))?;
    if syncs == "both" {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
