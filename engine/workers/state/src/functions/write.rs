//! `state::set`, `delete`, `update` and `transaction`. All of them wait as futures, so that as many callers as there are
//! share one commit. See the parent for what this must not know.

use std::sync::Weak;

use ringway::{Context, Encoding, Failure, Function, HandlerResult, Message, Worker};
use ringway_store::Durability;
use ringway_worker_kit::json;

use super::{anything, of, schema};
use crate::core::{self, Answer, Core};
use crate::keys;
use crate::limits::LOAN_BYTES_MIN;
use crate::plan::{Action, Done, Operation};
use crate::record::{self, Form, Record};
use crate::requests::{self, Delete, Set, SetReply, Transaction, TransactionReply, Update, UpdateReply};

pub(super) fn all(core: &Weak<Core>) -> Vec<Function> {
    let own = Weak::clone;
    let (setter, deleter, updater, transactor) = (own(core), own(core), own(core), own(core));
    vec![
        Function::raw_async("state::set", move |context, message| set(own(&setter), context, message))
            .schema(schema::<Set>(), schema::<SetReply>())
            .description("Writes a value; answers the old and the new one when it is on disk"),
        Function::raw_async("state::delete", move |context, message| delete(own(&deleter), context, message))
            .schema(schema::<Delete>(), anything())
            .description("Removes a value and answers it"),
        Function::raw_async("state::update", move |context, message| update(own(&updater), context, message))
            .schema(schema::<Update>(), schema::<UpdateReply>())
            .description("Applies operations to a value, as one change"),
        Function::raw_async("state::transaction", move |context, message| {
            transaction(own(&transactor), context, message)
        })
        .schema(schema::<Transaction>(), schema::<TransactionReply>())
        .description("Sets, deletes, updates and checks several keys: all of it or nothing"),
    ]
}

/// What a request wants, and what to answer with where the store says no.
struct Wanted {
    operations: Vec<Operation>,
    durability: Durability,
    code: &'static str,
}

impl Wanted {
    fn new(code: &'static str) -> Self {
        Self { operations: Vec::new(), durability: Durability::Ephemeral, code }
    }

    fn add(
        &mut self,
        core: &Core,
        scope: &str,
        key: &str,
        action: Action,
        if_revision: Option<u64>,
    ) -> HandlerResult<()> {
        let joined = keys::join(scope, key).map_err(|text| Failure::with_code(self.code, text))?;
        if Durability::from(core.config.durability(scope)) == Durability::Durable {
            self.durability = Durability::Durable;
        }
        self.operations.push(Operation { key: joined.into(), action, if_revision });
        Ok(())
    }

    async fn done(self, core: &Weak<Core>, context: &Context) -> HandlerResult<Answer> {
        let answer =
            core::write(core, context.worker(), &self.operations, self.durability, context.trace()).await;
        answer.map_err(|error| error.into_failure(self.code))
    }
}

/// When a value with this time to live is absent.
fn expiry(core: &Core, ttl_ms: Option<u64>) -> HandlerResult<Option<u64>> {
    match ttl_ms {
        Some(0) => {
            Err(Failure::invalid("ttl_ms is 0, at least 1 was wanted: leave it out for a value that stays"))
        }
        ttl_ms => Ok(ttl_ms.map(|ttl_ms| core.clock.now_ms().saturating_add(ttl_ms))),
    }
}

fn limit_ops(core: &Core, found: usize) -> HandlerResult<()> {
    let max = core.config.ops_max;
    if found <= max {
        return Ok(());
    }
    Err(Failure::invalid(format!("{found} operations, at most {max} are taken at once (ops_max)")))
}

/// A value in any of three ways: in the JSON, as attachment beside it, or as body with the JSON as metadata.
fn read_set<'a>(context: &Context, message: &'a Message) -> HandlerResult<(Set, Option<&'a [u8]>)> {
    if message.encoding() == Encoding::Bytes {
        let metadata = context.metadata().cloned().ok_or_else(|| {
            Failure::invalid("raw bytes need scope and key in the call's metadata, which has none")
        })?;
        let set: Set = serde_json::from_value(metadata).map_err(|error| json::unfit(&error))?;
        return Ok((set, Some(message.body())));
    }
    let set: Set = json::read(message.encoding(), message.body())?;
    match message.attachments() {
        [] => Ok((set, None)),
        [attachment] => Ok((set, Some(attachment.payload()))),
        more => {
            Err(Failure::invalid(format!("{} attachments, at most one was wanted: the value", more.len())))
        }
    }
}

async fn set(core: Weak<Core>, context: Context, message: Message) -> HandlerResult<Message> {
    let (set, bytes) = read_set(&context, &message)?;
    let expires_at_ms = expiry(&*of(&core)?, set.ttl_ms)?;
    let raw = bytes.is_some();
    let record = match (&set.value, bytes) {
        (Some(_), Some(_)) => return Err(Failure::invalid("`value` and raw bytes: only one was wanted")),
        (None, None) => return Err(Failure::invalid("the request has no `value`")),
        (Some(value), None) => Record::new(Form::Json, value.get().as_bytes(), expires_at_ms),
        (None, Some(bytes)) => Record::new(Form::Bytes, bytes, expires_at_ms),
    };
    // The caller may have its block back while the disk works.
    drop(message);
    let mut wanted = Wanted::new("SET_ERROR");
    wanted.add(&*of(&core)?, &set.scope, &set.key, Action::Set(record), set.if_revision)?;
    let answer = wanted.done(&core, &context).await?;
    let done = &answer.done[0];
    if raw {
        // Whoever sent it need not have it back.
        let length = done.new.as_ref().map_or(0, |record| record.payload().len());
        return Ok(json::message(
            format!("{{\"bytes\":{length},\"revision\":{}}}", answer.revision).as_bytes(),
        ));
    }
    let mut text = Vec::new();
    write_done(done, &mut text);
    close(&mut text, answer.revision);
    Ok(json::message(&text))
}

