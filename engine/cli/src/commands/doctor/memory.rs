//! Shared memory: whether seals hold, and the limits that memory and descriptors run into.

use std::fs;
use std::os::fd::AsRawFd;

use ringway_ipc::segment::{Segment, SegmentOptions, SegmentView};
use ringway_ipc::sys::machine::{self, HugePagePolicy};

use super::finding::Finding;
use crate::output::words::bytes;

/// The size of the segment that is tried.
const PROBE_BYTES: usize = 4096;

/// Makes a segment as every worker does, and tries to do to it what no receiver may: shrink it, and write it through a
/// descriptor opened anew.
pub(super) fn seals() -> Finding {
    match try_seals() {
        Ok(()) => {
            Finding::ok("seals", "enforced: tried to shrink and to write a sealed segment, both were refused")
        }
        Err(broken) => Finding::fail(
            "seals",
            broken,
            "Ringway's memory protection rests on memfd seals; use a Linux kernel that has them all (not gVisor)",
        ),
    }
}

fn try_seals() -> Result<(), String> {
    let segment = Segment::create("doctor", PROBE_BYTES, SegmentOptions::default())
        .map_err(|error| format!("cannot make a sealed segment: {error}"))?;
    let fd = segment.fd().ok_or("a segment of this kernel has no descriptor")?;
    let received = fd.try_clone_to_owned().map_err(|error| format!("cannot copy a descriptor: {error}"))?;
    // What a receiver of the descriptor could do with it.
    let view_fd = fd.try_clone_to_owned().map_err(|error| format!("cannot copy a descriptor: {error}"))?;
    SegmentView::map(view_fd, PROBE_BYTES as u64)
        .map_err(|error| format!("cannot map a sealed segment: {error}"))?;
    let path = format!("/proc/self/fd/{}", received.as_raw_fd());
    let file = fs::File::from(received);
    if file.set_len(0).is_ok() {
        return Err("a sealed segment could be shrunk".to_owned());
    }
    if std::os::unix::fs::FileExt::write_at(&file, b"x", 0).is_ok() {
        return Err("a sealed segment could be written by a receiver".to_owned());
    }
    let reopened = fs::OpenOptions::new().write(true).open(path);
    if reopened.is_ok_and(|again| std::os::unix::fs::FileExt::write_at(&again, b"x", 0).is_ok()) {
        return Err("a sealed segment could be written through /proc".to_owned());
    }
    Ok(())
}

/// Says whether large payloads can have large pages.
pub(super) fn huge_pages() -> Finding {
    match machine::huge_page_policy() {
        HugePagePolicy::Always => Finding::ok("huge pages", "used for shared memory wherever they fit"),
        HugePagePolicy::Advise => {
            Finding::ok("huge pages", "used for shared memory where an arena asks for them")
        }
        HugePagePolicy::Never => Finding::warn(
            "huge pages",
            "never used for shared memory: the first touch of a payload costs 2 to 3.5 µs for every 4 KiB",
            "as root: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled (blocks are recycled warm in any case)",
        ),
    }
}

/// A worker takes about four descriptors in the engine and one for each channel.
const OPEN_FILES_WARN: u64 = 4096;
const OPEN_FILES_FAIL: u64 = 256;
/// Two mappings for each channel, and one for each arena segment of each peer.
const MAPPINGS_WARN: u64 = 16_384;

/// Limits on descriptors, mappings and locked memory.
pub(super) fn limits() -> Vec<Finding> {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let mappings = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    vec![
        open_files(hard_limit(&limits, "Max open files")),
        match mappings.trim().parse::<u64>() {
            Ok(count) if count >= MAPPINGS_WARN => Finding::ok("mappings", format!("{count} for a process")),
            Ok(count) => Finding::warn(
                "mappings",
                format!("{count} for a process"),
                "as root: sysctl -w vm.max_map_count=65530, for workers with thousands of channels",
            ),
            Err(_) => Finding::warn("mappings", "the limit cannot be read", "look at vm.max_map_count"),
        },
        match hard_limit(&limits, "Max locked memory") {
            Some(u64::MAX) => Finding::ok("locked memory", "unlimited"),
            Some(limit) => Finding::ok("locked memory", format!("{}; Ringway locks none", bytes(limit))),
            None => Finding::warn("locked memory", "the limit cannot be read", "look at `ulimit -l`"),
        },
    ]
}

fn open_files(hard: Option<u64>) -> Finding {
    let advice = "raise the hard limit (LimitNOFILE= of the unit, /etc/security/limits.conf); the engine takes about four a worker";
    match hard {
        None => Finding::warn("open files", "the limit cannot be read", advice),
        Some(u64::MAX) => Finding::ok("open files", "unlimited"),
        Some(limit) if limit < OPEN_FILES_FAIL => {
            Finding::fail("open files", format!("at most {limit}"), advice)
        }
        Some(limit) if limit < OPEN_FILES_WARN => {
            Finding::warn("open files", format!("at most {limit}"), advice)
        }
        Some(limit) => {
            Finding::ok("open files", format!("at most {limit}; `ringway up` raises its own as far as that"))
        }
    }
}

/// Finds a hard limit in the text of `/proc/self/limits`: name, soft, hard, unit.
fn hard_limit(limits: &str, name: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match rest.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Mark;
    use super::*;

    #[test]
    fn the_seals_of_this_kernel_hold() {
        assert_eq!(try_seals(), Ok(()));
    }

    #[test]
    fn limits_are_read_by_name() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            1024                 524288               files\n\
                    Max locked memory         65536                unlimited            bytes\n";
        assert_eq!(hard_limit(text, "Max open files"), Some(524_288));
        assert_eq!(hard_limit(text, "Max locked memory"), Some(u64::MAX));
        assert_eq!(hard_limit(text, "Max stack size"), None);
    }

    #[test]
    fn few_open_files_are_bad() {
        let check = |limit, mark| assert_eq!(open_files(limit).mark, mark, "{limit:?}");
        check(Some(100), Mark::Fail);
        check(Some(1024), Mark::Warn);
        check(Some(1 << 20), Mark::Ok);
        check(Some(u64::MAX), Mark::Ok);
        check(None, Mark::Warn);
    }
}
