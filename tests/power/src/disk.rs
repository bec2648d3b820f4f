//! The disk: files and folders by number, the operation with which the power goes, and what is left then. Used by `mount`,
//! which passes a kernel's calls on, and by tests that ask what is left. It must not know the kernel's words.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::contents::{Contents, Keep};
use crate::names::{Change, Entries, Names};

/// The number of the folder that holds all others.
pub(crate) const ROOT: u64 = 1;

/// Which promises the disk keeps beyond those of `fsync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As a journalling file system does (ext4): changes of names reach the disk in their order, all of them with any
    /// synced folder and with any synced file that is new or has another length. Any sector of a file may reach it
    /// unasked.
    Journalled,
    /// Nothing but what was synced is there: a file's bytes with the file, its name with its folder, the folder's name with
    /// the folder above.
    Strict,
}

/// Why an operation failed, as a kernel would say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Errno {
    /// The power is off.
    #[error("the power is off")]
    PowerOff,
    /// There is none of that name.
    #[error("no such file or folder")]
    Missing,
    /// There is one of that name already.
    #[error("the name is taken")]
    Exists,
    /// Wanted a folder, found a file.
    #[error("not a folder")]
    NotFolder,
    /// Wanted a file, found a folder.
    #[error("a folder")]
    Folder,
    /// Only empty folders are removed.
    #[error("the folder is not empty")]
    NotEmpty,
}

/// What a cut took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Sectors that were written and not synced; of each an earlier state may be left.
    pub sectors: u64,
    /// Names that are there and should not be, or the other way round.
    pub names: u64,
}

#[derive(Debug)]
enum Node {
    Folder,
    File {
        contents: Contents,
        /// Since its name was made it was synced.
        known: bool,
    },
}

/// What is known of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) number: u64,
    /// None: it is a folder.
    pub(crate) length: Option<u64>,
}

#[derive(Debug)]
struct World {
    mode: Mode,
    nodes: BTreeMap<u64, Node>,
    names: Names,
    next: u64,
    /// Operations that changed or synced something.
    operations: u64,
    /// The operation with which the power goes.
    last: Option<u64>,
    off: bool,
}

#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    /// Notified when the power has gone.
    gone: Condvar,
}

