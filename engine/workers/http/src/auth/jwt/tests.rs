//! Tokens that hold and tokens that do not, the published examples among them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;

const SECRET: &str = "a secret of some length";

fn scheme(value: Value) -> Scheme {
    let mut value = value;
    value["kind"] = "jwt".into();
    serde_json::from_value(value).unwrap()
}

fn verify(jwt: &Jwt, token: &str) -> Result<(String, Option<Value>), &'static str> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(jwt.verify(token))
}

fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let tag = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{tag}")
}

fn by_secret(claims: &Value, secret: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    token(&json!({"alg": "HS256"}), claims, |signed| hmac::sign(&key, signed).as_ref().to_vec())
}

fn soon() -> u64 {
    jsonwebtoken::get_current_timestamp() + 60
}

#[test]
fn a_token_holds_with_its_secret_until_it_ends() {
    let jwt = Jwt::new(&scheme(json!({"secret": SECRET, "issuers": ["i"], "audiences": ["a"]}))).unwrap();
    let claims = json!({"sub": "me", "exp": soon(), "iss": "i", "aud": ["x", "a"], "role": "admin"});
    let (subject, found) = verify(&jwt, &by_secret(&claims, SECRET)).unwrap();
    assert_eq!((subject.as_str(), found), ("me", Some(claims.clone())));
    for (name, value, expected) in [
        ("exp", json!(soon() - 200), "ended"),
        ("exp", Value::Null, "cannot be read|must"),
        // What once was read as if it were not there.
        ("exp", json!("never"), "cannot be read|must"),
        ("nbf", json!(soon() + 200), "yet"),
        ("iss", json!("other"), "issuer"),
        ("aud", json!("other"), "somebody else"),
    ] {
        let mut claims = claims.clone();
        claims[name] = value;
        let why = verify(&jwt, &by_secret(&claims, SECRET)).unwrap_err();
        assert!(expected.split('|').any(|expected| why.contains(expected)), "{name}: {why}");
    }
    let mut without = claims.clone();
    without.as_object_mut().unwrap().remove("exp");
    assert!(verify(&jwt, &by_secret(&without, SECRET)).is_err());
    for subject in [json!(null), json!(""), json!(7)] {
        let mut nobody = claims.clone();
        nobody["sub"] = subject;
        assert!(verify(&jwt, &by_secret(&nobody, SECRET)).unwrap_err().contains("whom"));
    }
    assert!(verify(&jwt, &by_secret(&claims, "another secret entirely")).unwrap_err().contains("signature"));
    let none = token(&json!({"alg": "none"}), &claims, |_| Vec::new());
    assert!(verify(&jwt, &none).is_err());
    for text in ["", "a", "a.b.c", "..", &"a".repeat(TOKEN_BYTES_MAX + 1)] {
        assert!(verify(&jwt, text).is_err());
    }
}

#[test]
fn keys_of_a_set_are_found_by_their_names() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let ed = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
    let point = ec.public_key().as_ref();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let set = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "x": encode(&point[1..33]), "y": encode(&point[33..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "two", "x": encode(ed.public_key().as_ref())},
        {"kty": "EC", "crv": "P-256", "kid": "enc", "use": "enc", "x": encode(&point[1..33]), "y": encode(&point[33..])},
    ]});
    let jwt = Jwt::new(&scheme(json!({"jwks": set}))).unwrap();
    let claims = json!({"sub": "me", "exp": soon()});
    let es = |kid| {
        token(&json!({"alg": "ES256", "kid": kid}), &claims, |signed| {
            ec.sign(&random, signed).unwrap().as_ref().to_vec()
        })
    };
    assert_eq!(verify(&jwt, &es("one")).unwrap().0, "me");
    for kid in ["two", "three", "enc"] {
        assert!(verify(&jwt, &es(kid)).is_err(), "{kid}");
    }
    let of_ed = token(&json!({"alg": "EdDSA"}), &claims, |signed| ed.sign(signed).as_ref().to_vec());
    assert_eq!(verify(&jwt, &of_ed).unwrap().0, "me");
    // A public key is no secret: who signs with it as if it were one is refused.
    let key = hmac::Key::new(hmac::HMAC_SHA256, point);
    let confused = token(&json!({"alg": "HS256", "kid": "one"}), &claims, |signed| {
        hmac::sign(&key, signed).as_ref().to_vec()
    });
    assert!(verify(&jwt, &confused).unwrap_err().contains("algorithm"));
}

#[test]
fn the_published_example_of_rfc_7515_is_read_and_has_ended() {
    // RFC 7515, appendix A.2: RS256.
    let set = json!({"keys": [{"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]});
    let jwt = Jwt::new(&scheme(json!({"jwks": set}))).unwrap();
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    // The signature holds, so that its end is what is found.
    assert_eq!(verify(&jwt, token).unwrap_err(), "the token has ended");
    let broken = token.replace("9eyJ", "8eyJ");
    let mut broken = if broken == token { token.to_owned() } else { broken };
    broken.replace_range(token.len() - 4..token.len() - 3, "A");
    assert!(verify(&jwt, &broken).unwrap_err().contains("signature"));
}

#[test]
fn settings_that_would_let_anybody_in_are_refused() {
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
    for (value, expected) in [
        (json!({"jwks": set, "algorithms": ["HS256"]}), "HS256"),
        (json!({"secret": SECRET, "algorithms": ["RS256"]}), "RS256"),
        (json!({"secret": SECRET, "algorithms": ["none"]}), "`none`"),
        (json!({"jwks": {"keys": []}}), "no key"),
        (json!({"jwks_url": "http://keys.example/jwks"}), "https"),
        (json!({}), "one of"),
    ] {
        let why = Jwt::new(&scheme(value)).unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
}