async fn delete(core: Weak<Core>, context: Context, message: Message) -> HandlerResult<Message> {
    let delete: Delete = json::read(message.encoding(), message.body())?;
    drop(message);
    let mut wanted = Wanted::new("DELETE_ERROR");
    wanted.add(&*of(&core)?, &delete.scope, &delete.key, Action::Delete, delete.if_revision)?;
    let answer = wanted.done(&core, &context).await?;
    Ok(value_message(context.worker(), answer.done[0].old.as_ref()))
}

/// The value itself, or an empty message where there is none. A large one is written where the caller will read it.
pub(super) fn value_message(worker: &Worker, record: Option<&Record>) -> Message {
    let Some(record) = record else { return Message::empty() };
    let encoding = if record.form() == Form::Bytes { Encoding::Bytes } else { Encoding::Json };
    let bytes = record.payload();
    if bytes.len() >= LOAN_BYTES_MIN
        && let Ok(mut loan) = worker.loan(bytes.len())
    {
        loan.copy_from_slice(bytes);
        return Message::from_loan(encoding, loan);
    }
    // Small, or no block is free: the way through the slot or the heap says why it fails, if it does.
    Message::new(encoding, bytes)
}

async fn update(core: Weak<Core>, context: Context, message: Message) -> HandlerResult<Message> {
    let update: Update = json::read(message.encoding(), message.body())?;
    drop(message);
    limit_ops(&*of(&core)?, update.ops.len())?;
    let mut wanted = Wanted::new("UPDATE_ERROR");
    let action = Action::Update { ops: update.ops, all_or_nothing: update.all_or_nothing };
    wanted.add(&*of(&core)?, &update.scope, &update.key, action, update.if_revision)?;
    let answer = wanted.done(&core, &context).await?;
    let mut text = Vec::new();
    write_done(&answer.done[0], &mut text);
    close(&mut text, answer.revision);
    Ok(json::message(&text))
}

async fn transaction(core: Weak<Core>, context: Context, message: Message) -> HandlerResult<Message> {
    json::expect(message.encoding())?;
    let request: Transaction = json::read(message.encoding(), message.body())?;
    drop(message);
    let ops = request.operations.iter().map(|operation| match operation {
        requests::Operation::Update { ops, .. } => ops.len().max(1),
        _ => 1,
    });
    limit_ops(&*of(&core)?, ops.sum())?;
    let mut wanted = Wanted::new("TRANSACTION_ERROR");
    for operation in request.operations {
        add_operation(&*of(&core)?, &mut wanted, operation)?;
    }
    let answer = wanted.done(&core, &context).await?;
    let mut text = format!("{{\"revision\":{},\"results\":[", answer.revision).into_bytes();
    for (number, done) in answer.done.iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        write_done(done, &mut text);
        text.push(b'}');
    }
    text.extend_from_slice(b"]}");
    Ok(json::message(&text))
}

fn add_operation(core: &Core, wanted: &mut Wanted, operation: requests::Operation) -> HandlerResult<()> {
    match operation {
        requests::Operation::Set { scope, key, value, ttl_ms, if_revision } => {
            let text = serde_json::to_vec(&value)?;
            let record = Record::new(Form::Json, &text, expiry(core, ttl_ms)?);
            wanted.add(core, &scope, &key, Action::Set(record), if_revision)
        }
        requests::Operation::Delete { scope, key, if_revision } => {
            wanted.add(core, &scope, &key, Action::Delete, if_revision)
        }
        requests::Operation::Update { scope, key, ops, all_or_nothing, if_revision } => {
            wanted.add(core, &scope, &key, Action::Update { ops, all_or_nothing }, if_revision)
        }
        requests::Operation::Check { scope, key, revision } => {
            wanted.add(core, &scope, &key, Action::Check, Some(revision))
        }
    }
}

/// Writes an object without its last brace.
fn write_done(done: &Done, text: &mut Vec<u8>) {
    text.extend_from_slice(b"{\"old_value\":");
    record::write_json(done.old.as_ref(), text);
    text.extend_from_slice(b",\"new_value\":");
    record::write_json(done.new.as_ref(), text);
    if !done.errors.is_empty() {
        text.extend_from_slice(b",\"errors\":");
        // Codes and texts of our own always become JSON.
        text.extend_from_slice(&serde_json::to_vec(&done.errors).unwrap_or_else(|_| b"[]".to_vec()));
    }
}

fn close(text: &mut Vec<u8>, revision: u64) {
    text.extend_from_slice(format!(",\"revision\":{revision}}}").as_bytes());
}
