//! Dead letters: let them live again, all or some or one, throw them away, mend their data. What is to be done is decided by
//! what was read on the caller's thread; the driver has it written only if that still holds, else it is read again.

use std::sync::Arc;

use ringway::{Context, Failure, Function, HandlerResult};
use ringway_store::{Store, StoreError};
use ringway_worker_kit::store_failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::check_name;
use super::letters::{self, Chosen, Filter};
use crate::driver::{Answer, Core, Driver};
use crate::machine::{Dead, Ticket};

/// Dead messages that are treated with one commit.
const AT_ONCE: usize = 256;

/// Ids that one request may name.
const IDS_MAX: usize = 10_000;

#[derive(Debug, Deserialize, JsonSchema)]
struct RedriveRequest {
    /// The queue or topic.
    #[serde(default, alias = "topic")]
    queue: String,
    /// The time from one message to the next, in milliseconds. Default 0: all at once.
    #[serde(default)]
    interval_ms: u64,
    /// Only these. Default all that the filter lets pass.
    #[serde(default)]
    message_ids: Option<Vec<String>>,
    /// Only such as these.
    #[serde(flatten)]
    filter: Filter,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Redriven {
    queue: String,
    redriven: usize,
    /// Those that cannot live again, since their records cannot be read.
    unreadable: usize,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct DiscardRequest {
    /// The queue or topic.
    #[serde(default, alias = "topic")]
    queue: String,
    /// All of them, where neither ids nor a filter are given. Default false.
    #[serde(default)]
    all: bool,
    /// Only these. Default all that the filter lets pass.
    #[serde(default)]
    message_ids: Option<Vec<String>>,
    /// Only such as these.
    #[serde(flatten)]
    filter: Filter,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Discarded {
    queue: String,
    discarded: usize,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct MessageRequest {
    /// The queue or topic.
    #[serde(default, alias = "topic")]
    queue: String,
    /// The id of the message.
    #[serde(default)]
    message_id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct MessageAnswer {
    queue: String,
    message_id: String,
    /// 1 if it was dead, 0 if not.
    redriven: usize,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct EditRequest {
    /// The id of the message.
    #[serde(default)]
    message_id: String,
    /// What it is to hold.
    #[serde(default)]
    #[schemars(with = "Value")]
    data: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Edited {
    message_id: String,
}

/// What is done with dead messages.
#[derive(Debug, Clone, Copy)]
enum Deed {
    /// So many milliseconds apart.
    Redrive(u64),
    Discard,
}

pub(super) fn all(driver: &Driver) -> Vec<Function> {
    vec![
        redrive(driver),
        discard(driver),
        one(driver, "iii::queue::redrive_message", "redrive_message_failed", Deed::Redrive(0))
            .description("lets one dead message live again, with all its attempts"),
        one(driver, "iii::queue::discard_message", "discard_message_failed", Deed::Discard)
            .description("throws one dead message away"),
        edit(driver),
    ]
}

fn redrive(driver: &Driver) -> Function {
    let driver = driver.clone();
    Function::json_async("iii::queue::redrive", move |_: Context, request: RedriveRequest| {
        let driver = driver.clone();
        async move {
            let RedriveRequest { queue, interval_ms, message_ids, filter } = request;
            let deed = Deed::Redrive(interval_ms);
            let mut many = Many::new(driver, queue, deed, "redrive_failed").await?;
            many.treat(message_ids, filter.read()?).await?;
            Ok(Redriven { queue: many.name, redriven: many.treated, unreadable: many.unreadable })
        }
    })
    .description(
        "lets dead messages of a queue or topic live again, with all their attempts: all, some by id, or by filter",
    )
}

fn discard(driver: &Driver) -> Function {
    let driver = driver.clone();
    Function::json_async("queue::dlq::discard", move |_: Context, request: DiscardRequest| {
        let driver = driver.clone();
        async move {
            let DiscardRequest { queue, all, message_ids, filter } = request;
            let chosen = filter.read()?;
            if message_ids.is_none() && chosen.is_all() && !all {
                let text =
                    "wanted `message_ids`, a filter, or `all: true` for every dead message, found none";
                return Err(Failure::invalid(text));
            }
            let mut many = Many::new(driver, queue, Deed::Discard, "discard_failed").await?;
            many.treat(message_ids, chosen).await?;
            Ok(Discarded { queue: many.name, discarded: many.treated })
        }
    })
    .description("throws dead messages of a queue or topic away: some by id, by filter, or all")
}

/// Many messages, and how far one has come with them.
struct Many {
    driver: Driver,
    store: Arc<dyn Store>,
    name: String,
    queues: Vec<String>,
    deed: Deed,
    code: &'static str,
    begun_ms: u64,
    treated: usize,
    unreadable: usize,
}

impl Many {
    async fn new(driver: Driver, name: String, deed: Deed, code: &'static str) -> HandlerResult<Self> {
        check_name("queue", &name, "queue_not_set")?;
        let of = name.clone();
        let found = move |core: &mut Core, answer: Answer<_>| {
            answer.give(Ok((core.resolve(&of), Arc::clone(&core.store), core.now_ms())));
        };
        let (queues, store, begun_ms) = driver.ask(found).await?;
        Ok(Self { driver, store, name, queues, deed, code, begun_ms, treated: 0, unreadable: 0 })
    }

    async fn treat(&mut self, ids: Option<Vec<String>>, chosen: Chosen) -> HandlerResult<()> {
        let Some(ids) = ids else { return self.treat_all(&chosen).await };
        if ids.len() > IDS_MAX {
            let found = ids.len();
            return Err(Failure::invalid(format!("wanted at most {IDS_MAX} `message_ids`, found {found}")));
        }
        let mut seen = std::collections::HashSet::new();
        let ids: Vec<String> = ids.into_iter().filter(|id| seen.insert(id.clone())).collect();
        for ids in ids.chunks(AT_ONCE) {
            self.treat_page(|many| {
                let mut page = Vec::new();
                for id in ids {
                    let letter = letters::find(&*many.store, id, many.code)?;
                    let ours = letter.filter(|it| many.queues.iter().any(|of| **of == *it.dead.place.queue));
                    page.extend(ours.filter(|letter| chosen.fits(&letter.dead)));
                }
                Ok(page)
            })
            .await?;
        }
        Ok(())
    }

    async fn treat_all(&mut self, chosen: &Chosen) -> HandlerResult<()> {
        for queue in self.queues.clone() {
            // The last one that was read, so that a message that dies anew meanwhile is not taken twice.
            let mut passed = None;
            loop {
                let failed = |error| store_failure(self.code, &error);
                let snapshot = self.store.snapshot().map_err(failed)?;
                let places = letters::places(&*snapshot, &queue, passed, false, AT_ONCE, self.code)?;
                drop(snapshot);
                let Some(last) = places.last() else { break };
                passed = Some(last.seq);
                self.treat_page(|many| {
                    let snapshot = many.store.snapshot().map_err(|error| store_failure(many.code, &error))?;
                    let mut page = Vec::new();
                    for place in &places {
                        let letter = letters::read(&*snapshot, place, many.code)?;
                        page.extend(letter.filter(|letter| chosen.fits(&letter.dead)));
                    }
                    Ok(page)
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Treats a page; reads it again while somebody else changes it.
    async fn treat_page(
        &mut self,
        read: impl Fn(&Self) -> HandlerResult<Vec<letters::Letter>>,
    ) -> HandlerResult<()> {
        loop {
            let page: Vec<Dead> = read(self)?.into_iter().map(|letter| letter.dead).collect();
            let unreadable = page.iter().filter(|dead| dead.head.is_none()).count();
            if page.is_empty() {
                return Ok(());
            }
            // Later pages wait behind earlier ones.
            let treated = u64::try_from(self.treated).unwrap_or(u64::MAX);
            let (deed, begun_ms) = (self.deed, self.begun_ms);
            let begin = move |core: &mut Core| match deed {
                Deed::Redrive(every_ms) => {
                    let start_ms = begun_ms.saturating_add(treated.saturating_mul(every_ms));
                    core.machine.revive(start_ms, page, every_ms)
                }
                Deed::Discard => {
                    let now_ms = core.now_ms();
                    core.machine.discard(now_ms, page)
                }
            };
            if let Some(count) = write(&self.driver, self.code, begin).await? {
                self.treated += count;
                self.unreadable += unreadable;
                return Ok(());
            }
        }
    }
}

/// Has something written; `None` if what it was decided by does not hold any more.
async fn write(
    driver: &Driver,
    code: &'static str,
    begin: impl FnOnce(&mut Core) -> (Ticket, usize) + Send + 'static,
) -> HandlerResult<Option<usize>> {
    let job = move |core: &mut Core, answer: Answer<Option<usize>>| {
        let (ticket, count) = begin(core);
        let then = move |_: &mut Core, outcome| {
            answer.give(match outcome {
                Ok(()) => Ok(Some(count)),
                Err(StoreError::Precondition { .. }) => Ok(None),
                Err(error) => Err(store_failure(code, &error)),
            });
        };
        core.after(ticket, Box::new(then));
    };
    driver.ask(job).await
}

fn one(driver: &Driver, id: &str, code: &'static str, deed: Deed) -> Function {
    let driver = driver.clone();
    Function::json_async(id, move |_: Context, request: MessageRequest| {
        let driver = driver.clone();
        async move {
            let MessageRequest { queue, message_id } = request;
            check_name("queue", &queue, "queue_not_set")?;
            if message_id.is_empty() {
                return Err(Failure::with_code("message_id_not_set", "wanted `message_id`, found none"));
            }
            let mut many = Many::new(driver, queue, deed, code).await?;
            many.treat(Some(vec![message_id.clone()]), Chosen::default()).await?;
            Ok(MessageAnswer { queue: many.name, message_id, redriven: many.treated })
        }
    })
}

fn edit(driver: &Driver) -> Function {
    let driver = driver.clone();
    Function::json_async("queue::dlq::edit", move |_: Context, request: EditRequest| {
        let driver = driver.clone();
        async move {
            let data = match request.data {
                Some(data) => data,
                None => to_raw_value(&Value::Null)?,
            };
            let message_id = request.message_id;
            let store = driver.ask(|core, answer| answer.give(Ok(Arc::clone(&core.store)))).await?;
            while let Some(letter) = letters::find(&*store, &message_id, CODE)? {
                if letter.dead.head.is_none() {
                    let why = letter.problems.join("; ");
                    let text = format!("`{message_id}` cannot be edited: {why}; discard it, or leave it");
                    return Err(Failure::with_code(CODE, text));
                }
                if edit_once(&driver, letter.dead, data.clone()).await? {
                    return Ok(Edited { message_id });
                }
            }
            let text = format!("wanted a dead message, `{message_id}` is not dead: see `queue::receipt`");
            Err(Failure::with_code("NOT_DEAD", text))
        }
    })
    .description("gives a dead message other data; redrive it afterwards")
}

/// The code when a message could not be edited.
const CODE: &str = "edit_failed";

/// Edits a message as it was read; `false` if it has changed since.
async fn edit_once(driver: &Driver, dead: Dead, data: Box<RawValue>) -> HandlerResult<bool> {
    let job = move |core: &mut Core, answer: Answer<bool>| {
        let (ticket, freed) = core.machine.edit(&dead, data);
        let then = move |core: &mut Core, outcome| {
            core.shelf.collect(freed.into_iter().collect());
            answer.give(match outcome {
                Ok(()) => Ok(true),
                Err(StoreError::Precondition { .. }) => Ok(false),
                Err(error) => Err(store_failure(CODE, &error)),
            });
        };
        core.after(ticket, Box::new(then));
    };
    driver.ask(job).await
}

#[cfg(test)]
mod tests {
    use ringway_store::{Durability, Embedded, Options};

    use super::*;
    use crate::config::Config;
    use crate::machine::Machine;
    use crate::record::{self, DeadRecord, Head, Numbers, Place, Writes};
    use crate::worker::Stored;

    /// A store with a dead message, a machine that has read it, and the message as it was read.
    fn one_dead(folder: &std::path::Path) -> (Embedded, Machine, Dead) {
        let options = Options { segment_bytes: 48 << 20, ..Options::default() };
        let store = Embedded::open(folder, options).unwrap().0;
        let place = Place::new("q", 1);
        let head: Head = serde_json::from_str(r#"{"function":"a::b","enqueued_ms":1,"data":1}"#).unwrap();
        let why = DeadRecord { at_ms: 1, attempts: 1, code: "E".into(), message: "no".into() };
        let mut writes = Writes::default();
        writes.put(record::MESSAGE, place.key(), &head);
        writes.put(record::DEAD, place.key(), &why);
        store.commit(writes.into_batch(), Durability::Durable).unwrap();
        let mut machine = Machine::new(Config::default(), Numbers { seq: 9, token: 9 }, 1);
        assert_eq!(machine.recover(1, &Stored(&store)).unwrap(), []);
        let dead = letters::find(&store, "q:1", "E").unwrap().unwrap().dead;
        (store, machine, dead)
    }

    /// Commits what the machine says.
    fn commit(store: &Embedded, machine: &mut Machine) -> Result<u64, StoreError> {
        let (ticket, writes) = machine.take_output().commits.remove(0);
        let outcome = store.commit(writes.into_batch(), Durability::Durable);
        match &outcome {
            Ok(_) => machine.committed(1, ticket),
            Err(_) => machine.not_committed(1, ticket, false),
        }
        outcome
    }

    #[test]
    fn of_two_who_read_the_same_message_the_second_reads_it_again() {
        let edit = |machine: &mut Machine, dead: &Dead| {
            let _ticket = machine.edit(dead, RawValue::from_string("2".to_owned()).unwrap());
        };
        let revive = |machine: &mut Machine, dead: &Dead| {
            let _ticket = machine.revive(1, vec![dead.clone()], 1);
        };
        let discard = |machine: &mut Machine, dead: &Dead| {
            let _ticket = machine.discard(1, vec![dead.clone()]);
        };
        type Deed = dyn Fn(&mut Machine, &Dead);
        let check = |name: &str, first: &Deed, second: &Deed| {
            let folder = tempfile::tempdir().unwrap();
            let (store, mut machine, dead) = one_dead(folder.path());
            first(&mut machine, &dead);
            commit(&store, &mut machine).unwrap();
            second(&mut machine, &dead);
            let refused = commit(&store, &mut machine);
            assert!(matches!(refused, Err(StoreError::Precondition { .. })), "{name}: {refused:?}");
        };
        check("an edit would be undone", &edit, &revive);
        check("long data would be left behind", &edit, &discard);
        check("an edit would be undone by another", &edit, &edit);
        check("what lives would change", &revive, &edit);
        check("what is gone would come back", &discard, &edit);
    }
}
