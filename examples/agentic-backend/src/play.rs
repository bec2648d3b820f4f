//! What happens, in order, and what is printed of it. It must not know how processes are started and ended.
#![expect(clippy::print_stdout, reason = "showing something is what an example is for")]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ringway::{Sampler, TraceContext, Worker};
use serde_json::{Value, json};

use crate::cast::Cast;

/// What is asked for.
const TOPIC: &str = "How do bees find their way home?";

/// The hops that the trace must have: functions of all workers, and what the engine does by itself.
const HOPS: [&str; 9] = [
    "POST /agents/research",
    "agents::researcher",
    "web::search",
    "web::scrape",
    "llm::summarize",
    "state::set",
    "agents::critic",
    "agents::librarian",
    "state::update",
];

/// Starts everything, asks for a report, prints it and its trace.
pub(crate) fn run(stay: bool) -> anyhow::Result<()> {
    let places = Places::find()?;
    let mut cast = Cast::new()?;
    let engine = start_engine(&mut cast, &places)?;
    let model = Model::of_environment(&mut cast, &places)?;
    start_workers(&mut cast, &places, &engine, &model)?;
    println!(
        "
An engine, four workers in three languages, and {model}:

  engine     ringway up                            HTTP at {http}, iii's SDKs at {iii}
  agents     TypeScript   npm's iii-sdk 0.22.1     agents::researcher, agents::critic
  model      TypeScript   npm's iii-sdk 0.22.1     llm::summarize
  library    Python       PyPI's iii-sdk 0.25.0    web::search, agents::librarian
  scraper    Rust         ringway, native          web::scrape
",
        model = model.described,
        http = engine.http,
        iii = engine.iii
    );
    let trace = research(&mut cast, &engine)?;
    wait_for_hops(&mut cast, &engine, trace)?;
    println!("One trace, over all processes and languages, the queue and the trigger:\n");
    draw(&places, &engine, trace)?;
    if stay {
        println!("\nEverything goes on until Ctrl-C:\n\n{}", things_to_try(&places, &engine));
        cast.until_interrupted()?;
    }
    drop(engine);
    drop(cast);
    println!("\nEverything that was started has ended.");
    Ok(())
}

/// Programs and sources.
struct Places {
    ringway: PathBuf,
    python: PathBuf,
    example: PathBuf,
}

impl Places {
    fn find() -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let example = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let ringway = own.with_file_name("ringway");
        let below = "tools/iii/python-0.25.0/bin/python";
        let python = own.ancestors().map(|folder| folder.join(below)).find(|path| path.is_file());
        let python = python.with_context(|| {
            format!("wanted {below} in the folder of builds, found none: `cargo agents` installs it")
        })?;
        for path in [&ringway, &example.join("typescript/node_modules")] {
            if !path.exists() {
                bail!("wanted {}, found none: `cargo agents` makes it", path.display());
            }
        }
        Ok(Self { ringway, python, example })
    }

    /// A program in TypeScript, which tsx reads as it is.
    fn typescript(&self, name: &str) -> Command {
        let mut command = Command::new("node");
        command.args(["--import", "tsx", &format!("src/{name}.ts")]);
        command.current_dir(self.example.join("typescript"));
        command
    }
}

