//! Steps of attempts: what a lease may write, and which messages have kept steps, so that these go with the message's
//! receipt. The results lie in the store; here is only who may. Used by the driver; it must not know what a step is for.

use super::{Machine, Pending, Ticket, Token};
use crate::record::{self, Place, Writes};

impl Machine {
    /// The message that is on lease by a token, if it is the one of this id; `None` for an attempt that is over.
    pub(crate) fn leased(&self, token: Token, id: &str) -> Option<Place> {
        let (queue, seq) = *self.leases.get(&token)?;
        let at = &self.queues[queue];
        let place = Place { queue: at.name.clone(), seq };
        let chosen = at.entries.get(&seq)?.receipt.as_deref();
        (chosen == Some(id) || place.id() == id).then_some(place)
    }

    /// Writes the result of a step of a message that is on lease.
    pub(crate) fn keep_step(
        &mut self,
        place: &Place,
        ordinal: u32,
        name: &str,
        value: std::sync::Arc<[u8]>,
    ) -> Ticket {
        let queue = self.queue(&place.queue);
        self.stepped.insert((queue, place.seq));
        let mut writes = Writes::default();
        writes.put_bytes(record::STEP, place.step_key(ordinal, name), value);
        self.commit(Pending::Note, writes)
    }

    /// Remembers from the disk that a message has steps. Those of one that has ended go with its receipt.
    pub(super) fn has_steps(&mut self, place: &Place, is_dead: bool) {
        let Some(queue) = self.names.get(&place.queue).copied() else { return };
        if is_dead || self.queues[queue].entries.contains_key(&place.seq) {
            self.stepped.insert((queue, place.seq));
        }
    }
}
