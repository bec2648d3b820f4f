//! A disk that loses power at a chosen call. What was synced stays; of what was not, any 512-byte sectors may have reached
//! the disk and any beginning of the changes of names, as a journalling file system does it. Files live in the real
//! folder meanwhile, so that the store under test notices nothing; `cut` writes what is left over them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::dice::Dice;
use crate::files::{Disk, File, Files};

const SECTOR: usize = 512;

#[derive(Debug)]
enum Unsynced {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// A file by what is on the platter, whatever its name.
#[derive(Debug, Default)]
struct Node {
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

impl Node {
    fn settle(&mut self, keep: &mut dyn FnMut() -> bool) {
        for change in self.unsynced.drain(..) {
            match change {
                Unsynced::Length(bytes) => {
                    if keep() {
                        self.durable.resize(usize::try_from(bytes).unwrap_or(usize::MAX), 0);
                    }
                }
                Unsynced::Write(offset, bytes) => write_sectors(&mut self.durable, offset, &bytes, keep),
            }
        }
    }
}

/// Writes those sectors that `keep` wants.
fn write_sectors(durable: &mut Vec<u8>, offset: u64, bytes: &[u8], keep: &mut dyn FnMut() -> bool) {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let mut at = 0;
    while at < bytes.len() {
        let piece = (SECTOR - (offset + at) % SECTOR).min(bytes.len() - at);
        if keep() {
            let end = offset + at + piece;
            if durable.len() < end {
                durable.resize(end, 0);
            }
            durable[offset + at..end].copy_from_slice(&bytes[at..at + piece]);
        }
        at += piece;
    }
}

#[derive(Debug)]
enum Renaming {
    Make(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, change: &Renaming) {
    match change {
        Renaming::Make(path, node) => {
            names.insert(path.clone(), *node);
        }
        Renaming::Rename(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
        Renaming::Remove(path) => {
            names.remove(path);
        }
    }
}

#[derive(Debug, Default)]
struct World {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    renamings: Vec<Renaming>,
    /// Calls until the power goes.
    calls_left: u64,
    off: bool,
}

impl World {
    fn call(&mut self) -> io::Result<()> {
        self.calls_left = self.calls_left.saturating_sub(1);
        self.off |= self.calls_left == 0;
        if self.off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn change(&mut self, change: Renaming) {
        rename(&mut self.names, &change);
        self.renamings.push(change);
    }
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct Power(Arc<Mutex<World>>);

#[derive(Debug)]
struct PoweredFile {
    power: Power,
    node: usize,
    file: Arc<dyn File>,
}

/// The files of a folder and of the folders in it.
fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in Disk.list(folder)? {
        if path.is_dir() {
            files.extend(Disk.list(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

impl Power {
    /// A disk with what is in the folder, whose power goes with the given call that changes or syncs something.
    ///
    /// # Errors
    /// What the system says to the reading of the folder.
    pub fn new(folder: &Path, calls: u64) -> io::Result<Self> {
        let mut world = World { calls_left: calls, ..World::default() };
        for path in files_below(folder)? {
            world.names.insert(path.clone(), world.nodes.len());
            world.nodes.push(Node { durable: fs::read(path)?, unsynced: Vec::new() });
        }
        world.durable_names = world.names.clone();
        Ok(Self(Arc::new(Mutex::new(world))))
    }

    /// Whether the power has gone.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// Ends the power, if it is still on, and leaves in the folder what the dice let reach the disk.
    ///
    /// # Errors
    /// What the system says to the writing of that.
    pub fn cut(&self, folder: &Path, dice: &mut Dice) -> io::Result<()> {
        let mut world = self.0.lock();
        world.off = true;
        let renamings = std::mem::take(&mut world.renamings);
        let kept = usize::try_from(dice.below(renamings.len() as u64 + 1)).unwrap_or(0);
        let mut names = std::mem::take(&mut world.durable_names);
        for change in &renamings[..kept] {
            rename(&mut names, change);
        }
        // Often all or nothing reaches the disk, now and then any part.
        let (mode, mut dice) = (dice.below(4), Dice::new(dice.roll()));
        for node in &mut world.nodes {
            node.settle(&mut || match mode {
                0 => false,
                1 => true,
                _ => dice.below(2) == 0,
            });
        }
        for path in files_below(folder)? {
            if path.file_name().is_some_and(|name| name != "LOCK") {
                fs::remove_file(path)?;
            }
        }
        for (path, node) in
            names.into_iter().filter(|(path, _)| path.file_name().is_some_and(|name| name != "LOCK"))
        {
            fs::write(path, &world.nodes[node].durable)?;
        }
        Ok(())
    }
}

impl File for PoweredFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.power.0.lock();
        let off = world.call();
        // The call in which the power goes may have done its work, or some of it.
        world.nodes[self.node].unsynced.push(Unsynced::Write(offset, bytes.to_vec()));
        off?;
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.power.0.lock();
        world.call()?;
        world.nodes[self.node].unsynced.push(Unsynced::Length(bytes));
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.power.0.lock();
        world.call()?;
        world.nodes[self.node].settle(&mut || true);
        Ok(())
    }
}

impl Files for Power {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        let mut world = self.0.lock();
        if world.off {
            return Err(io::Error::other("the power is off"));
        }
        let known = world.names.get(path).copied();
        let node = match known {
            Some(node) => node,
            None => {
                let node = world.nodes.len();
                world.nodes.push(Node::default());
                if create {
                    world.change(Renaming::Make(path.to_owned(), node));
                }
                node
            }
        };
        Ok(Arc::new(PoweredFile { power: self.clone(), node, file: Disk.open(path, create)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.call()?;
        world.change(Renaming::Rename(from.to_owned(), to.to_owned()));
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.call()?;
        world.change(Renaming::Remove(path.to_owned()));
        Disk.remove(path)
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.call()?;
        world.durable_names = world.names.clone();
        world.renamings.clear();
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        Disk.list(folder)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        Disk.free_bytes(folder)
    }
}
