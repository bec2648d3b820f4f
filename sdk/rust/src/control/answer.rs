//! The answer of a trigger type's provider, which may take its time. It must not know who gives it.

use std::fmt;
use std::sync::Weak;

use ringway_protocol::CallError;

use super::command::{Command, Shared};

/// What a provider answers when it is asked to watch for a trigger: see [`crate::TriggerProvider::bind_later`]. Dropped
/// without an answer, it says that the trigger is watched for.
pub struct BindAnswer {
    shared: Weak<Shared>,
    /// None once answered.
    binding: Option<String>,
}

impl fmt::Debug for BindAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BindAnswer").field("binding", &self.binding).finish_non_exhaustive()
    }
}

impl BindAnswer {
    pub(super) fn new(shared: Weak<Shared>, binding: String) -> Self {
        Self { shared, binding: Some(binding) }
    }

    /// Says that the trigger is watched for, or why not.
    pub fn send(mut self, outcome: Result<(), CallError>) {
        self.tell(outcome.err());
    }

    fn tell(&mut self, error: Option<CallError>) {
        if let (Some(binding), Some(shared)) = (self.binding.take(), self.shared.upgrade()) {
            shared.ask(Command::Bound { binding, error });
        }
    }
}

impl Drop for BindAnswer {
    fn drop(&mut self) {
        self.tell(None);
    }
}
