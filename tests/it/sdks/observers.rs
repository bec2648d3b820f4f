//! Observers, which 0.25 brought. The engine advertises none yet, and clients are to be told so at once rather than wait. It
//! must not know how clients ask for features.

use serde_json::json;

use super::stage::Stage;

#[test]
fn whoever_observes_is_told_that_the_engine_has_no_observers() {
    let stage = Stage::with(&["pypi025", "rs025", "rs026"]);
    for name in stage.sdks() {
        let observer =
            json!({ "key": "o", "source": format!("{name}::add"), "target": format!("{name}::note") });
        let settled = stage.ask(name, "observe", &observer);
        assert_eq!(settled["state"], "error", "{name}: {settled}");
        assert!(settled["reason"].to_string().contains("UNSUPPORTED"), "{name}: {settled}");
        // What it observes works as ever.
        let sum = stage.call(name, &format!("{name}::add"), &json!({ "a": 1, "b": 1.5 }));
        assert_eq!(sum, json!({ "ok": { "sum": 2.5 } }), "{name}");
    }
}
