//! What engines say to each other about who is there and what they offer, and on which subjects. Used by [`crate::roll`] and
//! the thread with the connection. It must not know how messages travel.
//!
//! The bytes are JSON, so that `nats sub 'ringway.PROJECT.>'` shows a person what goes on.

use ringway_protocol::WorkerId;
use ringway_protocol::control::Change;
use serde::{Deserialize, Serialize};

use crate::limits::HEAD_BYTES;

/// A message about the catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Message {
    /// To all: somebody is new, and wants to know who is there.
    Hello {
        /// Who.
        engine: WorkerId,
        /// What it is called.
        name: String,
    },
    /// To one: somebody does not know, or no longer knows, what the receiver offers.
    Ask {
        /// Who.
        engine: WorkerId,
        /// What it is called.
        name: String,
    },
    /// A part of all that an engine offers.
    State {
        /// Who offers it.
        engine: WorkerId,
        /// What it is called.
        name: String,
        /// A number of this run of the engine.
        run: u64,
        /// Changes that were told before, all of which this has.
        sequence: u64,
        /// Which part it is, from 0.
        part: u32,
        /// No part follows.
        last: bool,
        /// How often it says that it is there, in milliseconds.
        every_ms: u64,
        /// What is offered, as changes of nothing.
        changes: Vec<Change>,
    },
    /// To all: what has changed.
    Changes {
        /// Who offers it.
        engine: WorkerId,
        /// A number of this run of the engine.
        run: u64,
        /// How many times changes were told, this one included.
        sequence: u64,
        /// The changes, in order.
        changes: Vec<Change>,
    },
    /// To all, or to whoever said hello: somebody is there.
    Here {
        /// Who.
        engine: WorkerId,
        /// What it is called.
        name: String,
        /// A number of this run of the engine.
        run: u64,
        /// How many times changes were told.
        sequence: u64,
        /// How often it says so, in milliseconds.
        every_ms: u64,
    },
    /// To all: somebody leaves.
    Gone {
        /// Who.
        engine: WorkerId,
        /// A number of this run of the engine.
        run: u64,
    },
}

impl Message {
    /// The bytes that travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Nothing in a message can fail to be JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what came.
    ///
    /// # Errors
    /// It is no message of this release.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// Cuts changes into groups of which each, as JSON, has no more than so many bytes; one group at least.
#[must_use]
pub fn cut(changes: Vec<Change>, bytes_max: usize) -> Vec<Vec<Change>> {
    let room = bytes_max.saturating_sub(HEAD_BYTES);
    let (mut groups, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
    for change in changes {
        let len = serde_json::to_vec(&change).map_or(0, |json| json.len() + 1);
        if bytes + len > room && !group.is_empty() {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
        bytes += len;
        group.push(change);
    }
    if !group.is_empty() || groups.is_empty() {
        groups.push(group);
    }
    groups
}

/// To an engine that is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dial {
    /// Who dials.
    pub(crate) engine: WorkerId,
    /// What it is called.
    pub(crate) name: String,
    /// What the link's subjects are made of.
    pub(crate) session: String,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dialled {
    /// It listens on the session's subject.
    Accepted,
    /// It dials the other at this moment, and goes first.
    MineGoesFirst,
}

/// The subjects of a project.
#[derive(Debug, Clone)]
pub(crate) struct Subjects {
    prefix: String,
}

impl Subjects {
    pub(crate) fn of(project: &str) -> Self {
        Self { prefix: format!("ringway.{project}") }
    }

    /// What all are told.
    pub(crate) fn catalog(&self) -> String {
        format!("{}.catalog", self.prefix)
    }

    /// Where newcomers ask all.
    pub(crate) fn hello(&self) -> String {
        format!("{}.hello", self.prefix)
    }

    /// What one engine is told.
    pub(crate) fn to(&self, engine: WorkerId) -> String {
        format!("{}.to.{:016x}", self.prefix, engine.get())
    }

    /// Where one engine is dialled.
    pub(crate) fn dial(&self, engine: WorkerId) -> String {
        format!("{}.dial.{:016x}", self.prefix, engine.get())
    }

    /// Where an end of a link listens: `a` whoever dialled, `b` the other.
    pub(crate) fn link(&self, session: &str, dialled: bool) -> String {
        format!("{}.link.{session}.{}", self.prefix, if dialled { 'a' } else { 'b' })
    }
}

#[cfg(test)]
mod tests {
    use ringway_protocol::control::GoneCause;

    use super::*;

    #[test]
    fn what_is_cut_is_whole_and_short_enough() {
        let gone = |id: u64| Change::WorkerGone { id: WorkerId::new(id), cause: GoneCause::Died };
        let changes: Vec<Change> = (0..1000).map(gone).collect();
        let groups = cut(changes.clone(), 4096);
        assert!(groups.len() > 10, "{}", groups.len());
        for group in &groups {
            let message = Message::Changes {
                engine: WorkerId::new(u64::MAX),
                run: u64::MAX,
                sequence: u64::MAX,
                changes: group.clone(),
            };
            let bytes = message.encode();
            assert!(bytes.len() <= 4096, "{}", bytes.len());
            assert_eq!(Message::decode(&bytes).unwrap(), message);
        }
        assert_eq!(groups.concat(), changes);
        assert_eq!(cut(Vec::new(), 4096), [Vec::new()]);
    }
}
