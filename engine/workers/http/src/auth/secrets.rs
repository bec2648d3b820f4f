//! Texts that some have: found without telling by the time that it takes how much of one was right. Only hashes are kept.
//! It must not know where a text was shown.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;

use crate::config::auth::Secret;

/// Names with the tags of their texts, under a key of this process.
pub(crate) struct Secrets {
    key: hmac::Key,
    tags: Vec<(String, hmac::Tag)>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.tags.iter().map(|(name, _)| name)).finish()
    }
}

impl Secrets {
    pub(crate) fn new(secrets: &BTreeMap<String, Secret>) -> Self {
        // Without a random key, which no system refuses, the tags would still compare right.
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .unwrap_or_else(|_| hmac::Key::new(hmac::HMAC_SHA256, b"ringway"));
        let tags = secrets
            .iter()
            .map(|(name, secret)| (name.clone(), hmac::sign(&key, secret.0.as_bytes())))
            .collect();
        Self { key, tags }
    }

    /// Whose text it is. All are compared, and by hashes: what is told by the time is nothing about a text.
    pub(crate) fn holder(&self, shown: &str) -> Option<&str> {
        let shown = hmac::sign(&self.key, shown.as_bytes());
        let mut found = None;
        for (name, tag) in &self.tags {
            if same(tag, &shown) {
                found = Some(name.as_str());
            }
        }
        found
    }

    /// Whose name and password these are, as `Authorization: Basic` writes them.
    pub(crate) fn basic(&self, shown: &str) -> Option<&str> {
        let decoded = String::from_utf8(STANDARD.decode(shown).ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        let shown = hmac::sign(&self.key, password.as_bytes());
        let mut found = None;
        for (known, tag) in &self.tags {
            if same(tag, &shown) & (known == name) {
                found = Some(known.as_str());
            }
        }
        found
    }
}

fn same(a: &hmac::Tag, b: &hmac::Tag) -> bool {
    a.as_ref().iter().zip(b.as_ref()).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_who_has_it() {
        let secrets = [("me", "0123456789"), ("you", "9876543210")];
        let secrets = secrets.map(|(name, text)| (name.to_owned(), Secret(text.to_owned())));
        let secrets = Secrets::new(&BTreeMap::from(secrets));
        assert_eq!(
            (secrets.holder("9876543210"), secrets.holder("987654321"), secrets.holder("")),
            (Some("you"), None, None)
        );
        assert_eq!(secrets.basic(&STANDARD.encode("me:0123456789")), Some("me"));
        for wrong in ["me:9876543210", "me", "you:0123456789", ":"] {
            assert_eq!(secrets.basic(&STANDARD.encode(wrong)), None, "{wrong}");
        }
        assert_eq!(secrets.basic("!"), None);
        assert!(!format!("{secrets:?}").contains("0123"));
    }
}
