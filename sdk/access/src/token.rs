//! Capability tokens: a JWT (RFC 7519) in which an issuer says what the holder of a key may do, for how long. Whoever
//! has the issuer's public key verifies one offline; whoever sees one cannot use it, since the holder signs each
//! handshake with the key that the token names (RFC 7800). Used by `doorkeeper` and `issue`. It must not know what the
//! time is: that is an argument.
//!
//! Tokens are signed and verified here with `ring` directly. The `jsonwebtoken` crate, which tells in a test that others
//! can read them, has one cryptography for a whole process, and the HTTP worker installs one there that signs nothing.

use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::grant::Grant;
use crate::key::{IdentityKey, PublicKey};
use crate::text::{
    NoRandomnessError, base64url, fixed_from_base64url, from_base64url, hex, is_name, random, utc,
};

mod revocations;

pub use revocations::{RevocationError, Revocations};

/// The audience of all tokens for links, so that none for something else is taken for one.
pub const AUDIENCE: &str = "ringway-link";
/// The longest token that is read, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
/// How long before it was made a token holds already, in seconds, since clocks differ.
const EARLY_S: u64 = 300;

/// Why a token was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is none: not three parts of base64url with JSON in them, or without what a token must say.
    #[error("wanted a token, found something else: {problem}")]
    NotAToken {
        /// What is missing or wrong.
        problem: &'static str,
    },
    /// It is too long to be one.
    #[error("wanted a token of at most {TOKEN_BYTES_MAX} bytes, found {found}")]
    TooLong {
        /// Its length in bytes.
        found: usize,
    },
    /// It was signed in a way that is not taken here.
    #[error("wanted a token that is signed with EdDSA, found another algorithm")]
    WrongAlgorithm,
    /// None of the known issuers made it.
    #[error("wanted a token of a known issuer, found one of issuer {found}; add that issuer's public key")]
    WrongIssuer {
        /// The fingerprint that it names.
        found: String,
    },
    /// It was not signed by the issuer that it names, or was changed.
    #[error("the token was not signed by the issuer that it names, or was changed since")]
    WrongSignature,
    /// It is for something else.
    #[error("wanted a token for `{AUDIENCE}`, found one for `{found}`")]
    WrongAudience {
        /// Whom it is for.
        found: String,
    },
    /// It holds no more.
    #[error("the token of `{subject}` expired at {}; make a new one with `ringway link new`", utc(*.expired_s))]
    Expired {
        /// Whose it was.
        subject: String,
        /// When it ended, in seconds since 1970.
        expired_s: u64,
    },
    /// It does not hold yet.
    #[error("the token of `{subject}` holds from {} on; are the clocks right?", utc(*.from_s))]
    NotYetValid {
        /// Whose it is.
        subject: String,
        /// When it begins, in seconds since 1970.
        from_s: u64,
    },
    /// It was taken back.
    #[error("the token `{id}` of `{subject}` was revoked")]
    Revoked {
        /// Its id.
        id: String,
        /// Whose it was.
        subject: String,
    },
    /// It was shown by somebody who does not have the key that it names.
    #[error("the token of `{subject}` was shown by somebody who did not sign this handshake with its key")]
    NotTheHolder {
        /// Whose it is.
        subject: String,
    },
}

/// The key of a token's holder, as RFC 7800 and RFC 8037 write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Confirmation {
    jwk: Jwk,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
}

impl Confirmation {
    fn of(key: &PublicKey) -> Self {
        let jwk = Jwk { kty: "OKP".to_owned(), crv: "Ed25519".to_owned(), x: base64url(key.as_bytes()) };
        Self { jwk }
    }

    fn key(&self) -> Option<PublicKey> {
        let jwk = &self.jwk;
        if jwk.kty != "OKP" || jwk.crv != "Ed25519" {
            return None;
        }
        fixed_from_base64url(&jwk.x).map(PublicKey::from_bytes)
    }
}

/// The claims as they stand in the token.
#[derive(Serialize, Deserialize)]
struct Written {
    iss: String,
    sub: String,
    aud: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
    cnf: Confirmation,
    grant: Grant,
}

/// Of the claims what is read before the signature has been verified.
#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Extensions that whoever reads the token must know; none is known here.
    crit: Option<IgnoredAny>,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// The fingerprint of the issuer's key.
    pub issuer: String,
    /// The holder's name.
    pub subject: String,
    /// When it was made, in seconds since 1970.
    pub issued_s: u64,
    /// From when on it holds, in seconds since 1970.
    pub from_s: u64,
    /// When it ends, in seconds since 1970.
    pub expires_s: u64,
    /// Its own id, by which it can be revoked.
    pub id: String,
    /// The key that its holder proves to have.
    pub holder: PublicKey,
    /// What the holder may do.
    pub grant: Grant,
}

impl Claims {
    /// Makes the claims of a new token, which holds a little earlier than now, since clocks differ.
    ///
    /// # Errors
    /// The system gives no random bytes for the token's id.
    pub fn new(
        subject: &str,
        holder: PublicKey,
        grant: Grant,
        now_s: u64,
        lifetime: Duration,
    ) -> Result<Self, NoRandomnessError> {
        Ok(Self {
            issuer: String::new(),
            subject: subject.to_owned(),
            issued_s: now_s,
            from_s: now_s.saturating_sub(EARLY_S),
            expires_s: now_s.saturating_add(lifetime.as_secs()),
            id: hex(&random::<16>()?),
            holder,
            grant,
        })
    }

