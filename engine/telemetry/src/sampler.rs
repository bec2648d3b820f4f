//! Which traces are recorded: the standard `OTEL_TRACES_SAMPLER` names as a pure decision.
//!
//! Whoever starts a trace asks [`Sampler::samples`]; whoever continues one passes the parent's flag. The decision is
//! a function of its arguments alone, so that every process of a trace comes to the same one. This file must not
//! know where spans go, nor read the environment itself.

use thiserror::Error;

/// A rule that says whether a trace is recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampler {
    /// Decides for every span alike, whatever its parent says.
    Fixed(Root),
    /// Follows the parent where there is one, and decides by the root rule where there is none.
    ParentBased(Root),
}

/// The decision for a trace that has no parent, or whose parent is not asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Root {
    /// Records everything.
    AlwaysOn,
    /// Records nothing.
    AlwaysOff,
    /// Records the trace ids that fall below this share, 0 to 1, of the id space.
    Ratio(f64),
}

/// Why a sampler setting was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// The name is none of the standard ones that make sense here.
    #[error(
        "unknown sampler `{0}`: wanted always_on, always_off, traceidratio, or one of these after `parentbased_`"
    )]
    UnknownName(String),
    /// The argument of a ratio sampler is not a number from 0 to 1.
    #[error("sampler argument `{0}` is not a number from 0 to 1")]
    BadRatio(String),
}

impl Default for Sampler {
    /// Returns the standard's default, `parentbased_always_on`.
    fn default() -> Self {
        Self::ParentBased(Root::AlwaysOn)
    }
}

impl Sampler {
    /// Parses the values of `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`; unset or empty means the default.
    ///
    /// # Errors
    /// [`SamplerError::UnknownName`] for a name that is not standard (or needs a remote service), and
    /// [`SamplerError::BadRatio`] where the argument of a ratio is not a number from 0 to 1.
    pub fn parse(name: Option<&str>, argument: Option<&str>) -> Result<Self, SamplerError> {
        let Some(name) = name.map(str::trim).filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let (parent_based, root_name) = match name.strip_prefix("parentbased_") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        let root = match root_name {
            "always_on" => Root::AlwaysOn,
            "always_off" => Root::AlwaysOff,
            "traceidratio" => Root::Ratio(parse_ratio(argument)?),
            _ => return Err(SamplerError::UnknownName(name.to_owned())),
        };
        Ok(if parent_based { Self::ParentBased(root) } else { Self::Fixed(root) })
    }

    /// Decides for a span of the trace `trace_id` whose parent, if it has one, was or was not sampled.
    #[must_use]
    pub fn samples(&self, parent_sampled: Option<bool>, trace_id: &[u8; 16]) -> bool {
        match (self, parent_sampled) {
            (Self::ParentBased(_), Some(sampled)) => sampled,
            (Self::ParentBased(root) | Self::Fixed(root), _) => root.samples(trace_id),
        }
    }
}

impl Root {
    fn samples(self, trace_id: &[u8; 16]) -> bool {
        match self {
            Self::AlwaysOn => true,
            Self::AlwaysOff => false,
            Self::Ratio(ratio) => low_63_bits(trace_id) < threshold(ratio),
        }
    }
}

fn parse_ratio(argument: Option<&str>) -> Result<f64, SamplerError> {
    let Some(text) = argument.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(1.0);
    };
    let bad = || SamplerError::BadRatio(text.to_owned());
    let ratio: f64 = text.parse().map_err(|_| bad())?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err(bad()) }
}

/// Takes the trace id's low eight bytes as other SDKs do, so that mixed traces agree on the ratio.
fn low_63_bits(trace_id: &[u8; 16]) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = *trace_id;
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 <= ratio <= 1, so the product is within 0..=2^63"
)]
fn threshold(ratio: f64) -> u64 {
    const TWO_POW_63: f64 = 9_223_372_036_854_775_808.0;
    (ratio * TWO_POW_63) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: Option<&str>, argument: Option<&str>, expected: Result<Sampler, &str>) {
        let found = Sampler::parse(name, argument).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{name:?} {argument:?}");
    }

    #[test]
    fn standard_names_parse() {
        check(None, None, Ok(Sampler::ParentBased(Root::AlwaysOn)));
        check(Some(""), None, Ok(Sampler::ParentBased(Root::AlwaysOn)));
        check(Some("always_on"), None, Ok(Sampler::Fixed(Root::AlwaysOn)));
        check(Some("always_off"), None, Ok(Sampler::Fixed(Root::AlwaysOff)));
        check(Some("traceidratio"), None, Ok(Sampler::Fixed(Root::Ratio(1.0))));
        check(Some("traceidratio"), Some("0.25"), Ok(Sampler::Fixed(Root::Ratio(0.25))));
        check(Some("parentbased_always_on"), None, Ok(Sampler::ParentBased(Root::AlwaysOn)));
        check(Some("parentbased_always_off"), None, Ok(Sampler::ParentBased(Root::AlwaysOff)));
        check(Some("parentbased_traceidratio"), Some("0"), Ok(Sampler::ParentBased(Root::Ratio(0.0))));
    }

    #[test]
    fn other_names_and_ratios_are_refused() {
        check(Some("traceidratio"), Some("2"), Err("sampler argument `2` is not a number from 0 to 1"));
        check(Some("traceidratio"), Some("NaN"), Err("sampler argument `NaN` is not a number from 0 to 1"));
        let unknown = "unknown sampler `xray`: wanted always_on, always_off, traceidratio, or one of these after \
                       `parentbased_`";
        check(Some("xray"), None, Err(unknown));
    }

    #[test]
    fn parents_win_where_they_are_asked() {
        let id = [7; 16];
        assert!(Sampler::ParentBased(Root::AlwaysOff).samples(Some(true), &id));
        assert!(!Sampler::ParentBased(Root::AlwaysOn).samples(Some(false), &id));
        assert!(!Sampler::ParentBased(Root::AlwaysOff).samples(None, &id));
        assert!(!Sampler::Fixed(Root::AlwaysOff).samples(Some(true), &id));
    }

    #[test]
    fn ratios_take_their_share_of_the_ids() {
        let taken = |ratio: f64| {
            (0..=255_u8)
                .filter(|&top| {
                    let mut id = [0; 16];
                    id[8] = top;
                    Sampler::Fixed(Root::Ratio(ratio)).samples(None, &id)
                })
                .count()
        };
        assert_eq!((taken(0.0), taken(0.25), taken(0.5), taken(1.0)), (0, 64, 128, 256));
        assert!(Sampler::Fixed(Root::Ratio(1.0)).samples(None, &[0xff; 16]));
    }
}
