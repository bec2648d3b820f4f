//! The signature of a webhook: whoever knows the secret has signed the bytes of the body, lately. The schemes of GitHub,
//! Stripe and Standard Webhooks, and a plain HMAC in a header. Time is an argument. It must not know how a body came.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::route::SecretSource;

/// How the signature of a webhook is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Whose scheme it is.
    pub scheme: SignatureScheme,
    /// The secret, written out or as `{"env": "NAME"}`; a list while it is being changed.
    pub secret: Secrets,
    /// How old a signature may be that says when it was made, in seconds. Default: 300.
    #[serde(default = "five_minutes")]
    pub tolerance_seconds: u64,
    /// The header, for `hmac_sha256`. Default: `x-signature`.
    #[serde(default)]
    pub header: Option<String>,
}

/// One secret or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Secrets {
    /// One.
    One(SecretSource),
    /// Several, any of which will do.
    Many(Vec<SecretSource>),
}

/// Whose scheme a signature is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignatureScheme {
    /// `X-Hub-Signature-256: sha256=HEX` of the body.
    Github,
    /// `Stripe-Signature: t=SECONDS,v1=HEX` of `SECONDS.body`.
    Stripe,
    /// `webhook-signature: v1,BASE64` of `id.SECONDS.body`, with `webhook-id` and `webhook-timestamp`.
    Standard,
    /// HEX or BASE64 of the body in a header, perhaps behind `sha256=`.
    HmacSha256,
}

const fn five_minutes() -> u64 {
    300
}

/// A signature's parts as they came.
pub(crate) trait Headers {
    /// The text of a header, if it is there once.
    fn get(&self, name: &str) -> Option<&str>;
}

impl Headers for hyper::HeaderMap {
    fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.get_all(name).iter();
        let first = all.next()?.to_str().ok()?;
        all.next().is_none().then_some(first)
    }
}

/// What keys a webhook is checked with, made ready.
#[derive(Debug)]
pub(crate) struct Checker {
    keys: Vec<hmac::Key>,
    scheme: SignatureScheme,
    tolerance_seconds: u64,
    header: String,
}

impl Webhook {
    pub(crate) fn check(&self) -> Result<(), String> {
        self.checker().map(|_| ())
    }

    /// Makes the keys ready.
    pub(crate) fn checker(&self) -> Result<Checker, String> {
        let sources = match &self.secret {
            Secrets::One(source) => std::slice::from_ref(source),
            Secrets::Many(sources) => sources,
        };
        if sources.is_empty() {
            return Err("`webhook.secret` is an empty list".to_owned());
        }
        let mut keys = Vec::new();
        for source in sources {
            let secret = source.read()?;
            let bytes = match (self.scheme, secret.strip_prefix("whsec_")) {
                (SignatureScheme::Standard, Some(encoded)) => STANDARD
                    .decode(encoded)
                    .map_err(|_| "`webhook.secret` begins with `whsec_`, but no base64 follows".to_owned())?,
                _ => secret.into_bytes(),
            };
            if bytes.len() < crate::config::auth::SECRET_BYTES_MIN {
                let least = crate::config::auth::SECRET_BYTES_MIN;
                return Err(format!("`webhook.secret` has fewer than {least} bytes"));
            }
            keys.push(hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        }
        let header = self.header.clone().unwrap_or_else(|| "x-signature".to_owned()).to_ascii_lowercase();
        Ok(Checker { keys, scheme: self.scheme, tolerance_seconds: self.tolerance_seconds, header })
    }
}

impl Checker {
    /// Checks a signature; `now_seconds` since 1970.
    ///
    /// # Errors
    /// Why it does not hold, without what would help to make one that does.
    pub(crate) fn verify(
        &self,
        headers: &impl Headers,
        body: &[u8],
        now_seconds: u64,
    ) -> Result<(), &'static str> {
        match self.scheme {
            SignatureScheme::Github => {
                let text =
                    headers.get("x-hub-signature-256").ok_or("the header x-hub-signature-256 is missing")?;
                self.any(
                    &[text.strip_prefix("sha256=").ok_or("the signature does not begin with sha256=")?],
                    &[body],
                )
            }
            SignatureScheme::Stripe => self.stripe(headers, body, now_seconds),
            SignatureScheme::Standard => self.standard(headers, body, now_seconds),
            SignatureScheme::HmacSha256 => {
                let text = headers.get(&self.header).ok_or("the header with the signature is missing")?;
                self.any(&[text.strip_prefix("sha256=").unwrap_or(text)], &[body])
            }
        }
    }

