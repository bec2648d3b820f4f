//! The permission bits of channels: made when a channel opens, changed with every registration and every
//! change of policy, before anybody hears of the function.

use ringway_protocol::ids::WorkerId;

use super::{Core, channels};
use crate::catalog::FunctionKey;
use crate::effect::Effect;

impl Core {
    /// Makes the bits of a channel from scratch. Bit 0, inspection, is the engine's alone.
    pub(super) fn permissions(&self, caller: WorkerId, callee: WorkerId) -> Vec<u64> {
        let (Some(from), Some(to)) = (self.catalog.workers.get(&caller), self.catalog.workers.get(&callee))
        else {
            return Vec::new();
        };
        let mut bits = Vec::new();
        if from.credentials.engine {
            channels::set_bit(&mut bits, 0, true);
        }
        for (index, key) in &to.functions {
            if self.allows(from, &to.zone, &key.id) {
                channels::set_bit(&mut bits, *index, true);
            }
        }
        bits
    }

    /// Brings the bits at some indexes of a callee up to date, in all channels to it.
    pub(super) fn permit(&mut self, callee: WorkerId, indexes: &[u32], out: &mut Vec<Effect>) {
        let Some(to) = self.catalog.workers.get(&callee).filter(|_| !indexes.is_empty()) else { return };
        for caller in self.channels.callers_of(callee) {
            let Some(from) = self.catalog.workers.get(&caller) else { continue };
            let allows = |key: &FunctionKey| self.allows(from, &to.zone, &key.id);
            let allowed = |index: &u32| (*index, to.functions.get(index).is_some_and(allows));
            let allowed: Vec<_> = indexes.iter().map(allowed).collect();
            let Some(channel) = self.channels.get_mut(caller, callee) else { continue };
            let old = channel.permissions.clone();
            for (index, allowed) in allowed {
                channels::set_bit(&mut channel.permissions, index, allowed);
            }
            let words = channels::difference(&old, &channel.permissions);
            if !words.is_empty() {
                out.push(Effect::SetPermissions { caller, callee, words });
            }
        }
    }
}
