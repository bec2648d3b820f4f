//! JSON Web Tokens (RFC 7519) as the settings want them: with an algorithm that is named, a key that fits it, an end that has
//! not come, and the issuer and audience that are wanted. It must not know where a token was shown.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use super::keys::{Keys, RemoteKeys};
use crate::config::auth::Scheme;

/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
enum Source {
    Secret(DecodingKey),
    Fixed(Keys),
    Remote(Arc<RemoteKeys>),
}

/// A scheme of tokens, made ready.
#[derive(Debug)]
pub(crate) struct Jwt {
    source: Source,
    validation: Validation,
}

impl Jwt {
    pub(crate) fn new(scheme: &Scheme) -> Result<Self, String> {
        let Scheme::Jwt {
            secret,
            jwks,
            jwks_url,
            jwks_seconds,
            issuers,
            audiences,
            algorithms,
            leeway_seconds,
        } = scheme
        else {
            return Err("it is none of tokens".to_owned());
        };
        super::ring_provider::install();
        let source = match (secret, jwks, jwks_url) {
            (Some(secret), ..) => Source::Secret(DecodingKey::from_secret(secret.0.as_bytes())),
            (_, Some(set), _) => Source::Fixed(Keys::read(&set.to_string())?),
            (_, _, Some(url)) => {
                let keys = RemoteKeys::new(url, Duration::from_secs(*jwks_seconds))?;
                Source::Remote(Arc::new(keys))
            }
            _ => return Err("wanted is one of `secret`, `jwks` and `jwks_url`".to_owned()),
        };
        let by_secret = matches!(source, Source::Secret(_));
        let named = algorithms
            .iter()
            .map(|name| {
                Algorithm::from_str(name).map_err(|_| format!("`{name}` is no algorithm that is known"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let is_hmac = |algorithm: &Algorithm| algorithm.family() == AlgorithmFamily::Hmac;
        if let Some(odd) = named.iter().find(|algorithm| is_hmac(algorithm) != by_secret) {
            // A public key taken for a secret would let everybody make tokens.
            return Err(format!("the algorithm {odd:?} does not go with what the keys are"));
        }
        let usual: &[Algorithm] = if by_secret {
            &[Algorithm::HS256]
        } else {
            &[Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA]
        };
        let mut validation = Validation::new(usual[0]);
        validation.algorithms = if named.is_empty() { usual.to_vec() } else { named };
        validation.leeway = *leeway_seconds;
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if issuers.is_empty() {
            validation.iss = None;
        } else {
            validation.set_issuer(issuers);
            required.push("iss");
        }
        if audiences.is_empty() {
            validation.validate_aud = false;
        } else {
            validation.set_audience(audiences);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Ok(Self { source, validation })
    }

    /// Whom a token speaks of, and what it says.
    ///
    /// # Errors
    /// Why it does not hold.
    pub(crate) async fn verify(&self, token: &str) -> Result<(String, Option<Value>), &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("the token is too long");
        }
        let header = decode_header(token).map_err(|_| "the token is none")?;
        if !self.validation.algorithms.contains(&header.alg) {
            return Err("the token's algorithm is not taken here");
        }
        let key = match &self.source {
            Source::Secret(key) => key.clone(),
            Source::Fixed(keys) => {
                keys.find(header.kid.as_deref(), header.alg).ok_or("the token's key is not known")?
            }
            Source::Remote(keys) => keys.find(header.kid.as_deref(), header.alg).await?,
        };
        if key.family() != header.alg.family() {
            return Err("the token's algorithm is not that of its key");
        }
        // The library wants all algorithms that are taken to be of the key's kind.
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let claims = decode::<Value>(token, &key, &validation).map_err(|error| why(&error))?.claims;
        let subject = claims.get("sub").and_then(Value::as_str).filter(|subject| !subject.is_empty());
        // All who are nobody would be one, and be told each other's remembered answers.
        let subject = subject.ok_or("the token does not say whom it speaks of")?.to_owned();
        Ok((subject, Some(claims)))
    }
}

fn why(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "the token has ended",
        ErrorKind::ImmatureSignature => "the token does not hold yet",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::InvalidAudience => "the token is for somebody else",
        ErrorKind::InvalidSignature => "the token's signature does not hold",
        ErrorKind::MissingRequiredClaim(_) => "the token does not say what it must",
        _ => "the token cannot be read",
    }
}

#[cfg(test)]
mod tests;
