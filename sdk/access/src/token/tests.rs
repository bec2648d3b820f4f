//! Tokens that hold and tokens that do not, and what an independent reader makes of one.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW_S: u64 = 1_772_366_400;
const HOUR: Duration = Duration::from_secs(3600);

struct Stage {
    issuer: IdentityKey,
    holder: IdentityKey,
    claims: Claims,
}

impl Stage {
    fn new() -> Self {
        let (issuer, holder) = (IdentityKey::generate().unwrap(), IdentityKey::generate().unwrap());
        let grant = Grant::default().with_call("orders::*");
        let claims = Claims::new("edge-7", holder.public(), grant, NOW_S, HOUR).unwrap();
        Self { issuer, holder, claims }
    }

    fn token(&self) -> String {
        self.claims.sign(&self.issuer).unwrap()
    }

    fn verify(&self, token: &str, now_s: u64) -> Result<Claims, TokenError> {
        verify(token, &[self.issuer.public()], &Revocations::default(), now_s)
    }

    /// Signs any header and payload as the issuer would.
    fn forge(&self, header: &Value, payload: &Value) -> String {
        let signed = format!(
            "{}.{}",
            base64url(header.to_string().as_bytes()),
            base64url(payload.to_string().as_bytes())
        );
        format!("{signed}.{}", base64url(&self.issuer.sign(signed.as_bytes())))
    }
}

