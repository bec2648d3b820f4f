//! The bytes of a file, within the limit and as text. Used by `settings`; it must not know what the text says.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::limits::FILE_BYTES_MAX;
use crate::problem::{Problem, Problems};

/// Reads whatever can be read, a pipe too.
pub(crate) fn read(path: &Path, name: &str) -> Result<String, Problems> {
    let cannot = |error: io::Error| whole(name, format!("this file cannot be read: {error}"), None);
    text(File::open(path).map_err(cannot)?, name)
}

/// Reads a regular file with something in it. Waits for nobody, as a pipe without a writer would.
pub(crate) fn read_changed(path: &Path, name: &str) -> Result<String, Problems> {
    let cannot = |error: io::Error| whole(name, format!("this file cannot be read: {error}"), None);
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        let hint = "put a file with the settings in its place";
        return Err(whole(name, "wanted a regular file, found something else".to_owned(), Some(hint)));
    }
    let text = text(file, name)?;
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        let hint = "write `engine:` alone for an engine as it is by default";
        return Err(whole(name, "this file is empty".to_owned(), Some(hint)));
    }
    Ok(text)
}

fn text(file: File, name: &str) -> Result<String, Problems> {
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| whole(name, format!("this file cannot be read: {error}"), None))?;
    if bytes.len() > FILE_BYTES_MAX {
        let hint = "nobody wrote this by hand; is it the file that was meant?";
        return Err(whole(name, format!("wanted at most {FILE_BYTES_MAX} bytes, found more"), Some(hint)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        whole(name, format!("line {line} is no UTF-8"), Some("save the file as UTF-8"))
    })
}

/// A problem of the file as a whole.
fn whole(name: &str, message: String, hint: Option<&str>) -> Problems {
    Problems(vec![Problem { file: name.to_owned(), at: None, message, hint: hint.map(str::to_owned) }])
}
