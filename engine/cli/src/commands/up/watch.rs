//! Watches a file however it is changed: written in place, replaced by another, or reached through links that come to lead
//! elsewhere, as Kubernetes changes what it mounts. Says when the file is whole again, so that nobody reads the half of it
//! that an editor has written. It must not know what is in the file.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;

use super::reload::News;

/// As many links as the system itself follows.
const LINKS_MAX: usize = 40;

/// A file that is watched. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Watch {
    file: PathBuf,
    watcher: RecommendedWatcher,
    /// The links that lead to the file, and the file.
    places: Arc<Mutex<BTreeSet<PathBuf>>>,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    /// Begins; from now on everything that happens to the file is sent.
    pub(super) fn start(file: &Path, news: Sender<News>) -> notify::Result<Self> {
        let file = std::path::absolute(file).map_err(notify::Error::io)?;
        let places = Arc::new(Mutex::new(BTreeSet::new()));
        let known = Arc::clone(&places);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let found = event.map_or(Some(News::Changed), |event| concerns(&event, &known.lock()));
            if let Some(found) = found {
                // Nobody listens only at the end.
                let _ended = news.send(found);
            }
        })?;
        let mut watch = Self { file, watcher, places, folders: BTreeSet::new() };
        watch.follow()?;
        Ok(watch)
    }

    /// Looks again where the links lead. To be called after each change.
    pub(super) fn follow(&mut self) -> notify::Result<()> {
        let places = places(&self.file);
        let folders: BTreeSet<PathBuf> =
            places.iter().filter_map(|place| place.parent()).map(Path::to_owned).collect();
        *self.places.lock() = places;
        for gone in self.folders.difference(&folders) {
            // A folder that was removed is watched no longer as it is.
            let _removed = self.watcher.unwatch(gone);
        }
        self.folders.retain(|folder| folders.contains(folder));
        let mut outcome = Ok(());
        for folder in folders {
            // Watching it a second time does nothing, and is needed where another has taken its name.
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.folders.insert(folder);
                }
                // A link that leads nowhere just now: the others say when it leads somewhere again.
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}

/// What an event says of the file; nothing where it says nothing.
fn concerns(event: &Event, places: &BTreeSet<PathBuf>) -> Option<News> {
    // Events were lost; any of them may have been the one.
    if event.need_rescan() {
        return Some(News::Changed);
    }
    let path = event.paths.iter().find(|path| places.contains(*path))?;
    match event.kind {
        EventKind::Modify(ModifyKind::Data(_)) => Some(News::Writing),
        // Whoever made a file is going to write it and to close it; a link, or a second name of a file, is whole at once.
        EventKind::Create(CreateKind::File) if is_new_file(path) => Some(News::Writing),
        // Both names together, after each was told alone.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_))
        | EventKind::Create(_)
        | EventKind::Remove(_) => Some(News::Changed),
        _ => None,
    }
}

fn is_new_file(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.nlink() == 1)
}

/// Every link on the way to a file, wherever links lead, and the file; as far as there is something. No folder in these
/// paths is a link.
fn places(file: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut links = 0;
    let mut at = PathBuf::from("/");
    let mut rest: Vec<_> = steps(file);
    while let Some(step) = rest.pop() {
        if step == ".." {
            at.pop();
            continue;
        }
        let path = at.join(&step);
        match std::fs::read_link(&path) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                found.insert(path);
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                rest.extend(steps(&target));
            }
            _ if rest.is_empty() => {
                found.insert(path);
            }
            _ => at = path,
        }
    }
    found
}

/// The names in a path, the last one first.
fn steps(path: &Path) -> Vec<std::ffi::OsString> {
    let step = |component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(step).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::*;

    /// Far more than any change takes to be told.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn start(file: &Path) -> (Watch, Receiver<News>) {
        let (news, come) = channel();
        (Watch::start(file, news).unwrap(), come)
    }

    /// What is told up to the next change.
    fn next(come: &Receiver<News>) -> Vec<News> {
        let mut told = Vec::new();
        loop {
            told.push(come.recv_timeout(PATIENCE).unwrap());
            if told.last() == Some(&News::Changed) {
                return told;
            }
        }
    }

    #[test]
    fn a_file_is_whole_when_its_writer_has_closed_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().canonicalize().unwrap().join("x.yaml");
        fs::write(&file, "one").unwrap();
        let (_watch, come) = start(&file);
        // Cut off, written, closed: one change, at the end.
        fs::write(&file, "two").unwrap();
        let told = next(&come);
        assert!(
            told.len() > 1 && told[..told.len() - 1].iter().all(|news| *news == News::Writing),
            "{told:?}"
        );
        // Others in the folder are none of its business; the next thing told is the file's replacement.
        fs::write(folder.path().join("other"), "x").unwrap();
        fs::rename(folder.path().join("other"), &file).unwrap();
        assert_eq!(next(&come), [News::Changed]);
        fs::remove_file(&file).unwrap();
        assert_eq!(next(&come), [News::Changed]);
        fs::write(&file, "new").unwrap();
        assert_eq!(next(&come)[0], News::Writing);
    }

    #[test]
    fn links_that_lead_elsewhere_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        // As Kubernetes mounts a ConfigMap.
        let version = |name: &str, text: &str| {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("x.yaml"), text).unwrap();
        };
        version("..one", "one");
        symlink("..one", root.join("..data")).unwrap();
        symlink("..data/x.yaml", root.join("x.yaml")).unwrap();
        let file = root.join("x.yaml");
        let wanted = ["..data", "..one/x.yaml", "x.yaml"].map(|name| root.join(name));
        assert_eq!(places(&file).into_iter().collect::<Vec<_>>(), wanted);
        let (mut watch, come) = start(&file);
        version("..two", "two");
        symlink("..two", root.join("..data_new")).unwrap();
        fs::rename(root.join("..data_new"), root.join("..data")).unwrap();
        assert_eq!(next(&come), [News::Changed]);
        watch.follow().unwrap();
        fs::write(root.join("..two/x.yaml"), "three").unwrap();
        assert_eq!(next(&come)[0], News::Writing);
    }

    #[test]
    fn links_in_a_ring_end() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        assert_eq!(places(&folder.path().canonicalize().unwrap().join("a")).len(), 2);
    }
}
