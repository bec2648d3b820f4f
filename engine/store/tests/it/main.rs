//! Tests over an open store: the suite, a model, damage, faults, killed processes, cut power.

#![forbid(unsafe_code)]

mod backup;
mod damage;
mod faults;
mod kill;
mod model;
mod power;
mod store;
mod tools;
