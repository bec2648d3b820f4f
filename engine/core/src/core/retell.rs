//! What must be told again: channels that outlived an engine get permission pages, and a new policy changes
//! views, pages and channels.

use std::collections::BTreeSet;

use ringway_protocol::control::EngineMessage;
use ringway_protocol::error::{CallError, ErrorCode};
use ringway_protocol::ids::WorkerId;

use super::{Core, channels};
use crate::catalog::FunctionKey;
use crate::effect::Effect;
use crate::policy::Policy;
use crate::view::View;

impl Core {
    /// Takes over the channels that a worker has kept, where the other end is back too and tells the same,
    /// and where the callee has registered again: until then the old permission pages stand.
    pub(super) fn adopt_channels(&mut self, id: WorkerId, out: &mut Vec<Effect>) {
        let Some(worker) = self.catalog.workers.get(&id) else { return };
        for (peer, is_caller) in worker.kept.clone() {
            let (caller, callee) = if is_caller { (id, peer) } else { (peer, id) };
            self.adopt(caller, callee, out);
        }
    }

    fn adopt(&mut self, caller: WorkerId, callee: WorkerId, out: &mut Vec<Effect>) {
        let (Some(from), Some(to)) = (self.catalog.workers.get(&caller), self.catalog.workers.get(&callee))
        else {
            return;
        };
        let told = from.kept.contains(&(callee, true)) && to.kept.contains(&(caller, false));
        let known = self.channels.contains(caller, callee);
        if !(told || known) || !to.is_settled() {
            return;
        }
        let (caller_connection, callee_connection) = (from.connection, to.connection);
        let apart = from.zone != to.zone && !from.credentials.engine && !to.credentials.engine;
        self.forget_kept(caller, callee);
        if apart {
            return self.revoke(caller, callee, out);
        }
        if known {
            return;
        }
        let permissions = self.permissions(caller, callee);
        let channel = self.channels.open(caller, callee, permissions.clone());
        out.push(Effect::AdoptChannel {
            channel,
            caller_connection,
            callee_connection,
            caller,
            callee,
            permissions,
        });
    }

    pub(super) fn forget_kept(&mut self, caller: WorkerId, callee: WorkerId) {
        if let Some(worker) = self.catalog.workers.get_mut(&caller) {
            worker.kept.remove(&(callee, true));
        }
        if let Some(worker) = self.catalog.workers.get_mut(&callee) {
            worker.kept.remove(&(caller, false));
        }
    }

    /// Closes a channel that is allowed no longer.
    fn revoke(&mut self, caller: WorkerId, callee: WorkerId, out: &mut Vec<Effect>) {
        let error = CallError::new(
            ErrorCode::Forbidden,
            format!("the policy allows no call from `{}` here any longer", self.catalog.worker_name(caller)),
        );
        for end in [caller, callee] {
            self.send(end, EngineMessage::Revoked { caller, callee, error: error.clone() }, out);
        }
        if self.channels.close(caller, callee) {
            out.push(Effect::DropChannel { caller, callee });
        }
    }

    /// Ends all channels of a worker that has gone. Their other ends hear it from the channel itself and
    /// from the catalog.
    pub(super) fn drop_channels(&mut self, id: WorkerId, out: &mut Vec<Effect>) {
        let as_caller = self.channels.callees_of(id).into_iter().map(|callee| (id, callee));
        let as_callee = self.channels.callers_of(id).into_iter().map(|caller| (caller, id));
        for (caller, callee) in as_caller.chain(as_callee) {
            if self.channels.close(caller, callee) {
                out.push(Effect::DropChannel { caller, callee });
            }
        }
    }

    /// Looks again at what may be called over a channel, and closes it where that is nothing any longer.
    pub(super) fn review(&mut self, caller: WorkerId, callee: WorkerId, out: &mut Vec<Effect>) {
        let new = self.permissions(caller, callee);
        let Some(channel) = self.channels.get_mut(caller, callee) else { return };
        let words = channels::difference(&channel.permissions, &new);
        channel.permissions = new;
        let nothing = channel.permissions.iter().all(|word| *word == 0);
        if words.is_empty() {
            return;
        }
        out.push(Effect::SetPermissions { caller, callee, words });
        let engine = [caller, callee].contains(&self.config.engine_id);
        if nothing && !engine {
            self.revoke(caller, callee, out);
        }
    }

    /// Applies a new policy: first the pages, so that what was revoked stops at once, then the views. The
    /// one event whose cost grows with the catalog.
    pub(super) fn change_policy(&mut self, policy: Policy, out: &mut Vec<Effect>) {
        self.config.policy = policy;
        for (caller, callee) in self.channels.pairs() {
            self.review(caller, callee, out);
        }
        let mut keys: BTreeSet<FunctionKey> = self.catalog.functions().map(|(key, _)| key.clone()).collect();
        keys.extend(self.views.values().flat_map(|view| view.keys().cloned()));
        self.refresh(&keys);
        self.views.values_mut().for_each(View::hurry);
        self.publish(None, out);
    }
}
