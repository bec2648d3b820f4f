//! The store that the settings ask for: in a folder, or on NATS. The only place that names both; workers see the trait. It
//! must not know what is kept.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ringway_config::engine::StoreKind;
use ringway_config::{EngineSettings, Settings};
use ringway_store::{Damage, Embedded, OpenReport, Options, Store, StoreError};
use ringway_store_nats::{NatsOptions, NatsStore};

use crate::nats;
use crate::workers::StartError;

/// An open store.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    /// In a folder of this machine.
    Embedded(Arc<Embedded>),
    /// On a NATS server.
    Nats(Arc<NatsStore>),
}

/// An open store for those who must not keep it from being closed.
#[derive(Debug)]
pub(crate) enum WeakKept {
    /// In a folder of this machine.
    Embedded(Weak<Embedded>),
    /// On a NATS server.
    Nats(Weak<NatsStore>),
}

impl WeakKept {
    /// The store, unless it was closed or is about to be.
    pub(crate) fn upgrade(&self) -> Option<Kept> {
        match self {
            Self::Embedded(store) => store.upgrade().map(Kept::Embedded),
            Self::Nats(store) => store.upgrade().map(Kept::Nats),
        }
    }
}

/// How a store is opened with these settings.
#[must_use]
pub fn store_options(settings: &EngineSettings) -> Options {
    let mut options = Options::default();
    if let Some(bytes) = settings.store.cache_bytes {
        options.cache_bytes = bytes;
    }
    if let Some(bytes) = settings.store.memory_bytes {
        options.memory_bytes = bytes;
    }
    options
}

/// How a store on NATS is opened with these settings.
fn nats_options(settings: &Settings) -> NatsOptions {
    let found = &settings.engine.store;
    let mut options = NatsOptions::new(found.name.as_deref().unwrap_or_else(|| nats::project(settings)));
    if let Some(servers) = &found.servers {
        options.servers.clone_from(servers);
    }
    options.identity = nats::identity(settings, &found.nats());
    options.tls = nats::tls(settings, &found.nats());
    options.replicas = found.replicas.unwrap_or(options.replicas);
    options.patience = found.patience_ms.map_or(options.patience, Duration::from_millis);
    options.keep = found.keep_seconds.map_or(options.keep, Duration::from_secs);
    options
}

impl Kept {
    /// Opens the store, with what was found and where it is.
    pub(crate) fn open(folder: &Path, settings: &Settings) -> Result<(Self, OpenReport, String), StartError> {
        match settings.engine.store.kind {
            StoreKind::Embedded => {
                let opened = Embedded::open(folder, store_options(&settings.engine));
                let (store, report) =
                    opened.map_err(|source| StartError::Store { folder: folder.to_owned(), source })?;
                Ok((Self::Embedded(Arc::new(store)), report, folder.display().to_string()))
            }
            StoreKind::Nats => {
                let (store, report) = NatsStore::open(nats_options(settings)).map_err(StartError::Nats)?;
                let place = store.place().to_owned();
                Ok((Self::Nats(Arc::new(store)), report, place))
            }
        }
    }

    /// The same to those who must not keep it from being closed.
    pub(crate) fn weak(&self) -> WeakKept {
        match self {
            Self::Embedded(store) => WeakKept::Embedded(Arc::downgrade(store)),
            Self::Nats(store) => WeakKept::Nats(Arc::downgrade(store)),
        }
    }

    /// The same to those who need not know which it is.
    pub(crate) fn shared(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => Arc::clone(store) as Arc<dyn Store>,
            Self::Nats(store) => Arc::clone(store) as Arc<dyn Store>,
        }
    }

    /// Looks at everything that is kept.
    pub(crate) fn verify(&self) -> Result<Vec<Damage>, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.verify()),
            Self::Nats(store) => store.verify(),
        }
    }

    /// Nothing is to wait long for a store that cannot be reached.
    pub(crate) fn hurry(&self) {
        if let Self::Nats(store) = self {
            store.hurry();
        }
    }

    /// Closes it; false if somebody still has it.
    pub(crate) fn close(self) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => {
                Arc::into_inner(store).map_or(Ok(false), |store| store.close().map(|()| true))
            }
            Self::Nats(store) => {
                Arc::into_inner(store).map_or(Ok(false), |store| store.close().map(|()| true))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringway_config::Variables;
    use ringway_store_nats::Identity;

    use super::*;

    #[test]
    fn addresses_are_told_without_user_and_password() {
        let text = "engine: {store: {kind: nats, servers: ['nats://me:secret@host:1', 'nats://other']}}";
        let settings = Settings::parse("x", text, &crate::sections(), &Variables::default()).unwrap();
        for told in [format!("{settings:?}"), format!("{:?}", nats_options(&settings))] {
            assert!(told.contains("host:1") && told.contains("other") && !told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn what_the_file_says_of_nats_is_taken() {
        let text = "engine: {project: shop, store: {kind: nats, servers: ['tls://a', 'tls://b'], user: me, \
                    password: \"${PASSWORD}\", replicas: 3, patience_ms: 10, keep_seconds: 9, tls: {required: true, \
                    roots: /ca.pem}}}";
        let variables = Variables::of([("PASSWORD", "12")]);
        let settings = Settings::parse("x", text, &crate::sections(), &variables).unwrap();
        let options = nats_options(&settings);
        assert_eq!((options.servers.len(), options.name.as_str(), options.replicas), (2, "shop", 3));
        let expected = Identity::Password { user: "me".to_owned(), password: "12".to_owned() };
        assert_eq!(options.identity, expected);
        assert_eq!((options.patience, options.keep), (Duration::from_millis(10), Duration::from_secs(9)));
        assert!(options.tls.required && options.tls.roots.as_deref() == Some(Path::new("/ca.pem")));
        let settings =
            Settings::parse("x", "engine: {store: {kind: nats, name: n}}", &crate::sections(), &variables);
        let options = nats_options(&settings.unwrap());
        assert_eq!(
            (options.name.as_str(), options.servers.as_slice()),
            ("n", &[ringway_store_nats::options::SERVER.to_owned()][..])
        );
    }
}
