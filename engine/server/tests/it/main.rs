//! The engine as a worker sees it: real sockets, a real engine in this process, and clients written by hand on top of
//! packets and JSON, so that what is tested is the protocol and not an SDK. Only the built-in functions are called with the SDK.

#[cfg(test)]
mod attach;
#[cfg(test)]
mod builtin;
#[cfg(test)]
mod channels;
#[cfg(test)]
mod client;
#[cfg(test)]
mod death;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod records;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod telemetry;
#[cfg(test)]
mod zones;
