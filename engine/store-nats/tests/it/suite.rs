//! The suite that every store must pass, on NATS.

use ringway_store::testing::conformance;
use ringway_store_nats::testing::Server;

use crate::tools::open;

#[test]
fn the_suite_holds() {
    let server = Server::start();
    let number = std::cell::Cell::new(0);
    conformance(|| {
        number.set(number.get() + 1);
        open(&server, &format!("suite-{}", number.get())).0
    });
}