/// The engine as it is reached, with a worker of our own that looks on.
struct Engine {
    address: String,
    http: String,
    iii: String,
    worker: Worker,
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn start_engine(cast: &mut Cast, places: &Places) -> anyhow::Result<Engine> {
    let address = format!("@ringway-agents-{}", std::process::id());
    let (http, iii) = (free_port()?, free_port()?);
    let mut command = Command::new(&places.ringway);
    command.args(["--address", &address, "up", "--no-otlp", "--config", "ringway.yaml", "--data"]);
    command.arg(cast.folder().join("data")).current_dir(&places.example);
    command.env("AGENTS_HTTP_PORT", http.to_string()).env("AGENTS_III_PORT", iii.to_string());
    cast.start_kept("engine", &command)?;
    let connect = || {
        let worker = Worker::builder("audience").address(&address).sampler(Sampler::never());
        worker.connect().ok()
    };
    let worker = cast.until("the engine", connect)?;
    // Its workers start after it, and the library reads its pages when it begins.
    cast.until("the engine's HTTP", || TcpStream::connect(("127.0.0.1", http)).ok().map(drop))?;
    Ok(Engine { worker, http: format!("127.0.0.1:{http}"), iii: format!("127.0.0.1:{iii}"), address })
}

fn start_workers(cast: &mut Cast, places: &Places, engine: &Engine, model: &Model) -> anyhow::Result<()> {
    let url = format!("ws://{}", engine.iii);
    // Spans soon, so that nobody waits for the trace; and without what went in and came out, so that it fits a screen.
    let sdk = [
        ("III_URL", url.as_str()),
        ("OTEL_SPANS_FLUSH_INTERVAL_MS", "50"),
        ("III_DISABLE_TRACE_PAYLOADS", "true"),
    ];
    let mut scraper = Command::new(std::env::current_exe()?);
    cast.start("scraper", scraper.arg("scrape").env("RINGWAY_SOCKET", &engine.address))?;
    let mut library = Command::new(&places.python);
    library.arg(places.example.join("python/search.py"));
    library.env("WEB_URL", format!("http://{}/web/index.html", engine.http));
    cast.start("library", library.envs(sdk).env("OTEL_SERVICE_NAME", "library"))?;
    for name in ["agents", "model"] {
        let mut worker = places.typescript(name);
        cast.start(name, worker.envs(sdk).envs(model.variables.clone()))?;
    }
    let served = |id: &str| engine.worker.wait_for(id, Duration::ZERO).is_ok();
    let ours = ["agents::", "llm::", "web::"];
    for id in HOPS.iter().filter(|id| ours.iter().any(|beginning| id.starts_with(beginning))) {
        cast.until(&format!("the function {id}"), || served(id).then_some(()))?;
    }
    for (kind, function) in [("http", "agents::researcher"), ("state", "agents::librarian")] {
        let bound = || {
            let asked = json!({ "trigger_type": kind, "function_id": function });
            let found = engine.worker.trigger_json("engine::registered-triggers::list", &asked).ok()?;
            found["registered_triggers"].as_array().filter(|all| !all.is_empty()).map(|_| ())
        };
        cast.until(&format!("the {kind} trigger of {function}"), bound)?;
    }
    Ok(())
}

/// Who answers for `llm::summarize`, as the variables of the `openai` package say it.
struct Model {
    variables: Vec<(&'static str, String)>,
    described: &'static str,
}

impl Model {
    /// The one that whoever runs this has named, or the stand-in.
    fn of_environment(cast: &mut Cast, places: &Places) -> anyhow::Result<Self> {
        if std::env::var_os("OPENAI_BASE_URL").is_some() {
            return Ok(Self { variables: Vec::new(), described: "the language model of OPENAI_BASE_URL" });
        }
        let port = free_port()?;
        cast.start("stand-in", places.typescript("stand-in").env("MODEL_PORT", port.to_string()))?;
        cast.until("the stand-in for a language model", || {
            TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
        })?;
        let url = format!("http://127.0.0.1:{port}/v1");
        let variables = vec![("OPENAI_BASE_URL", url), ("OPENAI_API_KEY", "none".to_owned())];
        Ok(Self { variables, described: "what stands in for a language model" })
    }
}

/// Asks for a report and prints what came of it; the trace of that.
fn research(cast: &mut Cast, engine: &Engine) -> anyhow::Result<TraceContext> {
    let body = json!({ "topic": TOPIC });
    println!("POST /agents/research {body}");
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = agent.timeout_global(Some(Duration::from_secs(60))).build();
    let agent = ureq::Agent::new_with_config(agent);
    let began = Instant::now();
    let answer = agent.post(format!("http://{}/agents/research", engine.http));
    let mut answer = answer.content_type("application/json").send(body.to_string())?;
    let text = answer.body_mut().read_to_string()?;
    let status = answer.status();
    if status != 201 {
        bail!("wanted 201, found {status}: {text}");
    }
    println!("{status}, after {} ms\n", began.elapsed().as_millis());
    let trace = answer.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let trace = trace.context("the answer names no trace")?;
    let trace = TraceContext::parse_traceparent(trace)?;
    let report: Value = serde_json::from_str(&text)?;
    print_report(&report);
    let review = reviewed(cast, engine, &report["id"])?;
    println!(
        "  The critic, from the queue: {}, {} sentences checked.\n",
        text_of(&review["verdict"]),
        review["checked"]
    );
    Ok(trace)
}

fn print_report(report: &Value) {
    println!("  {}", text_of(&report["topic"]));
    for sentence in report["summary"].as_array().into_iter().flatten() {
        println!("    {}", text_of(sentence));
    }
    for source in report["sources"].as_array().into_iter().flatten() {
        println!("    [{}] {}, {}", source["number"], text_of(&source["title"]), text_of(&source["url"]));
    }
    println!();
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What the critic found.
fn reviewed(cast: &mut Cast, engine: &Engine, id: &Value) -> anyhow::Result<Value> {
    let asked = json!({ "scope": "reports", "key": id });
    let review = || {
        let report = engine.worker.trigger_json("state::get", &asked).ok()?;
        (report["status"] == "reviewed").then(|| report["review"].clone())
    };
    cast.until("the critic's review", review)
}

/// SDKs send their spans when they get to it; all of them must be in the one trace.
fn wait_for_hops(cast: &mut Cast, engine: &Engine, trace: TraceContext) -> anyhow::Result<()> {
    let asked = json!({ "trace_id": trace.trace_id.to_string(), "search_all_spans": true, "limit": 1000 });
    let names = || -> Option<Vec<String>> {
        let listed = engine.worker.trigger_json("engine::traces::list", &asked).ok()?;
        let spans = listed["spans"].as_array()?;
        Some(spans.iter().map(|span| text_of(&span["name"]).to_owned()).collect())
    };
    for hop in HOPS {
        let is_there = || names()?.iter().any(|name| name.contains(hop)).then_some(());
        cast.until(&format!("{hop} in the trace"), is_there)?;
    }
    // What SDKs in other languages say of themselves comes last.
    for id in ["agents::researcher", "agents::critic", "agents::librarian", "llm::summarize", "web::search"] {
        let own = format!("execute {id}");
        cast.until(&format!("`{own}` in the trace"), || names()?.contains(&own).then_some(()))?;
    }
    Ok(())
}

/// Has the program draw the trace, as a user would.
fn draw(places: &Places, engine: &Engine, trace: TraceContext) -> anyhow::Result<()> {
    let mut command = Command::new(&places.ringway);
    command.args(["--address", &engine.address, "traces", &trace.trace_id.to_string()]);
    let status = command.status()?;
    if status.success() { Ok(()) } else { bail!("the trace cannot be drawn: {status}") }
}

fn things_to_try(places: &Places, engine: &Engine) -> String {
    let ringway = format!("{} --address {}", shown(&places.ringway), engine.address);
    format!(
        "  curl http://{}/agents/research --json '{{\"topic\": \"Why does honey keep?\"}}'
  {ringway} traces last
  {ringway} functions
  {ringway} state list reports",
        engine.http
    )
}

/// A path as it is typed from here.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}
