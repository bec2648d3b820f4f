//! Processes and threads: pidfds, the CPUs a thread may use, how much it ran and how often it was pushed aside. Used by
//! liveness, waiters and the benchmark. It must not know what the processes do.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use rustix::thread::CpuSet;

use super::event;

/// Opens a handle to a running process that stays its own even when the process id is used again.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Copies a descriptor out of another process, which needs the right to trace it.
///
/// # Errors
/// `EPERM` without that right, `EBADF` when the other process has no such descriptor.
pub fn pidfd_getfd(pidfd: impl AsFd, their_fd: i32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_getfd(pidfd, their_fd, PidfdGetfdFlags::empty())?)
}

/// Returns whether the process behind a pidfd has ended. A pidfd becomes readable at that moment, so it can also be
/// waited for together with other descriptors.
///
/// # Errors
/// Whatever `ppoll` reports.
pub fn has_exited(pidfd: impl AsFd) -> io::Result<bool> {
    event::is_readable(pidfd)
}

/// Returns the user this process acts as.
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Returns the kernel's number of the calling thread.
pub fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()
}

/// Returns the CPUs on which the calling thread may run, in rising order.
///
/// # Errors
/// Whatever `sched_getaffinity` reports.
pub fn thread_cpus() -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Allows the calling thread to run on `cpus` only.
///
/// # Errors
/// `InvalidInput` for a CPU number that the kernel's type cannot hold; `EINVAL` when none of them may be used.
pub fn pin_thread(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        set.set(cpu);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Returns the CPU on which the calling thread runs at this moment.
pub fn current_cpu() -> usize {
    rustix::thread::sched_getcpu()
}

/// What a thread or process used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a CPU in user mode.
    pub user: Duration,
    /// Time on a CPU in the kernel.
    pub system: Duration,
    /// How often it gave up the CPU by itself, to wait.
    pub switches_voluntary: u64,
    /// How often the kernel took the CPU away from it: a sign that runnable threads outnumber CPUs.
    pub switches_involuntary: u64,
}

/// Returns what the calling thread used. One system call, about 200 ns.
///
/// # Errors
/// Whatever `getrusage` reports.
pub fn thread_usage() -> io::Result<Usage> {
    usage(libc::RUSAGE_THREAD)
}

/// Returns what this process used, all threads together.
///
/// # Errors
/// Whatever `getrusage` reports.
pub fn process_usage() -> io::Result<Usage> {
    usage(libc::RUSAGE_SELF)
}

fn usage(who: libc::c_int) -> io::Result<Usage> {
    let mut raw = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `raw` is a whole rusage that lives across the call, and the kernel writes no more than that.
    if unsafe { libc::getrusage(who, raw.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: rusage is integers only, so the zeroes it was made from are valid even where the kernel wrote nothing.
    let raw = unsafe { raw.assume_init() };
    Ok(Usage {
        user: duration(raw.ru_utime),
        system: duration(raw.ru_stime),
        switches_voluntary: u64::try_from(raw.ru_nvcsw).unwrap_or(0),
        switches_involuntary: u64::try_from(raw.ru_nivcsw).unwrap_or(0),
    })
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
        + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfd_tells_when_its_process_ends() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = pidfd_open(child.id()).unwrap();
        assert!(!has_exited(&pidfd).unwrap());
        child.kill().unwrap();
        let mut fds = [event::PollFd::new(&pidfd, event::PollFlags::IN)];
        assert_eq!(event::poll(&mut fds, Some(Duration::from_secs(10))).unwrap(), 1);
        child.wait().unwrap();
        assert!(has_exited(&pidfd).unwrap());
        assert!(pidfd_open(child.id()).is_err());
    }

    #[test]
    fn a_pinned_thread_stays_where_it_was_put() {
        let cpus = thread_cpus().unwrap();
        let last = *cpus.last().unwrap();
        std::thread::spawn(move || {
            pin_thread(&[last]).unwrap();
            assert_eq!(thread_cpus().unwrap(), [last]);
            assert_eq!(current_cpu(), last);
        })
        .join()
        .unwrap();
        assert_eq!(pin_thread(&[usize::MAX]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn sleeping_shows_as_a_voluntary_switch() {
        let before = thread_usage().unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let after = thread_usage().unwrap();
        assert!(after.switches_voluntary > before.switches_voluntary);
        assert!(process_usage().unwrap().switches_voluntary >= after.switches_voluntary);
    }
}
