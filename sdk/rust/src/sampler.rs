//! Which traces are recorded, and random ids for them. The usual variables `OTEL_TRACES_SAMPLER` and
//! `OTEL_TRACES_SAMPLER_ARG` decide unless the program does. It must not know how spans are recorded.
//!
//! Ids come from a generator of each thread (xoshiro256++ by Blackman and Vigna), seeded by the system: about a
//! nanosecond an id, no lock. They are unique, not secret.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use ringway_protocol::trace::{FLAG_RANDOM, FLAG_SAMPLED};
use ringway_protocol::{SpanId, TraceContext, TraceId};

/// The variable that names the sampler.
const SAMPLER_VARIABLE: &str = "OTEL_TRACES_SAMPLER";
/// The variable with the sampler's argument.
const SAMPLER_ARGUMENT_VARIABLE: &str = "OTEL_TRACES_SAMPLER_ARG";

/// The bits of a trace id that W3C wants random, and that decide about a share of traces: the last 56.
const RANDOM_BITS: u32 = 56;

/// Decides which traces are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Traces whose random bits are at least this are recorded; 2^56 records none.
    threshold: u64,
    follows_parent: bool,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::always()
    }
}

impl Sampler {
    /// Records every trace that begins here, and follows the caller for the others.
    #[must_use]
    pub const fn always() -> Self {
        Self { threshold: 0, follows_parent: true }
    }

    /// Records no trace that begins here, and follows the caller for the others.
    #[must_use]
    pub const fn never() -> Self {
        Self { threshold: 1 << RANDOM_BITS, follows_parent: true }
    }

    /// Records a share of the traces that begin here, from 0 to 1, and follows the caller for the others.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "clamped to 0 to 2^56")]
    #[expect(clippy::cast_sign_loss, reason = "clamped to 0 to 2^56")]
    #[expect(clippy::cast_precision_loss, reason = "2^56 is exact")]
    pub const fn ratio(share: f64) -> Self {
        let whole = (1_u64 << RANDOM_BITS) as f64;
        let share = if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) };
        Self { threshold: ((1.0 - share) * whole) as u64, follows_parent: true }
    }

    /// Decides for itself about every trace, whatever its caller decided.
    #[must_use]
    pub const fn ignoring_parent(mut self) -> Self {
        self.follows_parent = false;
        self
    }

    /// Reads the values of the two variables. Names that OpenTelemetry does not know are reported in the error.
    ///
    /// # Errors
    /// The name or the argument has no meaning.
    pub(crate) fn parse(name: Option<&str>, argument: Option<&str>) -> Result<Self, ParseSamplerError> {
        let name = name.map(str::trim).filter(|name| !name.is_empty()).unwrap_or("parentbased_always_on");
        let ratio = || {
            let Some(text) = argument.map(str::trim).filter(|text| !text.is_empty()) else {
                return Ok(Self::always());
            };
            let share: Option<f64> = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
            share.map(Self::ratio).ok_or_else(|| ParseSamplerError::Argument { found: text.to_owned() })
        };
        match name.to_ascii_lowercase().as_str() {
            "always_on" => Ok(Self::always().ignoring_parent()),
            "always_off" => Ok(Self::never().ignoring_parent()),
            "traceidratio" => ratio().map(Self::ignoring_parent),
            "parentbased_always_on" => Ok(Self::always()),
            "parentbased_always_off" => Ok(Self::never()),
            "parentbased_traceidratio" => ratio(),
            _ => Err(ParseSamplerError::Name { found: name.to_owned() }),
        }
    }

    /// Reads the variables of this process. What they say wrongly is logged, and counts as not said.
    #[must_use]
    pub(crate) fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let name = variable(SAMPLER_VARIABLE);
        let argument = variable(SAMPLER_ARGUMENT_VARIABLE);
        Self::parse(name.as_deref(), argument.as_deref()).unwrap_or_else(|error| {
            tracing::warn!(%error, "traces are sampled as if nothing were said");
            Self::default()
        })
    }

    /// Begins a trace: its context, with a root span, or none where it is not recorded.
    #[inline]
    #[must_use]
    pub(crate) fn root(&self) -> Option<TraceContext> {
        if self.threshold >> RANDOM_BITS != 0 {
            return None;
        }
        let trace_id = new_trace_id();
        let flags = FLAG_SAMPLED | FLAG_RANDOM;
        self.takes(trace_id).then(|| TraceContext { trace_id, span_id: new_span_id(), flags })
    }

    /// Says whether work below a recorded span is recorded too.
    #[inline]
    #[must_use]
    pub(crate) const fn records_children(&self) -> bool {
        self.follows_parent || self.threshold >> RANDOM_BITS == 0
    }

    /// Returns the id of a new span.
    #[inline]
    #[must_use]
    pub(crate) fn span_id(&self) -> SpanId {
        new_span_id()
    }

    #[inline]
    fn takes(&self, trace_id: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g] = trace_id.to_bytes();
        u64::from_be_bytes([0, a, b, c, d, e, f, g]) >= self.threshold
    }
}

