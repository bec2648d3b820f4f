//! Facts about the machine that decide how to wait and how to make memory: kernel, CPU quota, huge pages for shared
//! memory, and the switch that keeps CPUs out of deep sleep. Used by waiters, arenas and `doctor`. It must not know what
//! is concluded from them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Returns the running kernel's version, major and minor; (0, 0) if it cannot be read.
pub fn kernel_version() -> (u32, u32) {
    parse_release(&rustix::system::uname().release().to_string_lossy())
}

fn parse_release(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Returns how much memory the machine has, in bytes.
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit.max(1)))
}

/// Keeps every CPU of the machine out of sleep states that take longer than the given time to leave, until dropped.
#[derive(Debug)]
pub struct LatencyHold(#[expect(dead_code, reason = "held open for its effect on the kernel")] File);

/// Asks the kernel to keep wake-up latency at or below `latency_us_max` microseconds (0: no sleep states), for as long as
/// the returned value lives.
///
/// # Errors
/// `NotFound` where the kernel has no such switch, `PermissionDenied` for most users.
pub fn hold_latency(latency_us_max: i32) -> io::Result<LatencyHold> {
    let mut file = OpenOptions::new().write(true).open("/dev/cpu_dma_latency")?;
    file.write_all(&latency_us_max.to_ne_bytes())?;
    Ok(LatencyHold(file))
}

/// What the kernel does about huge pages in shared memory that is not on a mounted file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePagePolicy {
    /// Used wherever they fit.
    Always,
    /// Used where a mapping asks for them.
    Advise,
    /// Never used, or the kernel does not say.
    Never,
}

/// Returns the policy for shared memory.
pub fn huge_page_policy() -> HugePagePolicy {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_default();
    parse_huge_page_policy(&text)
}

fn parse_huge_page_policy(text: &str) -> HugePagePolicy {
    match text.split_once('[').and_then(|(_, rest)| rest.split_once(']')) {
        Some(("always" | "within_size" | "force", _)) => HugePagePolicy::Always,
        Some(("advise", _)) => HugePagePolicy::Advise,
        _ => HugePagePolicy::Never,
    }
}

/// Returns how much CPU time the control group of this process may use, in CPUs (1.5: one and a half), the tightest limit
/// on the way up; `None` without a limit. Reads a few files: once at start-up, not on a hot path.
pub fn cpu_quota() -> Option<f64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let version_2 = cgroup_path(&groups, "").and_then(|path| {
        tightest(Path::new("/sys/fs/cgroup"), &path, |dir| {
            parse_cpu_max(&fs::read_to_string(dir.join("cpu.max")).ok()?)
        })
    });
    let version_1 = cgroup_path(&groups, "cpu").and_then(|path| {
        tightest(Path::new("/sys/fs/cgroup/cpu"), &path, |dir| {
            let quota = fs::read_to_string(dir.join("cpu.cfs_quota_us")).ok()?;
            let period = fs::read_to_string(dir.join("cpu.cfs_period_us")).ok()?;
            parse_cpu_max(&format!("{} {}", quota.trim(), period.trim()))
        })
    });
    [version_2, version_1].into_iter().flatten().reduce(f64::min)
}

/// Returns how many CPUs the machine runs, whatever this process is pinned to; 1 when that cannot be read.
pub fn online_cpus() -> usize {
    parse_cpu_list(&fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default()).max(1)
}

/// Counts the CPUs of a list such as `0-3,8`.
fn parse_cpu_list(text: &str) -> usize {
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    text.trim().split(',').filter_map(count).sum()
}

/// Finds the path of a controller in `/proc/self/cgroup`; the empty name stands for version 2.
fn cgroup_path(groups: &str, controller: &str) -> Option<PathBuf> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let found = controllers.split(',').any(|name| name == controller);
        found.then(|| PathBuf::from(path.trim_start_matches('/')))
    })
}

fn tightest(root: &Path, path: &Path, read: impl Fn(&Path) -> Option<f64>) -> Option<f64> {
    path.ancestors().filter_map(|group| read(&root.join(group))).reduce(f64::min)
}

/// Reads "quota period" in microseconds, as in `cpu.max`. "max" and negative quotas mean no limit.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        let check = |release: &str, expected| assert_eq!(parse_release(release), expected, "{release}");
        check("6.18.44-cloud", (6, 18));
        check("5.4", (5, 4));
        check("6-rc1", (6, 0));
        check("", (0, 0));
        assert!(kernel_version() > (2, 6));
    }

    #[test]
    fn the_chosen_huge_page_policy_is_the_bracketed_one() {
        let check = |text: &str, expected| assert_eq!(parse_huge_page_policy(text), expected, "{text}");
        check("always within_size advise [never] deny force\n", HugePagePolicy::Never);
        check("always within_size [advise] never deny force\n", HugePagePolicy::Advise);
        check("[always] within_size advise never deny force\n", HugePagePolicy::Always);
        check("", HugePagePolicy::Never);
    }

    #[test]
    fn quotas_are_read() {
        let check = |text: &str, expected| assert_eq!(parse_cpu_max(text), expected, "{text}");
        check("max 100000\n", None);
        check("150000 100000\n", Some(1.5));
        check("-1 100000", None);
        check("50000 0", None);
        check("", None);
    }

    #[test]
    fn a_controller_is_found_in_either_version() {
        let check = |groups: &str, controller: &str, expected: Option<&str>| {
            assert_eq!(cgroup_path(groups, controller), expected.map(PathBuf::from), "{groups} {controller}");
        };
        check("0::/user.slice/a\n", "", Some("user.slice/a"));
        check("4:memory:/x\n3:cpu,cpuacct:/y\n", "cpu", Some("y"));
        check("4:memory:/x\n", "cpu", None);
    }
}