    fn stripe(&self, headers: &impl Headers, body: &[u8], now_seconds: u64) -> Result<(), &'static str> {
        let text = headers.get("stripe-signature").ok_or("the header stripe-signature is missing")?;
        let parts = || text.split(',').filter_map(|part| part.trim().split_once('='));
        let mut times = parts().filter(|(name, _)| *name == "t").map(|(_, time)| time);
        let (Some(time), None) = (times.next(), times.next()) else {
            return Err("the signature does not say once when it was made");
        };
        self.fresh(time, now_seconds)?;
        let signatures: Vec<&str> = parts().filter(|(name, _)| *name == "v1").map(|(_, hex)| hex).collect();
        self.any(&signatures, &[time.as_bytes(), b".", body])
    }

    fn standard(&self, headers: &impl Headers, body: &[u8], now_seconds: u64) -> Result<(), &'static str> {
        let id = headers.get("webhook-id").ok_or("the header webhook-id is missing")?;
        let time = headers.get("webhook-timestamp").ok_or("the header webhook-timestamp is missing")?;
        let text = headers.get("webhook-signature").ok_or("the header webhook-signature is missing")?;
        self.fresh(time, now_seconds)?;
        let signatures: Vec<&str> = text.split(' ').filter_map(|part| part.strip_prefix("v1,")).collect();
        self.any(&signatures, &[id.as_bytes(), b".", time.as_bytes(), b".", body])
    }

    fn fresh(&self, time: &str, now_seconds: u64) -> Result<(), &'static str> {
        // `parse` would take a plus sign, which another reader might not.
        let digits = !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit());
        let made: u64 =
            digits.then(|| time.parse().ok()).flatten().ok_or("the time of the signature is no number")?;
        if made.abs_diff(now_seconds) > self.tolerance_seconds {
            return Err("the signature is too old, or from the future");
        }
        Ok(())
    }

    /// Whether one of the signatures is that of one of the keys; compared in constant time.
    fn any(&self, signatures: &[&str], signed: &[&[u8]]) -> Result<(), &'static str> {
        /// So many signatures are looked at; a sender that changes its secret sends two.
        const SIGNATURES_MAX: usize = 8;
        let joined;
        let signed = match signed {
            [body] => body,
            parts => {
                joined = parts.concat();
                &joined[..]
            }
        };
        let given: Vec<Vec<u8>> =
            signatures.iter().take(SIGNATURES_MAX).filter_map(|text| decode(text)).collect();
        let holds =
            self.keys.iter().any(|key| given.iter().any(|tag| hmac::verify(key, signed, tag).is_ok()));
        if holds { Ok(()) } else { Err("the signature is not that of the secret") }
    }
}

