//! Whole files: sections, suggestions, iii's shape, what changed, and the schema against what is read.

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;
use crate::limits::FILE_BYTES_MAX;

/// A worker's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Post {
    /// Letters at most. Default: 10.
    #[schemars(range(min = 1, max = 100))]
    letters_max: u32,
    /// How they go. Default: slow.
    speed: Speed,
    /// Who gets them. Default: nobody.
    boxes: BTreeMap<String, u16>,
    /// What is written on them. Default: nothing.
    stamp: Option<String>,
}

/// A worker of which iii has several.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Doors {
    /// Its number. Default: 0.
    number: u16,
    /// Further ones. Default: none.
    more: Vec<Door>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Door {
    /// Its number.
    number: u16,
}

/// What stands at the top of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Bridge {
    /// Their stones. Default: none.
    arches: Vec<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Speed {
    Slow,
    Express,
}

impl Default for Post {
    fn default() -> Self {
        Self { letters_max: 10, speed: Speed::Slow, boxes: BTreeMap::new(), stamp: None }
    }
}

fn sections() -> Vec<Section> {
    vec![
        Section::of::<Post>("post")
            .iii("iii-post", &[("adapter", None), ("max_letters", Some("letters_max")), ("boxes.old", None)])
            .checked(|post: &Post| match (post.speed, post.letters_max) {
                (Speed::Express, 50..) => Err("wanted fewer than 50 letters by express"),
                _ => Ok(()),
            })
            .live(&["letters_max"]),
        Section::of::<EngineSettings>("other"),
        Section::of::<Doors>("doors").iii("iii-door", &[("width", None)]).iii_further("more"),
        Section::of::<Bridge>("bridges").at_top().checked_parts(|bridge: &Bridge| {
            let odd = bridge.arches.iter().enumerate().filter(|(_, arch)| **arch % 2 == 1);
            odd.map(|(at, arch)| (format!("/arches/{at}"), format!("wanted an even number, found {arch}")))
                .collect()
        }),
    ]
}

fn read(text: &str) -> Result<Settings, Problems> {
    let variables = Variables::of([("LETTERS", "7"), ("STAMP", "12"), ("BAD", "many")]);
    Settings::parse("ringway.yaml", text, &sections(), &variables)
}

#[test]
fn a_file_is_read() {
    let settings = read(
        "engine:\n  project: shop\n  rules:\n    - {action: deny, function: 'vault::*'}\nworkers:\n  post:\n    \
         letters_max: ${LETTERS}\n    speed: express\n    stamp: ${STAMP}\n    boxes: {a: 1}\n  other: false\n",
    )
    .unwrap();
    assert_eq!(settings.engine.project.as_deref(), Some("shop"));
    assert_eq!(settings.engine.rules[0].action, engine::Action::Deny);
    let expected = Post {
        letters_max: 7,
        speed: Speed::Express,
        boxes: BTreeMap::from([("a".to_owned(), 1)]),
        stamp: Some("12".to_owned()),
    };
    assert_eq!(settings.worker::<Post>("post"), Some(expected));
    assert_eq!(settings.worker::<EngineSettings>("other"), None);
}

#[test]
fn what_is_left_out_is_as_by_default() {
    for text in [
        "",
        "\n",
        "# nothing yet\n",
        "engine:\nworkers:\n",
        "workers:\n  post:\n",
        "workers: {post: true}",
        "\u{feff}",
    ] {
        let settings = read(text).unwrap();
        assert_eq!(settings.worker::<Post>("post"), Some(Post::default()), "{text}");
        assert_eq!(settings.engine, EngineSettings::default(), "{text}");
    }
    assert_eq!(Settings::defaults(&sections()).unwrap().worker::<Post>("post"), Some(Post::default()));
}

