//! How long to spin before sleeping: the policy behind every wait.
//!
//! A spin that succeeds saves a park, which costs tens of microseconds on a virtual machine; a spin that fails
//! burns a core. One [`SpinPolicy`] per worker decides, from what each place has learned about its waits
//! ([`Expectation`]), from what a park costs here ([`park_cost_ns`]), from a budget for spins that came to nothing,
//! and from signs that there are more runnable threads than cores. Knows nothing of rings.
//!
//! Spinning as long as a park costs is the classic competitive rule: never worse than twice the optimum (Karlin,
//! Li, Manasse and Owicki, "Empirical studies of competitive spinning for a shared-memory multiprocessor", SOSP 1991).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::now_ns;
use crate::doorbell::Doorbell;

/// How a worker waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitMode {
    /// Spin for up to [`LATENCY_SPIN_NS`] before sleeping. For a core that has nothing else to do.
    Latency,
    /// Spin for up to four times the cost of a park where that has paid before, within a CPU budget.
    #[default]
    Balanced,
    /// Sleep at once.
    Efficient,
}

impl WaitMode {
    /// The word used in settings and output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Balanced => "balanced",
            Self::Efficient => "efficient",
        }
    }

    /// Reads the word used in settings.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Latency, Self::Balanced, Self::Efficient].into_iter().find(|mode| mode.as_str() == word)
    }
}

/// Longest spin in `latency` mode, in nanoseconds: idle for this long and the core is given back.
pub const LATENCY_SPIN_NS: u64 = 1_000_000_000;

/// Share of one core that `balanced` may spend on spins that came to nothing, as 1/n.
const BUDGET_DIVISOR: i64 = 20;

/// The most unspent budget that is kept, in nanoseconds of spinning.
const BUDGET_CAP_NS: i64 = 5_000_000;

/// Polls without a pause at the start of a spin. A `pause` takes up to 140 cycles since Skylake (Intel
/// Optimization Reference Manual, 2.6.4), longer than an answer from a neighbouring core.
pub const EAGER_POLLS: u32 = 1024;

/// Bounds for the measured cost of a park, in nanoseconds.
const PARK_COST_MIN_NS: u64 = 5_000;
const PARK_COST_MAX_NS: u64 = 100_000;

/// `balanced` spins at least this long where it spins: a caller that works for some tens of microseconds between two calls
/// finds its callee awake.
const SPIN_MIN_NS: u64 = 50_000;

/// Most halvings of the spin under pressure; at the top there is no spin at all.
const PRESSURE_MAX: u32 = 6;

/// What one place (a caller of one function, a dispatcher) has learned about its waits, in nanoseconds.
#[derive(Debug)]
pub struct Expectation {
    average_ns: AtomicU64,
}

impl Default for Expectation {
    fn default() -> Self {
        Self { average_ns: AtomicU64::new(0) }
    }
}

impl Expectation {
    /// The moving average; 0 until something was learned.
    #[inline]
    #[must_use]
    pub fn ns(&self) -> u64 {
        self.average_ns.load(Ordering::Relaxed)
    }

    /// Learns a wait: a moving average with weight 1/4, quick enough to follow a change of phase. Races between
    /// threads lose one sample, which does not matter.
    #[inline]
    pub fn learn(&self, waited_ns: u64) {
        let old = self.average_ns.load(Ordering::Relaxed);
        let new = if old == 0 { waited_ns } else { old - old / 4 + waited_ns / 4 };
        self.average_ns.store(new, Ordering::Relaxed);
    }
}

/// How a spin ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spun {
    /// What was awaited came within the eager polls; the clock was not read.
    AtOnce,
    /// It came after about so many nanoseconds.
    After(u64),
    /// It did not come.
    InVain,
}

/// The spinning policy of one worker.
#[derive(Debug)]
pub struct SpinPolicy {
    mode: WaitMode,
    cores: usize,
    park_ns: u64,
    budget_ns: AtomicI64,
    refilled_ns: AtomicU64,
    pressure: AtomicU32,
    preempted: AtomicU64,
}

impl SpinPolicy {
    /// A policy for this process: counts the cores it may use and measures a park once per process (2 ms).
    #[must_use]
    pub fn new(mode: WaitMode) -> Self {
        // Who asks for `latency` has put its peers on other cores, even where it is pinned to one itself.
        let cores =
            if mode == WaitMode::Latency { crate::sys::machine::online_cpus() } else { usable_cores() };
        let park_ns =
            if mode == WaitMode::Efficient || cores < 2 { PARK_COST_MIN_NS } else { park_cost_ns() };
        Self {
            mode,
            cores,
            park_ns,
            budget_ns: AtomicI64::new(BUDGET_CAP_NS),
            refilled_ns: AtomicU64::new(now_ns()),
            pressure: AtomicU32::new(0),
            preempted: AtomicU64::new(0),
        }
    }

