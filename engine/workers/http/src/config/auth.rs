//! The ways to show who one is, as they are set. It must not know how they are checked.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The shortest secret that is taken, in bytes.
pub const SECRET_BYTES_MIN: usize = 8;

/// A text that is told to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A way to show who one is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Scheme {
    /// `Authorization: Bearer …` with one of these texts.
    Bearer {
        /// The texts, by the names of those who have them.
        tokens: BTreeMap<String, Secret>,
    },
    /// A header or a query parameter with one of these texts.
    ApiKey {
        /// The texts, by the names of those who have them.
        keys: BTreeMap<String, Secret>,
        /// The header. Default: `x-api-key`.
        #[serde(default = "api_key_header")]
        header: String,
        /// The query parameter. Default: none; addresses are written into logs.
        #[serde(default)]
        query: Option<String>,
    },
    /// `Authorization: Basic …` with one of these names and passwords.
    Basic {
        /// Passwords by names.
        users: BTreeMap<String, Secret>,
    },
    /// `Authorization: Bearer …` with a JSON Web Token, which says of whom it speaks (`sub`) and when it ends (`exp`).
    Jwt {
        /// The secret of HS256, HS384 and HS512. Default: none.
        #[serde(default)]
        secret: Option<Secret>,
        /// Public keys as a JSON Web Key Set, written out. Default: none.
        #[serde(default)]
        jwks: Option<serde_json::Value>,
        /// Where such a set is fetched, over HTTPS or from this machine. Default: none.
        #[serde(default)]
        jwks_url: Option<String>,
        /// How long a set that was fetched is used before it is fetched anew, in seconds. Default: 600.
        #[serde(default = "ten_minutes")]
        jwks_seconds: u64,
        /// Who must have made the token, one of these. Default: anybody with the key.
        #[serde(default)]
        issuers: Vec<String>,
        /// Whom it must be for, one of these. Default: anybody.
        #[serde(default)]
        audiences: Vec<String>,
        /// Algorithms that are taken. Default: HS256 with `secret`; RS256, PS256, ES256, ES384 and `EdDSA` with keys.
        #[serde(default)]
        algorithms: Vec<String>,
        /// How far clocks may differ, in seconds. Default: 30.
        #[serde(default = "thirty")]
        leeway_seconds: u64,
    },
    /// A function that is asked: `{method, path, headers, query_params, client}`; it answers with `{"subject": …}` and
    /// whatever else the route's function is to see under `auth`, or with `false` or an error.
    Function {
        /// Its id.
        function_id: String,
        /// How long it may take, in milliseconds. Default: 5000.
        #[serde(default = "five_seconds")]
        timeout_ms: u64,
    },
    /// A certificate that was shown when the connection was made (mTLS).
    Certificate {},
}

fn api_key_header() -> String {
    "x-api-key".to_owned()
}

const fn ten_minutes() -> u64 {
    600
}

const fn thirty() -> u64 {
    30
}

const fn five_seconds() -> u64 {
    5000
}

impl Scheme {
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Bearer { tokens: secrets }
            | Self::ApiKey { keys: secrets, .. }
            | Self::Basic { users: secrets } => {
                if secrets.is_empty() {
                    return Err("it has no secrets, so nobody could come in: name some".to_owned());
                }
                match secrets.iter().find(|(_, secret)| secret.0.len() < SECRET_BYTES_MIN) {
                    Some((name, _)) => {
                        Err(format!("the secret of `{name}` has fewer than {SECRET_BYTES_MIN} bytes"))
                    }
                    None => Ok(()),
                }
            }
            Self::Jwt { secret, jwks, jwks_url, .. } => {
                let sources = [secret.is_some(), jwks.is_some(), jwks_url.is_some()];
                if sources.iter().filter(|there| **there).count() != 1 {
                    return Err("wanted is one of `secret`, `jwks` and `jwks_url`".to_owned());
                }
                Ok(())
            }
            Self::Function { .. } | Self::Certificate {} => Ok(()),
        }
    }
}