#[test]
fn what_is_wrong_is_said_with_place_and_suggestion() {
    let check = |text: &str, expected: &[&str]| {
        let found = read(text).unwrap_err().to_string();
        for expected in expected {
            assert!(found.contains(expected), "`{expected}` is not in\n{found}");
        }
    };
    check("engin:\n", &["ringway.yaml:1:1: unknown key `engin`; did you mean `engine`?"]);
    check("engine:\n  adress: x\n", &["ringway.yaml:2:3: unknown key `adress`; did you mean `address`?"]);
    check("engine:\n  drain_ms: soon\n", &["ringway.yaml:2:13: wanted u64, found string \"soon\""]);
    check(
        "engine:\n  rules:\n    - action: dney\n      function: x\n",
        &[":3:15: unknown word `dney`; did you mean `deny`?"],
    );
    check("engine:\n  rules:\n    - action: deny\n", &[":3:7: the key `function` is missing"]);
    check("engine: [1]\n", &[":1:9: ", "found a list"]);
    check(
        "engine:\n  limits:\n    triggers_max: 0\n",
        &[":3:19: this is out of bounds: 0 is less than the minimum of 1"],
    );
    check("workers:\n  pots:\n", &[":2:3: there is no built-in worker `pots`; did you mean `post`?"]);
    check("workers:\n  nothing_like_it:\n", &["known are `doors`, `other`, `post`"]);
    check("workers:\n  post:\n    letters_max: 101\n", &[":3:18: this is out of bounds"]);
    check("workers:\n  post:\n    letters_max: ${BAD}\n", &[":3:18: wanted u32, found string \"many\""]);
    check("workers:\n  post:\n    boxes: {a: 1, b: 70000}\n", &[":3:22: wanted u16, found integer `70000`"]);
    check("workers:\n  post:\n    stamp: ${NOWHERE}\n", &[":3:12: the variable `NOWHERE` is not set"]);
    check(
        "workers:\n  post:\n    letters_max: 50\n    speed: express\n",
        &[":3:5: wanted fewer than 50 letters by express"],
    );
    check(
        "workers:\n  post: ${STAMP}\n",
        &[":2:9: wanted the section of `post`, or true or false, found `12`"],
    );
    check("workers:\n  post: \"false\"\n", &["found `false`; `false`, without quotes"]);
    check("workers: 3\n", &[":1:10: wanted a map of workers"]);
    check("- a\n", &[":1:1: wanted a map"]);
    check("[", &["ringway.yaml:", "no YAML"]);
}

#[test]
fn what_contradicts_itself_is_said_with_both_places() {
    let check = |text: &str, expected: &[&str]| {
        let found = read(text).unwrap_err().to_string();
        assert_eq!(found.lines().count(), expected.len(), "{found}");
        for (line, expected) in found.lines().zip(expected) {
            assert!(line.contains(expected), "`{expected}` is not in\n{line}");
        }
    };
    let rule = "{action: deny, function: 'a::*', caller: b}";
    check(
        &format!(
            "engine:\n  rules:\n    - {rule}\n    - {{action: allow, function: 'a::*'}}\n    - {rule}\n"
        ),
        &[
            ":5:7: this rule never decides anything, since one before it is for the same calls; the other one stands at 3:7",
        ],
    );
    check(
        "engine:\n  address: '@a'\n  zones:\n    - {name: default, address: '@a'}\n    - {name: z, address: '@b'}\n    \
         - {name: y, address: '@b'}\n",
        &[
            ":4:14: `default`",
            ":4:32: this address is the engine's own",
            ":6:26: another zone is at this address",
        ],
    );
    check(
        "engine:\n  users:\n    - {uid: 7, zone: a}\n    - {uid: 7, zone: default}\n",
        &[":4:13: this user is in a zone already", ":4:22: `default`"],
    );
    check("engine:\n  drain_ms: 86400001\n", &[":2:13: this is out of bounds"]);
}

#[test]
fn a_variable_decides_whether_a_worker_runs() {
    let runs = |text: &str| read(text).unwrap().worker::<Post>("post").is_some();
    assert!(!runs("workers:\n  post: ${NOWHERE:-false}\n"));
    assert!(!runs("workers:\n  post: ${NOWHERE:-${ALSO_NOWHERE:-false}}\n"));
    assert!(runs("workers:\n  post: ${NOWHERE:-true}\n"));
    assert!(runs("workers:\n  post: ${NOWHERE:-}\n"));
    assert!(!runs("workers:\n  - name: ${NOWHERE:-post}\n    config: ${NOWHERE:-false}\n"));
}

