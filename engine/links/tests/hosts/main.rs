//! Engines and workers of several hosts, which are network namespaces of this machine: what they do together, and what is
//! left of that while cables are pulled and processes killed. Needs root and `ip`; where namespaces are refused, it fails
//! and says so.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is a failure")]
#![expect(clippy::print_stdout, reason = "what was found is of interest where the test passes, too")]

mod net;
mod part;
mod scene;

mod hosts_agree;
mod hosts_cut;
mod uring_refused;