    /// Writes the token, with the issuer's fingerprint whatever the claims say of it.
    ///
    /// # Errors
    /// The token would be too long to be read, or its subject is no name.
    pub fn sign(&self, issuer: &IdentityKey) -> Result<String, TokenError> {
        if !is_name(&self.subject) {
            return Err(TokenError::NotAToken { problem: "its subject is no name" });
        }
        let fingerprint = issuer.public().fingerprint();
        let written = Written {
            iss: fingerprint.clone(),
            sub: self.subject.clone(),
            aud: AUDIENCE.to_owned(),
            iat: self.issued_s,
            nbf: self.from_s,
            exp: self.expires_s,
            jti: self.id.clone(),
            cnf: Confirmation::of(&self.holder),
            grant: self.grant.clone(),
        };
        let header = serde_json::json!({ "alg": "EdDSA", "typ": "JWT", "kid": fingerprint });
        let payload = serde_json::to_vec(&written);
        let payload =
            payload.map_err(|_| TokenError::NotAToken { problem: "it cannot be written as JSON" })?;
        let signed = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(&payload));
        let token = format!("{signed}.{}", base64url(&issuer.sign(signed.as_bytes())));
        let found = token.len();
        if found > TOKEN_BYTES_MAX { Err(TokenError::TooLong { found }) } else { Ok(token) }
    }

    /// Says whether the holder of the token signed this message.
    ///
    /// # Errors
    /// Somebody else did, or nobody.
    pub fn check_holder(&self, message: &[u8], signature: &[u8]) -> Result<(), TokenError> {
        if self.holder.verifies(message, signature) {
            return Ok(());
        }
        Err(TokenError::NotTheHolder { subject: self.subject.clone() })
    }

    fn read(payload: &[u8]) -> Result<Self, TokenError> {
        let problem = "it does not say all that a token for a link must";
        let written: Written =
            serde_json::from_slice(payload).map_err(|_| TokenError::NotAToken { problem })?;
        if written.aud != AUDIENCE {
            return Err(TokenError::WrongAudience { found: written.aud });
        }
        let problem = "it names no Ed25519 key of a holder";
        let holder = written.cnf.key().ok_or(TokenError::NotAToken { problem })?;
        if !is_name(&written.sub) {
            return Err(TokenError::NotAToken { problem: "its subject is no name" });
        }
        Ok(Self {
            issuer: written.iss,
            subject: written.sub,
            issued_s: written.iat,
            from_s: written.nbf,
            expires_s: written.exp,
            id: written.jti,
            holder,
            grant: written.grant,
        })
    }
}

/// Reads a token and says whether it holds now. That whoever showed it is its holder is for
/// [`Claims::check_holder`] to say.
///
/// # Errors
/// The first reason why it does not hold. Nothing of it but its issuer's fingerprint is read before its signature was
/// verified.
pub fn verify(
    token: &str,
    issuers: &[PublicKey],
    revocations: &Revocations,
    now_s: u64,
) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLong { found: token.len() });
    }
    let not = |problem: &'static str| TokenError::NotAToken { problem };
    let (signed, signature) = token.rsplit_once('.').ok_or_else(|| not("it has no three parts"))?;
    let (header, payload) = signed.split_once('.').ok_or_else(|| not("it has no three parts"))?;
    let part = |text: &str| from_base64url(text).ok_or_else(|| not("a part of it is no base64url"));
    let header: Header =
        serde_json::from_slice(&part(header)?).map_err(|_| not("its header cannot be read"))?;
    if header.alg != "EdDSA" {
        return Err(TokenError::WrongAlgorithm);
    }
    if header.crit.is_some() {
        return Err(not("it wants extensions that are not known here"));
    }
    let (payload, signature) = (part(payload)?, part(signature)?);
    let Issuer { iss } = serde_json::from_slice(&payload).map_err(|_| not("it names no issuer"))?;
    let Some(issuer) = issuers.iter().find(|key| key.fingerprint() == iss) else {
        return Err(TokenError::WrongIssuer { found: shown(&iss) });
    };
    if !issuer.verifies(signed.as_bytes(), &signature) {
        return Err(TokenError::WrongSignature);
    }
    let claims = Claims::read(&payload)?;
    if now_s < claims.from_s {
        return Err(TokenError::NotYetValid { subject: claims.subject, from_s: claims.from_s });
    }
    if now_s >= claims.expires_s {
        return Err(TokenError::Expired { subject: claims.subject, expired_s: claims.expires_s });
    }
    if revocations.contains(&claims.id) {
        return Err(TokenError::Revoked { id: claims.id, subject: claims.subject });
    }
    Ok(claims)
}

/// A text of a stranger's, as it may be shown in a log.
fn shown(text: &str) -> String {
    text.chars().take(64).filter(|character| !character.is_control()).collect()
}

#[cfg(test)]
mod tests;