/// Why a sampler could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseSamplerError {
    /// No sampler has this name.
    #[error(
        "wanted always_on, always_off, traceidratio or one of these after `parentbased_` in {SAMPLER_VARIABLE}, found `{found}`"
    )]
    Name {
        /// The name.
        found: String,
    },
    /// The share is none.
    #[error("wanted a number from 0 to 1 in {SAMPLER_ARGUMENT_VARIABLE}, found `{found}`")]
    Argument {
        /// The text.
        found: String,
    },
}

thread_local! {
    /// All zeros before the first use, which the generator never reaches.
    static STATE: Cell<[u64; 4]> = const { Cell::new([0; 4]) };
}

/// Returns a random number of this thread's generator.
#[inline]
pub(crate) fn random_u64() -> u64 {
    let mut state = STATE.get();
    if state == [0; 4] {
        state = seed();
    }
    let [a, b, c, d] = state;
    let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
    let (c, d) = (c ^ a, d ^ b);
    STATE.set([a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)]);
    result
}

/// Draws a seed: the keys of a [`RandomState`] come from the system.
#[cold]
fn seed() -> [u64; 4] {
    let keys = RandomState::new();
    let thread = std::thread::current().id();
    let seed = std::array::from_fn(|at| keys.hash_one((at, thread, std::process::id())));
    if seed == [0; 4] { [1, 2, 3, 4] } else { seed }
}

/// Returns the context of a trace that nobody records: nothing that is called within it begins one.
#[must_use]
pub(crate) fn unrecorded() -> TraceContext {
    TraceContext { trace_id: new_trace_id(), span_id: new_span_id(), flags: FLAG_RANDOM }
}

/// Returns a random trace id that is not all zeros.
#[inline]
#[must_use]
pub(crate) fn new_trace_id() -> TraceId {
    let (high, low) = (random_u64(), random_u64().max(1));
    TraceId::from_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

/// Returns a random span id that is not all zeros.
#[inline]
#[must_use]
pub(crate) fn new_span_id() -> SpanId {
    SpanId::from_bytes(random_u64().max(1).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn variables_are_read_as_opentelemetry_says() {
        let check = |name: Option<&str>, argument: Option<&str>, expected: Sampler| {
            assert_eq!(Sampler::parse(name, argument), Ok(expected), "{name:?} {argument:?}");
        };
        check(None, None, Sampler::always());
        check(Some(" "), Some("0.5"), Sampler::always());
        check(Some("always_on"), None, Sampler::always().ignoring_parent());
        check(Some("always_off"), None, Sampler::never().ignoring_parent());
        check(Some("ParentBased_Always_Off"), None, Sampler::never());
        check(Some("traceidratio"), Some("0.25"), Sampler::ratio(0.25).ignoring_parent());
        check(Some("parentbased_traceidratio"), Some(" 0.25 "), Sampler::ratio(0.25));
        check(Some("parentbased_traceidratio"), None, Sampler::always());
        for (name, argument) in [("sometimes", ""), ("traceidratio", "2"), ("traceidratio", "x")] {
            assert!(Sampler::parse(Some(name), Some(argument)).is_err(), "{name} {argument}");
        }
    }

    #[test]
    fn a_share_of_traces_is_recorded() {
        let recorded = |sampler: Sampler| (0..10_000).filter(|_| sampler.root().is_some()).count();
        assert_eq!(recorded(Sampler::always()), 10_000);
        assert_eq!(recorded(Sampler::never()), 0);
        assert_eq!(recorded(Sampler::ratio(0.0)), 0);
        assert_eq!(recorded(Sampler::ratio(1.0)), 10_000);
        let quarter = recorded(Sampler::ratio(0.25));
        assert!((2_000..3_000).contains(&quarter), "{quarter}");
    }

    #[test]
    fn only_a_sampler_that_records_nothing_stops_below_a_caller() {
        let check =
            |sampler: Sampler, expected| assert_eq!(sampler.records_children(), expected, "{sampler:?}");
        check(Sampler::always(), true);
        check(Sampler::never(), true);
        check(Sampler::never().ignoring_parent(), false);
        check(Sampler::ratio(0.1).ignoring_parent(), true);
    }

    #[test]
    fn ids_differ_in_all_threads() {
        let draw = || (0..1_000).map(|_| new_span_id()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let mut seen: HashSet<SpanId> = draw().into_iter().collect();
        for thread in threads {
            seen.extend(thread.join().unwrap());
        }
        assert_eq!(seen.len(), 5_000);
        assert!(!seen.contains(&SpanId::NONE));
        let context = Sampler::always().root().unwrap();
        assert!(context.is_valid() && context.flags == FLAG_SAMPLED | FLAG_RANDOM);
    }
}