/// A disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Shared>);

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let folders = BTreeMap::from([(ROOT, Entries::new())]);
        Self::of(mode, BTreeMap::from([(ROOT, Node::Folder)]), folders)
    }

    fn of(mode: Mode, nodes: BTreeMap<u64, Node>, folders: BTreeMap<u64, Entries>) -> Self {
        let next = nodes.keys().next_back().map_or(ROOT, |last| *last) + 1;
        let names = Names::synced(folders, mode == Mode::Journalled);
        let world = World { mode, nodes, names, next, operations: 0, last: None, off: false };
        Self(Arc::new(Shared { world: Mutex::new(world), gone: Condvar::new() }))
    }

    /// Lets the power go with the given one of the next operations that change or sync something; the first is 1.
    pub fn arm(&self, operations: u64) {
        let mut world = self.0.world.lock();
        world.last = Some(world.operations + operations.max(1));
    }

    /// Lets the power go now.
    pub fn power_off(&self) {
        self.0.world.lock().off = true;
        self.0.gone.notify_all();
    }

    /// Waits until the power has gone; false if it is still on after that time.
    #[must_use]
    pub fn wait_until_off(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut world = self.0.world.lock();
        while !world.off && !self.0.gone.wait_until(&mut world, until).timed_out() {}
        world.off
    }

    /// Operations so far that changed or synced something.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.world.lock().operations
    }

    /// Ends the power, if it is still on, and gives the disk as it is found when the power is back, in the given mode.
    /// `below` chooses a number below another; the same choices leave the same.
    #[must_use]
    pub fn after_cut(&self, mode: Mode, below: &mut dyn FnMut(u64) -> u64) -> (Self, Lost) {
        self.power_off();
        let world = self.0.world.lock();
        let (folders, names) = world.names.after_cut(below);
        let mut lost = Lost { sectors: 0, names };
        let (mut nodes, mut named) = (BTreeMap::from([(ROOT, Node::Folder)]), BTreeMap::new());
        let mut ahead = vec![ROOT];
        while let Some(folder) = ahead.pop() {
            let entries = folders.get(&folder).cloned().unwrap_or_default();
            for number in entries.values() {
                let node = match world.nodes.get(number) {
                    Some(Node::File { contents, .. }) => {
                        // Often all or nothing reaches the disk, now and then any part.
                        let keep = match world.mode {
                            Mode::Strict => Keep::Nothing,
                            Mode::Journalled => [Keep::Nothing, Keep::Everything, Keep::Any, Keep::Any]
                                [usize::try_from(below(4)).unwrap_or(0)],
                        };
                        if keep != Keep::Everything {
                            lost.sectors += contents.unsynced();
                        }
                        Node::File { contents: contents.after_cut(keep, below), known: true }
                    }
                    _ => {
                        ahead.push(*number);
                        Node::Folder
                    }
                };
                nodes.insert(*number, node);
            }
            named.insert(folder, entries);
        }
        (Self::of(mode, nodes, named), lost)
    }

    /// Writes everything, as programs see it, into an empty folder of this machine.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        let world = self.0.world.lock();
        world.write_to(ROOT, folder)
    }

    /// Does something that changes or syncs. The one with which the power goes is begun and fails, and so do all after it.
    fn operate<T>(&self, operation: impl FnOnce(&mut World) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut world = self.on()?;
        world.operations += 1;
        let result = operation(&mut world)?;
        if world.is_last() {
            world.off = true;
            self.0.gone.notify_all();
            return Err(Errno::PowerOff);
        }
        Ok(result)
    }

    fn on(&self) -> Result<MutexGuard<'_, World>, Errno> {
        let world = self.0.world.lock();
        if world.off { Err(Errno::PowerOff) } else { Ok(world) }
    }

    pub(crate) fn find(&self, folder: u64, name: &OsStr) -> Result<Facts, Errno> {
        let world = self.on()?;
        world.facts(world.names.find(folder, name).ok_or(Errno::Missing)?)
    }

    pub(crate) fn facts(&self, number: u64) -> Result<Facts, Errno> {
        self.on()?.facts(number)
    }

    pub(crate) fn entries(&self, folder: u64) -> Result<Vec<(std::ffi::OsString, Facts)>, Errno> {
        let world = self.on()?;
        let entries = world.names.entries(folder);
        entries.map(|(name, number)| Ok((name.clone(), world.facts(number)?))).collect()
    }

    pub(crate) fn read(&self, file: u64, offset: u64, bytes: usize) -> Result<Vec<u8>, Errno> {
        match self.on()?.nodes.get(&file) {
            Some(Node::File { contents, .. }) => Ok(contents.read(offset, bytes)),
            Some(Node::Folder) => Err(Errno::Folder),
            None => Err(Errno::Missing),
        }
    }

    pub(crate) fn write(&self, file: u64, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.operate(|world| {
            world.file(file)?.0.write(offset, bytes);
            Ok(())
        })
    }

    pub(crate) fn set_length(&self, file: u64, bytes: u64) -> Result<(), Errno> {
        self.operate(|world| {
            world.file(file)?.0.set_length(bytes);
            Ok(())
        })
    }

    /// Makes a file or a folder.
    pub(crate) fn make(&self, folder: u64, name: &OsStr, is_folder: bool) -> Result<Facts, Errno> {
        self.operate(|world| {
            if world.names.find(folder, name).is_some() {
                return Err(Errno::Exists);
            }
            let number = world.next;
            world.next += 1;
            let node = if is_folder {
                Node::Folder
            } else {
                Node::File { contents: Contents::default(), known: false }
            };
            world.nodes.insert(number, node);
            world.names.change(Change::Make((folder, name.to_owned()), number));
            world.facts(number)
        })
    }

    /// Gives something another name, replacing the file that had it.
    pub(crate) fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Errno> {
        self.operate(|world| {
            world.names.find(from.0, from.1).ok_or(Errno::Missing)?;
            if let Some(replaced) = world.names.find(to.0, to.1) {
                world.file(replaced)?;
            }
            let place = |(folder, name): (u64, &OsStr)| (folder, name.to_owned());
            world.names.change(Change::Rename(place(from), place(to)));
            Ok(())
        })
    }

    /// Removes a name; what had it stays for those who have it open.
    pub(crate) fn remove(&self, folder: u64, name: &OsStr, is_folder: bool) -> Result<(), Errno> {
        self.operate(|world| {
            let number = world.names.find(folder, name).ok_or(Errno::Missing)?;
            match (is_folder, world.facts(number)?.length) {
                (true, Some(_)) => return Err(Errno::NotFolder),
                (false, None) => return Err(Errno::Folder),
                (true, None) if world.names.entries(number).next().is_some() => return Err(Errno::NotEmpty),
                _ => {}
            }
            world.names.change(Change::Remove((folder, name.to_owned())));
            Ok(())
        })
    }

    /// Returns when a file is on disk; under another name, or none, if that was not synced.
    pub(crate) fn sync(&self, file: u64) -> Result<(), Errno> {
        self.operate(|world| {
            if world.is_last() {
                return Ok(());
            }
            let (contents, known) = world.file(file)?;
            let whole = *known && contents.has_synced_length();
            contents.sync();
            *known = true;
            if !whole {
                world.names.sync_journal();
            }
            Ok(())
        })
    }

    /// Returns when the entries of a folder are on disk.
    pub(crate) fn sync_folder(&self, folder: u64) -> Result<(), Errno> {
        self.operate(|world| {
            if !world.is_last() {
                world.names.sync_folder(folder);
            }
            Ok(())
        })
    }
}

impl World {
    /// Whether the power goes with the operation that is under way.
    fn is_last(&self) -> bool {
        self.last.is_some_and(|last| self.operations >= last)
    }

    fn facts(&self, number: u64) -> Result<Facts, Errno> {
        let length = match self.nodes.get(&number).ok_or(Errno::Missing)? {
            Node::Folder => None,
            Node::File { contents, .. } => Some(contents.length()),
        };
        Ok(Facts { number, length })
    }

    fn file(&mut self, number: u64) -> Result<(&mut Contents, &mut bool), Errno> {
        match self.nodes.get_mut(&number) {
            Some(Node::File { contents, known }) => Ok((contents, known)),
            Some(Node::Folder) => Err(Errno::Folder),
            None => Err(Errno::Missing),
        }
    }

    fn write_to(&self, from: u64, to: &Path) -> io::Result<()> {
        for (name, number) in self.names.entries(from) {
            let path = to.join(name);
            match self.nodes.get(&number) {
                Some(Node::File { contents, .. }) => fs::write(path, contents.read(0, usize::MAX))?,
                _ => {
                    fs::create_dir_all(&path)?;
                    self.write_to(number, &path)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
