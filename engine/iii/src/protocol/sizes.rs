//! What differs between the versions of iii's SDKs: how long a message they take, which rules and messages they know. It must not
//! know connections.

use crate::limits::MESSAGE_BYTES_MAX;

/// The longest message that Python's SDK takes before 0.24: the default of its library, past which it closes the
/// connection.
const PYTHON_BYTES_MAX: usize = 1 << 20;

/// A client says with it that it takes the longest messages, whatever its version.
const LARGE_MESSAGES: &str = "large-messages.v1";

/// What this side can do that clients may not expect, as it tells every one of them.
pub(crate) const OURS: &str = r#"["observe.v1","observe.v2","local-dispatch.v1","large-messages.v1"]"#;

/// What a client can do beyond the oldest of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// It knows the messages of observers.
    pub(crate) observes: bool,
    /// It calls its own functions itself, where it is told that it may.
    pub(crate) calls_itself: bool,
}

impl Features {
    /// Of what a client says that it knows.
    pub(crate) fn of(said: &[String]) -> Self {
        let has = |wanted: &str| said.iter().any(|feature| feature == wanted);
        let observes = has("observe.v1") || has("observe.v2");
        Self { observes, calls_itself: observes && has("local-dispatch.v1") }
    }
}

/// The first two numbers of a version, such as `0.26.0-rc.4`.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The longest message that a client takes, in bytes.
pub(crate) fn bytes_max(runtime: &str, version: &str, features: &[String]) -> usize {
    let large = features.iter().any(|feature| feature == LARGE_MESSAGES);
    let old = runtime == "python" && release(version).is_none_or(|found| found < (0, 24));
    if old && !large { PYTHON_BYTES_MAX } else { MESSAGE_BYTES_MAX }
}

/// Whether a client understands that its name is taken. Those before 0.23 would connect again for ever.
pub(crate) fn enforces_names(version: &str) -> bool {
    release(version).is_some_and(|found| found >= (0, 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clients_are_spared() {
        let check = |runtime: &str, version: &str, features: &[&str], bytes: usize, names: bool| {
            let features: Vec<String> = features.iter().map(ToString::to_string).collect();
            assert_eq!(bytes_max(runtime, version, &features), bytes, "{runtime} {version}");
            assert_eq!(enforces_names(version), names, "{runtime} {version}");
        };
        check("python", "0.22.0", &[], 1 << 20, false);
        check("python", "0.23.1", &[], 1 << 20, true);
        check("python", "0.23.1", &[LARGE_MESSAGES], 64 << 20, true);
        check("python", "0.25.0", &[], 64 << 20, true);
        check("python", "", &[], 1 << 20, false);
        check("node", "0.22.1", &[], 64 << 20, false);
        check("rust", "0.26.0-rc.4", &[], 64 << 20, true);
        check("rust", "1.0.0", &[], 64 << 20, true);
    }

    #[test]
    fn a_client_can_do_what_it_says() {
        let check = |said: &[&str], observes: bool, calls_itself: bool| {
            let said: Vec<String> = said.iter().map(ToString::to_string).collect();
            assert_eq!(Features::of(&said), Features { observes, calls_itself }, "{said:?}");
        };
        check(&[], false, false);
        check(&["observe.v1"], true, false);
        check(&["observe.v2", "local-dispatch.v1"], true, true);
        // Nobody can be told of the calls of such a one.
        check(&["local-dispatch.v1", "large-messages.v1"], false, false);
    }
}
