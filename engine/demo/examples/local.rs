//! Both jobs of the demo in one process, with plain calls instead of workers: what the work itself costs. Takes
//! `--input FOLDER` for one's own files, `--question TEXT`, and `--json`.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringway_demo::corpus::{Corpus, CorpusBudget};
use ringway_demo::pipeline::ledger::BlockDigests;
use ringway_demo::pipeline::{self, ChunkSizes, Digester, FileList, FilesBudget, Ledger};
use ringway_demo::report::{AgentReport, AgentRun, PipelineReport, StageTime, StepTime};
use ringway_demo::researcher::{self, Research, Step};
use ringway_demo::search::Library;
use ringway_demo::{critic, summarize};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const BLOCK_BYTES: usize = 16 << 20;
const INDEX_TIME_MAX: Duration = Duration::from_secs(12);

#[derive(Default)]
struct Options {
    input: Option<PathBuf>,
    question: Option<String>,
    json: bool,
}

fn options() -> Result<Options> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--input" => options.input = Some(value()?.into()),
            "--question" => options.question = Some(value()?),
            "--json" => options.json = true,
            _ => {
                return Err(
                    format!("unknown argument {argument}: --input FOLDER, --question TEXT, --json").into()
                );
            }
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nowhere left to complain if this fails too.
            let _written = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let options = options()?;
    let agents = answer_questions(&options)?;
    let accounts = find_duplicates(&options)?;
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "[{},\n{}]", agents.json()?, accounts.json()?)?;
    } else {
        writeln!(out, "{}\n{}", agents.text(110), accounts.text())?;
    }
    Ok(())
}

fn answer_questions(options: &Options) -> Result<AgentReport> {
    let budget = CorpusBudget::default();
    let corpus = match &options.input {
        Some(folder) => Corpus::folder(folder, budget)?,
        None => Corpus::cargo_registry(budget)?,
    };
    let library = Library::build(corpus, INDEX_TIME_MAX)?;
    let mut report = AgentReport::new(library.corpus(), library.report().clone());
    for question in questions(options, &library) {
        report.runs.push(research(&library, &question)?);
    }
    Ok(report)
}

fn questions(options: &Options, library: &Library) -> Vec<String> {
    if let Some(question) = &options.question {
        return vec![question.clone()];
    }
    if options.input.is_none() {
        return researcher::DEFAULT_QUESTIONS.map(str::to_owned).to_vec();
    }
    let texts: Vec<String> = library
        .corpus()
        .documents()
        .iter()
        .take(200)
        .filter_map(|document| library.corpus().text(document.id).ok())
        .collect();
    researcher::questions_about(texts.iter().map(String::as_str), 3)
}

fn research(library: &Library, question: &str) -> Result<AgentRun> {
    let mut research = Research::new(question)?;
    let mut steps = Vec::new();
    loop {
        let (stage, started) = (research.stage(), Instant::now());
        let calls = match research.next_step() {
            Step::Search(searches) => {
                let replies: Vec<_> =
                    searches.iter().filter_map(|search| library.search(search).ok()).collect();
                research.take_hits(&replies)?;
                searches.len()
            }
            Step::Read(reads) => {
                research.take_passages(
                    reads.iter().filter_map(|read| library.corpus().read(read).ok()).collect(),
                )?;
                reads.len()
            }
            Step::Summarize(request) => {
                research.take_summary(summarize::summarize(&request))?;
                1
            }
            Step::Judge(draft) => {
                let reads = critic::reads(&draft);
                let evidence: Vec<_> =
                    reads.iter().filter_map(|read| library.corpus().read(read).ok()).collect();
                research.take_verdict(critic::judge(&draft, &evidence))?;
                reads.len() + 1
            }
            _ => break,
        };
        let elapsed_ns = u64::try_from(started.elapsed().as_nanos())?;
        steps.push(StepTime { stage, calls: u32::try_from(calls)?, elapsed_ns });
    }
    let answer = research.answer().ok_or("the research ended without an answer")?;
    Ok(AgentRun { answer, steps })
}

fn find_duplicates(options: &Options) -> Result<PipelineReport> {
    let list = match &options.input {
        Some(folder) => FileList::folder(folder, FilesBudget::default())?,
        None => FileList::toolchain(FilesBudget::default())?,
    };
    let started = Instant::now();
    let mut ledger = Ledger::default();
    ledger.announce(list.entries());
    let mut digester = Digester::new(pipeline::digest::LEVEL)?;
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut stages = ["read", "chunk", "digest"].map(|name| StageTime {
        name: name.to_owned(),
        calls: 0,
        bytes: 0,
        bytes_copied: 0,
        busy_ns: 0,
    });
    for entry in list.entries() {
        let reader = list.open(entry.index)?;
        let mut offset = 0;
        let mut is_last = false;
        while !is_last {
            let began = Instant::now();
            let read = reader.read(offset, &mut buffer)?;
            let block = &buffer[..usize::try_from(read.bytes)?];
            took(&mut stages[0], began, block.len() as u64)?;
            let began = Instant::now();
            let cut = pipeline::cut::cut(block, read.is_last, ChunkSizes::default())?;
            took(&mut stages[1], began, cut.consumed)?;
            let began = Instant::now();
            let chunks = digester.digest(block, &cut.chunks)?;
            took(&mut stages[2], began, cut.consumed)?;
            ledger.take(&BlockDigests { file: entry.index, block_offset: offset, chunks })?;
            offset += cut.consumed;
            is_last = read.is_last;
        }
    }
    Ok(PipelineReport::new(&list, ledger.report(), stages.to_vec(), started.elapsed()))
}

fn took(stage: &mut StageTime, began: Instant, bytes: u64) -> Result<()> {
    stage.calls += 1;
    stage.bytes += bytes;
    stage.busy_ns += u64::try_from(began.elapsed().as_nanos())?;
    Ok(())
}
