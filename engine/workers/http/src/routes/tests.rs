//! Routes that come and go, over routes whose functions nobody serves.

use serde_json::json;

use super::*;
use crate::config::Config;
use crate::config::route::Bound;

fn route(id: &str, method: &str, path: &str) -> Arc<Route> {
    let config = json!({"api_path": path, "http_method": method});
    let bound = Bound::parse(&config, &Config::default()).unwrap();
    Arc::new(Route::unserved(id, &format!("f::{id}"), bound))
}

fn found(routes: &Routes, method: Method, path: &str) -> String {
    match routes.find(method, path, true) {
        Found::Route(route, params) => format!("{}{params:?}", route.id),
        Found::Others(methods) => methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(","),
        Found::Nothing => "nothing".to_owned(),
    }
}

#[test]
fn methods_have_trees_of_their_own() {
    let routes = Routes::default();
    routes.add(route("a", "GET", "/u/:id")).unwrap();
    // The pair that stopped iii's whole worker.
    routes.add(route("b", "DELETE", "/u/:userId")).unwrap();
    routes.add(route("c", "*", "/any")).unwrap();
    assert_eq!(found(&routes, Method::Get, "/u/7"), r#"a["7"]"#);
    assert_eq!(found(&routes, Method::Head, "/u/7"), r#"a["7"]"#);
    assert_eq!(found(&routes, Method::Delete, "/u/7"), r#"b["7"]"#);
    assert_eq!(found(&routes, Method::Post, "/u/7"), "GET,DELETE,HEAD,OPTIONS");
    assert_eq!(found(&routes, Method::Trace, "/any"), "c[]");
    assert_eq!(found(&routes, Method::Get, "/none"), "nothing");
}

#[test]
fn a_conflict_is_refused_and_changes_nothing() {
    let routes = Routes::default();
    routes.add(route("a", "GET", "/a/:x")).unwrap();
    let refused = routes.add(route("b", "GET", "/a/:y")).unwrap_err();
    assert!(refused.message.contains("conflicts") && refused.message.contains("f::a"), "{refused}");
    assert_eq!(found(&routes, Method::Get, "/a/1"), r#"a["1"]"#);
    routes.remove("b");
    assert_eq!(routes.all().len(), 1);
    // The same trigger may say it otherwise.
    routes.add(route("a", "GET", "/a/:y")).unwrap();
    routes.remove("a");
    assert_eq!(found(&routes, Method::Get, "/a/1"), "nothing");
    routes.add(route("b", "GET", "/a/:z")).unwrap();
}

#[test]
fn the_newest_serves_and_the_one_before_comes_back() {
    let routes = Routes::default();
    for id in ["a", "b", "c"] {
        routes.add(route(id, "GET", "/x")).unwrap();
    }
    assert_eq!(found(&routes, Method::Get, "/x"), "c[]");
    routes.remove("b");
    routes.remove("c");
    assert_eq!(found(&routes, Method::Get, "/x"), "a[]");
    routes.add(route("a", "POST", "/x")).unwrap();
    assert_eq!(found(&routes, Method::Get, "/x"), "POST,OPTIONS");
}

#[test]
fn a_slash_at_the_end_is_ignored_where_only_one_of_both_is_a_route() {
    let routes = Routes::default();
    routes.add(route("a", "GET", "/a")).unwrap();
    routes.add(route("b", "GET", "/b/")).unwrap();
    routes.add(route("p", "GET", "/p/:x/")).unwrap();
    routes.add(route("both", "GET", "/a/b")).unwrap();
    routes.add(route("slash", "GET", "/a/b/")).unwrap();
    assert_eq!(found(&routes, Method::Get, "/a/"), "a[]");
    assert_eq!(found(&routes, Method::Get, "/b"), "b[]");
    assert_eq!(found(&routes, Method::Get, "/p/7"), r#"p["7"]"#);
    assert_eq!(
        (found(&routes, Method::Get, "/a/b"), found(&routes, Method::Get, "/a/b/")),
        ("both[]".into(), "slash[]".into())
    );
    assert!(matches!(routes.find(Method::Get, "/a/", false), Found::Nothing));
    assert!(matches!(routes.find(Method::Get, "/", true), Found::Nothing));
}

#[test]
fn ten_thousand_routes_are_found() {
    let routes = Routes::default();
    for number in 0..10_000 {
        routes.add(route(&format!("r{number}"), "GET", &format!("/bench/{number}/:id"))).unwrap();
    }
    assert_eq!(found(&routes, Method::Get, "/bench/9999/x"), r#"r9999["x"]"#);
    for number in 0..10_000 {
        routes.remove(&format!("r{number}"));
    }
    assert!(routes.current.load().by_method.iter().all(Tree::is_empty));
}
