//! A client says who it is, by calling a function: from then on it is a worker. It must not know what it registers.

use std::sync::Arc;

use ringway::protocol::naming::NAMESPACE_DEFAULT;
use ringway::{WaitMode, Worker};
use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::ReplyTo;
use super::{Peer, Session};
use crate::limits::NAME_CHARS_MAX;
use crate::protocol::{ErrorBody, Features, Frame, bytes_max, code, enforces_names};

/// What a client says of itself. What is of another type than expected counts as not said.
#[derive(Debug, Default, Clone)]
pub(super) struct Said {
    pub(super) runtime: String,
    pub(super) version: String,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) os: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) features: Vec<String>,
    /// All of it, for the engine's listings.
    whole: Value,
}

/// What a client said, and where it wants to hear that it was understood.
#[derive(Debug)]
pub(super) struct Announcement {
    pub(super) said: Said,
    pub(super) reply: ReplyTo,
}

impl Said {
    fn read(data: &str) -> Self {
        let whole = serde_json::from_str::<Value>(data).unwrap_or_default();
        let text = |field: &str| whole.get(field).and_then(Value::as_str).map(str::to_owned);
        let features = whole.get("features").map(|said| Vec::<String>::deserialize(said).unwrap_or_default());
        Self {
            runtime: text("runtime").unwrap_or_default(),
            version: text("version").unwrap_or_default(),
            name: text("name").as_deref().and_then(clean),
            description: text("description"),
            os: text("os"),
            namespace: text("namespace"),
            features: features.unwrap_or_default(),
            whole,
        }
    }
}

/// A name without what would change how a line of text is shown, of limited length; none where nothing is left.
fn clean(name: &str) -> Option<String> {
    let turns = |letter: char| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown: String = name.chars().filter(|letter| !letter.is_control() && !turns(*letter)).collect();
    let shown: String = shown.trim().chars().take(NAME_CHARS_MAX).collect();
    (!shown.is_empty()).then_some(shown)
}

impl Session {
    /// The client says who it is.
    pub(super) fn announced(&self, data: &str, reply: ReplyTo) {
        let said = Said::read(data);
        if said.namespace.as_deref().is_some_and(|namespace| namespace.trim().is_empty()) {
            let text = "the namespace is blank; leave it out to mean `default`";
            return self.reply(&reply, Err(ErrorBody::new(code::INVALID_NAMESPACE, text)));
        }
        let namespace = said.namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT);
        if !self.granted.may_be_in(namespace) {
            let text = format!("the namespace '{namespace}' is not among those that this connection may use");
            tracing::warn!(worker = %self.uuid, namespace, "a client may not be in the namespace that it says");
            return self.reply(&reply, Err(ErrorBody::new(code::FORBIDDEN, text)));
        }
        let _over = self.announcements.send(Announcement { said, reply });
    }

    /// Makes the client a worker. Blocks until the engine has taken it.
    ///
    /// Returns false if it may not be one.
    pub(super) fn attach(self: &Arc<Self>, announcement: Option<&Announcement>) -> bool {
        let nothing = Said::default();
        let said = announcement.map_or(&nothing, |announcement| &announcement.said);
        let namespace = said.namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT);
        let shared = &self.place.shared;
        if let Some(name) = said.name.as_deref().filter(|_| enforces_names(&said.version))
            && let Err(holder) = shared.claim(namespace, name, self)
        {
            self.send(
                Frame::new("registrationrejected")
                    .text("code", code::WORKER_NAMESPACE_CONFLICT)
                    .text("namespace", namespace)
                    .text("worker_name", name)
                    .text("owner_worker_id", &holder),
            );
            self.outbox.close();
            return false;
        }
        let unnamed = format!("iii:{}", self.opening.peer);
        let runtime = shared.runtime.clone();
        let mut builder = Worker::builder(said.name.as_deref().unwrap_or(&unnamed))
            .address(&shared.address)
            .id(self.worker_id)
            .namespace(namespace)
            .runtime(&said.runtime)
            .version(&said.version)
            .os(said.os.as_deref().unwrap_or_default())
            // Clients wait as long as they like, and say nothing of it.
            .default_timeout(None)
            // Nothing is won by spinning for what goes over a socket.
            .wait_mode(WaitMode::Efficient)
            .spawner(move |future| drop(runtime.spawn(future)))
            .without_reconnect();
        if let Some(description) = &said.description {
            builder = builder.description(description);
        }
        let worker = match builder.connect() {
            Ok(worker) => worker,
            Err(error) => {
                tracing::error!(worker = %self.uuid, %error, "a client could not become a worker");
                self.outbox.close();
                return false;
            }
        };
        let bytes_max = bytes_max(&said.runtime, &said.version, &said.features);
        let features = Features::of(&said.features);
        let name = said.name.clone();
        let peer = Peer { worker, namespace: namespace.to_owned(), bytes_max, name, features };
        if self.peer.set(peer).is_err() {
            tracing::error!(worker = %self.uuid, "a client became a worker twice");
        }
        if let Some(announcement) = announcement {
            self.describe(announcement);
        }
        true
    }

    /// Tells the engine what the client says of itself beyond what attaching told, or anew. Blocks until it is told.
    pub(super) fn describe(&self, announcement: &Announcement) {
        let Some(peer) = self.peer.get() else { return };
        let mut said = announcement.said.whole.clone();
        if let Some(fields) = said.as_object_mut() {
            // It is settled, and another one would be refused.
            fields.insert("namespace".to_owned(), peer.namespace.as_str().into());
            fields.retain(|_, value| !value.is_null());
        }
        let told = peer.worker.trigger_json(ringway::protocol::naming::WORKERS_REGISTER, &said);
        match told {
            Ok(_) => self.reply(&announcement.reply, Ok(Some(&json!({ "success": true }).to_string()))),
            Err(error) => {
                tracing::debug!(worker = %self.uuid, %error, "what a client says of itself was refused");
                let body = ErrorBody::new(code::INVOCATION_ERROR, error.message);
                self.reply(&announcement.reply, Err(body));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_counts_as_not_said() {
        let said =
            Said::read(r#"{"runtime":"node","version":5,"name":" a\u0007b ","features":["x"],"pid":"?"}"#);
        assert_eq!((said.runtime.as_str(), said.version.as_str()), ("node", ""));
        assert_eq!((said.name.as_deref(), said.features.as_slice()), (Some("ab"), &["x".to_owned()][..]));
        let said = Said::read("[]");
        assert!(said.name.is_none() && said.features.is_empty());
        assert_eq!(clean(&"é".repeat(1000)).unwrap().chars().count(), NAME_CHARS_MAX);
        assert_eq!(clean(" \u{202e} "), None);
    }
}
