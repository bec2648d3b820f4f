//! Moves frames and payloads between processes of one host, through shared memory.
//!
//! # Where to start
//! - [`segment`]: one memfd, written by exactly one process, mapped read-only by its peers, sealed so;
//! - [`ring`]: a queue of 256-byte slots in such a segment, published by stamp;
//! - [`arena`]: recycled payload blocks; [`lease`]: the owner's record of who holds which;
//! - [`doorbell`] and [`waiter`]: sleeping, and when not to;
//! - [`channel`]: two rings, what was lent over them, and the socket that carries the rest. What the SDK uses.
//!
//! # Trust model
//! A peer is another process. It can die between any two of its instructions, and whatever it may write it may have
//! filled with anything at any time. It can never write what this process wrote, nor shorten it. Everything read
//! from a peer goes through [`foreign`] or an atomic in [`layout`], is copied once, and the copy is checked. What no
//! correct peer would say closes that channel; it does not panic, hang or read out of bounds.
//!
//! # What this crate must not know
//! Functions, names, encodings, traces: frames are numbers and bytes here. It never prints, reads no environment
//! variables and needs no async runtime.
#![expect(
    unsafe_code,
    reason = "shared memory is mapped, read and written through raw pointers; docs/unsafe.md has every place"
)]

pub mod limits;
pub mod sync;
#[cfg(target_os = "linux")]
pub mod sys;

pub mod segment;

pub mod foreign;

pub mod arena;

pub mod lease;

pub mod layout;

pub mod frame;

pub mod plain;

pub mod ring;

pub mod fence;

pub mod lock;

pub mod turns;

#[cfg(target_os = "linux")]
pub mod clock;
#[cfg(target_os = "linux")]
pub mod doorbell;
#[cfg(target_os = "linux")]
pub mod waiter;

#[cfg(target_os = "linux")]
pub mod nap;

#[cfg(all(target_os = "linux", not(loom)))]
pub mod channel;

#[cfg(all(target_os = "linux", not(loom)))]
pub mod records;

#[cfg(target_os = "linux")]
pub mod floor;

#[cfg(target_os = "linux")]
pub mod permission;

#[cfg(target_os = "linux")]
pub mod packet;
