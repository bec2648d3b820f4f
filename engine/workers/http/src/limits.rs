//! What keeps one client from taking everything. It must not know requests.

pub(crate) mod gate;
pub(crate) mod rate;