    /// The mode.
    #[must_use]
    pub fn mode(&self) -> WaitMode {
        self.mode
    }

    /// What a park is taken to cost, in nanoseconds.
    #[must_use]
    pub fn park_ns(&self) -> u64 {
        self.park_ns
    }

    /// Cores this process may use, by affinity and cgroup quota.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// How many times the spin is halved at present because threads outnumber cores.
    #[must_use]
    pub fn pressure(&self) -> u32 {
        self.pressure.load(Ordering::Relaxed)
    }

    /// The longest spin of `balanced`: four parks, so that work of a few parks between two calls is waited out. A spin of one
    /// park would never cost more than twice the better choice (Karlin, Li, Manasse and Owicki, "Empirical Studies of
    /// Competitive Spinning", SOSP 1991); this one may cost five times, which what was learned keeps rare and the budget
    /// bounds.
    fn spin_max_ns(&self) -> u64 {
        (4 * self.park_ns).max(SPIN_MIN_NS)
    }

    /// How long to spin for something that usually takes `expected_ns` (0: not known).
    #[must_use]
    pub fn plan(&self, expected_ns: u64) -> u64 {
        if self.cores < 2 {
            return 0;
        }
        match self.mode {
            WaitMode::Efficient => 0,
            WaitMode::Latency => LATENCY_SPIN_NS,
            WaitMode::Balanced => {
                let pressure = self.pressure();
                let spin_ns = self.spin_max_ns();
                if pressure >= PRESSURE_MAX || expected_ns > spin_ns || !self.affordable(spin_ns) {
                    // A short look costs next to nothing and lets a place find out that its waits became short.
                    return 0;
                }
                spin_ns >> pressure
            }
        }
    }

    /// Whether a wait that usually takes `expected_ns` begins with [`EAGER_POLLS`] polls, without reading a clock.
    #[inline]
    #[must_use]
    pub fn plan_is_eager(&self, expected_ns: u64) -> bool {
        self.cores >= 2
            && match self.mode {
                WaitMode::Latency => true,
                WaitMode::Balanced => expected_ns <= self.spin_max_ns() && self.pressure() == 0,
                WaitMode::Efficient => false,
            }
    }

    fn affordable(&self, spin_ns: u64) -> bool {
        let now = now_ns();
        let before = self.refilled_ns.swap(now, Ordering::Relaxed);
        let earned = i64::try_from(now.saturating_sub(before)).unwrap_or(i64::MAX) / BUDGET_DIVISOR;
        let budget = self.budget_ns.load(Ordering::Relaxed).saturating_add(earned).min(BUDGET_CAP_NS);
        self.budget_ns.store(budget, Ordering::Relaxed);
        budget >= i64::try_from(spin_ns).unwrap_or(i64::MAX)
    }

    /// Accounts for a spin. A vain one is taken from the budget; when the thread was preempted meanwhile,
    /// threads outnumber cores, and the next spins are shorter.
    pub fn account(&self, spin_ns: u64, spun: Spun) {
        if self.mode != WaitMode::Balanced {
            return;
        }
        if spun == Spun::InVain && spin_ns > 0 {
            self.budget_ns.fetch_sub(i64::try_from(spin_ns).unwrap_or(i64::MAX), Ordering::Relaxed);
            let preempted = crate::sys::process::thread_usage().map_or(0, |usage| usage.switches_involuntary);
            let before = self.preempted.swap(preempted, Ordering::Relaxed);
            let pressure = self.pressure();
            if preempted > before && before > 0 {
                self.pressure.store((pressure + 1).min(PRESSURE_MAX), Ordering::Relaxed);
            } else if pressure > 0 {
                self.pressure.store(pressure - 1, Ordering::Relaxed);
            }
        }
    }

    /// Polls `ready` for about `spin_ns` nanoseconds.
    #[inline]
    pub fn spin(&self, spin_ns: u64, ready: impl FnMut() -> bool) -> Spun {
        self.spin_after(EAGER_POLLS, spin_ns, ready)
    }

