//! The parts of the pipeline. A block is written once, by the reader, into a loan; the cutter passes the same block on to
//! the digesters with the list of chunks, and passes their digests on to the ledger, all without a copy. Few blocks are
//! under way at a time, so a slow stage slows the one before it and memory stays bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringway::{
    Attachment, CallError, CallOptions, Context, ErrorCode, Failure, Function, HandlerResult, Message,
    Pending, StreamWriter, Worker,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Service, Work, WorkerError, done, only_attachment};
use crate::calls::{RingCalls, ask, json_message, parse};
use crate::pipeline::ledger::BlockDigests;
use crate::pipeline::{self, Chunk, ChunkSizes, Digester, FileEntry, FileList, Ledger, LedgerReport};
use crate::setup::Setup;

pub(crate) const READ_ALL: &str = "pipeline::read";
const CUT: &str = "pipeline::cut";
const FINISH: &str = "pipeline::finish";
const DIGEST: &str = "pipeline::digest";
const ANNOUNCE: &str = "ledger::announce";
const TAKE: &str = "ledger::take";
pub(crate) const REPORT_LEDGER: &str = "ledger::report";

/// Blocks under way for each digester: one being digested, one waiting.
const BLOCKS_PER_DIGESTER: u32 = 2;
/// How often the reader says how far it is.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);

/// How far the reader is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Progress {
    /// Files read to their end.
    pub(crate) files: u64,
    /// Bytes handed on.
    pub(crate) bytes: u64,
    /// Bytes of all files.
    pub(crate) bytes_all: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct CutRequest {
    file: u32,
    offset: u64,
    is_last: bool,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct CutReply {
    consumed: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct DigestRequest {
    file: u32,
    offset: u64,
    chunks: Vec<Chunk>,
}

// ---- files ----

pub(super) fn files(service: &mut Service, setup: &Setup) -> Result<(), WorkerError> {
    let list = match &setup.input {
        Some(folder) => FileList::folder(folder, setup.files)?,
        None => FileList::toolchain(setup.files)?,
    };
    let (work, block_bytes) = (service.work(), setup.block_bytes);
    service.push(
        Function::stream(READ_ALL, move |context, _, _, output| {
            let reader = Reader { context, list: &list, work: &work, block_bytes };
            reader.read_all(&output)
        })
        .description("reads all files, block by block, into the pipeline; streams how far it is"),
    );
    Ok(())
}

struct Reader<'a> {
    context: &'a Context,
    list: &'a FileList,
    work: &'a Work,
    block_bytes: u64,
}

impl Reader<'_> {
    fn read_all(&self, output: &StreamWriter) -> HandlerResult<Message> {
        let worker = self.context.worker();
        let calls = RingCalls::new(worker);
        ask::<()>(&calls, ANNOUNCE, &self.list.entries())?;
        let mut progress = Progress { bytes_all: self.list.bytes(), ..Progress::default() };
        let mut told = Instant::now();
        for entry in self.list.entries() {
            let file = match self.list.open(entry.index) {
                Ok(file) => file,
                Err(error) => {
                    // The ledger reports its bytes as missing.
                    tracing::warn!(%error, "left out");
                    continue;
                }
            };
            let (mut offset, mut is_last) = (0, false);
            while !is_last {
                if self.context.is_cancelled() {
                    return Err(CallError::new(ErrorCode::Cancelled, "given up").into());
                }
                let began = Instant::now();
                let wanted = file.block_bytes(offset, self.block_bytes);
                let mut loan = worker.loan(usize::try_from(wanted)?)?;
                let read = file.read(offset, &mut loan)?;
                loan.set_len(usize::try_from(read.bytes)?);
                self.work.did(began, read.bytes);
                is_last = read.is_last;
                if read.bytes == 0 {
                    continue;
                }
                let request = CutRequest { file: entry.index, offset, is_last };
                let message = json_message(worker, &request)?.attach(Attachment::bytes(loan.freeze().into()));
                let reply = worker.handle(CUT).call(&message)?;
                let cut: CutReply = parse(reply.body())?;
                if cut.consumed == 0 && !is_last {
                    return Err(Failure::new("a block is shorter than a chunk may be"));
                }
                offset += cut.consumed;
                progress.bytes += cut.consumed;
                if told.elapsed() >= PROGRESS_PERIOD {
                    told = Instant::now();
                    output.send(json_message(worker, &progress)?)?;
                }
            }
            progress.files += 1;
        }
        ask::<()>(&calls, FINISH, &())?;
        tracing::info!(files = progress.files, bytes = progress.bytes, "all files read");
        Ok(json_message(worker, &progress)?)
    }
}

