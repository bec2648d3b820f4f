//! Public keys as a JSON Web Key Set (RFC 7517), written out or fetched. A set that was fetched is used until it is old, and
//! fetched anew when a token names a key that is not in it; while it cannot be fetched, the old one goes on for a day. It
//! must not know tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

/// How often a set is fetched at most, whatever tokens name.
const FETCH_EVERY_MIN: Duration = Duration::from_secs(10);

/// How long a set is used that cannot be fetched anew.
const STALE_MAX: Duration = Duration::from_secs(86_400);

/// The longest set, in bytes.
const SET_BYTES_MAX: u64 = 1 << 20;

/// How long it may take to fetch one.
const FETCH_MAX: Duration = Duration::from_secs(10);

/// A set as it is written.
#[derive(Debug, Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The keys of a set.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    key: DecodingKey,
}

impl Keys {
    /// Reads a set. Keys that are not for signatures, or of kinds that are not known, are left out.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let set: Set =
            serde_json::from_str(text).map_err(|error| format!("this is no JSON Web Key Set: {error}"))?;
        let mut keys = Vec::new();
        // A key of a kind that came up later does not keep the others from being used.
        for jwk in set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()) {
            if matches!(&jwk.common.public_key_use, Some(other) if *other != PublicKeyUse::Signature) {
                continue;
            }
            let Ok(key) = DecodingKey::from_jwk(&jwk) else { continue };
            let algorithm = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
            keys.push(Key { id: jwk.common.key_id.clone(), algorithm, key });
        }
        if keys.is_empty() {
            Err("the JSON Web Key Set has no key that can be used".to_owned())
        } else {
            Ok(Self(keys))
        }
    }

    /// The key of this name for this algorithm; without a name the only one that fits.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let name = format!("{algorithm:?}");
        let fits = |key: &&Key| {
            key.key.family() == algorithm.family() && key.algorithm.as_ref().is_none_or(|own| *own == name)
        };
        let mut fitting = self.0.iter().filter(fits);
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)).map(|key| key.key.clone()),
            None => {
                let (only, None) = (fitting.next()?, fitting.next()) else { return None };
                Some(only.key.clone())
            }
        }
    }
}

/// A set that is fetched.
#[derive(Debug)]
pub(crate) struct RemoteKeys {
    url: String,
    fresh: Duration,
    current: ArcSwapOption<Fetched>,
    /// When it was last tried; held while it is being fetched, so that it is fetched once for all who wait.
    tried: Arc<tokio::sync::Mutex<Option<Instant>>>,
    /// Whether the last try failed.
    is_down: AtomicBool,
}

#[derive(Debug)]
struct Fetched {
    keys: Keys,
    at: Instant,
}

impl RemoteKeys {
    pub(crate) fn new(url: &str, fresh: Duration) -> Result<Self, String> {
        let uri: hyper::Uri =
            url.parse().map_err(|_| format!("`jwks_url` is `{url}`, which is no address"))?;
        let host = uri.host().unwrap_or_default();
        let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        if uri.scheme_str() != Some("https") && !(uri.scheme_str() == Some("http") && local) {
            return Err(format!("`jwks_url` is `{url}`: wanted is https, since keys decide who comes in"));
        }
        Ok(Self {
            url: url.to_owned(),
            fresh,
            current: ArcSwapOption::empty(),
            tried: Arc::default(),
            is_down: AtomicBool::new(false),
        })
    }

    pub(crate) async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, &'static str> {
        let known = self.current.load_full();
        let usable = known.as_ref().filter(|fetched| fetched.at.elapsed() < STALE_MAX);
        let found = usable.and_then(|fetched| Some((fetched.at, fetched.keys.find(id, algorithm)?)));
        if let Some((at, key)) = found {
            if at.elapsed() < self.fresh {
                return Ok(key);
            }
            if self.is_down.load(Ordering::Relaxed) {
                // Nobody waits again and again for a server that does not answer.
                if let Ok(tried) = Arc::clone(&self.tried).try_lock_owned()
                    && tried.is_none_or(|at| at.elapsed() >= FETCH_EVERY_MIN)
                {
                    tokio::spawn(Arc::clone(self).fetch(known, tried));
                }
                return Ok(key);
            }
        }
        // Only who waits is in line. What has begun goes on without whoever wanted it, so that who comes and goes does not have
        // it fetched again each time.
        let tried = Arc::clone(&self.tried).lock_owned().await;
        let _ended = tokio::spawn(Arc::clone(self).fetch(known, tried)).await;
        let fetched = self.current.load_full().filter(|fetched| fetched.at.elapsed() < STALE_MAX);
        let fetched = fetched.ok_or("the keys of tokens could not be fetched")?;
        fetched.keys.find(id, algorithm).ok_or("the token's key is not known")
    }

    /// Fetches the set, unless somebody did meanwhile, or only just tried to.
    async fn fetch(self: Arc<Self>, seen: Option<Arc<Fetched>>, mut tried: OwnedMutexGuard<Option<Instant>>) {
        let newer = match (self.current.load_full(), seen) {
            (Some(now), Some(seen)) => !Arc::ptr_eq(&now, &seen),
            (now, _) => now.is_some(),
        };
        if newer || tried.is_some_and(|at| at.elapsed() < FETCH_EVERY_MIN) {
            return;
        }
        let url = self.url.clone();
        let got = tokio::task::spawn_blocking(move || get(&url)).await;
        *tried = Some(Instant::now());
        let got = got.unwrap_or_else(|error| Err(error.to_string()));
        self.is_down.store(got.is_err(), Ordering::Relaxed);
        match got {
            Ok(keys) => self.current.store(Some(Arc::new(Fetched { keys, at: Instant::now() }))),
            Err(error) => {
                tracing::warn!(target: "ringway", url = self.url, error, "keys of tokens could not be fetched");
            }
        }
    }
}

fn get(url: &str) -> Result<Keys, String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(FETCH_MAX)).max_redirects(0).build();
    let mut response = ureq::Agent::from(config).get(url).call().map_err(|error| error.to_string())?;
    let body = response.body_mut().with_config().limit(SET_BYTES_MAX).read_to_string();
    Keys::read(&body.map_err(|error| error.to_string())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stops_waiting_has_nothing_fetched_again() {
        // It takes connections, and answers none.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let keys = Arc::new(RemoteKeys::new(&url, Duration::from_secs(600)).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let give_up = || {
            let asking = keys.find(Some("a"), Algorithm::ES256);
            runtime
                .block_on(async { tokio::time::timeout(Duration::from_millis(100), asking).await.is_err() })
        };
        assert!(give_up());
        let _first = silent.accept().unwrap();
        assert!(give_up() && give_up());
        silent.set_nonblocking(true).unwrap();
        assert!(silent.accept().is_err());
        runtime.shutdown_background();
    }
}
