//! W3C baggage: key-value pairs that follow the work through every call. SDKs write it into a frame's meta
//! area and faces into HTTP headers, as text in the form of the `baggage` header. It must not know what
//! the keys mean.

use std::fmt::Write as _;

use crate::limits;

/// One member of the baggage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The key, an HTTP token.
    pub key: String,
    /// The value, any text.
    pub value: String,
    /// What follows the value after a semicolon, as it was found.
    pub properties: Option<String>,
}

/// Key-value pairs that follow the work, in their order; keys are unique.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Baggage {
    members: Vec<Member>,
}

/// Why baggage could not be read or kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BaggageError {
    /// Too many bytes.
    #[error("wanted at most {} bytes of baggage, found {found}", limits::BAGGAGE_BYTES_MAX)]
    TooLong {
        /// The bytes found.
        found: usize,
    },
    /// Too many members.
    #[error("wanted at most {} members of baggage", limits::BAGGAGE_MEMBERS_MAX)]
    TooMany,
    /// A key is empty or no HTTP token.
    #[error("wanted a baggage key of letters, digits and !#$%&'*+-.^_`|~, found `{found}`")]
    Key {
        /// The key found.
        found: String,
    },
    /// A member has no `=`.
    #[error("wanted `key=value` in baggage, found `{found}`")]
    Member {
        /// The member found.
        found: String,
    },
    /// A value has a character it may not have, or a wrong percent code.
    #[error("wanted a percent-coded UTF-8 value for baggage key `{key}`")]
    Value {
        /// The member's key.
        key: String,
    },
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Says whether a byte may stand in a value as it is: printable ASCII but space, `"`, `,`, `;` and `\`.
fn is_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|v| u8::try_from(v).ok());
            bytes.push(digit()? << 4 | digit()?);
        } else if is_octet(byte) {
            bytes.push(byte);
        } else {
            return None;
        }
    }
    String::from_utf8(bytes).ok()
}

fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if is_octet(byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
}

impl Member {
    fn parse(text: &str) -> Result<Self, BaggageError> {
        let (pair, properties) = match text.split_once(';') {
            Some((pair, properties)) => (pair, Some(properties.trim().to_owned())),
            None => (text, None),
        };
        let (key, value) =
            pair.split_once('=').ok_or_else(|| BaggageError::Member { found: text.to_owned() })?;
        let (key, value) = (key.trim(), value.trim());
        check_key(key)?;
        if properties
            .as_ref()
            .is_some_and(|p| !p.bytes().all(|b| b.is_ascii_graphic() || b == b' ' || b == b'\t'))
        {
            return Err(BaggageError::Value { key: key.to_owned() });
        }
        let value = percent_decode(value).ok_or_else(|| BaggageError::Value { key: key.to_owned() })?;
        Ok(Self { key: key.to_owned(), value, properties })
    }

    fn format(&self, out: &mut String) {
        out.push_str(&self.key);
        out.push('=');
        percent_encode(&self.value, out);
        if let Some(properties) = &self.properties {
            out.push(';');
            out.push_str(properties);
        }
    }
}

fn check_key(key: &str) -> Result<(), BaggageError> {
    if key.is_empty() || !key.bytes().all(is_token) {
        return Err(BaggageError::Key { found: key.to_owned() });
    }
    Ok(())
}

impl Baggage {
    /// Reads the value of a `baggage` header. Empty members are passed over; of two with one key the
    /// later wins.
    ///
    /// # Errors
    /// The text is over a limit or does not follow the specification.
    pub fn parse(text: &str) -> Result<Self, BaggageError> {
        if text.len() > limits::BAGGAGE_BYTES_MAX {
            return Err(BaggageError::TooLong { found: text.len() });
        }
        let mut baggage = Self::default();
        for member in text.split(',').map(str::trim).filter(|member| !member.is_empty()) {
            baggage.put(Member::parse(member)?)?;
        }
        baggage.check_size().map(|()| baggage)
    }

    fn check_size(&self) -> Result<(), BaggageError> {
        match self.format().len() {
            found if found > limits::BAGGAGE_BYTES_MAX => Err(BaggageError::TooLong { found }),
            _ => Ok(()),
        }
    }

    fn put(&mut self, member: Member) -> Result<(), BaggageError> {
        if let Some(old) = self.members.iter_mut().find(|old| old.key == member.key) {
            *old = member;
        } else if self.members.len() == limits::BAGGAGE_MEMBERS_MAX {
            return Err(BaggageError::TooMany);
        } else {
            self.members.push(member);
        }
        Ok(())
    }

    /// Writes the value of a `baggage` header.
    #[must_use]
    pub fn format(&self) -> String {
        let mut out = String::new();
        for (place, member) in self.members.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            member.format(&mut out);
        }
        out
    }

    /// Sets the value of a key. On an error nothing has changed.
    ///
    /// # Errors
    /// The key is no HTTP token, or the baggage would be over a limit.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), BaggageError> {
        check_key(key)?;
        let mut changed = self.clone();
        changed.put(Member { key: key.to_owned(), value: value.to_owned(), properties: None })?;
        changed.check_size()?;
        *self = changed;
        Ok(())
    }

    /// Takes a key out; its value, if it was there.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        let at = self.members.iter().position(|member| member.key == key)?;
        Some(self.members.remove(at).value)
    }

    /// Returns the value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.members.iter().find(|member| member.key == key).map(|member| member.value.as_str())
    }

    /// Returns the members in their order.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Says whether there is no member.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(
            Baggage::parse(text).ok().map(|baggage| baggage.format()).as_deref(),
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn the_specifications_forms_are_read() {
        check(
            "userId=alice,serverNode=DF%2028,isProduction=false",
            Some("userId=alice,serverNode=DF%2028,isProduction=false"),
        );
        check(" k1 = v1 ; p=1;q , k2=v2 ", Some("k1=v1;p=1;q,k2=v2"));
        check("k=a=b", Some("k=a=b"));
        check("k=1,k=2", Some("k=2"));
        check(",,k=,", Some("k="));
        check("", Some(""));
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        check("k", None);
        check("=v", None);
        check("a b=v", None);
        check("k=a b", None);
        check("k=%zz", None);
        check("k=%2", None);
        check("k=%ff", None);
        check("k=\"v\"", None);
        check("ключ=v", None);
    }

    #[test]
    fn what_is_taken_out_is_gone_and_nothing_else() {
        let mut baggage = Baggage::parse("a=1,b=2;p=1,c=3").unwrap();
        assert_eq!((baggage.remove("b").as_deref(), baggage.remove("b")), (Some("2"), None));
        assert_eq!(baggage.format(), "a=1,c=3");
    }

    #[test]
    fn limits_hold_and_a_failed_set_changes_nothing() {
        let mut baggage = Baggage::default();
        for n in 0..limits::BAGGAGE_MEMBERS_MAX {
            baggage.set(&format!("k{n}"), "v").unwrap();
        }
        let before = baggage.clone();
        assert_eq!(baggage.set("one-more", "v"), Err(BaggageError::TooMany));
        assert!(matches!(baggage.set("k0", &"é".repeat(2000)), Err(BaggageError::TooLong { .. })));
        assert_eq!(baggage, before);
        assert_eq!(baggage.get("k63"), Some("v"));
    }

    proptest! {
        #[test]
        fn any_value_survives_and_any_text_is_safe(value in "\\PC{0,40}", text in "[ -~]{0,60}") {
            let mut baggage = Baggage::default();
            baggage.set("key", &value).unwrap();
            prop_assert_eq!(Baggage::parse(&baggage.format()).unwrap(), baggage);
            if let Ok(read) = Baggage::parse(&text) {
                prop_assert_eq!(Baggage::parse(&read.format()).unwrap(), read);
            }
        }
    }
}
