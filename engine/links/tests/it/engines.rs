//! Engines that are linked to each other.

use std::sync::Arc;

use ringway_access::{Doorkeeper, Grant, LinkAddress};
use ringway_engine::Engine;
use ringway_link::driver::{DriverConfig, Path};
use ringway_links::{Links, PeerSettings, Settings};

use crate::stage::PATHS;
use crate::suite::{self, Fabric, Host};

/// Engines that dial each other.
struct Dialled {
    path: Path,
}

impl Dialled {
    fn link(&self, engine: &Engine, dial: &[&Host<Links>], port: u16) -> Links {
        let all = || vec!["*".to_owned()];
        let peers = dial.iter().map(|peer| PeerSettings {
            address: LinkAddress::from(peer.joined.as_ref().unwrap().address().unwrap()),
            credentials: None,
            offer: all(),
            call: all(),
        });
        let settings = Settings {
            name: "host".to_owned(),
            listen: Some(([127, 0, 0, 1], port).into()),
            doorkeeper: Arc::new(Doorkeeper::default().with_open_loopback(Grant::everything())),
            driver: DriverConfig { path: self.path, ..DriverConfig::default() },
            peers: peers.collect(),
            offer: all(),
            ..Settings::default()
        };
        Links::start(engine.address(), settings).unwrap()
    }
}

impl Fabric for Dialled {
    type Joined = Links;

    fn name(&self) -> String {
        format!("links by {:?}", self.path)
    }

    fn join(&self, engine: &Engine, others: &[&Host<Links>]) -> Links {
        self.link(engine, others, 0)
    }

    fn cut_and_heal(&self, host: &mut Host<Links>, before: Links, seen: impl FnOnce()) {
        let port = before.address().unwrap().port();
        drop(before);
        seen();
        host.joined = Some(self.link(&host.engine, &[], port));
    }
}

fn on_all_paths(check: impl Fn(&Dialled)) {
    PATHS.into_iter().for_each(|path| check(&Dialled { path }));
}

#[test]
fn workers_of_linked_engines_call_each_other() {
    on_all_paths(suite::workers_of_linked_engines_call_each_other);
}

#[test]
fn local_replicas_are_called_before_far_ones_and_far_ones_when_there_is_no_other() {
    on_all_paths(suite::local_replicas_are_called_before_far_ones_and_far_ones_when_there_is_no_other);
}

#[test]
fn three_engines_in_a_ring_see_everything_once() {
    on_all_paths(suite::three_engines_in_a_ring_see_everything_once);
}

#[test]
fn a_cut_link_heals_and_both_catalogs_are_whole_again() {
    on_all_paths(suite::a_cut_link_heals_and_both_catalogs_are_whole_again);
}

#[test]
fn streams_go_both_ways() {
    on_all_paths(suite::streams_go_both_ways);
}

#[test]
fn payloads_of_all_sizes_go_both_ways() {
    on_all_paths(suite::payloads_of_all_sizes_go_both_ways);
}
