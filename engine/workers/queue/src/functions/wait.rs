//! Waiting for the end of a message: `queue::wait`. Who waits is told by the commit that ends the message; nobody looks again
//! and again. It must not know why a message ends.

use std::collections::HashMap;
use std::sync::Arc;

use ringway::{Context, Failure, Function};

use super::receipt::{self, Receipt, Request};
use crate::driver::{Answer, Core, Driver};
use crate::machine::Ended;
use crate::record::Place;

/// Calls that wait at once.
const WAITS_MAX: usize = 100_000;

/// How a message ended; `None` where that is to be read from the store.
type Told = Option<Receipt>;

/// Who waits for which message, with the id that he named.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    by_place: HashMap<Place, Vec<(String, Answer<Told>)>>,
    count: usize,
}

pub(super) fn wait(driver: &Driver) -> Function {
    let driver = driver.clone();
    Function::json_async("queue::wait", move |_: Context, request: Request| {
        let driver = driver.clone();
        async move {
            let store = driver.ask(|core, answer| answer.give(Ok(Arc::clone(&core.store)))).await?;
            let place = receipt::place(&*store, &request.id)?;
            drop(store);
            loop {
                let (id, at) = (request.id.clone(), place.clone());
                let told = driver.ask(move |core, answer| begin(core, at, id, answer)).await?;
                let receipt = match told {
                    Some(receipt) => receipt,
                    // Read here, not on the driver's thread.
                    None => receipt::of(&driver, request.id.clone()).await?,
                };
                // A dead one may live again by now.
                if receipt.has_ended() {
                    return Ok(receipt);
                }
            }
        }
    })
    .description("answers when a message has ended: done, dead, cancelled or discarded")
    .idempotent()
}

/// Waits for a message that is to be delivered. How one stands that is not is for whoever asks to read.
fn begin(core: &mut Core, place: Place, id: String, answer: Answer<Told>) {
    if core.machine.standing(&place).is_none() {
        return answer.give(Ok(None));
    }
    if let Err(answer) = core.waits.add(place, id, answer) {
        let text = format!(
            "{WAITS_MAX} calls wait for messages, which is all there can be: wait for fewer at once, or ask `queue::receipt`"
        );
        answer.give(Err(Failure::with_code("QUEUE_LIMIT", text)));
    }
}

impl Waits {
    /// Remembers who waits; gives the answer back when there are too many.
    fn add(&mut self, place: Place, id: String, answer: Answer<Told>) -> Result<(), Answer<Told>> {
        if self.count >= WAITS_MAX {
            self.forget_who_left();
        }
        if self.count >= WAITS_MAX {
            return Err(answer);
        }
        let waiting = self.by_place.entry(place).or_default();
        // Whoever waits again and again for the same message has left before.
        let before = waiting.len();
        waiting.retain(|(_, answer)| answer.is_awaited());
        waiting.push((id, answer));
        self.count = self.count + waiting.len() - before;
        Ok(())
    }

    /// Calls that wait for messages of these queues.
    pub(super) fn count(&self, queues: &[String]) -> usize {
        let of_queues =
            self.by_place.iter().filter(|(place, _)| queues.iter().any(|queue| **queue == *place.queue));
        of_queues.map(|(_, waiting)| waiting.iter().filter(|(_, answer)| answer.is_awaited()).count()).sum()
    }

    fn forget_who_left(&mut self) {
        for waiting in self.by_place.values_mut() {
            waiting.retain(|(_, answer)| answer.is_awaited());
        }
        self.by_place.retain(|_, waiting| !waiting.is_empty());
        self.count = self.by_place.values().map(Vec::len).sum();
    }
}

/// Tells whoever waits for a message that it has ended, which is on disk.
pub(crate) fn tell(core: &mut Core, ended: &Ended) {
    let Some(waiting) = core.waits.by_place.remove(&ended.place) else { return };
    core.waits.count -= waiting.len();
    for (id, answer) in waiting {
        answer.give(Ok(ended.done.as_ref().map(|done| Receipt::of_done(&id, &ended.place, done))));
    }
}
