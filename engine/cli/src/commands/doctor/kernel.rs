//! What the kernel offers: its version, and whether `io_uring` may be used.

use std::io;

use io_uring::{IoUring, Probe, opcode};
use ringway_ipc::sys::machine;

use super::finding::Finding;

/// `F_SEAL_FUTURE_WRITE` came with Linux 5.1, `pidfd_open` with 5.3.
const VERSION_MIN: (u32, u32) = (5, 3);

pub(super) fn version() -> Finding {
    judge_version(machine::kernel_version())
}

fn judge_version((major, minor): (u32, u32)) -> Finding {
    let found = format!("Linux {major}.{minor}");
    if (major, minor) >= VERSION_MIN {
        Finding::ok("kernel", found)
    } else {
        Finding::fail("kernel", found, "Ringway needs 5.3 for sealed memory and process descriptors")
    }
}

/// Makes a ring, and asks which operations it takes.
pub(super) fn io_uring() -> Finding {
    let ring = match IoUring::new(8) {
        Ok(ring) => ring,
        Err(error) => return refused(&error),
    };
    let mut probe = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut probe) {
        return refused(&error);
    }
    let wanted = [
        ("accept", opcode::Accept::CODE),
        ("receive", opcode::Recv::CODE),
        ("send", opcode::Send::CODE),
        ("zero-copy send", opcode::SendZc::CODE),
    ];
    let missing: Vec<&str> =
        wanted.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Finding::ok("io_uring", "allowed, with zero-copy send");
    }
    Finding::warn(
        "io_uring",
        format!("allowed, without {}", missing.join(", ")),
        "a newer kernel has these; links to other hosts do without",
    )
}

/// Tries what links to other hosts try when they start.
pub(super) fn links() -> Finding {
    judge_links(ringway_link::driver::probe())
}

/// Looks at what the system says of how connections share a network.
pub(super) fn congestion() -> Option<Finding> {
    judge_congestion(std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").ok()?.trim())
}

fn judge_congestion(found: &str) -> Option<Finding> {
    (found == "bbr").then(|| {
        Finding::warn(
            "congestion",
            "TCP connections use bbr, which the system was set to",
            "after a slow and lossy phase of the network links stay slow for tens of seconds; `links.congestion: cubic` \
             in ringway.yaml, and RINGWAY_LINK_CONGESTION=cubic for remote workers, choose otherwise",
        )
    })
}

fn judge_links(probed: io::Result<()>) -> Finding {
    match probed {
        Ok(()) => {
            Finding::ok("links", "bytes go by io_uring; `links.path: epoll` in ringway.yaml changes that")
        }
        Err(error) => Finding::warn(
            "links",
            format!("bytes go by epoll, since io_uring is not to be had: {error}"),
            "everything works by epoll too; the line `io_uring` says what refuses it",
        ),
    }
}

fn refused(error: &io::Error) -> Finding {
    let why = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "a container's seccomp profile or kernel.io_uring_disabled refuses it; links to other hosts use epoll instead"
        }
        _ => "links to other hosts use epoll instead; calls on this host never need it",
    };
    Finding::warn("io_uring", format!("not to be had: {error}"), why)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Mark;
    use super::*;

    #[test]
    fn old_kernels_fail() {
        let check = |version, mark| assert_eq!(judge_version(version).mark, mark, "{version:?}");
        check((6, 18), Mark::Ok);
        check((5, 3), Mark::Ok);
        check((5, 2), Mark::Fail);
        check((4, 19), Mark::Fail);
        check((0, 0), Mark::Fail);
    }

    #[test]
    fn links_say_by_what_bytes_go() {
        let found = judge_links(Ok(()));
        assert!(found.mark == Mark::Ok && found.found.contains("by io_uring"), "{found:?}");
        let found = judge_links(Err(io::ErrorKind::PermissionDenied.into()));
        assert!(found.mark == Mark::Warn && found.found.contains("by epoll, since io_uring"), "{found:?}");
    }

    #[test]
    fn a_congestion_control_that_is_slow_to_recover_is_warned_of() {
        assert!(judge_congestion("cubic").is_none());
        let found = judge_congestion("bbr").unwrap();
        assert!(found.mark == Mark::Warn && found.advice.unwrap().contains("links.congestion"));
    }

    #[test]
    fn a_refusal_is_no_failure() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let found = refused(&error);
        assert_eq!(found.mark, Mark::Warn);
        assert!(found.advice.unwrap().contains("seccomp"));
    }
}
