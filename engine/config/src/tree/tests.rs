//! Positions, limits, aliases, and that no text whatever makes the reader panic.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn value(text: &str) -> Value {
    json(&parse(text, &Variables::of([("PORT", "80"), ("NAME", "x")])).unwrap())
}

fn json(node: &Node) -> Value {
    crate::typed::read(node).unwrap()
}

fn fault(text: &str) -> Fault {
    parse(text, &Variables::of([("PORT", "80")])).unwrap_err().remove(0)
}

#[test]
fn yaml_is_read() {
    assert_eq!(
        value("a: 1\nb: [x, 'y', \"2\"]\nc:\n  - d: ~\n"),
        json!({"a": 1, "b": ["x", "y", "2"], "c": [{"d": null}]})
    );
    assert_eq!(value("a: &x {n: 1}\nb: *x"), json!({"a": {"n": 1}, "b": {"n": 1}}));
    assert_eq!(value("a: !!str 5"), json!({"a": "5"}));
    assert_eq!(
        value("a: ${PORT}\nb: \"${PORT}\"\nc: ${PORT}0\nd: ${NO:-true}"),
        json!({"a": 80, "b": "80", "c": "800", "d": true})
    );
    assert_eq!(value("a: |\n  x ${NAME}\n  y\n"), json!({"a": "x x\ny\n"}));
}

#[test]
fn faults_have_places() {
    let check = |text: &str, line: usize, column: usize, words: &[&str]| {
        let found = fault(text);
        assert_eq!(found.at, Some(Position { line, column }), "{text}: {found:?}");
        let all = format!("{} {}", found.message, found.hint.unwrap_or_default());
        for word in words {
            assert!(all.contains(word), "`{word}` is not in {all}");
        }
    };
    check("a: 1\nb: 2\na: 3\n", 3, 1, &["`a`", "second time", "1:1"]);
    check("a: x ${NONE} y", 1, 6, &["`NONE`", "not set", "${NONE:-DEFAULT}"]);
    check("a: 'x ${NONE}'", 1, 7, &["`NONE`"]);
    check("a:\n  b: ${PROT}", 2, 6, &["`PROT`", "did you mean `PORT`"]);
    check("a: ${", 1, 4, &["${NAME}"]);
    check("a: !secret x", 1, 4, &["tag"]);
    check("? [a]\n: b", 1, 3, &["key"]);
    check("a: &x [*x]", 1, 8, &["alias"]);
    check("a: 1\n---\nb: 2", 2, 1, &["second"]);
    assert!(fault("a: [1, 2").at.is_some());
    assert!(fault("a:\n\t- b").message.contains("no YAML"));
}

#[test]
fn every_variable_that_is_not_set_is_told() {
    let faults = parse("a: ${ONE}\nb: ${TWO}\n", &Variables::default()).unwrap_err();
    assert_eq!(faults.len(), 2);
}

#[test]
fn neither_depth_nor_aliases_take_more_than_they_may() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(fault(&deep).message.contains("limit") || fault(&deep).message.contains("no YAML"));
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&nested(DEPTH_MAX), &Variables::default()).is_ok());
    assert!(fault(&nested(DEPTH_MAX + 1)).message.contains("deeper"));
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", ")));
    }
    assert!(fault(&laughs).message.contains("limit"), "{:?}", fault(&laughs));
    let wide = "- x\n".repeat(NODES_MAX + 1);
    assert!(fault(&wide).message.contains("limit"));
}

/// Texts that look like a file: pieces of YAML in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "engine:",
        "workers:",
        " ",
        "  ",
        "\n",
        "\n  ",
        "\n- ",
        "- ",
        ": ",
        "? ",
        "a",
        "1",
        "'",
        "\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        "&x ",
        "*x",
        "!!str ",
        "!x ",
        "|",
        ">-",
        "\n---\n",
        "\n...\n",
        "%YAML 1.2\n",
        "#",
        "\t",
        "${A}",
        "${A:-",
        "}",
        "$${",
        "\\",
        "\u{feff}",
        "é",
        "\0",
        "\r\n",
        "@",
        "`",
        "<<",
        "~",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![any::<String>(), pieces()]) {
        let variables = Variables::of([("A", "x: [")]);
        if let Ok(node) = parse(&text, &variables) {
            // What was read can be read by a type, and its parts have places.
            let _value = json(&node);
            prop_assert!(node.place_of("/a/0/b~1").line >= 1);
        }
    }

    #[test]
    fn what_json_says_is_read_as_json(value in json_value()) {
        let text = serde_json::to_string(&value).unwrap();
        prop_assert_eq!(json(&parse(&text, &Variables::default()).unwrap()), value);
    }
}

/// Any JSON without a `$`, which begins variables, and with texts that YAML reads as JSON does.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z ]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
