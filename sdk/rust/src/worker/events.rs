//! What the control thread tells the worker.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringway_ipc::channel::{Channel, CloseReason, Role};
use ringway_ipc::permission::PermissionView;
use ringway_protocol::control::{Catalog, Change, ChannelEnd, KeptChannel, TriggerSpec, Welcome};
use ringway_protocol::{CallError, WorkerId};

use crate::callee::CalleeChannel;
use crate::control::{BindAnswer, Events};
use crate::worker::Inner;

impl Events for Inner {
    fn attached(&self, welcome: &Welcome, again: bool) {
        self.engine_id.store(welcome.engine_id.get(), Ordering::Release);
        tracing::debug!(target: "ringway", worker = %self.id, engine = %welcome.engine_id, again, "attached");
    }

    fn catalog(&self, catalog: Catalog) {
        self.routes.replace(catalog);
    }

    fn changes(&self, revision: u64, changes: &[Change]) {
        self.routes.apply(revision, changes);
    }

    fn detached(&self, reason: &str) {
        tracing::warn!(target: "ringway", worker = %self.id, reason, "the engine is gone; open channels stay");
    }

    fn callee_channel(
        &self,
        channel: Arc<Channel>,
        permissions: Option<PermissionView>,
        caller_name: String,
        _zone: String,
    ) {
        match self.memory_for(WorkerId::new(channel.peer_worker())) {
            Ok(memory) => {
                self.dispatcher.add_callee(&CalleeChannel::new(channel, permissions, caller_name, memory));
            }
            Err(error) => {
                tracing::debug!(target: "ringway", caller_name, %error, "a caller left before it could call");
                channel.close(CloseReason::Local);
            }
        }
    }

    fn channel_closed(&self, channel: &Arc<Channel>, reason: CloseReason) {
        if reason.is_violation() {
            tracing::warn!(target: "ringway", worker = %self.id, peer = channel.peer_worker(), %reason, "a channel was closed");
        }
        self.clear_up(channel);
        let peer = WorkerId::new(channel.peer_worker());
        if channel.role() == Role::Caller && reason == CloseReason::PeerGone && peer != self.id {
            // Known before the engine says so, and also when there is no engine to say so.
            self.routes.forget_worker(peer);
        }
    }

    fn permissions(&self, caller: WorkerId, callee: WorkerId, view: PermissionView) {
        if callee != self.id {
            return;
        }
        let view = Arc::new(view);
        for channel in self.dispatcher.callees().iter().filter(|channel| channel.peer() == caller) {
            channel.permissions.store(Some(Arc::clone(&view)));
        }
    }

    fn revoked(&self, caller: WorkerId, callee: WorkerId, error: CallError) {
        tracing::info!(target: "ringway", %caller, %callee, %error, "a channel was revoked");
    }

    fn trigger_bind(&self, binding: TriggerSpec, _owner: Option<WorkerId>, answer: BindAnswer) {
        let provider = self.providers.lock().get(&binding.trigger_type).cloned();
        match provider {
            Some(provider) => provider.bind_later(&binding, answer),
            None => {
                let unknown = CallError::not_found("trigger type of this worker", &binding.trigger_type);
                answer.send(Err(unknown));
            }
        }
    }

    fn trigger_accepted(&self, id: &str) {
        let waiting = self.awaited.lock().remove(id);
        if let Some(tell) = waiting {
            tell(Ok(()));
        }
    }

    fn trigger_refused(&self, id: &str, error: CallError) {
        tracing::warn!(target: "ringway", id, %error, "a trigger was refused by its provider");
        let waiting = self.awaited.lock().remove(id);
        if let Some(tell) = waiting {
            tell(Err(error));
        }
    }

    fn trigger_unbind(&self, id: &str) {
        let providers: Vec<_> = self.providers.lock().values().cloned().collect();
        providers.iter().for_each(|provider| provider.unbind(id));
    }

    fn shutdown(&self, reason: &str, drain: Duration) {
        tracing::info!(target: "ringway", worker = %self.id, reason, drain_ms = drain.as_millis(), "the engine stops");
    }

    fn kept_channels(&self) -> Vec<KeptChannel> {
        let callees = self.dispatcher.callees();
        let callers = self.dispatcher.callers();
        let open = |channel: &Arc<Channel>| channel.close_reason().is_none();
        let as_callee = callees
            .iter()
            .filter(|callee| open(&callee.channel))
            .map(|callee| KeptChannel { peer: callee.peer(), end: ChannelEnd::Callee });
        let as_caller = callers
            .iter()
            .filter(|caller| open(&caller.channel))
            .map(|caller| KeptChannel { peer: caller.peer(), end: ChannelEnd::Caller });
        as_callee.chain(as_caller).collect()
    }
}
