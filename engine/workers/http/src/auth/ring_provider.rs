//! The cryptography under `jsonwebtoken`: `ring`, which is what TLS here has too, in place of a second library. Signatures are
//! verified, none is made. It must not know what a token says.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::signature as verified;
use ring::{hmac, signature::UnparsedPublicKey};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(new_error(ErrorKind::InvalidAlgorithm)),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Has tokens verified by `ring` in this process, unless it has chosen something else already.
pub(crate) fn install() {
    let _chosen_before = PROVIDER.install_default();
}

enum Key {
    Hmac(hmac::Key),
    Rsa(&'static verified::RsaParameters, Vec<u8>, Vec<u8>),
    Public(&'static dyn verified::VerificationAlgorithm, Vec<u8>),
}

struct RingVerifier {
    algorithm: Algorithm,
    key: Key,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let secret = |algorithm| key.try_get_as_bytes().map(|bytes| Key::Hmac(hmac::Key::new(algorithm, bytes)));
    let rsa = |parameters| match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => Ok(Key::Rsa(parameters, number(n), number(e))),
        DecodingKeyKind::SecretOrDer(_) => Err(new_error(ErrorKind::InvalidKeyFormat)),
    };
    let public = |algorithm| key.try_get_as_bytes().map(|bytes| Key::Public(algorithm, bytes.to_vec()));
    let key = match algorithm {
        Algorithm::HS256 => secret(hmac::HMAC_SHA256)?,
        Algorithm::HS384 => secret(hmac::HMAC_SHA384)?,
        Algorithm::HS512 => secret(hmac::HMAC_SHA512)?,
        Algorithm::RS256 => rsa(&verified::RSA_PKCS1_2048_8192_SHA256)?,
        Algorithm::RS384 => rsa(&verified::RSA_PKCS1_2048_8192_SHA384)?,
        Algorithm::RS512 => rsa(&verified::RSA_PKCS1_2048_8192_SHA512)?,
        Algorithm::PS256 => rsa(&verified::RSA_PSS_2048_8192_SHA256)?,
        Algorithm::PS384 => rsa(&verified::RSA_PSS_2048_8192_SHA384)?,
        Algorithm::PS512 => rsa(&verified::RSA_PSS_2048_8192_SHA512)?,
        Algorithm::ES256 => public(&verified::ECDSA_P256_SHA256_FIXED)?,
        Algorithm::ES384 => public(&verified::ECDSA_P384_SHA384_FIXED)?,
        Algorithm::EdDSA => public(&verified::ED25519)?,
        _ => return Err(new_error(ErrorKind::InvalidAlgorithm)),
    };
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key }))
}

/// A number without zeros before it, which some who publish keys write and `ring` does not take.
fn number(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let holds = match &self.key {
            Key::Hmac(key) => hmac::verify(key, message, signature),
            Key::Rsa(parameters, n, e) => {
                verified::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            Key::Public(algorithm, bytes) => {
                UnparsedPublicKey::new(*algorithm, bytes).verify(message, signature)
            }
        };
        holds.map_err(|_| signature::Error::new())
    }
}