#[test]
fn a_section_at_the_top_is_there_or_nothing_of_it_is() {
    let bridge = |text: &str| read(text).map(|settings| settings.worker::<Bridge>("bridges"));
    for without in ["", "bridges:\n", "bridges: false\n", "engine:\n"] {
        assert_eq!(bridge(without), Ok(None), "{without}");
    }
    assert_eq!(bridge("bridges: {}\n"), Ok(Some(Bridge::default())));
    assert_eq!(bridge("bridges: {arches: [2, 4]}\n"), Ok(Some(Bridge { arches: vec![2, 4] })));
    let check = |text: &str, expected: &str| {
        let found = read(text).unwrap_err().to_string();
        assert_eq!(found, expected, "{text}");
    };
    check(
        "bridges: {arches: [2, 3, 4, 5]}\n",
        "ringway.yaml:1:23: wanted an even number, found 3\nringway.yaml:1:29: wanted an even number, found 5",
    );
    check(
        "workers: {bridges: {}}\n",
        "ringway.yaml:1:11: `bridges` is no worker; write `bridges:` at the top of the file, beside `workers:`",
    );
    check("bridgse: {}\n", "ringway.yaml:1:1: unknown key `bridgse`; did you mean `bridges`?");
    check(
        "bridges: true\n",
        "ringway.yaml:1:10: wanted a map of settings under `bridges`, found true or false; left out, nothing of it runs",
    );
    let (old, new) = (read("").unwrap(), read("bridges: {}\n").unwrap());
    let changes = old.changes(&new, &sections());
    assert_eq!(changes, [Change { path: "bridges".to_owned(), live: false }]);
    let validator = jsonschema::validator_for(&Settings::schema(&sections())).unwrap();
    for (text, fit) in [
        ("bridges: {arches: [2]}", true),
        ("bridges: false", true),
        ("bridges:", true),
        ("bridges: true", false),
    ] {
        assert_eq!(fits(&validator, text), fit, "{text}");
    }
}

#[test]
fn all_sections_are_checked_before_anything_is_said() {
    let problems =
        read("engine:\n  a: 1\nworkers:\n  post:\n    b: 1\n  other:\n    c: 1\nmore: 1\n").unwrap_err();
    let lines: Vec<_> = problems.0.iter().map(|problem| problem.at.unwrap().line).collect();
    assert_eq!(lines, [2, 5, 7, 8]);
}

#[test]
fn the_shape_of_iii_is_read() {
    let settings = read(
        "workers:\n  - name: iii-post\n    config:\n      max_letters: 3\n      adapter: {name: kv}\n  - name: iii-bridge\n    \
         config: {port: 1}\n  - name: other\n",
    )
    .unwrap();
    assert_eq!(settings.worker::<Post>("post").unwrap().letters_max, 3);
    let warnings: Vec<_> = settings.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("ringway.yaml:5:7: `adapter` of `post`"), "{warnings:?}");
    assert!(warnings[1].starts_with("ringway.yaml:6:11: `iii-bridge`"), "{warnings:?}");
    let wrong = |text: &str| read(text).unwrap_err().to_string();
    assert!(wrong("workers: [{name: iii-psot}]").contains("did you mean `iii-post`"));
    assert!(wrong("workers: [{name: iii-post}, {name: post}]").contains("second time"));
    assert!(wrong("workers: [{config: {}}]").contains("no `name`"));
    assert!(wrong("workers: [{name: post, imge: x}]").contains("unknown key `imge`"));
    let settings =
        read("modules:\n  - {name: somebodys-own, image: 'a/b:1'}\n  - {name: post, image: null}\n").unwrap();
    assert!(
        settings.warnings[0]
            .to_string()
            .starts_with("ringway.yaml:2:12: `somebodys-own` is run from an image")
    );
    assert!(settings.worker::<Post>("post").is_some() && settings.warnings.len() == 1);
    assert!(wrong("modules: {post: {}}").contains("unknown key `modules`"));
    // Keys within keys, and what iii leaves out by null.
    let settings = read(
        "workers:\n  - name: iii-post\n    config:\n      max_letters: null\n      boxes: {a: 1, old: 2}\n",
    );
    let settings = settings.unwrap();
    assert_eq!(settings.worker::<Post>("post").unwrap().boxes, BTreeMap::from([("a".to_owned(), 1)]));
    assert!(settings.warnings[0].to_string().contains("`boxes.old` of `post`"), "{:?}", settings.warnings);
    // Only there: elsewhere our own names hold.
    assert!(wrong("workers: {iii-bridge: {}}").contains("no built-in worker"));
}

