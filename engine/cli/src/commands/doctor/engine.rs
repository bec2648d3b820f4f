//! Who answers at the engine's address, and sockets beside it that nobody answers at.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use ringway::address::{ControlAddress, control_address};
use ringway_ipc::packet::PacketStream;

use super::finding::Finding;
use crate::arguments::Place;
use crate::connection::{Connection, Tracing};
use crate::output::words::several;

pub(super) fn check(place: &Place) -> Vec<Finding> {
    let address = control_address(place.address.as_deref(), place.project.as_deref());
    if address.is_link() {
        return vec![dial(place, &address)];
    }
    let mut findings = vec![reach(&address)];
    if !address.is_abstract()
        && let Some(directory) = Path::new(address.as_str()).parent()
    {
        findings.push(stale(directory));
    }
    findings
}

/// An engine on another host.
fn dial(place: &Place, address: &ControlAddress) -> Finding {
    let place_words = format!("{address} ({})", address.origin());
    match Connection::open(place, Tracing::Never) {
        Ok(_attached) => Finding::ok("engine", format!("one on another host answers at {place_words}")),
        Err(failure) => {
            let advice = "`ringway link test` says what is wrong";
            Finding::warn("engine", format!("cannot attach at {place_words}: {}", failure.message()), advice)
        }
    }
}

fn reach(address: &ControlAddress) -> Finding {
    let place = format!("{address} ({})", address.origin());
    match PacketStream::connect(address.as_str()).and_then(|stream| stream.credentials()) {
        Ok(peer) => Finding::ok("engine", format!("process {} answers at {place}", peer.pid)),
        Err(error) => {
            let found = match error.kind() {
                io::ErrorKind::NotFound => format!("nobody has a socket at {place}"),
                io::ErrorKind::ConnectionRefused => format!("nobody answers at {place}"),
                _ => format!("cannot reach {place}: {error}"),
            };
            let advice = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "the socket belongs to another user; set RINGWAY_SOCKET to your own engine's"
                }
                _ => "`ringway up` starts an engine there",
            };
            Finding::warn("engine", found, advice)
        }
    }
}

/// Finds sockets whose engine is gone: they do no harm, since the next engine replaces them.
fn stale(directory: &Path) -> Finding {
    let dead = dead_sockets(directory);
    if dead.is_empty() {
        return Finding::ok("stale sockets", format!("none in {}", directory.display()));
    }
    let names: Vec<String> = dead.iter().map(|path| path.display().to_string()).collect();
    Finding::warn(
        "stale sockets",
        format!("{} that nobody answers at", several(dead.len(), "socket")),
        format!("an engine that starts there replaces it; or: rm {}", names.join(" ")),
    )
}

fn dead_sockets(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut dead: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .filter(|path| {
            let answer = PacketStream::connect(&path.to_string_lossy());
            answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        })
        .collect();
    dead.sort_unstable();
    dead
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::finding::Mark;
    use super::*;

    #[test]
    fn dead_sockets_are_told_from_live_ones() {
        let directory = tempfile::tempdir().unwrap();
        let live = UnixListener::bind(directory.path().join("live.sock")).unwrap();
        drop(UnixListener::bind(directory.path().join("dead.sock")).unwrap());
        fs::write(directory.path().join("file.sock"), "").unwrap();
        assert_eq!(dead_sockets(directory.path()), [directory.path().join("dead.sock")]);
        let found = stale(directory.path());
        assert_eq!((found.mark, found.found.as_str()), (Mark::Warn, "1 socket that nobody answers at"));
        drop(live);
        assert!(dead_sockets(&directory.path().join("nowhere")).is_empty());
    }

    #[test]
    fn an_engine_of_another_host_is_dialled() {
        let address = "ringway://127.0.0.1:1".to_owned();
        let found = check(&Place { address: Some(address), ..Place::default() });
        let [found] = found.as_slice() else { panic!("{found:?}") };
        assert!(
            found.mark == Mark::Warn && found.found.contains("cannot reach `ringway://127.0.0.1:1`"),
            "{found:?}"
        );
        assert!(found.advice.as_ref().unwrap().contains("link test"));
    }

    #[test]
    fn an_engine_that_is_not_there_is_a_warning() {
        let found = reach(&ControlAddress::explicit("@ringway-doctor-test-nobody"));
        assert_eq!(found.mark, Mark::Warn);
        assert!(found.advice.unwrap().contains("ringway up"));
    }
}