    /// As [`SpinPolicy::spin`], for a `ready` that is dearer than one look: so many polls before the clock is read.
    #[inline]
    pub fn spin_after(&self, eager_polls: u32, spin_ns: u64, mut ready: impl FnMut() -> bool) -> Spun {
        if spin_ns == 0 {
            return if ready() { Spun::AtOnce } else { Spun::InVain };
        }
        for _ in 0..eager_polls {
            if ready() {
                return Spun::AtOnce;
            }
        }
        self.spin_on(spin_ns, ready)
    }

    #[cold]
    fn spin_on(&self, spin_ns: u64, mut ready: impl FnMut() -> bool) -> Spun {
        let start = now_ns();
        let mut last = start;
        let courteous = self.pressure() > 0;
        loop {
            for _ in 0..32 {
                if ready() {
                    // As of the last look at the clock: reading it now would delay what has just come.
                    return Spun::After(last - start);
                }
                if self.mode != WaitMode::Latency {
                    std::hint::spin_loop();
                }
            }
            if courteous {
                std::thread::yield_now();
            }
            last = now_ns();
            if last - start >= spin_ns {
                return Spun::InVain;
            }
        }
    }
}

/// Cores this process may use: its affinity mask, cut by a cgroup CPU quota.
#[must_use]
pub fn usable_cores() -> usize {
    let affinity = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    crate::sys::machine::cpu_quota().map_or(affinity, |quota| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a quota is a few hundred cores at most"
        )]
        let cores = quota.floor().max(1.0) as usize;
        affinity.min(cores)
    })
}

/// Measures half of an eventfd round trip between two threads of this process, once: what one park and wake-up cost.
pub fn park_cost_ns() -> u64 {
    static COST: OnceLock<u64> = OnceLock::new();
    *COST.get_or_init(|| {
        measure_park().unwrap_or(PARK_COST_MAX_NS / 2).clamp(PARK_COST_MIN_NS, PARK_COST_MAX_NS)
    })
}

fn measure_park() -> std::io::Result<u64> {
    const ROUNDS: usize = 24;
    let (ping, pong) = (Doorbell::new()?, Doorbell::new()?);
    let patience = Duration::from_millis(100);
    let (their_ping, their_pong) = (ping.clone(), pong.clone());
    let peer = std::thread::Builder::new().name("ringway-calibrate".into()).spawn(move || {
        for _ in 0..ROUNDS {
            if !their_ping.wait(patience) {
                return;
            }
            their_pong.notify();
        }
    })?;
    let mut trips = [0u64; ROUNDS];
    for trip in &mut trips {
        let start = now_ns();
        ping.notify();
        if !pong.wait(patience) {
            break;
        }
        *trip = now_ns() - start;
    }
    drop(peer.join());
    trips.sort_unstable();
    Ok(trips[ROUNDS / 2] / 2)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn policy(mode: WaitMode) -> SpinPolicy {
        let mut policy = SpinPolicy::new(mode);
        policy.cores = 2;
        policy.park_ns = 20_000;
        policy
    }

    #[test]
    fn plans_by_mode_and_experience() {
        let cases = [
            (WaitMode::Efficient, 0, 0),
            (WaitMode::Latency, 10_000_000, LATENCY_SPIN_NS),
            (WaitMode::Balanced, 0, 80_000),
            (WaitMode::Balanced, 60_000, 80_000),
            (WaitMode::Balanced, 1_000_000, 0),
        ];
        for (mode, expected_ns, planned) in cases {
            assert_eq!(policy(mode).plan(expected_ns), planned, "{mode:?} {expected_ns}");
        }
    }

    #[test]
    fn one_core_never_spins() {
        let mut policy = policy(WaitMode::Latency);
        policy.cores = 1;
        assert_eq!(policy.plan(0), 0);
    }

    #[test]
    fn vain_spins_use_the_budget_up() {
        let policy = policy(WaitMode::Balanced);
        for _ in 0..1000 {
            policy.account(40_000, Spun::InVain);
        }
        assert_eq!(policy.plan(0), 0);
    }

    #[test]
    fn expectations_follow_a_change() {
        let place = Expectation::default();
        place.learn(1_000_000);
        for _ in 0..40 {
            place.learn(100);
        }
        assert!(place.ns() < 1_000, "{}", place.ns());
    }

    #[test]
    fn a_spin_ends() {
        let policy = policy(WaitMode::Balanced);
        assert_eq!(policy.spin(10_000, || false), Spun::InVain);
        assert_eq!(policy.spin(10_000, || true), Spun::AtOnce);
        let mut polls = 0;
        let spun = policy.spin(1_000_000_000, || {
            polls += 1;
            polls > 5000
        });
        assert!(matches!(spun, Spun::After(_)), "{spun:?}");
    }
}
