//! The links of a driver and what is due for each. Used by [`super::run`]. It must not know how bytes are moved.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::{Facts, Owner};
use crate::fault::Ended;
use crate::line::Line;

/// How long what was queued before an end may take to go out.
const LINGER: Duration = Duration::from_secs(1);

/// A link and its socket.
pub(crate) struct Carrier<S> {
    pub(crate) id: u64,
    pub(crate) line: Line,
    pub(crate) socket: OwnedFd,
    pub(crate) owner: Arc<dyn Owner>,
    pub(crate) facts: Arc<Facts>,
    /// What the way of moving bytes keeps for it.
    pub(crate) state: S,
    pub(crate) ping_at_ns: u64,
    /// Until when its owner is told nothing unless the distance is known: who is told of somebody first asks how far away.
    pub(crate) quiet_until_ns: u64,
    /// Why it is over, and until when what was queued may still go out.
    pub(crate) ended: Option<(Ended, u64)>,
    /// Nothing more is written. What the other end still sends is read and dropped until it hangs up too: a socket that is
    /// closed with something unread may take what was written before with it.
    pub(crate) shut: bool,
    /// The other end has hung up.
    pub(crate) hung_up: bool,
}

impl<S> Carrier<S> {
    /// Ends it: its channels close at once, the other end is told why if it can be.
    pub(crate) fn end(&mut self, why: Ended, now_ns: u64) {
        if self.ended.is_some() {
            return;
        }
        self.line.session.end();
        let linger = match why {
            Ended::Local | Ended::Fault(_) | Ended::Silent { .. } => {
                self.line.session.goodbye(why.code());
                u64::try_from(LINGER.as_nanos()).unwrap_or(u64::MAX)
            }
            _ => 0,
        };
        self.ended = Some((why, now_ns + linger));
    }

    /// Whether its owner may be told what came.
    pub(crate) fn may_tell(&self, now_ns: u64) -> bool {
        self.ended.is_some() || now_ns >= self.quiet_until_ns || self.line.session.knows_distance()
    }

    /// Whether all is done that was to be done after its end.
    pub(crate) fn is_done(&self, now_ns: u64) -> bool {
        self.ended.as_ref().is_some_and(|(_, until_ns)| now_ns >= *until_ns || (self.shut && self.hung_up))
    }

    /// After its end: hangs up once all is written.
    pub(crate) fn shut(&mut self) {
        if !self.shut && !self.line.has_some() {
            self.shut = true;
            let _gone_already = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
        }
    }

    /// Pings if it is time, and ends what has been silent for too long. Returns when to come again.
    pub(crate) fn tick(&mut self, now_ns: u64, ping_ns: u64, silence_ns: u64) -> u64 {
        if let Some((_, until_ns)) = self.ended {
            return until_ns;
        }
        let session = &mut self.line.session;
        if now_ns >= self.ping_at_ns {
            self.ping_at_ns = now_ns + ping_ns;
            self.facts.set(session.distance(), session.stats());
            session.expire(now_ns.saturating_sub(OPENING_MAX_NS));
            session.ping();
            let silent_ns = now_ns.saturating_sub(session.heard_ns());
            if silent_ns > silence_ns {
                self.end(Ended::Silent { seconds: silent_ns / 1_000_000_000 }, now_ns);
            }
        }
        if self.may_tell(now_ns) { self.ping_at_ns } else { self.ping_at_ns.min(self.quiet_until_ns) }
    }
}

/// How long the answer to the first ping is waited for: longer than a round trip around the world takes.
pub(crate) const FIRST_PONG_NS: u64 = 1_000_000_000;

/// How long a local peer may take to introduce itself.
const OPENING_MAX_NS: u64 = 10_000_000_000;