/// Bytes written in hex, or in base64.
fn decode(text: &str) -> Option<Vec<u8>> {
    let hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex {
        let digits = text.as_bytes();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        return digits.chunks(2).map(pair).collect();
    }
    STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    impl Headers for HashMap<&str, String> {
        fn get(&self, name: &str) -> Option<&str> {
            HashMap::get(self, name).map(String::as_str)
        }
    }

    fn checker(value: serde_json::Value) -> Checker {
        serde_json::from_value::<Webhook>(value).unwrap().checker().unwrap()
    }

    fn sign(secret: &[u8], signed: &str) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes()).as_ref().to_vec()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The example of GitHub's own documentation.
    #[test]
    fn the_published_example_of_github_holds() {
        let checker = checker(json!({"scheme": "github", "secret": "It's a Secret to Everybody"}));
        let tag = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let headers = HashMap::from([("x-hub-signature-256", tag.to_owned())]);
        assert_eq!(checker.verify(&headers, b"Hello, World!", 0), Ok(()));
        assert!(checker.verify(&headers, b"Hello, World?", 0).is_err());
        assert!(checker.verify(&HashMap::new(), b"Hello, World!", 0).is_err());
    }

    /// The example of the specification of Standard Webhooks.
    #[test]
    fn the_published_example_of_standard_webhooks_holds() {
        let checker =
            checker(json!({"scheme": "standard", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}));
        let headers = HashMap::from([
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned()),
            ("webhook-timestamp", "1614265330".to_owned()),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned()),
        ]);
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(checker.verify(&headers, body, 1_614_265_330 + 300), Ok(()));
        assert!(checker.verify(&headers, body, 1_614_265_330 + 301).is_err());
        assert!(checker.verify(&headers, body, 1_614_265_330 - 301).is_err());
        let mut other = headers.clone();
        other.insert("webhook-id", "msg_another".to_owned());
        assert!(checker.verify(&other, body, 1_614_265_330).is_err());
    }

    #[test]
    fn stripe_signs_the_time_with_the_body_and_may_sign_twice() {
        let checker = checker(json!({"scheme": "stripe", "secret": ["whsec_new-one", "whsec_old-one"]}));
        let tag = hex(&sign(b"whsec_old-one", "1000.{}"));
        let verify =
            |text: String, now| checker.verify(&HashMap::from([("stripe-signature", text)]), b"{}", now);
        assert_eq!(verify(format!("t=1000,v1={},v1={tag},v0=x", "0".repeat(64)), 1100), Ok(()));
        for (text, now) in [
            (format!("t=1000,v1={tag}"), 1301),
            (format!("t=1001,v1={tag}"), 1001),
            (format!("t=1000,t=1000,v1={tag}"), 1000),
            (format!("t=+1000,v1={tag}"), 1000),
            (format!("t=1000,v0={tag}"), 1000),
            (format!("v1={tag}"), 1000),
            ("t=1000".to_owned(), 1000),
        ] {
            assert!(verify(text.clone(), now).is_err(), "{text}");
        }
    }

    #[test]
    fn a_plain_signature_is_hex_or_base64_in_any_header() {
        let checker = checker(json!({"scheme": "hmac_sha256", "secret": "0123456789", "header": "X-Own"}));
        let tag = sign(b"0123456789", "body");
        for text in [hex(&tag), format!("sha256={}", hex(&tag)), STANDARD.encode(&tag)] {
            assert_eq!(checker.verify(&HashMap::from([("x-own", text)]), b"body", 0), Ok(()));
        }
    }

    #[test]
    fn a_secret_that_is_none_is_refused() {
        for (value, expected) in [
            (json!({"scheme": "github", "secret": "short"}), "fewer than"),
            (json!({"scheme": "github", "secret": []}), "empty list"),
            (json!({"scheme": "standard", "secret": "whsec_!"}), "base64"),
            (
                json!({"scheme": "github", "secret": {"env": "RINGWAY_NO_SUCH_VARIABLE"}}),
                "RINGWAY_NO_SUCH_VARIABLE",
            ),
        ] {
            let text = serde_json::from_value::<Webhook>(value).unwrap().check().unwrap_err();
            assert!(text.contains(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_of_a_signature_panics_or_holds(text in "\\PC{0,200}", body in any::<Vec<u8>>()) {
            for scheme in ["github", "stripe", "standard", "hmac_sha256"] {
                let checker = checker(json!({"scheme": scheme, "secret": "0123456789"}));
                let names = ["x-hub-signature-256", "stripe-signature", "webhook-signature", "x-signature"];
                let mut headers: HashMap<&str, String> = names.iter().map(|name| (*name, text.clone())).collect();
                headers.insert("webhook-id", text.clone());
                headers.insert("webhook-timestamp", "0".to_owned());
                prop_assert!(checker.verify(&headers, &body, 0).is_err());
            }
        }
    }
}
