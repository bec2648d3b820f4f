//! Any requests in any order, against a map in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config as Runner, TestRunner};
use ringway_worker_state::Config;
use serde_json::{Value, json};

use crate::bed::{Bed, NOW_MS};

#[derive(Debug, Clone)]
enum Step {
    Set { key: usize, value: u32, ttl_ms: Option<u64> },
    SetIf { key: usize, value: u32, right: bool },
    Delete { key: usize },
    Increment { key: usize },
    Move { from: usize, to: usize },
    Pass { ms: u64 },
    Restart,
}

const KEYS: [&str; 4] = ["a", "a\0", "b", ""];

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    prop_oneof![
        4 => (key.clone(), any::<u32>(), proptest::option::of(1..100_u64))
            .prop_map(|(key, value, ttl_ms)| Step::Set { key, value, ttl_ms }),
        2 => (key.clone(), any::<u32>(), any::<bool>())
            .prop_map(|(key, value, right)| Step::SetIf { key, value, right }),
        2 => key.clone().prop_map(|key| Step::Delete { key }),
        2 => key.clone().prop_map(|key| Step::Increment { key }),
        2 => (key.clone(), key).prop_map(|(from, to)| Step::Move { from, to }),
        2 => (1..80_u64).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Restart),
    ]
}

/// What there should be: values with the time of their expiry.
#[derive(Debug, Default)]
struct Model {
    now_ms: u64,
    values: BTreeMap<String, (Value, Option<u64>)>,
}

impl Model {
    fn get(&self, key: &str) -> Value {
        self.values.get(key).map_or(Value::Null, |(value, _)| value.clone())
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let now_ms = self.now_ms;
        self.values.retain(|_, (_, expires)| expires.is_none_or(|expires| expires > now_ms));
    }
}

fn take(bed: &mut Bed, model: &mut Model, step: &Step) {
    let name = |key: usize| KEYS[key].to_owned();
    match step {
        Step::Set { key, value, ttl_ms } => {
            let request = json!({"scope": "s", "key": KEYS[*key], "value": value, "ttl_ms": ttl_ms});
            assert_eq!(bed.call("set", request)["old_value"], model.get(KEYS[*key]));
            model.values.insert(name(*key), (json!(value), ttl_ms.map(|ttl_ms| model.now_ms + ttl_ms)));
        }
        Step::SetIf { key, value, right } => {
            let revision = bed.revision("s", KEYS[*key]) + u64::from(!*right);
            let request = json!({"scope": "s", "key": KEYS[*key], "value": value, "if_revision": revision});
            if *right {
                bed.call("set", request);
                model.values.insert(name(*key), (json!(value), None));
            } else {
                assert_eq!(bed.refusal("set", request).0, "REVISION_MISMATCH");
            }
        }
        Step::Delete { key } => {
            let old = bed.call("delete", json!({"scope": "s", "key": KEYS[*key]}));
            assert_eq!(old, model.get(KEYS[*key]));
            model.values.remove(KEYS[*key]);
        }
        Step::Increment { key } => {
            let ops = json!([{"type": "increment", "path": "", "by": 1}]);
            let done = bed.call("update", json!({"scope": "s", "key": KEYS[*key], "ops": ops}));
            match model.values.get_mut(KEYS[*key]) {
                Some((value, _)) => *value = json!(value.as_u64().unwrap() + 1),
                None => assert_eq!(done["errors"][0]["code"], "increment.not_number"),
            }
        }
        Step::Move { from, to } => {
            let value = model.get(KEYS[*from]);
            bed.call("transaction", json!({"operations": [
                {"type": "delete", "scope": "s", "key": KEYS[*from]},
                {"type": "set", "scope": "s", "key": KEYS[*to], "value": if value.is_null() { json!(0) } else { value.clone() }},
            ]}));
            model.values.remove(KEYS[*from]);
            model.values.insert(name(*to), (if value.is_null() { json!(0) } else { value }, None));
        }
        Step::Pass { ms } => {
            model.pass(*ms);
            bed.clock.set(model.now_ms);
        }
        Step::Restart => bed.restart(),
    }
}

#[test]
fn any_requests_do_what_a_map_would() {
    let mut runner = TestRunner::new(Runner { cases: 6, failure_persistence: None, ..Runner::default() });
    let steps = proptest::collection::vec(step(), 1..40);
    runner
        .run(&steps, |steps| {
            let mut bed = Bed::with(Config::default());
            let mut model = Model { now_ms: NOW_MS, ..Model::default() };
            for step in &steps {
                take(&mut bed, &mut model, step);
                let expected: Vec<Value> = model.values.values().map(|(value, _)| value.clone()).collect();
                assert_eq!(bed.call("list", json!({"scope": "s"})), json!(expected), "after {step:?}");
            }
            Ok(())
        })
        .unwrap();
}
