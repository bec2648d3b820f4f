//! `connect`: a worker wants a channel to another, or to itself. Nobody gets one who may call nothing at its
//! other end, and none crosses a zone's border but to the engine.

use ringway_protocol::control::{EngineMessage, RequestId, WorkerStatus};
use ringway_protocol::error::{CallError, ErrorCode, Started};
use ringway_protocol::ids::WorkerId;

use super::Core;
use crate::effect::Effect;
use crate::event::ConnectionId;

impl Core {
    pub(super) fn connect(
        &mut self,
        caller: WorkerId,
        from: ConnectionId,
        request: RequestId,
        callee: WorkerId,
        out: &mut Vec<Effect>,
    ) {
        let granted = self.grant(caller, callee);
        let parties = self.catalog.workers.get(&caller).zip(self.catalog.workers.get(&callee));
        match (granted, parties) {
            (Ok(permissions), Some((caller_worker, callee_worker))) => {
                let (name, zone) = (caller_worker.hello.name.clone(), caller_worker.zone.to_string());
                let callee_connection = callee_worker.connection;
                if self.channels.close(caller, callee) {
                    out.push(Effect::DropChannel { caller, callee });
                }
                let channel = self.channels.open(caller, callee, permissions.clone());
                out.push(Effect::OpenChannel {
                    request,
                    channel,
                    caller_connection: from,
                    callee_connection,
                    caller,
                    callee,
                    name,
                    zone,
                    permissions,
                });
            }
            (Err(error), _) => {
                out.push(Effect::Send { to: from, message: EngineMessage::ConnectFailed { request, error } });
            }
            (Ok(_), None) => {}
        }
    }

    /// Says whether a channel may be opened, and what its permission bits are.
    fn grant(&self, caller: WorkerId, callee: WorkerId) -> Result<Vec<u64>, CallError> {
        let gone = |id| CallError::worker_gone(id, Started::No);
        let from = self.catalog.workers.get(&caller).ok_or_else(|| gone(caller))?;
        let to = self.catalog.workers.get(&callee).ok_or_else(|| gone(callee))?;
        if to.status == WorkerStatus::Draining {
            return Err(CallError::draining(&self.catalog.worker_name(callee)));
        }
        let limit = self.config.limits.channels_max;
        for (id, what) in
            [(caller, "the caller's table of channels"), (callee, "the callee's table of channels")]
        {
            if self.channels.count_of(id) >= limit as usize && !self.channels.contains(caller, callee) {
                return Err(CallError::busy(what, u64::from(limit)).with_details(id.to_string().into()));
            }
        }
        if from.credentials.engine || to.credentials.engine {
            return Ok(self.permissions(caller, callee));
        }
        if from.zone != to.zone {
            let message = format!(
                "worker {callee} is in zone `{}` and the caller in zone `{}`; such calls go through the engine",
                to.zone, from.zone
            );
            return Err(CallError::new(ErrorCode::Forbidden, message));
        }
        if to.functions.is_empty() {
            // Whatever the caller wanted has gone on its way here.
            let message =
                format!("`{}` serves nothing; resolve the function again", self.catalog.worker_name(callee));
            return Err(CallError::new(ErrorCode::StaleHandle, message));
        }
        let permissions = self.permissions(caller, callee);
        if permissions.iter().all(|word| *word == 0) {
            let message = format!(
                "`{}` may call nothing at `{}`; allow a function by a rule in the engine's policy",
                self.catalog.worker_name(caller),
                self.catalog.worker_name(callee)
            );
            return Err(CallError::new(ErrorCode::Forbidden, message));
        }
        Ok(permissions)
    }

    pub(super) fn disconnected(&mut self, caller: WorkerId, callee: WorkerId, out: &mut Vec<Effect>) {
        if self.channels.close(caller, callee) {
            out.push(Effect::DropChannel { caller, callee });
        }
    }
}