fn payload_of(token: &str) -> Value {
    serde_json::from_slice(&from_base64url(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn a_token_says_what_its_issuer_wrote() {
    let stage = Stage::new();
    let claims = stage.verify(&stage.token(), NOW_S).unwrap();
    assert_eq!(claims.issuer, stage.issuer.public().fingerprint());
    assert_eq!(Claims { issuer: String::new(), ..claims.clone() }, stage.claims);
    claims.check_holder(b"message", &stage.holder.sign(b"message")).unwrap();
    let other = IdentityKey::generate().unwrap();
    let refused = claims.check_holder(b"message", &other.sign(b"message"));
    assert_eq!(refused, Err(TokenError::NotTheHolder { subject: "edge-7".to_owned() }));
    assert!(claims.check_holder(b"message", b"").is_err());
    let again = Claims::new("edge-7", stage.holder.public(), Grant::default(), NOW_S, HOUR).unwrap();
    assert_ne!(again.id, claims.id);
}

#[test]
fn a_token_holds_from_its_beginning_to_its_end() {
    let stage = Stage::new();
    let token = stage.token();
    let check = |now_s: u64, expected: Option<&str>| {
        let found = stage.verify(&token, now_s).err().map(|error| error.to_string());
        assert_eq!(found.as_deref(), expected, "{now_s}");
    };
    check(NOW_S, None);
    check(NOW_S - 300, None);
    let early = "the token of `edge-7` holds from 2026-03-01 11:55:00 UTC on; are the clocks right?";
    check(NOW_S - 301, Some(early));
    check(0, Some(early));
    check(NOW_S + 3599, None);
    let late =
        "the token of `edge-7` expired at 2026-03-01 13:00:00 UTC; make a new one with `ringway link new`";
    check(NOW_S + 3600, Some(late));
    check(u64::MAX, Some(late));
}

#[test]
fn a_revoked_token_and_one_of_another_issuer_are_refused() {
    let stage = Stage::new();
    let (token, id) = (stage.token(), stage.claims.id.clone());
    let revoked = Revocations::parse(&format!("{id} # lost")).unwrap();
    let refused = verify(&token, &[stage.issuer.public()], &revoked, NOW_S);
    assert_eq!(refused, Err(TokenError::Revoked { id, subject: "edge-7".to_owned() }));
    let other = IdentityKey::generate().unwrap();
    let found = stage.issuer.public().fingerprint();
    let refused = verify(&token, &[other.public()], &Revocations::default(), NOW_S);
    assert_eq!(refused, Err(TokenError::WrongIssuer { found }));
    assert!(verify(&token, &[], &Revocations::default(), NOW_S).is_err());
    let both = [other.public(), stage.issuer.public()];
    assert!(verify(&token, &both, &Revocations::default(), NOW_S).is_ok());
}

#[test]
fn a_token_that_names_an_issuer_who_did_not_sign_it_is_refused() {
    let stage = Stage::new();
    let other = Stage { issuer: IdentityKey::generate().unwrap(), ..Stage::new() };
    let header = json!({ "alg": "EdDSA" });
    let forged = other.forge(&header, &payload_of(&stage.token()));
    assert_eq!(stage.verify(&forged, NOW_S), Err(TokenError::WrongSignature));
    let token = stage.token();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut payload = payload_of(&token);
    payload["grant"] = json!({ "call": ["*"] });
    let changed = format!(
        "{}.{}.{signature}",
        signed.split('.').next().unwrap(),
        base64url(payload.to_string().as_bytes())
    );
    assert_eq!(stage.verify(&changed, NOW_S), Err(TokenError::WrongSignature));
}

#[test]
fn what_is_signed_but_says_something_else_is_refused() {
    let stage = Stage::new();
    let good = payload_of(&stage.token());
    let with = |name: &str, value: Value| {
        let mut payload = good.clone();
        payload[name] = value;
        stage.verify(&stage.forge(&json!({ "alg": "EdDSA" }), &payload), NOW_S)
    };
    let wrong = |found: &str| Err(TokenError::WrongAudience { found: found.to_owned() });
    assert!(with("more", json!("unknown claims are allowed")).is_ok());
    assert_eq!(with("aud", json!("other")), wrong("other"));
    let check = |name: &str, value: Value| {
        let found = with(name, value.clone());
        assert!(matches!(found, Err(TokenError::NotAToken { .. })), "{name} {value}: {found:?}");
    };
    for name in ["sub", "aud", "iat", "nbf", "exp", "jti", "cnf", "grant"] {
        check(name, Value::Null);
    }
    check("aud", json!(["ringway-link"]));
    check("exp", json!(-1));
    check("exp", json!("tomorrow"));
    check("sub", json!("a\u{1b}[2J"));
    check("grant", json!({ "call": ["*"], "limit": 1 }));
    check("cnf", json!({ "jwk": { "kty": "EC", "crv": "P-256", "x": "AA" } }));
    check("cnf", json!({ "jwk": { "kty": "OKP", "crv": "Ed25519", "x": "AA" } }));
    check("cnf", json!({}));
}

#[test]
fn an_algorithm_or_an_extension_that_is_not_known_is_refused() {
    let stage = Stage::new();
    let payload = payload_of(&stage.token());
    let check = |header: Value, expected: &TokenError| {
        let found = stage.verify(&stage.forge(&header, &payload), NOW_S);
        assert_eq!(found.as_ref(), Err(expected), "{header}");
    };
    check(json!({ "alg": "none" }), &TokenError::WrongAlgorithm);
    check(json!({ "alg": "HS256" }), &TokenError::WrongAlgorithm);
    let problem = "it wants extensions that are not known here";
    check(json!({ "alg": "EdDSA", "crit": ["b64"] }), &TokenError::NotAToken { problem });
    check(json!({}), &TokenError::NotAToken { problem: "its header cannot be read" });
}

#[test]
fn what_is_no_token_is_refused() {
    let stage = Stage::new();
    let token = stage.token();
    let (signed, _) = token.rsplit_once('.').unwrap();
    for bad in ["", ".", "..", "...", "a.b.c", "é.é.é", signed, &format!("{token}="), &format!("x.{token}")]
    {
        let found = stage.verify(bad, NOW_S);
        assert!(matches!(found, Err(TokenError::NotAToken { .. })), "{bad}: {found:?}");
    }
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    assert_eq!(stage.verify(&long, NOW_S), Err(TokenError::TooLong { found: long.len() }));
    let many =
        (0..2000).fold(Grant::default(), |grant, number| grant.with_call(&format!("namespace{number}::*")));
    let claims = Claims { grant: many, ..stage.claims.clone() };
    assert!(matches!(claims.sign(&stage.issuer), Err(TokenError::TooLong { .. })), "nobody could read it");
    let unnamed = Claims { subject: String::new(), ..stage.claims.clone() };
    assert!(unnamed.sign(&stage.issuer).is_err());
}

proptest! {
    #[test]
    fn any_text_is_safe(text in "\\PC{0,200}", place in 0usize..400, letter in any::<u8>()) {
        let stage = Stage::new();
        prop_assert!(stage.verify(&text, NOW_S).is_err());
        // One letter of a good token is another.
        let mut bytes = stage.token().into_bytes();
        let place = place % bytes.len();
        let changed = bytes[place] != letter;
        bytes[place] = letter;
        if let (true, Ok(text)) = (changed, String::from_utf8(bytes)) {
            prop_assert!(stage.verify(&text, NOW_S).is_err());
        }
    }
}

/// The cryptography that `jsonwebtoken` is given here: `ring`, to verify with.
mod reader {
    use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
    use jsonwebtoken::errors::{Error, ErrorKind, new_error};
    use jsonwebtoken::signature::{self, Verifier};
    use jsonwebtoken::{Algorithm, DecodingKey};

    use crate::key::PublicKey;

    pub(super) static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| Err(new_error(ErrorKind::InvalidAlgorithm)),
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    };

    struct Ring(PublicKey);

    fn verifier(_: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
        let bytes = key.try_get_as_bytes()?.try_into().map_err(|_| new_error(ErrorKind::InvalidKeyFormat))?;
        Ok(Box::new(Ring(PublicKey::from_bytes(bytes))))
    }

    impl JwtVerifier for Ring {
        fn algorithm(&self) -> Algorithm {
            Algorithm::EdDSA
        }
    }

    impl Verifier<Vec<u8>> for Ring {
        fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
            if self.0.verifies(message, signature) { Ok(()) } else { Err(signature::Error::new()) }
        }
    }
}

#[test]
fn another_reader_of_tokens_reads_ours() {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};

    assert!(reader::PROVIDER.install_default().is_ok());
    let stage = Stage::new();
    let token = Claims::new("edge-7", stage.holder.public(), Grant::everything(), now(), HOUR).unwrap();
    let token = token.sign(&stage.issuer).unwrap();
    let header = decode_header(&token).unwrap();
    assert_eq!((header.alg, header.kid), (Algorithm::EdDSA, Some(stage.issuer.public().fingerprint())));
    let key = DecodingKey::from_ed_der(stage.issuer.public().as_bytes());
    let mut wanted = Validation::new(Algorithm::EdDSA);
    wanted.validate_nbf = true;
    wanted.set_audience(&[AUDIENCE]);
    wanted.set_issuer(&[stage.issuer.public().fingerprint()]);
    let claims = decode::<Value>(&token, &key, &wanted).unwrap().claims;
    assert_eq!(claims["sub"], "edge-7");
    assert_eq!(claims["cnf"]["jwk"]["x"], base64url(stage.holder.public().as_bytes()));
    let other = DecodingKey::from_ed_der(stage.holder.public().as_bytes());
    assert!(decode::<Value>(&token, &other, &wanted).is_err());
}

/// The time for a reader that takes no other: `jsonwebtoken` asks the clock.
fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
