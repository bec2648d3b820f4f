//! `ringway.yaml` and backups, with the executable: what is refused, what `up` does with the file, what happens when it
//! changes, and what is there after a restart.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};

use ringway_store_nats::testing::Server;
use serde_json::json;

use crate::host::{Ran, address, ringway};
use crate::running::Killed;

/// An engine in a process of its own, and what it says.
pub(crate) struct Up {
    pub(crate) engine: Killed,
    words: BufReader<ChildStderr>,
    pub(crate) address: String,
    /// What it said until it ran.
    started: String,
}

impl Up {
    pub(crate) fn start(arguments: &[&str], folder: &Path) -> Self {
        let address = address();
        let mut command = ringway();
        command.current_dir(folder).args(["--address", &address, "up"]).args(arguments);
        let mut engine = Killed(command.stderr(Stdio::piped()).spawn().unwrap());
        let words = BufReader::new(engine.0.stderr.take().unwrap());
        let mut up = Self { engine, words, address, started: String::new() };
        up.started = up.hear("runs at");
        up
    }

    /// Waits for a line with these words, and returns all that was said up to it.
    #[track_caller]
    pub(crate) fn hear(&mut self, words: &str) -> String {
        let mut heard = String::new();
        loop {
            let begin = heard.len();
            assert_ne!(self.words.read_line(&mut heard).unwrap(), 0, "`{words}` was not said in\n{heard}");
            if heard[begin..].contains(words) {
                return heard;
            }
        }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(ringway().args(["--address", &self.address]).args(arguments))
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.engine.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(crate) fn stop(mut self) {
        self.signal("-TERM");
        self.hear("stopped");
        assert!(self.engine.0.wait().unwrap().success());
    }
}

#[test]
fn a_file_is_checked_with_place_and_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringway.yaml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        Ran::of(ringway().current_dir(folder.path()).args(["config", "check"]))
    };
    check("engine: {drain_ms: 100}\n").prints("ringway.yaml is good\n");
    check("engine:\n  drian_ms: 1\nworkers:\n  configuration:\n    history_max: 0\n").fails(
        1,
        &[
            "ringway.yaml:2:3: unknown key `drian_ms`; did you mean `drain_ms`?",
            "ringway.yaml:5:18: this is out of bounds",
        ],
    );
    check("engine:\n  address: ${RINGWAY_TEST_NOWHERE}\n")
        .fails(1, &["ringway.yaml:2:12", "`RINGWAY_TEST_NOWHERE` is not set"]);
    let told = Ran::of(ringway().current_dir(folder.path()).args(["config", "check", "--json"]));
    let told: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!((&told["ok"], &told["problems"][0]["line"]), (&json!(false), &json!(2)));
    let iii =
        check("workers:\n  - name: configuration\n    config: {adapter: {name: fs}}\n  - name: iii-bridge\n");
    assert!(
        iii.code == Some(0) && iii.err.contains("`adapter`") && iii.err.contains("`iii-bridge`"),
        "{iii:?}"
    );
    Ran::of(ringway().args(["config", "check", "/nowhere/x.yaml"]))
        .fails(1, &["/nowhere/x.yaml", "cannot be read"]);
    let schema = Ran::of(ringway().args(["config", "schema"])).json();
    assert!(schema["properties"]["workers"].to_string().contains("configuration"), "{schema}");
    // An engine does not start with a file that is wrong.
    std::fs::write(&file, "engin: 1\n").unwrap();
    let up = Ran::of(ringway().current_dir(folder.path()).args(["--address", &address(), "up"]));
    up.fails(2, &["ringway.yaml:1:1", "did you mean `engine`?", "config check"]);
}

