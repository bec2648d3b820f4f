//! A server that is encrypted and asks who comes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway::Function;
use ringway_access::issue::Authority;
use ringway_link::driver::Path;
use ringway_links::{Links, Settings};
use ringway_links_nats::{NatsLinks, NatsSettings};
use ringway_store_nats::testing::Server;
use ringway_store_nats::{Identity, Tls};
use serde_json::json;

use crate::stage::{engine, join, wait_for};

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn engines_see_each_other_through_a_server_with_tls_and_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let authority = Authority::new("nats", now_s, DAY).unwrap();
    let files = authority.server("nats", &["127.0.0.1"], now_s, DAY).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (certificate, key) = (write("server.pem", &files.certificate), write("server.key", &files.key));
    let further = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\nauthorization {{ user: me, password: right }}",
        certificate.display(),
        key.display()
    );
    let server = Server::with(&further, "off");
    let settings = |roots: Option<&str>, password: &str| {
        let mut settings = NatsSettings::new("shop", "host");
        settings.servers = vec![server.url().replace("nats://", "tls://")];
        let roots = roots.map(|text| write("roots.pem", text));
        settings.tls = Tls { required: true, roots, own: None };
        settings.identity = Identity::Password { user: "me".to_owned(), password: password.to_owned() };
        settings
    };
    let refused = |settings: NatsSettings| {
        let links = Links::start(engine().address(), Settings::default());
        let links = links.unwrap();
        NatsLinks::start(&links, settings).unwrap_err().to_string()
    };
    let stranger = Authority::new("stranger", now_s, DAY).unwrap();
    for roots in [None, Some(stranger.certificate())] {
        let told = refused(settings(roots, "right"));
        assert!(told.contains("refused the connection") && told.contains("certificate"), "{told}");
    }
    let told = refused(settings(Some(authority.certificate()), "wrong"));
    assert!(told.contains("authorization violation") && !told.contains("wrong"), "{told}");
    let (first, second) = (engine(), engine());
    let joined = [&first, &second]
        .map(|engine| join(engine, settings(Some(authority.certificate()), "right"), Path::Probe));
    let worker = |engine: &ringway_engine::Engine| {
        ringway::Worker::builder("worker").address(engine.address()).connect().unwrap()
    };
    let (a, b) = (worker(&first), worker(&second));
    a.register(Function::json("a::double", |_, number: u64| Ok(number * 2))).unwrap();
    wait_for(&b, "a::double");
    for number in 0..100u64 {
        assert_eq!(b.trigger_json("a::double", &json!(number)).unwrap(), json!(number * 2));
    }
    drop(joined);
}
