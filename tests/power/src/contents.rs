//! The bytes of one file, as programs see them and as the disk may have them after a cut: for each sector what was synced
//! and every state that it had since, and likewise for the length. Used by `disk`; it must not know names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a disk writes in one piece.
const SECTOR: usize = 512;
const SECTOR_BYTES: u64 = SECTOR as u64;

/// A sector's bytes; none of them is other than zero if there are none.
type Data = Option<Arc<[u8; SECTOR]>>;

/// A state of a sector that was not synced.
#[derive(Debug)]
struct State {
    data: Data,
    /// How many lengths the file had when it was last cut through or before this sector: the state is on disk only together
    /// with that cut.
    lengths: usize,
    /// It is the cut that made it, so that earlier states are gone with it.
    cut: bool,
}

#[derive(Debug, Default)]
struct Sector {
    synced: Data,
    later: Vec<State>,
}

impl Sector {
    fn data(&self) -> &Data {
        self.later.last().map_or(&self.synced, |state| &state.data)
    }
}

/// How much of what was not synced is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Everything,
    /// Any state of each sector and of the length.
    Any,
}

/// A file's bytes.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Those that are not zero, or were not always.
    sectors: BTreeMap<u64, Sector>,
    unsynced: BTreeSet<u64>,
    synced_length: u64,
    lengths: Vec<u64>,
}

impl Contents {
    pub(crate) fn length(&self) -> u64 {
        self.lengths.last().copied().unwrap_or(self.synced_length)
    }

    /// Whether its length was synced.
    pub(crate) fn has_synced_length(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Up to so many bytes from an offset; fewer at the end.
    pub(crate) fn read(&self, offset: u64, bytes: usize) -> Vec<u8> {
        let rest = usize::try_from(self.length().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut read = vec![0; bytes.min(rest)];
        let end = offset + read.len() as u64;
        for (number, sector) in self.sectors.range(offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)) {
            let Some(data) = sector.data() else { continue };
            let begin = number * SECTOR_BYTES;
            let (from, to) = (begin.max(offset), (begin + SECTOR_BYTES).min(end));
            let within = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
            read[within(from, offset)..within(to, offset)]
                .copy_from_slice(&data[within(from, begin)..within(to, begin)]);
        }
        read
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (number, within) = (at / SECTOR_BYTES, usize::try_from(at % SECTOR_BYTES).unwrap_or(0));
            let (piece, behind) = rest.split_at((SECTOR - within).min(rest.len()));
            self.change(number, None, |data| data[within..within + piece.len()].copy_from_slice(piece));
            at += piece.len() as u64;
            rest = behind;
        }
        if !bytes.is_empty() && at > self.length() {
            self.lengths.push(at);
        }
    }

    /// Cuts or extends it, with zeros.
    pub(crate) fn set_length(&mut self, bytes: u64) {
        if bytes == self.length() {
            return;
        }
        let cut = Some(self.lengths.len() + 1);
        let behind: Vec<u64> =
            self.sectors.range(bytes / SECTOR_BYTES..).map(|(number, _)| *number).collect();
        for number in behind {
            let kept = usize::try_from(bytes.saturating_sub(number * SECTOR_BYTES)).unwrap_or(usize::MAX);
            self.change(number, cut, |data| data[kept.min(SECTOR)..].fill(0));
        }
        self.lengths.push(bytes);
    }

    /// Gives a sector another state; with `cut`, one that comes with so many lengths.
    fn change(&mut self, number: u64, cut: Option<usize>, change: impl FnOnce(&mut [u8; SECTOR])) {
        let old = self.sectors.get(&number).and_then(|sector| sector.data().clone());
        let mut data = old.as_ref().map_or([0; SECTOR], |data| **data);
        change(&mut data);
        let same = old.as_ref().map_or(data == [0; SECTOR], |old| **old == data);
        if same {
            return;
        }
        let sector = self.sectors.entry(number).or_default();
        let before = sector.later.last().map_or(0, |state| state.lengths);
        let data = (data != [0; SECTOR]).then(|| Arc::new(data));
        sector.later.push(State { data, lengths: cut.unwrap_or(before), cut: cut.is_some() });
        self.unsynced.insert(number);
    }

    /// Brings everything to disk.
    pub(crate) fn sync(&mut self) {
        for number in std::mem::take(&mut self.unsynced) {
            let Some(sector) = self.sectors.get_mut(&number) else { continue };
            if let Some(last) = sector.later.drain(..).next_back() {
                sector.synced = last.data;
            }
            if sector.synced.is_none() {
                self.sectors.remove(&number);
            }
        }
        self.synced_length = self.length();
        self.lengths.clear();
    }

    /// Sectors that have changed since they were synced.
    pub(crate) fn unsynced(&self) -> u64 {
        self.unsynced.len() as u64
    }

