//! The pub/sub worker as its users meet it: a real engine, the SDK as client.

#![forbid(unsafe_code)]

mod queues;
mod stage;
mod topics;
