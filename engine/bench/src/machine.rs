//! Where a benchmark runs: processor, kernel, clock, limits, and two cores to pin to. Used by the floors, the report and
//! `ringway doctor`'s readers. It only reads what the kernel publishes; a fact the kernel hides is `None`, never a guess.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::CpuSet;
use serde::{Deserialize, Serialize};

/// Below this a bare cache-line round trip, in nanoseconds, means that both cores share a near cache.
const NEAR_NS_MAX: u64 = 250;

/// How far apart the two pinned cores are, by the measured cache-line round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Regime {
    /// Below 0.25 µs: the cores share a cache.
    Near,
    /// Another cluster, socket or die.
    Far,
}

impl Regime {
    /// Classifies the median of a bare cache-line ping-pong.
    #[must_use]
    pub fn of(cache_line_p50_ns: u64) -> Self {
        if cache_line_p50_ns < NEAR_NS_MAX { Self::Near } else { Self::Far }
    }

    /// Returns the word used in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

/// The two processors that the two sides of a case are pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuPair {
    /// Who asks.
    pub caller: usize,
    /// Who answers.
    pub callee: usize,
}

/// What a reader needs to know to repeat a figure or to doubt it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu_model: String,
    /// Processors that this process may use.
    pub cpus_allowed: usize,
    /// Processors that are online.
    pub cpus_online: usize,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Architecture, as the compiler names it.
    pub architecture: String,
    /// The kernel's clock source.
    pub clocksource: Option<String>,
    /// Frequency governor of the caller's processor.
    pub governor: Option<String>,
    /// Whether a hypervisor is underneath.
    pub virtual_machine: bool,
    /// Transparent huge pages, for anonymous memory.
    pub huge_pages: Option<String>,
    /// Transparent huge pages, for shared memory.
    pub huge_pages_shared: Option<String>,
    /// Processors that the cgroup's quota amounts to; `None` when unlimited.
    pub cgroup_cpus: Option<f64>,
    /// Processor mitigations that are in force, by vulnerability.
    pub mitigations: BTreeMap<String, String>,
    /// Load average over the last minute, when the run began: a busy machine spoils the tail.
    pub load_1m: Option<f64>,
}

impl Machine {
    /// Reads the facts.
    #[must_use]
    pub fn read() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let pair = cpu_pair();
        let transparent = |file: &str| chosen(&text(format!("/sys/kernel/mm/transparent_hugepage/{file}"))?);
        Self {
            cpu_model: field(&info, "model name").unwrap_or("unknown").to_owned(),
            cpus_allowed: allowed_cpus().len(),
            cpus_online: info.lines().filter(|line| line.starts_with("processor")).count(),
            memory_bytes: memory_bytes(),
            kernel: text("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
            architecture: std::env::consts::ARCH.to_owned(),
            clocksource: text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            governor: text(format!("/sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor", pair.caller)),
            virtual_machine: has_flag(&info, "hypervisor"),
            huge_pages: transparent("enabled"),
            huge_pages_shared: transparent("shmem_enabled"),
            cgroup_cpus: text("/sys/fs/cgroup/cpu.max").and_then(|line| quota(&line)),
            mitigations: mitigations(),
            load_1m: text("/proc/loadavg").and_then(|line| line.split(' ').next()?.parse().ok()),
        }
    }
}

/// Says whether the time-stamp counter runs at one pace and never stops, so that it can serve as a clock.
#[must_use]
pub fn counter_is_steady() -> bool {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    ["constant_tsc", "nonstop_tsc"].iter().all(|flag| has_flag(&info, flag))
}

/// Lists the processors that this thread may run on.
#[must_use]
pub fn allowed_cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Chooses two processors to pin to: different cores that share a last-level cache if there are such, else different
/// cores, else any two, else one twice. Looks from the last processor down, since the first one serves most interrupts.
#[must_use]
pub fn cpu_pair() -> CpuPair {
    pair_among(&allowed_cpus(), &|cpu| Place::read(cpu))
}

/// Where a processor sits.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    /// The hardware threads of its core.
    core: String,
    /// The processors that share its last-level cache.
    cache: String,
}

impl Place {
    fn read(cpu: usize) -> Self {
        let base = format!("/sys/devices/system/cpu/cpu{cpu}");
        Self {
            core: text(format!("{base}/topology/thread_siblings_list")).unwrap_or_else(|| cpu.to_string()),
            cache: text(format!("{base}/cache/index3/shared_cpu_list")).unwrap_or_default(),
        }
    }
}

