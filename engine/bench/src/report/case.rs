//! Names of call cases: `call/{typed|json|bytes}/{handle|name}/{spin|park|adaptive}/{bytes}[/VARIANT]`, where the variant
//! is `traced`, `inflight64`, `work20us` or `pause10ms`.

use std::fmt;
use std::str::FromStr;

use super::FloorName;

/// One way to call, with one payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Case {
    /// How the payload is encoded.
    pub encoding: Encoding,
    /// How the function is named.
    pub address: Address,
    /// How both sides wait.
    pub wait: Wait,
    /// Payload of the request, in bytes.
    pub bytes: u64,
    /// What else is special.
    pub variant: Option<Variant>,
}

/// Declares an enum of words with the text of each, in both directions.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$word_doc])* $word,)+
        }

        impl $name {
            /// All of them, in the order of a report.
            pub const ALL: &'static [Self] = &[$(Self::$word,)+];

            /// Returns the word used in case names.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)+
                }
            }

            fn named(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.name() == text)
            }
        }
    };
}

words! {
    /// How the payload is encoded.
    Encoding {
        /// A Rust type, archived with rkyv.
        Typed = "typed",
        /// A serde type, as JSON.
        Json = "json",
        /// Raw bytes.
        Bytes = "bytes",
    }
}

words! {
    /// How the function is named.
    Address {
        /// By a handle resolved beforehand.
        Handle = "handle",
        /// By name, looked up on each call.
        Name = "name",
    }
}

words! {
    /// How both sides wait.
    Wait {
        /// They poll without end.
        Spin = "spin",
        /// They sleep at once.
        Park = "park",
        /// They poll for a while, then sleep.
        Adaptive = "adaptive",
    }
}

words! {
    /// What else is special about a case.
    Variant {
        /// Every call is traced.
        Traced = "traced",
        /// 64 calls are kept in flight.
        InFlight64 = "inflight64",
        /// The caller works for 20 µs before each call.
        Work20us = "work20us",
        /// The caller sleeps for 10 ms before each call.
        Pause10ms = "pause10ms",
    }
}

impl Case {
    /// Returns the floor that this case is held against: sleeping calls against a wake-up, streams of calls against the
    /// bare ring, all others against a cache line.
    #[must_use]
    pub fn floor(&self) -> FloorName {
        match (self.wait, self.variant) {
            (Wait::Park, _) => FloorName::Eventfd,
            (_, Some(Variant::InFlight64)) => FloorName::StampRing,
            _ => FloorName::CacheLine,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (encoding, address, wait) = (self.encoding.name(), self.address.name(), self.wait.name());
        write!(f, "call/{encoding}/{address}/{wait}/{}", self.bytes)?;
        self.variant.map_or(Ok(()), |variant| write!(f, "/{}", variant.name()))
    }
}

/// The text is not the name of a case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wanted call/ENCODING/ADDRESS/WAIT/BYTES[/VARIANT], found {0:?}")]
pub struct CaseNameError(String);

impl FromStr for Case {
    type Err = CaseNameError;

    fn from_str(text: &str) -> Result<Self, CaseNameError> {
        parse(text).ok_or_else(|| CaseNameError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Case> {
    let mut parts = text.split('/');
    parts.next().filter(|first| *first == "call")?;
    let case = Case {
        encoding: Encoding::named(parts.next()?)?,
        address: Address::named(parts.next()?)?,
        wait: Wait::named(parts.next()?)?,
        bytes: parts.next()?.parse().ok()?,
        variant: match parts.next() {
            Some(variant) => Some(Variant::named(variant)?),
            None => None,
        },
    };
    parts.next().is_none().then_some(case)
}
