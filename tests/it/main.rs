//! One test program with a module per area: first what reads the repository, then what starts processes.

#![forbid(unsafe_code)]

#[cfg(test)]
mod layering;
#[cfg(test)]
mod layout;
#[cfg(test)]
mod licences;
#[cfg(test)]
mod tidy;

#[cfg(test)]
mod calls;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod sends;
#[cfg(test)]
mod zones;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod cut_power;
#[cfg(test)]
mod durable;
#[cfg(test)]
mod leaks;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod sdks;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod storms;
#[cfg(test)]
mod traces;
