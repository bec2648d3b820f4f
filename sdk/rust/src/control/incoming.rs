//! What the engine says, one method for each message.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ringway_ipc::permission::PermissionView;
use ringway_protocol::control::{
    Change, EngineMessage, RegistrationOutcome, RegistrationResult, TriggerSpec, Welcome,
};
use ringway_protocol::limits::PROTOCOL_VERSION;
use ringway_protocol::{CallError, WorkerId};

use super::BindAnswer;
use super::link::Stage;
use super::run::Run;
use super::stream::ReadError;

impl Run {
    /// Reads everything the engine has sent so far.
    pub(super) fn read_engine(&mut self) {
        loop {
            match self.link.receive() {
                Ok(None) => return,
                Ok(Some((message, fds))) => self.take_message(message, fds),
                Err(ReadError::Refused(error)) => return self.take_refusal(error),
                Err(error) => return self.detach(&error.to_string()),
            }
        }
    }

    fn take_message(&mut self, message: EngineMessage, fds: Vec<OwnedFd>) {
        match (message, &self.link.stage) {
            (EngineMessage::Welcome(welcome), Stage::Greeted { .. }) => self.take_welcome(*welcome, fds),
            (EngineMessage::Refused { error }, _) => self.take_refusal(error),
            (message, Stage::Up { .. }) => self.take_attached(message, fds),
            (message, _) => self.detach(&format!("the engine sent `{}` out of turn", message.name())),
        }
    }

    fn take_attached(&mut self, message: EngineMessage, fds: Vec<OwnedFd>) {
        match message {
            EngineMessage::Registered { request, results } => self.take_registered(request, results),
            EngineMessage::CatalogChange { revision, changes } => self.take_changes(revision, &changes),
            EngineMessage::Incoming { channel, from, name, zone } => {
                self.take_incoming(channel, from, name, zone, fds);
            }
            EngineMessage::Connected { request, channel } => self.take_connected(request, channel, fds),
            EngineMessage::ConnectFailed { request, error } => self.take_connect_failed(request, &error),
            EngineMessage::Permissions { caller, callee } => self.take_permissions(caller, callee, fds),
            EngineMessage::Revoked { caller, callee, error } => self.take_revoked(caller, callee, error),
            EngineMessage::Shutdown { reason, drain_ms } => {
                self.tell(|events| events.shutdown(&reason, Duration::from_millis(drain_ms)));
            }
            EngineMessage::TriggerBind { binding, owner } => self.take_trigger_bind(binding, owner),
            EngineMessage::TriggerUnbind { id } => {
                self.tell(|events| events.trigger_unbind(&id));
            }
            EngineMessage::TriggerAccepted { id } => {
                self.tell(|events| events.trigger_accepted(&id));
            }
            EngineMessage::TriggerRefused { id, error } => {
                self.tell(|events| events.trigger_refused(&id, error));
            }
            other => {
                tracing::debug!(message = other.name(), "the engine sent what this release does not know");
            }
        }
    }

    fn take_welcome(&mut self, mut welcome: Welcome, fds: Vec<OwnedFd>) {
        if welcome.protocol != PROTOCOL_VERSION {
            return self.attach_failed(CallError::incompatible_version(PROTOCOL_VERSION, welcome.protocol));
        }
        if let (Some(telemetry), Some(bell)) =
            (&self.config.telemetry, self.link.remote().map(|it| it.bell()))
        {
            telemetry.attach_link(bell);
        } else if let Some(telemetry) = &self.config.telemetry {
            let bytes_max = self.config.channel.segment_bytes_max;
            let barrier = self.config.channel.barrier_registered;
            if let Err(error) = telemetry.attach(fds, bytes_max, barrier) {
                tracing::warn!(%error, "spans and logs of this worker are not sent");
            }
        }
        let again = self.attached_before;
        let catalog = std::mem::take(&mut welcome.catalog);
        self.attach_done(catalog.revision);
        self.tell(|events| events.attached(&welcome, again));
        self.tell(|events| events.catalog(catalog));
        self.tell_engine_all();
    }

    fn take_refusal(&mut self, error: CallError) {
        if self.link.is_up() {
            tracing::warn!(%error, "the engine put this worker out");
            self.detach(&error.to_string());
        } else {
            self.attach_failed(error);
        }
    }

    fn take_registered(&mut self, request: u64, results: Vec<RegistrationResult>) {
        for result in results.iter().filter(|result| result.outcome == RegistrationOutcome::Refused) {
            tracing::debug!(id = result.id, "the engine refused a registration");
        }
        self.registrations.answer(request, results);
    }

    fn take_changes(&mut self, revision: u64, changes: &[Change]) {
        let Stage::Up { revision: last, .. } = &mut self.link.stage else { return };
        if revision != last.wrapping_add(changes.len() as u64) {
            let count = changes.len();
            let reason =
                format!("the catalog jumped from revision {last} to {revision} with {count} changes");
            return self.detach(&reason);
        }
        *last = revision;
        self.tell(|events| events.changes(revision, changes));
    }

    fn take_permissions(&mut self, caller: WorkerId, callee: WorkerId, fds: Vec<OwnedFd>) {
        match fds.into_iter().next().map(PermissionView::map) {
            Some(Ok(view)) => {
                self.tell(|events| events.permissions(caller, callee, view));
            }
            Some(Err(error)) => tracing::warn!(%error, "the engine sent a broken permission page"),
            None => tracing::warn!("the engine sent permissions without a page"),
        }
    }

    fn take_trigger_bind(&mut self, binding: TriggerSpec, owner: Option<WorkerId>) {
        let answer = BindAnswer::new(Arc::downgrade(&self.shared), binding.id.clone());
        self.tell(|events| events.trigger_bind(binding, owner, answer));
    }
}
