//! Cores and time: how many there are to spin on, what a sleep costs, and which way of waiting follows from that.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use ringway::WaitMode;
use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::sys::{machine, process};
use ringway_ipc::waiter::{self, SpinPolicy};

use super::finding::Finding;
use crate::output::words::nanoseconds;

/// Cores that this process may use, and the share of them that its control group allows.
pub(super) fn cores() -> Vec<Finding> {
    let online = std::thread::available_parallelism().map_or(1, usize::from);
    let allowed = process::thread_cpus().map_or(online, |cpus| cpus.len());
    let mut findings = vec![if allowed >= 2 {
        Finding::ok("cores", format!("{allowed} may be used"))
    } else {
        let advice = "a call takes two turns on one core, so nothing spins; allow two cores for calls under a microsecond";
        Finding::warn("cores", "one may be used", advice)
    }];
    findings.push(match machine::cpu_quota() {
        None => Finding::ok("CPU quota", "none"),
        Some(quota) if quota >= 2.0 => Finding::ok("CPU quota", format!("{quota:.1} CPUs")),
        Some(quota) => Finding::warn(
            "CPU quota",
            format!("{quota:.2} CPUs"),
            "spinning would eat the quota, so workers park; allow the control group at least two CPUs",
        ),
    });
    findings
}

/// The kernel's clock: one that needs a system call makes every timestamp of a trace cost more.
pub(super) fn clock() -> Finding {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    judge_clock(fs::read_to_string(path).unwrap_or_default().trim())
}

fn judge_clock(source: &str) -> Finding {
    match source {
        "tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page" => {
            Finding::ok("clock", source)
        }
        "" => Finding::warn(
            "clock",
            "the kernel does not name its source",
            "look at the kernel's log for `clocksource`",
        ),
        other => Finding::warn(
            "clock",
            format!("{other}: reading it takes a system call"),
            "timestamps cost up to a microsecond; boot with tsc=reliable if the processor's counter is steady",
        ),
    }
}

/// Round trips that are timed in each state.
const ROUND_TRIPS: usize = 400;
/// Less than this saved is not worth a setting, in nanoseconds.
const SAVING_MIN_NS: u64 = 5_000;

/// Measures what going to sleep and being woken costs, and what it costs with the CPUs kept awake.
pub(super) fn park() -> Vec<Finding> {
    let usual = match round_trip_ns() {
        Ok(ns) => ns,
        Err(error) => {
            return vec![Finding::warn("park", format!("could not be measured: {error}"), "try again")];
        }
    };
    let parked = format!("an eventfd round trip between two sleeping threads takes {}", nanoseconds(usual));
    let held = machine::hold_latency(0).map(|hold| {
        let held = round_trip_ns();
        drop(hold);
        held
    });
    vec![Finding::ok("park", parked), judge_latency(usual, held)]
}

fn judge_latency(usual: u64, held: io::Result<io::Result<u64>>) -> Finding {
    let check = "cpu_dma_latency";
    match held {
        Ok(Ok(held)) if held + SAVING_MIN_NS < usual => Finding::ok(
            check,
            format!(
                "may be held: the same round trip then takes {}; `latency` mode holds it",
                nanoseconds(held)
            ),
        ),
        Ok(Ok(held)) => {
            Finding::ok(check, format!("may be held, and saves nothing here ({})", nanoseconds(held)))
        }
        Ok(Err(error)) => Finding::warn(check, format!("may be held, but: {error}"), "try again"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::warn(
            check,
            "this kernel has no /dev/cpu_dma_latency",
            "containers often hide it; pass the device in to let `latency` mode keep the CPUs awake",
        ),
        Err(error) => Finding::warn(
            check,
            format!("may not be held: {error}"),
            "a udev rule (KERNEL==\"cpu_dma_latency\", GROUP=…, MODE=\"0660\") lets `latency` mode cut most of the park",
        ),
    }
}

/// Returns the median round trip between two threads that both sleep in between.
fn round_trip_ns() -> io::Result<u64> {
    let (there, back) = (Doorbell::new()?, Doorbell::new()?);
    let patience = Duration::from_secs(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUND_TRIPS {
                if !there.wait(patience) {
                    return;
                }
                there.clear();
                back.notify();
            }
        });
        let mut times = Vec::with_capacity(ROUND_TRIPS);
        for _ in 0..ROUND_TRIPS {
            let begun = Instant::now();
            there.notify();
            if !back.wait(patience) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the other thread went quiet"));
            }
            back.clear();
            times.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        times.sort_unstable();
        Ok(times[times.len() / 2])
    })
}

/// Says how a worker of this user waits here, and why.
pub(super) fn wait_mode() -> Finding {
    let set = std::env::var("RINGWAY_WAIT").ok();
    let mode = match &set {
        Some(word) => match WaitMode::parse(word) {
            Some(mode) => mode,
            None => {
                let found = format!("RINGWAY_WAIT is `{word}`, which workers pass over");
                return Finding::warn("waiting", found, "set it to latency, balanced or efficient");
            }
        },
        None => WaitMode::default(),
    };
    let why = if set.is_some() { "from RINGWAY_WAIT" } else { "the default" };
    let policy = SpinPolicy::new(mode);
    let plan_ns = policy.plan(0);
    let how = if plan_ns == 0 {
        format!("sleeps at once: {}", why_no_spin(mode, waiter::usable_cores()))
    } else {
        format!(
            "spins up to {} before it sleeps, which costs {}",
            nanoseconds(plan_ns),
            nanoseconds(policy.park_ns())
        )
    };
    Finding::ok("waiting", format!("`{}` ({why}): {how}", mode.as_str()))
}

fn why_no_spin(mode: WaitMode, cores: usize) -> String {
    if mode == WaitMode::Efficient {
        "that is what the mode means".to_owned()
    } else if cores < 2 {
        "there is one core to use".to_owned()
    } else {
        "until waits turn out to be short".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Mark;
    use super::*;

    #[test]
    fn slow_clocks_are_told() {
        let check = |source: &str, mark| assert_eq!(judge_clock(source).mark, mark, "{source}");
        check("tsc", Mark::Ok);
        check("kvm-clock", Mark::Ok);
        check("hpet", Mark::Warn);
        check("", Mark::Warn);
    }

    #[test]
    fn a_saving_is_shown_where_there_is_one() {
        let refused = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(judge_latency(50_000, Ok(Ok(6_000))).found.contains("6.00 µs"));
        assert!(judge_latency(6_500, Ok(Ok(6_000))).found.contains("saves nothing"));
        assert_eq!(judge_latency(50_000, refused()).mark, Mark::Warn);
        assert!(judge_latency(1, Err(io::ErrorKind::NotFound.into())).found.contains("no /dev"));
    }

    #[test]
    fn a_round_trip_takes_some_time() {
        assert!(round_trip_ns().unwrap() > 0);
    }
}
