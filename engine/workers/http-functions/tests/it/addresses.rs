//! Where requests go, and where they do not: names that lead astray, names that change their mind, redirects.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringway_worker_http_functions::{Config, Resolver};
use serde_json::{Value, json};

use crate::server::{Answer, Server};
use crate::stage::{call, environment, local, register, stage, stage_with};

fn answers(server: &'static str) -> Server {
    Server::start_at(&format!("{server}:0"), None, |_, _| Answer::new("200 OK", "\"reached\""))
}

/// A name whose lookups give these addresses, one list after the other; the last stays.
fn name(lists: Vec<Vec<&'static str>>) -> (Resolver, Arc<AtomicUsize>) {
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lookups);
    let resolver = Resolver::new(move |_| {
        let at = counted.fetch_add(1, Ordering::SeqCst).min(lists.len() - 1);
        let found: Vec<IpAddr> = lists[at].iter().map(|text| text.parse().unwrap()).collect();
        async move { Ok(found) }
    });
    (resolver, lookups)
}

fn refused(found: Result<Value, (String, String)>) {
    let (code, text) = found.unwrap_err();
    assert_eq!(code, "url_validation_failed", "{text}");
    assert!(text.contains("public internet") && text.contains("addresses_allowed"), "{text}");
}

#[test]
fn a_name_that_leads_inside_leads_nowhere() {
    let server = answers("127.0.0.2");
    for inside in ["127.0.0.2", "::ffff:127.0.0.2", "10.0.0.1", "169.254.169.254", "::1", "0.0.0.0"] {
        let (resolver, _) = name(vec![vec![inside]]);
        let stage = stage_with(local(), environment(), resolver);
        register(&stage, "x::y", json!({"url": format!("http://rebind.test:{}/", server.address.port())}));
        refused(call(&stage, "x::y", &json!({})));
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_name_that_changes_its_mind_is_held_to_the_rules_each_time() {
    let (good, bad) = (answers("127.0.0.1"), answers("127.0.0.2"));
    // Both listen on one port, so that only the address tells them apart.
    let port = good.address.port();
    let bad = if bad.address.port() == port {
        bad
    } else {
        Server::start_at(&format!("127.0.0.2:{port}"), None, |_, _| Answer::new("200 OK", "\"inside\""))
    };
    let (resolver, lookups) = name(vec![vec!["127.0.0.1"], vec!["127.0.0.2"]]);
    let stage = stage_with(local(), environment(), resolver);
    register(&stage, "x::y", json!({"url": format!("http://rebind.test:{port}/")}));
    assert_eq!(lookups.load(Ordering::SeqCst), 0, "nothing is decided before a connection");
    assert_eq!(call(&stage, "x::y", &json!({})), Ok(json!("reached")));
    refused(call(&stage, "x::y", &json!({})));
    assert_eq!((good.connections(), bad.connections()), (1, 0));
    assert_eq!(
        lookups.load(Ordering::SeqCst),
        2,
        "the address that was checked is the one that is connected to"
    );
}

#[test]
fn of_several_addresses_only_those_that_may_be_are_tried() {
    let server = answers("127.0.0.1");
    let inside = Server::start_at(&format!("127.0.0.3:{}", server.address.port()), None, |_, _| {
        Answer::new("200 OK", "0")
    });
    let (resolver, _) = name(vec![vec!["127.0.0.3", "10.0.0.1", "127.0.0.1"]]);
    let stage = stage_with(local(), environment(), resolver);
    register(&stage, "x::y", json!({"url": format!("http://many.test:{}/", server.address.port())}));
    assert_eq!(call(&stage, "x::y", &json!({})), Ok(json!("reached")));
    assert_eq!(inside.connections(), 0);
}

#[test]
fn a_redirect_is_not_followed() {
    let inside = answers("127.0.0.1");
    let target = inside.url("/secret");
    let server = Server::start(move |_, seen| {
        let status = seen.path.trim_start_matches('/').to_owned();
        Answer::with(&format!("{status} Moved"), &format!("Location: {target}\r\n"), "")
    });
    let stage = stage(local());
    for status in ["301", "302", "303", "307", "308"] {
        register(&stage, "x::y", json!({"url": server.url(&format!("/{status}"))}));
        assert_eq!(call(&stage, "x::y", &json!({})), Ok(Value::Null));
    }
    assert_eq!((inside.connections(), server.seen().len()), (0, 5));
}

#[test]
fn what_can_be_told_is_told_when_it_is_registered() {
    let stage = stage(Config::default());
    for url in [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://[::ffff:10.0.0.1]/",
        "nonsense",
        "https://u:p@example.com/",
    ] {
        let (code, error) =
            stage.refusal("register", json!({"function_id": "x::y", "invocation": {"url": url}}));
        assert_eq!(code, "url_validation_failed", "{url}: {error}");
    }
    assert!(stage.try_call("list", json!({})).unwrap()["functions"].as_array().unwrap().is_empty());
}
