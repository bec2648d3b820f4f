//! A worker says what it is called and what it is, after it has attached. Rules of the policy may name it, so what it may
//! call is looked at again.

use ringway_protocol::control::Change;
use ringway_protocol::error::CallError;
use ringway_protocol::ids::WorkerId;
use ringway_protocol::limits;

use super::Core;
use crate::catalog::{check_bytes, check_json};
use crate::effect::Effect;
use crate::event::Announcement;

/// Leaves out what would change how a line of text is shown (control characters, and the marks that turn its direction), and
/// cuts at the limit. None where nothing is left.
fn clean(name: &str) -> Option<String> {
    let turns = |letter: char| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown: String = name.chars().filter(|letter| !letter.is_control() && !turns(*letter)).collect();
    let shown = shown.trim();
    let end = shown.floor_char_boundary(limits::NAME_BYTES_MAX);
    (!shown.is_empty()).then(|| shown[..end].to_owned())
}

/// Sets what was said; what was not stays.
fn set<T>(kept: &mut Option<T>, said: Option<T>) {
    if said.is_some() {
        *kept = said;
    }
}

impl Core {
    /// Says whether [`crate::Event::WorkerAnnounced`] would be taken; the event itself has no answer.
    ///
    /// # Errors
    /// The worker is not attached or has another namespace, or a text is longer than its limit.
    pub fn check_announcement(&self, worker: WorkerId, said: &Announcement) -> Result<(), CallError> {
        let Some(attached) = self.catalog.workers.get(&worker) else {
            return Err(CallError::not_found("worker", &worker.to_string()));
        };
        if let Some(namespace) =
            said.namespace.as_ref().filter(|namespace| **namespace != *attached.namespace)
        {
            let own = &attached.namespace;
            let message =
                format!("wanted the namespace `{own}` that the worker attached with, found `{namespace}`");
            return Err(CallError::invalid_registration(message));
        }
        let bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        check_bytes("a description", bytes(&said.description), limits::DESCRIPTION_BYTES_MAX)?;
        for (what, text) in [
            ("a runtime", &said.runtime),
            ("a version", &said.version),
            ("an operating system", &said.os),
            ("an isolation", &said.isolation),
        ] {
            check_bytes(what, bytes(text), limits::NAME_BYTES_MAX)?;
        }
        let features = said.features.iter().flatten().map(String::len).sum();
        check_bytes("features", features, limits::DESCRIPTION_BYTES_MAX)?;
        check_json("telemetry", said.telemetry.as_ref())?;
        check_json("metadata", said.metadata.as_ref())
    }

    pub(super) fn announce(&mut self, id: WorkerId, said: Announcement, out: &mut Vec<Effect>) {
        if self.check_announcement(id, &said).is_err() {
            return;
        }
        let Some(worker) = self.catalog.workers.get_mut(&id) else { return };
        let before = (worker.hello.clone(), worker.announced.clone());
        let hello = &mut worker.hello;
        if let Some(name) = said.name.as_deref().and_then(clean) {
            hello.name = name;
        }
        for (kept, said) in [
            (&mut hello.runtime, said.runtime),
            (&mut hello.sdk_version, said.version),
            (&mut hello.os, said.os),
        ] {
            if let Some(said) = said {
                *kept = said;
            }
        }
        set(&mut hello.description, said.description);
        set(&mut hello.metadata, said.metadata);
        let announced = &mut worker.announced;
        set(&mut announced.isolation, said.isolation);
        set(&mut announced.telemetry, said.telemetry);
        set(&mut announced.features, said.features);
        if before == (worker.hello.clone(), worker.announced.clone()) {
            return;
        }
        let (zone, engine) = (worker.zone.clone(), worker.credentials.engine);
        let change = Change::WorkerChanged { worker: worker.entry(id) };
        for callee in self.channels.callees_of(id) {
            self.review(id, callee, out);
        }
        self.note(&zone, engine, &change);
        out.push(Effect::Described { worker: id });
        self.publish(None, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned() {
        let check =
            |found: &str, expected: Option<&str>| assert_eq!(clean(found).as_deref(), expected, "{found:?}");
        check(" shop ", Some("shop"));
        check("a\u{7}b\u{202e}c", Some("abc"));
        check(" \n\u{2066} ", None);
        check("", None);
        let long = "é".repeat(limits::NAME_BYTES_MAX);
        assert_eq!(clean(&long).map(|name| name.len()), Some(limits::NAME_BYTES_MAX));
    }
}
