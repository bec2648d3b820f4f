//! A full memory barrier on every CPU that runs a registered process, so that the side of a handshake which runs often
//! pays nothing. Used by waiters. It must not know what is being handed over.

use std::io;

use rustix::thread::{MembarrierCommand, MembarrierQuery};

/// Announces that threads of this process take part in [`everywhere`] of any process. Returns whether the kernel can
/// do it; if not, both sides keep to a fence of their own.
pub fn register() -> bool {
    let needed = MembarrierQuery::GLOBAL_EXPEDITED | MembarrierQuery::REGISTER_GLOBAL_EXPEDITED;
    rustix::thread::membarrier_query().contains(needed)
        && rustix::thread::membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
}

/// Runs a full barrier on every CPU that runs a thread of a registered process, before it returns. A few microseconds.
///
/// # Errors
/// `EINVAL` where the kernel does not know it.
pub fn everywhere() -> io::Result<()> {
    Ok(rustix::thread::membarrier(MembarrierCommand::GlobalExpedited)?)
}

/// Announces that threads of this process take part in [`in_process`]. Returns whether the kernel can do it.
pub fn register_in_process() -> bool {
    let needed = MembarrierQuery::PRIVATE_EXPEDITED | MembarrierQuery::REGISTER_PRIVATE_EXPEDITED;
    rustix::thread::membarrier_query().contains(needed)
        && rustix::thread::membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
}

/// Runs a full barrier on every CPU that runs a thread of this process, before it returns. A few microseconds.
///
/// # Errors
/// `EPERM` where the process is not registered.
pub fn in_process() -> io::Result<()> {
    Ok(rustix::thread::membarrier(MembarrierCommand::PrivateExpedited)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_registered_process_can_issue_the_barrier() {
        if super::register() {
            super::everywhere().unwrap();
        }
    }
}