#[test]
fn what_iii_names_several_times_is_a_list_here() {
    let item = |config: &str| format!("  - name: iii-door\n    config: {config}\n");
    let doors = |items: &[&str]| {
        let list: String = items.iter().map(|config| item(config)).collect();
        let settings = read(&format!("workers:\n{list}")).unwrap();
        (settings.worker::<Doors>("doors").unwrap(), settings.warnings.len())
    };
    let door = |number| Door { number };
    assert_eq!(doors(&["{number: 1}"]), (Doors { number: 1, more: vec![] }, 0));
    assert_eq!(
        doors(&["{number: 1, width: 7}", "{number: 2, width: 7}", "{number: 3}"]),
        (Doors { number: 1, more: vec![door(2), door(3)] }, 2)
    );
    assert_eq!(doors(&["null", "{number: 2}"]), (Doors { number: 0, more: vec![door(2)] }, 0));
    assert_eq!(doors(&["{more: [{number: 5}]}", "{number: 2}"]).0.more, [door(5), door(2)]);
    let wrong = |text: &str| read(text).unwrap_err().to_string();
    let told = wrong("workers: [{name: iii-door}, {name: iii-door}]");
    assert!(told.contains("`number`"), "{told}");
    assert!(wrong("workers: [{name: iii-post}, {name: iii-post}]").contains("second time"));
    for first in ["5", "false"] {
        let told = wrong(&format!("workers:\n{}{}", item(first), item("{number: 2}")));
        assert!(told.contains("wanted the section of `doors`"), "{told}");
    }
}

#[test]
fn changes_say_whether_they_are_live() {
    let changes = |old: &str, new: &str| -> Vec<(String, bool)> {
        let found = read(old).unwrap().changes(&read(new).unwrap(), &sections());
        found.into_iter().map(|change| (change.path, change.live)).collect()
    };
    let change = |path: &str, live: bool| (path.to_owned(), live);
    assert_eq!(changes("", "engine: {drain_ms: 5000}\nworkers: {post: {letters_max: 10}}"), []);
    assert_eq!(
        changes(
            "engine: {project: a, drain_ms: 1}",
            "engine: {project: b, drain_ms: 2, rules: [{action: deny, function: x}]}"
        ),
        [change("engine.drain_ms", true), change("engine.project", false), change("engine.rules", true)]
    );
    assert_eq!(
        changes("", "workers: {post: {letters_max: 11, speed: express}}"),
        [change("workers.post.letters_max", true), change("workers.post.speed", false)]
    );
    assert_eq!(changes("", "workers: {post: false}"), [change("workers.post", false)]);
}

#[test]
fn paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringway.yaml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Settings::read(&path, &sections(), &Variables::default()).unwrap().data_folder()
    };
    assert_eq!(read(""), Some(folder.path().join(".ringway")));
    assert_eq!(read("engine: {data_folder: ../x}"), Some(folder.path().join("../x")));
    assert_eq!(read("engine: {data_folder: /var/x}"), Some(PathBuf::from("/var/x")));
    assert_eq!(Settings::defaults(&sections()).unwrap().data_folder(), None);
}

#[test]
fn files_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringway.yaml");
    let wrong =
        |path: &Path| Settings::read(path, &sections(), &Variables::default()).unwrap_err().to_string();
    assert!(wrong(&path).contains("cannot be read"));
    assert!(wrong(folder.path()).contains("cannot be read"));
    std::fs::write(&path, b"a\nb\xff").unwrap();
    assert!(wrong(&path).contains("line 2 is no UTF-8"));
    std::fs::write(&path, vec![b'#'; FILE_BYTES_MAX + 1]).unwrap();
    assert!(wrong(&path).contains("at most"));
}

