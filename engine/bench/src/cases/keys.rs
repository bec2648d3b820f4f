//! What many keys cost: `state::get` of a random key among 1,000 and among as many as asked for, and the memory that stays
//! resident for each key. Each number of keys has an engine and a store of its own. Used by [`crate::run()`]. It must not
//! know how the store keeps what it is given.

use std::collections::VecDeque;

use anyhow::{Context, ensure};
use ringway::{CallOptions, Handle, Message};
use serde_json::{Value, json};

use super::{Bench, Own, SIGHT_TIME_MAX};
use crate::report::{CaseResult, Cost, Load};
use crate::stats::{Run, Runs, closed_loop};

/// The number of keys that every run has.
const FEW: u64 = 1000;
/// Bytes of a value.
const BYTES: usize = 64;
/// Keys that one transaction writes; the worker's own limit is as high.
const TOGETHER: u64 = 1000;
/// Transactions under way at once.
const IN_FLIGHT: usize = 8;
/// Requests made ahead, so that making them is not measured; of so many keys that no cache of the store holds all of their
/// pages.
const REQUESTS: u64 = 1 << 18;
/// Untimed calls before a run is timed.
const WARM_UP: u64 = 1000;

/// Measures with 1,000 keys and with `many`.
pub(crate) fn keys(bench: &Bench<'_>, many: u64) -> anyhow::Result<Vec<CaseResult>> {
    ensure!(many > FEW, "--keys takes more than {FEW}, not {many}");
    let mut results: Vec<CaseResult> = Vec::new();
    for count in [FEW, many] {
        let name = format!("durable/state-get/keys{count}");
        if bench.wants(&name) {
            let few = results.first().map(|few| few.latency.p50_ns);
            results.push(measure(bench, &name, count, few)?);
        }
    }
    Ok(results)
}

fn measure(bench: &Bench<'_>, name: &str, count: u64, few_p50_ns: Option<u64>) -> anyhow::Result<CaseResult> {
    let own = Own::start(&format!("keys{count}"))?;
    let client = own.attach("bench-client")?;
    for id in ["state::transaction", "state::get"] {
        client.wait_for(id, SIGHT_TIME_MAX)?;
        client.handle(id).bind()?;
    }
    let before = resident_bytes()?;
    fill(bench, &client.handle("state::transaction"), count)?;
    let after = resident_bytes()?;
    let mut runs = Runs::default();
    let get = client.handle("state::get");
    for round in 1..=bench.rounds {
        (bench.progress)(&format!("{name}, round {round} of {}", bench.rounds));
        runs.add(&read(bench, &get, count)?);
    }
    client.shut_down();
    drop(own);
    let per_key = after.saturating_sub(before) / count;
    let result = CaseResult::new(name, BYTES as u64, Load::Closed, &runs, Cost::default());
    let mut note = format!(
        "a random key of {count}; {per_key} bytes resident for each key of {BYTES} bytes ({} MiB before, {} MiB after)",
        before >> 20,
        after >> 20
    );
    if let Some(few_p50_ns) = few_p50_ns {
        #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
        let times = result.latency.p50_ns as f64 / few_p50_ns.max(1) as f64;
        note.push_str(&format!("; {times:.2} × the median with {FEW} keys"));
    }
    Ok(result.with_note(note))
}

fn key(number: u64) -> String {
    format!("k{number:010}")
}

pub(super) fn json_message(value: &Value) -> anyhow::Result<Message> {
    Ok(Message::json(value).map_err(ringway::Failure::into_error)?)
}

/// Sets as many keys, a thousand with each commit.
fn fill(bench: &Bench<'_>, handle: &Handle, count: u64) -> anyhow::Result<()> {
    let (options, value) = (CallOptions::new(), "x".repeat(BYTES - 2));
    let mut waiting = VecDeque::new();
    for first in (0..count).step_by(usize::try_from(TOGETHER)?) {
        if first % 1_000_000 == 0 && first > 0 {
            (bench.progress)(&format!("{first} of {count} keys are set"));
        }
        let operations = (first..count.min(first + TOGETHER))
            .map(|number| json!({ "type": "set", "scope": "bench", "key": key(number), "value": value }));
        let request = json_message(&json!({ "operations": operations.collect::<Vec<_>>() }))?;
        waiting.push_back(handle.start(&request, &options)?);
        if waiting.len() >= IN_FLIGHT
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.wait()?;
        }
    }
    waiting.into_iter().try_for_each(|pending| pending.wait().map(drop))?;
    Ok(())
}

/// Reads keys in an order that no cache foresees, the same in each run.
fn read(bench: &Bench<'_>, handle: &Handle, count: u64) -> anyhow::Result<Run> {
    let request = |number: u64| {
        let place = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
        json_message(&json!({ "scope": "bench", "key": key(place % count) }))
    };
    let requests = (0..REQUESTS).map(request).collect::<anyhow::Result<Vec<_>>>()?;
    let mut next = requests.iter().cycle();
    closed_loop(bench.clock, WARM_UP, bench.run_time, || {
        if let Some(request) = next.next() {
            handle.call(request)?;
        }
        Ok(())
    })
}

/// Memory of this process that is resident, shared segments included.
pub(super) fn resident_bytes() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the kernel names no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024)
}