// ---- cut ----

/// Blocks that digesters have, oldest first.
struct UnderWay {
    blocks: Mutex<VecDeque<(Message, Pending)>>,
    blocks_max: usize,
}

impl UnderWay {
    fn add(&self, worker: &Worker, message: Message) -> HandlerResult<()> {
        let mut blocks = self.blocks.lock();
        while blocks.len() >= self.blocks_max {
            settle(worker, blocks.pop_front())?;
        }
        let pending = worker.handle(DIGEST).start(&message, &CallOptions::new())?;
        blocks.push_back((message, pending));
        Ok(())
    }

    fn finish(&self, worker: &Worker) -> HandlerResult<()> {
        let mut blocks = self.blocks.lock();
        while !blocks.is_empty() {
            settle(worker, blocks.pop_front())?;
        }
        Ok(())
    }
}

/// Waits for a block's digests and passes them on; where the digester died, another does the work.
fn settle(worker: &Worker, block: Option<(Message, Pending)>) -> HandlerResult<()> {
    let Some((message, pending)) = block else { return Ok(()) };
    let digests = match pending.wait() {
        Err(error) if error.code == ErrorCode::WorkerGone => {
            tracing::warn!(%error, "a block goes to another digester");
            worker.handle(DIGEST).call(&message)?
        }
        other => other?,
    };
    worker.handle(TAKE).call(&digests)?;
    Ok(())
}

pub(super) fn cut(service: &mut Service, setup: &Setup) {
    let blocks_max = usize::try_from(setup.digest_replicas * BLOCKS_PER_DIGESTER).unwrap_or(2);
    let under_way = Arc::new(UnderWay { blocks: Mutex::default(), blocks_max });
    let finishing = Arc::clone(&under_way);
    let work = service.work();
    service.push(
        Function::raw(CUT, move |context, request| {
            let worker = context.worker();
            let began = Instant::now();
            let CutRequest { file, offset, is_last } = parse(request.body())?;
            let block = only_attachment(request.attachments())?;
            let found = pipeline::cut::cut(block, is_last, ChunkSizes::default())?;
            work.did(began, found.consumed);
            if !found.chunks.is_empty() {
                let request = DigestRequest { file, offset, chunks: found.chunks };
                let message = json_message(worker, &request)?.attach(Attachment::bytes(block.clone()));
                under_way.add(worker, message)?;
            }
            Ok(json_message(worker, &CutReply { consumed: found.consumed })?)
        })
        .description("cuts a block and passes it on to a digester")
        .pooled(),
    );
    service.function(FINISH, "waits until all blocks are accounted for", move |worker, ()| {
        finishing.finish(worker)
    });
}

// ---- digest ----

pub(super) fn digest(service: &mut Service) -> Result<(), WorkerError> {
    let digester = Mutex::new(Digester::new(pipeline::digest::LEVEL)?);
    let work = service.work();
    service.push(
        Function::raw(DIGEST, move |context, request| {
            let DigestRequest { file, offset, chunks } = parse(request.body())?;
            let block = only_attachment(request.attachments())?;
            let mut digester = digester.lock();
            let began = Instant::now();
            let chunks = digester.digest(block, &chunks)?;
            work.did(began, chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum());
            Ok(json_message(context.worker(), &BlockDigests { file, block_offset: offset, chunks })?)
        })
        .description("hashes and compresses the chunks of a block")
        .idempotent()
        .pooled(),
    );
    Ok(())
}

// ---- ledger ----

pub(super) fn ledger(service: &mut Service) {
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let (taking, announcing, work) = (Arc::clone(&ledger), Arc::clone(&ledger), service.work());
    service.function(ANNOUNCE, "hears of files", move |_, files: Vec<FileEntry>| {
        announcing.lock().announce(&files);
        Ok(())
    });
    service.push(
        Function::raw(TAKE, move |_, request| {
            let began = Instant::now();
            let digests: BlockDigests = parse(request.body())?;
            taking.lock().take(&digests)?;
            work.did(began, request.body().len() as u64);
            Ok(done())
        })
        .description("takes the digests of a block")
        .pooled(),
    );
    service.function(REPORT_LEDGER, "adds up", move |_, ()| -> HandlerResult<LedgerReport> {
        Ok(ledger.lock().report())
    });
}