#[test]
fn whatever_an_engine_refuses_is_found_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |text: &str, place: &str| {
        std::fs::write(folder.path().join("ringway.yaml"), text).unwrap();
        let checked = Ran::of(ringway().current_dir(folder.path()).args(["config", "check"]));
        checked.fails(1, &[place]);
        let up = Ran::of(ringway().current_dir(folder.path()).args(["--address", &address(), "up"]));
        assert!(up.code.is_some_and(|code| code > 0) && up.err.contains(place), "{up:?}");
    };
    let rule = "{action: deny, function: x}";
    refused(&format!("engine:\n  rules: [{rule}, {rule}]\n"), "ringway.yaml:2:40: this rule never decides");
    refused("workers:\n  queue:\n    delivery_threads: 0\n", "ringway.yaml:3:23: this is out of bounds");
    refused(
        "workers:\n  queue:\n    queue_configs:\n      mail: {concurrency: 0}\n",
        "ringway.yaml:4:27: this is out of bounds",
    );
    refused(
        "workers:\n  queue:\n    queue_configs:\n      mail: {type: fifo, fairness: {key_field: a}}\n",
        "ringway.yaml:3:5: queue `mail`: wanted `fairness` in a standard queue only",
    );
    refused("workers:\n  state:\n    value_bytes_max: 7340033\n", "ringway.yaml:3:22: this is out of bounds");
    refused("workers:\n  state: {ops_max: 0}\n", "ringway.yaml:2:20: this is out of bounds");
    refused("workers:\n  cron: {timezone: Mars/Olympus}\n", "`Mars/Olympus`");
    refused("engine:\n  zones: [{name: default, address: '@x'}]\n", "ringway.yaml:2:18: `default`");
    refused("engine:\n  zones: [{name: z, address: /nowhere/at/all.sock}]\n", "/nowhere/at");
}

#[test]
fn a_file_that_is_cut_off_first_changes_nothing_until_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringway.yaml");
    let rules = "rules: [{action: deny, caller: ringway-cli, function: 'configuration::list'}]";
    std::fs::write(&file, format!("engine: {{{rules}}}\n")).unwrap();
    let mut up = Up::start(&[], folder.path());
    let listing = ["trigger", "configuration::list"];
    up.run(&listing).fails(4, &["forbidden"]);
    let mut writer = std::fs::File::create(&file).unwrap();
    up.signal("-HUP");
    let told = up.hear("the engine goes on as before");
    assert!(told.contains("this file is empty") && !told.contains("in force"), "{told}");
    up.run(&listing).fails(4, &["forbidden"]);
    // Half of it would do without rules.
    writer.write_all(b"engine:\n  drain_ms: 1000\n").unwrap();
    writer.write_all(format!("  {rules}\n").as_bytes()).unwrap();
    drop(writer);
    let told = up.hear("now in force");
    assert!(told.contains("engine.drain_ms") && !told.contains("engine.rules"), "{told}");
    up.run(&listing).fails(4, &["forbidden"]);
    up.stop();
}

#[test]
fn a_file_is_read_once_at_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("settings");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let target = pipe.clone();
    // Whoever read it a second time would wait for a writer that never comes.
    let writer = std::thread::spawn(move || std::fs::write(target, "workers: {state: false}\n").unwrap());
    let mut up = Up::start(&["--config", pipe.to_str().unwrap()], folder.path());
    writer.join().unwrap();
    up.run(&["state", "groups"]).fails(3, &["state::list_groups"]);
    up.signal("-HUP");
    assert!(up.hear("goes on as before").contains("wanted a regular file"));
    up.stop();
}

#[test]
fn a_configuration_that_is_mounted_is_followed() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let version = |name: &str, text: &str| {
        std::fs::create_dir(path(name)).unwrap();
        std::fs::write(path(name).join("ringway.yaml"), text).unwrap();
    };
    version("..one", "engine: {drain_ms: 1000}\n");
    symlink("..one", path("..data")).unwrap();
    symlink("..data/ringway.yaml", path("ringway.yaml")).unwrap();
    let mut up = Up::start(&[], folder.path());
    for (name, drain_ms) in [("..two", 2000), ("..three", 3000)] {
        version(name, &format!("engine: {{drain_ms: {drain_ms}}}\n"));
        symlink(name, path("..data_new")).unwrap();
        std::fs::rename(path("..data_new"), path("..data")).unwrap();
        up.hear("now in force: engine.drain_ms");
    }
    up.stop();
}

#[test]
fn what_is_kept_is_for_its_own_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
    let rights = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let up = Up::start(&["--data", "data"], folder.path());
    assert!(!up.started.contains("other users"), "{}", up.started);
    up.run(&["backup", "create", backup.to_str().unwrap()]);
    up.stop();
    assert_eq!((rights(&data), rights(&backup)), (0o700, 0o600));
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let up = Up::start(&["--data", "data"], folder.path());
    assert!(up.started.contains("other users may look into data: `chmod go= data`"), "{}", up.started);
    up.stop();
}