#[test]
fn a_file_that_changed_is_read_only_where_it_says_something() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringway.yaml");
    let read = |path: &Path| Settings::read_again(path, &sections(), &Variables::default());
    let wrong = |path: &Path| read(path).unwrap_err().to_string();
    for empty in ["", "\n  \n", "\u{feff}"] {
        std::fs::write(&path, empty).unwrap();
        assert!(wrong(&path).contains("is empty"), "{empty:?}");
        assert!(Settings::read(&path, &sections(), &Variables::default()).is_ok(), "{empty:?}");
    }
    assert!(wrong(folder.path()).contains("wanted a regular file"));
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(wrong(&pipe).contains("wanted a regular file"));
    std::fs::write(&path, "# all as by default\n").unwrap();
    assert!(read(&path).is_ok());
}

fn fits(validator: &jsonschema::Validator, text: &str) -> bool {
    validator.is_valid(&typed::read(&tree::parse(text, &Variables::default()).unwrap()).unwrap())
}

#[test]
fn the_schema_takes_what_is_read_and_refuses_what_is_not() {
    let schema = Settings::schema(&sections());
    let validator = jsonschema::options().build(&schema).unwrap();
    for good in [
        "engine: {project: a}\nworkers: {post: {letters_max: 3}, other: false}",
        "workers: [{name: iii-post}]",
        "modules: [{name: somebodys-own, image: x}]",
        "a: &x 1",
    ] {
        let read = read(good).is_ok();
        assert_eq!(fits(&validator, good), read, "{good}");
    }
    for bad in [
        "engine: {x: 1}",
        "workers: {post: {letters_max: 0}}",
        "workers: {pots: {}}",
        "workers: [{name: nobody}]",
        "workers: {post: {speed: fast}}",
    ] {
        assert!(read(bad).is_err() && !fits(&validator, bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_file_makes_it_panic(
        text in prop_oneof![
            any::<String>(),
            "(engine|workers|post|[a-z]{1,3}):( [a-z0-9\\[\\]{}'\"$&*!|>-]{0,8})?(\n {0,4}[a-z_-]{0,6}:? ?[a-z0-9${}-]{0,6}){0,8}",
        ],
    ) {
        match read(&text) {
            Ok(settings) => prop_assert!(settings.changes(&settings, &sections()).is_empty()),
            Err(problems) => {
                prop_assert!(!problems.0.is_empty());
                prop_assert!(problems.to_string().contains("ringway.yaml"));
            }
        }
    }
}

#[test]
fn a_store_is_told_only_what_it_understands() {
    let check = |text: &str, expected: &[&str]| {
        let found = read(&format!("engine:\n  store:\n{text}"));
        let told = found.err().map(|problems| problems.to_string()).unwrap_or_default();
        assert_eq!(told.is_empty(), expected.is_empty(), "{text}: {told}");
        for words in expected {
            assert!(told.contains(words), "`{words}` is not in: {told}");
        }
    };
    check("    kind: nats\n    servers: ['nats://h:4222']\n    user: me\n    password: ${STAMP}\n", &[]);
    check("    cache_bytes: 2000000\n", &[]);
    check("    replicas: 3\n", &["ringway.yaml:3:15", "`kind: nats` only"]);
    check("    kind: nats\n    cache_bytes: 2000000\n", &["ringway.yaml:4:18", "`kind: embedded` only"]);
    check("    kind: nats\n    user: me\n", &["ringway.yaml:4:11", "`password`"]);
    check("    kind: nats\n    token: a\n    credentials: b\n", &["ringway.yaml:5:18", "found more"]);
    check("    kind: nats\n    tls: {key: k.pem}\n", &["ringway.yaml:4:10", "`certificate`"]);
    check("    kind: nat\n", &["ringway.yaml:3:11"]);
    check("    kind: nats\n    servers: []\n", &["out of bounds"]);
    let text = "engine: {store: {kind: nats, token: hush}}";
    let told = format!("{:?}", read(text).unwrap());
    assert!(!told.contains("hush"), "{told}");
}
