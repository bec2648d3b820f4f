//! What came out, as Markdown: medians over the runs, and ratios to the floor of the same round.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::Cpus;
use crate::bulk::{self, PAYLOAD};
use crate::frames;
use crate::rows::Work;

/// One run of one row.
pub(crate) struct Reading {
    /// Frames or bytes in a second.
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    elapsed_s: f64,
    /// Processor time of the asking or sending side, and of the other.
    cpu_s: [f64; 2],
    /// Zero-copy sends, and how many were copied after all.
    zero_copies: (u64, u64),
}

impl Reading {
    pub(crate) fn of_frames(sample: &frames::Sample, cpu: [Duration; 2]) -> Self {
        let us =
            |quantile| Duration::from_nanos(sample.times.value_at_quantile(quantile)).as_secs_f64() * 1e6;
        let elapsed_s = sample.elapsed.as_secs_f64();
        Self {
            rate: count(sample.times.len()) / elapsed_s,
            p50_us: us(0.5),
            p99_us: us(0.99),
            elapsed_s,
            cpu_s: cpu.map(|cpu| cpu.as_secs_f64()),
            zero_copies: (0, 0),
        }
    }

    pub(crate) fn of_payloads(sample: &bulk::Sample, cpu: [Duration; 2]) -> Self {
        let elapsed_s = sample.elapsed.as_secs_f64();
        Self {
            rate: count(sample.payloads * PAYLOAD as u64) / elapsed_s,
            p50_us: 0.0,
            p99_us: 0.0,
            elapsed_s,
            cpu_s: cpu.map(|cpu| cpu.as_secs_f64()),
            zero_copies: sample.zero_copies,
        }
    }

    /// The figure that rows are compared by.
    fn figure(&self, work: Work) -> f64 {
        match work {
            Work::PingPong => self.p50_us,
            Work::Stream | Work::Many => self.rate / 1e3,
            Work::Bulk => self.rate / 1e9,
        }
    }

    /// Processor time of both sides for one frame, or for one GiB, in seconds.
    fn cpu_each(&self, work: Work) -> f64 {
        let moved = self.rate * self.elapsed_s;
        let unit = if work == Work::Bulk { count(1 << 30) } else { 1.0 };
        (self.cpu_s[0] + self.cpu_s[1]) / moved * unit
    }
}

/// Turns a count into a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "what is counted here stays below 2^53")]
fn count(count: u64) -> f64 {
    count as f64
}

/// All runs of one row.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) readings: Vec<Reading>,
    /// Why it was given up.
    pub(crate) failed: Option<String>,
}

impl Row {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, readings: Vec::new(), failed: None }
    }

    fn median(&self, of: impl FnMut(&Reading) -> f64) -> f64 {
        median(self.readings.iter().map(of).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Says what all this was measured on.
pub(crate) fn print_machine(pins: Cpus, refused: Option<&io::Error>) {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("?");
    let pins = match pins {
        (Some(ours), Some(peers)) => format!("pinned to {ours} and {peers}"),
        _ => "not pinned".to_owned(),
    };
    println!(
        "Linux {}, {}, {pins}",
        read("/proc/sys/kernel/osrelease").trim(),
        model.trim_start_matches(['\t', ' ', ':'])
    );
    println!("load average before: {}", read("/proc/loadavg").trim());
    match refused {
        None => println!("io_uring: there"),
        Some(error) => println!("io_uring: refused ({error}); rows that need it are left out"),
    }
}

/// Prints one table.
pub(crate) fn print(work: Work, rows: &[Row]) -> anyhow::Result<()> {
    let (figure, each) = match work {
        Work::PingPong => ("p50 µs | least to most | × floor | p99 µs | round trips/s", "CPU µs each"),
        Work::Stream | Work::Many => {
            ("frames/s, thousands | least to most | × floor | p50 µs | p99 µs", "CPU µs each")
        }
        Work::Bulk => ("GB/s | least to most | × floor | zero copies | copied after all", "CPU ms/GiB"),
    };
    println!("\n## {}\n\n| | {figure} | CPU s: asking + peer | {each} |", work.name());
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    let floor: Vec<f64> = rows[0].readings.iter().map(|reading| reading.figure(work)).collect();
    for row in rows.iter().filter(|row| !row.readings.is_empty()) {
        let mut figures: Vec<f64> = row.readings.iter().map(|reading| reading.figure(work)).collect();
        let ratio = median(figures.iter().zip(&floor).map(|(own, floor)| own / floor).collect());
        figures.sort_by(f64::total_cmp);
        let (least, most) = (figures[0], figures[figures.len() - 1]);
        let figure = median(figures);
        let (p50, p99) = (row.median(|reading| reading.p50_us), row.median(|reading| reading.p99_us));
        let last = match work {
            Work::PingPong => format!("{p99:.1} | {:.0}", row.median(|reading| reading.rate)),
            Work::Stream | Work::Many => format!("{p50:.1} | {p99:.1}"),
            Work::Bulk => {
                let (sum, copied) = row
                    .readings
                    .iter()
                    .map(|reading| reading.zero_copies)
                    .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
                if sum == 0 { "| ".to_owned() } else { format!("{sum} | {copied}") }
            }
        };
        let cpu = [0, 1].map(|side| row.median(|reading| reading.cpu_s[side]));
        let each = row.median(|reading| reading.cpu_each(work)) * if work == Work::Bulk { 1e3 } else { 1e6 };
        println!(
            "| {} | {figure:.2} | {least:.2} to {most:.2} | {ratio:.2} | {last} | {:.2} + {:.2} | {each:.2} |",
            row.name, cpu[0], cpu[1]
        );
    }
    let mut failures: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows {
        if let Some(failed) = &row.failed {
            failures.entry(failed).or_default().push(row.name);
        }
    }
    for (why, names) in failures {
        println!("\nNot measured ({why}): {}.", names.join("; "));
    }
    anyhow::ensure!(!rows[0].readings.is_empty(), "the floor could not be measured");
    Ok(())
}