#[test]
fn null_is_a_value() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&["--data", "data"], folder.path());
    up.run(&["state", "get", "s", "k"]).fails(3, &["holds no key `k`"]);
    up.run(&["state", "set", "s", "k", "null"]).json();
    up.run(&["state", "get", "s", "k"]).prints("null\n");
    up.run(&["state", "delete", "s", "k"]).prints("null\n");
    up.run(&["state", "delete", "s", "k"]).fails(3, &["holds no key `k`"]);
    up.stop();
}

#[test]
fn a_backup_of_nothing_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, good) = (folder.path().join("empty"), folder.path().join("good"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(&good, "an older one").unwrap();
    let create = ["backup", "create", good.to_str().unwrap(), "--data", empty.to_str().unwrap()];
    Ran::of(ringway().args(create)).fails(3, &["there is no store in", "empty"]);
    assert_eq!(std::fs::read_to_string(&good).unwrap(), "an older one");
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
}

#[test]
fn codes_are_explained_without_an_engine() {
    let told = Ran::of(ringway().args(["errors", "worker_gone"]));
    assert!(told.code == Some(0) && told.out.contains("## What to try"), "{told:?}");
    assert_eq!(Ran::of(ringway().args(["errors", "QUEUE_FULL", "--json"])).json()["code"], "QUEUE_FULL");
    let all = Ran::of(ringway().args(["errors", "--json"])).json();
    assert!(all.as_array().unwrap().iter().any(|page| page["code"] == "SET_ERROR"), "{all}");
    Ran::of(ringway().args(["errors", "worker_gon"])).fails(3, &["did you mean `worker_gone`?"]);
}

#[test]
fn a_file_that_changes_is_followed_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringway.yaml");
    let write = |text: &str| {
        // As editors do it: another file in its place.
        let new = folder.path().join("ringway.yaml.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    write("workers: {configuration: {value_bytes_max: 10}}\n");
    let mut up = Up::start(&[], folder.path());
    up.run(&[
        "trigger",
        "configuration::register",
        "--json",
        r#"{"id":"a","schema":true,"initial_value":1}"#,
    ])
    .json();
    let set = r#"{"id":"a","value":"longer than that"}"#;
    up.run(&["trigger", "configuration::set", "--json", set]).fails(1, &["VALUE_TOO_LARGE"]);
    write("workers: {configuration: {value_bytes_mx: 100}}\n");
    up.hear("did you mean `value_bytes_max`?");
    up.hear("the engine goes on as before");
    up.run(&["trigger", "configuration::set", "--json", set]).fails(1, &["VALUE_TOO_LARGE"]);
    let rules = "rules: [{action: deny, caller: ringway-cli, function: 'configuration::list'}]";
    write(&format!(
        "engine: {{project: other, {rules}}}\nworkers: {{configuration: {{value_bytes_max: 100}}}}\n"
    ));
    let live = up.hear("now in force");
    assert!(
        live.contains("engine.rules") && live.contains("workers.configuration.value_bytes_max"),
        "{live}"
    );
    assert!(up.hear("needs a restart").contains("engine.project"));
    assert_eq!(up.run(&["trigger", "configuration::set", "--json", set]).json()["version"], 2);
    up.run(&["trigger", "configuration::list"]).fails(4, &["forbidden"]);
    up.signal("-HUP");
    up.hear("says nothing new");
    up.stop();
}

#[test]
fn what_was_kept_is_there_after_a_restart_and_a_restore() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, backup, restored) = (path("data"), path("backup"), path("restored"));
    let up = Up::start(&["--data", &data], folder.path());
    up.run(&[
        "trigger",
        "configuration::register",
        "--json",
        r#"{"id":"a","schema":true,"initial_value":1}"#,
    ])
    .json();
    let taken = up.run(&["backup", "create", &backup, "--json"]).json();
    // The configuration and its version, and whatever the other workers keep of themselves.
    let entries = taken["entries"].as_u64().unwrap();
    assert!(entries >= 2, "{taken}");
    Ran::of(ringway().args(["backup", "create", &path("x"), "--data", &data])).fails(1, &["in use", &data]);
    Ran::of(ringway().args(["--address", &address(), "up", "--data", &data]))
        .fails(1, &[&data, "in use", "--data"]);
    up.run(&["trigger", "configuration::set", "--json", r#"{"id":"a","value":2}"#]).json();
    up.stop();
    let get = |data: &str| {
        let up = Up::start(&["--data", data], folder.path());
        let value = up.run(&["trigger", "configuration::get", "--json", r#"{"id":"a"}"#]).json();
        up.stop();
        value["value"].clone()
    };
    assert_eq!(get(&data), 2);
    let checked = Ran::of(ringway().args(["backup", "verify", &backup]));
    assert!(checked.code == Some(0) && checked.out.contains(&format!("{entries} entries")), "{checked:?}");
    Ran::of(ringway().args(["backup", "restore", &backup, "--data", &data])).fails(1, &["not empty"]);
    assert_eq!(
        Ran::of(ringway().args(["backup", "restore", &backup, "--data", &restored, "--json"])).code,
        Some(0)
    );
    assert_eq!(get(&restored), 1);
    std::fs::write(&backup, "no backup").unwrap();
    Ran::of(ringway().args(["backup", "verify", &backup])).fails(1, &["no whole backup"]);
    // Without an engine, its folder is read as it lies.
    let offline = Ran::of(ringway().args(["backup", "create", &path("y"), "--data", &restored, "--json"]));
    assert_eq!(offline.json()["entries"], entries);
}

#[test]
fn an_engine_without_workers_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&["--no-workers", "--data", "data"], folder.path());
    up.run(&["backup", "create", "x"]).fails(3, &["without its built-in workers"]);
    up.stop();
    assert!(!folder.path().join("data").exists());
}

#[test]
fn an_engine_keeps_everything_on_nats_and_says_what_is_wrong_there() {
    let mut server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringway.yaml");
    let text = "engine:\n  project: shop\n  store:\n    kind: nats\n    servers: [URL]\n";
    std::fs::write(&file, text.replace("URL", &server.url())).unwrap();
    let mut up = Up::start(&[], folder.path());
    let place = up.hear("everything durable is in");
    assert!(place.contains("ringway-shop") && place.contains(&server.url()), "{place}");
    let set = up.run(&["state", "set", "orders", "7", "5"]).json();
    assert_eq!((&set["old_value"], &set["new_value"]), (&json!(null), &json!(5)), "{set}");
    let second = |arguments: &[&str]| {
        Ran::of(ringway().current_dir(folder.path()).args(["--address", &address(), "up"]).args(arguments))
    };
    second(&[]).fails(1, &["in use by process", "engine.store.name", "ringway.yaml says where NATS is"]);
    second(&["--data", "x"]).fails(2, &["--data x", "kind: nats"]);
    up.stop();
    server.kill();
    second(&[]).fails(1, &[&server.url(), "wanted a NATS server", "nats-server --jetstream"]);
    server.restart();
    let up = Up::start(&[], folder.path());
    up.run(&["state", "get", "orders", "7"]).prints("5\n");
    up.stop();
}

#[test]
fn a_flipped_bit_is_told_and_set_aside_and_everything_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let start = || Up::start(&["--data", data.to_str().unwrap()], folder.path());
    let (up, keys) = (start(), ["a", "b", "c", "d"]);
    let value = |key: &str| format!("\"the value of {key}\"");
    for key in keys {
        assert_eq!(up.run(&["state", "set", "s", key, &value(key)]).code, Some(0));
    }
    up.stop();
    let index = data.join("index-1.redb");
    let mut bytes = std::fs::read(&index).unwrap();
    let at = bytes.windows(14).position(|window| window == b"the value of b").expect("it is in the index");
    bytes[at] ^= 1;
    std::fs::write(&index, &bytes).unwrap();

    let up = start();
    let names = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    let mut aside = names.filter(|path| path.to_string_lossy().contains("index-1.redb.damaged-"));
    let aside = aside.next().expect("the damaged file is set aside");
    assert!(
        up.started.contains("was damaged") && up.started.contains(aside.to_str().unwrap()),
        "{}",
        up.started
    );
    assert_eq!(std::fs::read(&aside).unwrap(), bytes, "as it was found");
    for key in keys {
        up.run(&["state", "get", "s", key]).prints(&format!("{}\n", value(key)));
    }
    assert_eq!(up.run(&["trigger", "store::verify", "--json", "{}"]).json()["damage"], json!([]));
    up.stop();
    let up = start();
    assert!(!up.started.contains("damaged"), "what was mended stays so: {}", up.started);
    up.stop();
}