    /// What is left after a cut, all of it on disk. `below` chooses a number below another.
    pub(crate) fn after_cut(&self, keep: Keep, below: &mut dyn FnMut(u64) -> u64) -> Self {
        let mut choose = |from: usize, to: usize| match keep {
            Keep::Nothing => from,
            Keep::Everything => to,
            Keep::Any => from + usize::try_from(below((to - from) as u64 + 1)).unwrap_or(0),
        };
        let lengths = choose(0, self.lengths.len());
        let length = lengths.checked_sub(1).map_or(self.synced_length, |last| self.lengths[last]);
        let mut left = Self { synced_length: length, ..Self::default() };
        for (number, sector) in self.sectors.range(..length.div_ceil(SECTOR_BYTES)) {
            // A state that came with a cut is there only if the cut is, and nothing from before the cut is then.
            let to = sector.later.iter().take_while(|state| state.lengths <= lengths).count();
            let cut = sector.later[..to].iter().rposition(|state| state.cut);
            let chosen = choose(cut.map_or(0, |cut| cut + 1), to);
            let data = chosen.checked_sub(1).map_or(&sector.synced, |last| &sector.later[last].data);
            let Some(mut data) = data.clone() else { continue };
            let kept = usize::try_from(length - number * SECTOR_BYTES).unwrap_or(SECTOR);
            if kept < SECTOR {
                Arc::make_mut(&mut data)[kept..].fill(0);
            }
            left.sectors.insert(*number, Sector { synced: Some(data), later: Vec::new() });
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(contents: &Contents) -> Vec<u8> {
        contents.read(0, usize::MAX)
    }

    /// Every state that a cut may leave, from exhausting the choices.
    fn outcomes(contents: &Contents) -> BTreeSet<Vec<u8>> {
        let mut found = BTreeSet::new();
        let mut path: Vec<(u64, u64)> = Vec::new();
        loop {
            let mut at = 0;
            let left = contents.after_cut(Keep::Any, &mut |limit| {
                if at == path.len() {
                    path.push((0, limit));
                }
                at += 1;
                path[at - 1].0
            });
            found.insert(bytes(&left));
            path.truncate(at);
            while path.last().is_some_and(|(chosen, limit)| chosen + 1 == *limit) {
                path.pop();
            }
            match path.last_mut() {
                Some((chosen, _)) => *chosen += 1,
                None => return found,
            }
        }
    }

    #[test]
    fn what_was_written_is_read_whether_synced_or_not() {
        let mut contents = Contents::default();
        let mut model = Vec::new();
        let mut bits = 7_u64;
        for step in 0..4000_u64 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (at, length) = ((bits >> 33) as usize % 3000, (bits >> 50) as usize % 1500);
            match step % 7 {
                0 => contents.sync(),
                1 => {
                    model.resize(at, 0);
                    contents.set_length(at as u64);
                }
                _ => {
                    let piece = vec![step.to_le_bytes()[0]; length];
                    if !piece.is_empty() && model.len() < at + length {
                        model.resize(at + length, 0);
                    }
                    if !piece.is_empty() {
                        model[at..at + length].copy_from_slice(&piece);
                    }
                    contents.write(at as u64, &piece);
                }
            }
            assert_eq!(contents.length(), model.len() as u64, "step {step}");
            assert_eq!(bytes(&contents), model, "step {step}");
            assert_eq!(bytes(&contents.after_cut(Keep::Everything, &mut |_| 0)), model, "step {step}");
        }
    }

    #[test]
    fn a_cut_tears_what_was_not_synced_at_its_sectors() {
        let mut contents = Contents::default();
        contents.write(0, &[1; 1024]);
        contents.sync();
        contents.write(0, &[2; 1024]);
        contents.write(0, &[3; 100]);
        let torn = |first: [u8; 2], second: u8| {
            let mut bytes = vec![first[1]; 512];
            bytes[..100].fill(first[0]);
            bytes.resize(1024, second);
            bytes
        };
        let expected = [[1, 1], [2, 2], [3, 2]].map(|first| [1, 2].map(|second| torn(first, second)));
        assert_eq!(outcomes(&contents), expected.concat().into_iter().collect());
        assert_eq!(bytes(&contents.after_cut(Keep::Nothing, &mut |_| 0)), [1; 1024]);
        contents.sync();
        assert_eq!(outcomes(&contents), BTreeSet::from([torn([3, 2], 2)]));
    }

    #[test]
    fn a_length_that_was_not_synced_may_be_lost_and_what_was_cut_off_does_not_come_back() {
        let mut contents = Contents::default();
        contents.write(0, &[1; 600]);
        contents.sync();
        contents.set_length(512);
        contents.set_length(514);
        let old = [1; 600].to_vec();
        let cut = [1; 512].to_vec();
        let extended = [[1; 512].as_slice(), &[0; 2]].concat();
        assert_eq!(outcomes(&contents), BTreeSet::from([old, cut, extended]));
    }
}