fn pair_among(cpus: &[usize], place: &dyn Fn(usize) -> Place) -> CpuPair {
    let places: Vec<(usize, Place)> = cpus.iter().rev().map(|cpu| (*cpu, place(*cpu))).collect();
    let mut best = None;
    for (index, (caller, here)) in places.iter().enumerate() {
        for (callee, there) in &places[index + 1..] {
            let rank = (here.core != there.core, here.cache == there.cache);
            if best.is_none_or(|(known, _)| rank > known) {
                best = Some((rank, CpuPair { caller: *caller, callee: *callee }));
            }
        }
    }
    let alone = cpus.first().copied().unwrap_or(0);
    best.map_or(CpuPair { caller: alone, callee: alone }, |(_, pair)| pair)
}

/// Pins the calling thread to one processor; threads and processes it starts from now on inherit that.
///
/// # Errors
/// What the system says when the processor is not ours to use.
pub fn pin_current_thread(cpu: usize) -> io::Result<()> {
    pin(None, cpu)
}

/// Pins every thread that this process has now to one processor. A worker counts its processors when it attaches, so
/// one that is to wait as on a machine with several is pinned afterwards.
///
/// # Errors
/// What the system says when the processor is not ours to use.
pub fn pin_all_threads(cpu: usize) -> io::Result<()> {
    for thread in fs::read_dir("/proc/self/task")? {
        let name = thread?.file_name();
        let id = name.to_str().and_then(|id| Pid::from_raw(id.parse().ok()?));
        match pin(id, cpu) {
            // It ended between the listing and the pinning.
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            other => other?,
        }
    }
    Ok(())
}

fn pin(thread: Option<Pid>, cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such processor"));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(thread, &set)?)
}

/// Returns the memory that programs can still take, in bytes.
#[must_use]
pub fn memory_available_bytes() -> u64 {
    memory_fact("MemAvailable")
}

/// Reads a file of one line.
fn text(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Finds `name : value`, or `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn has_flag(info: &str, flag: &str) -> bool {
    field(info, "flags").is_some_and(|flags| flags.split_whitespace().any(|word| word == flag))
}

/// Returns the word in brackets, as the kernel marks a choice: `always [madvise] never`.
fn chosen(line: &str) -> Option<String> {
    let (_, rest) = line.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

/// Reads `quota period`, in microseconds; `max` is no limit.
fn quota(line: &str) -> Option<f64> {
    let (quota, period) = line.split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then_some(quota / period)
}

fn memory_bytes() -> u64 {
    memory_fact("MemTotal")
}

fn memory_fact(name: &str) -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = field(&info, name).and_then(|value| value.strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Lists what the kernel does against processor bugs, leaving out those that this processor does not have.
fn mitigations() -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else { return BTreeMap::new() };
    let known = entries.filter_map(Result::ok);
    let told = known.filter_map(|entry| {
        let said = text(entry.path())?;
        (said != "Not affected").then(|| (entry.file_name().to_string_lossy().into_owned(), said))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::{
        CpuPair, Machine, Place, Regime, chosen, cpu_pair, field, pair_among, pin_current_thread, quota,
    };

    #[test]
    fn regimes() {
        let check = |p50_ns, expected| assert_eq!(Regime::of(p50_ns), expected, "{p50_ns} ns");
        check(120, Regime::Near);
        check(249, Regime::Near);
        check(250, Regime::Far);
        check(550, Regime::Far);
    }

    #[test]
    fn kernel_files() {
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("never"), None);
        assert_eq!(quota("150000 100000"), Some(1.5));
        assert_eq!(quota("max 100000"), None);
        assert_eq!(field("a : 1\nb: 2 3\n", "b"), Some("2 3"));
    }

    #[test]
    fn pair_prefers_two_cores_under_one_cache() {
        // Four cores of two threads; two caches, of two cores each.
        let place = |cpu: usize| Place { core: format!("{}", cpu % 4), cache: format!("{}", cpu % 4 / 2) };
        let check = |cpus: &[usize], caller, callee| {
            assert_eq!(pair_among(cpus, &place), CpuPair { caller, callee }, "among {cpus:?}");
        };
        check(&[0, 1, 2, 3, 4, 5, 6, 7], 7, 6);
        check(&[0, 2, 4, 6], 6, 4);
        check(&[0, 4], 4, 0);
        check(&[0, 1, 4], 4, 1);
        check(&[3], 3, 3);
        check(&[], 0, 0);
    }

    #[test]
    fn facts_of_this_machine() {
        let machine = Machine::read();
        assert!(machine.cpus_allowed >= 1 && machine.cpus_online >= machine.cpus_allowed, "{machine:?}");
        assert!(machine.memory_bytes > 1 << 20 && machine.kernel != "unknown", "{machine:?}");
    }

    #[test]
    fn pinning_to_an_allowed_processor_succeeds_and_to_a_missing_one_fails() {
        std::thread::spawn(|| pin_current_thread(cpu_pair().caller).unwrap()).join().unwrap();
        assert!(pin_current_thread(usize::MAX).is_err());
    }
}
