//! A page in Chromium that is a worker: npm's iii-sdk bundled for browsers, with the very actor that Node runs. It must not know
//! how a bundle is made; `tests/iii/node/page` does.

use serde_json::{Value, json};

use super::stage::{NATIVE, PAGE, Stage, until};
use super::{calls, channels};

/// Pairs of which one is the page.
fn pairs_with_the_page(stage: &Stage) -> Vec<(&'static str, &'static str)> {
    let is_wanted = |(caller, callee): &(&str, &str)| *caller == PAGE || *callee == PAGE;
    calls::pairs(stage).into_iter().filter(is_wanted).collect()
}

#[test]
fn a_page_calls_everybody_and_is_called_by_everybody() {
    let stage = Stage::with(&["npm022", "pypi025", PAGE]);
    let pairs = pairs_with_the_page(&stage);
    assert_eq!(pairs.len(), 7, "{pairs:?}");
    for &(caller, callee) in &pairs {
        calls::answers(&stage, caller, callee);
        calls::errors(&stage, caller, callee);
        calls::passes(&stage, caller, callee, &"m".repeat(1 << 20));
        calls::sends(&stage, caller, callee);
    }
    for (caller, callee) in pairs {
        calls::arrived(&stage, caller, callee);
    }
}

#[test]
fn a_page_keeps_state_and_is_told_of_it() {
    let stage = Stage::with(&[PAGE]);
    let binding = json!({
        "key": "state", "type": "state", "function": format!("{PAGE}::note"),
        "config": { "scope": "page", "condition": "status == \"pending\"" }, "metadata": { "bound": "state" },
    });
    stage.ask(PAGE, "bind", &binding);
    let bound = || {
        let asked = json!({ "trigger_type": "state" });
        let listed =
            stage.client.trigger_json("engine::registered-triggers::list", &asked).expect("the list");
        if listed["registered_triggers"] == json!([]) { Err(listed) } else { Ok(()) }
    };
    until("the page's trigger", bound);
    for (key, status) in [("a", "done"), ("b", "pending")] {
        let value = json!({ "scope": "page", "key": key, "value": { "status": status } });
        let set = stage.call(PAGE, "state::set", &value);
        assert_eq!(set["ok"]["new_value"], value["value"], "{set}");
    }
    let kept = stage.call(PAGE, "state::get", &json!({ "scope": "page", "key": "b" }));
    assert_eq!(kept, json!({ "ok": { "status": "pending" } }));
    let told = until("what the page was told", || {
        let notes = stage.notes(PAGE, |note| note["metadata"]["bound"] == "state");
        if notes.is_empty() { Err(Value::Null) } else { Ok(notes) }
    });
    // The other one did not fulfil the condition, and was earlier.
    let keys: Vec<&Value> = told.iter().map(|note| &note["data"]["key"]).collect();
    assert_eq!(keys, ["b"]);
}

#[test]
fn a_page_exchanges_channels() {
    let stage = Stage::with(&["npm022", PAGE]);
    for (maker, other) in pairs_with_the_page(&stage) {
        channels::both_ways(&stage, maker, other, &["first", "second"]);
    }
    for (maker, other) in [(PAGE, NATIVE), (NATIVE, PAGE)] {
        channels::exchange(&stage, "push", (maker, other), channels::BYTES, &["all"]);
    }
}

#[test]
fn a_page_is_back_after_the_engine_was_killed_and_gone_with_its_browser() {
    let mut stage = Stage::with(&[PAGE]);
    stage.kill_engine();
    stage.start_engine();
    stage.wait_for_all();
    until("the page's answer after the restart", || {
        let asked = json!({ "a": 1, "b": 1.5 });
        match stage.client.trigger_json(&format!("{PAGE}::add"), &asked) {
            Ok(answer) if answer == json!({ "sum": 2.5 }) => Ok(()),
            other => Err(json!(format!("{other:?}"))),
        }
    });
    stage.kill_actor(PAGE);
    until("no function of the page", || {
        let known = stage.client.catalog();
        let left = known.functions.iter().filter(|function| function.id.as_str().starts_with(PAGE)).count();
        if left == 0 { Ok(()) } else { Err(json!(left)) }
    });
}

/// Any page can connect to any address, so the listener asks where it came from.
#[test]
fn a_page_of_another_origin_is_refused_unless_it_is_listed() {
    let mut stage = Stage::with(&[]);
    stage.open_page("strange.example", "strange");
    until("the refusal", || {
        let said = stage.said_by("engine");
        let is_told = said.contains("a page was refused") && said.contains("http://strange.example:");
        if is_told { Ok(()) } else { Err(json!([said, stage.said_by("strange")])) }
    });
    let is_known = |stage: &Stage, name: &str| {
        stage.client.catalog().functions.iter().any(|function| function.id.as_str().starts_with(name))
    };
    stage.open_page("known.example", "known");
    until("the page of the origin that is listed", || {
        if is_known(&stage, "known::") { Ok(()) } else { Err(json!(stage.said_by("known"))) }
    });
    assert!(!is_known(&stage, "strange::"));
}
