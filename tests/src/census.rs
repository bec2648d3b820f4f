//! What a process holds, as the kernel counts it: descriptors, shared mappings, threads, memory. Used by the tests that
//! look for leaks, on their own process and on others. It must not know what the process does.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// Counts of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Open descriptors.
    pub fds: u64,
    /// Mappings that are shared with other processes: segments, own and foreign.
    pub shared: u64,
    /// Threads.
    pub threads: u64,
    /// Private memory that is resident, KiB: shared segments are not in it.
    pub private_kib: u64,
}

impl Census {
    /// Counts what a process holds now.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let folder = format!("/proc/{pid}");
        let entries = |name: &str| fs::read_dir(format!("{folder}/{name}")).map(|all| all.count() as u64);
        let maps = fs::read_to_string(format!("{folder}/maps"))?;
        let shared =
            maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|perms| perms.ends_with('s')));
        let status = fs::read_to_string(format!("{folder}/status"))?;
        let private = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let private_kib =
            private.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        Ok(Self {
            fds: entries("fd")?,
            shared: shared.count() as u64,
            threads: entries("task")?,
            private_kib,
        })
    }

    /// Whether this holds no more descriptors, shared mappings and threads than `base`.
    #[must_use]
    pub fn fits(&self, base: &Self) -> bool {
        self.fds <= base.fds && self.shared <= base.shared && self.threads <= base.threads
    }

    /// Counts again and again until a process holds no more than `base`, or `patience` is over: what is given back
    /// travels on rings and sockets, and threads take a moment to end. Returns the last count.
    ///
    /// # Errors
    /// When the process ends meanwhile.
    pub fn settle(pid: u32, base: &Self, patience: Duration) -> io::Result<Self> {
        let until = Instant::now() + patience;
        loop {
            let now = Self::of(pid)?;
            if now.fits(base) || Instant::now() >= until {
                return Ok(now);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Names what a process has open, to tell what has leaked.
    #[must_use]
    pub fn descriptors(pid: u32) -> Vec<String> {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
        let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let mut names: Vec<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// Seconds of processor time that a process has used.
#[must_use]
pub fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let own: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return own / 1e9 };
    let spent = |path: std::path::PathBuf| -> f64 {
        let text = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
    };
    tasks.flatten().map(|task| spent(task.path())).sum::<f64>() / 1e9
}

/// Memory that the machine can give without swapping, bytes.
#[must_use]
pub fn memory_available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_and_a_thread_are_counted() {
        let pid = std::process::id();
        let before = Census::of(pid).unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv().is_err());
        let after = Census::of(pid).unwrap();
        assert!(after.fds > before.fds && after.threads > before.threads, "{before:?} {after:?}");
        assert!(!after.fits(&before));
        assert!(Census::descriptors(pid).iter().any(|name| name == "/dev/null"));
        drop((file, done));
        assert!(thread.join().unwrap());
    }
}
