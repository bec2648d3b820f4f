//! The part under `engine`: where it listens, where it keeps things, who may call what, how much of everything. Plain data;
//! whoever starts an engine applies it. It must not know what an engine does with it.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::nats::NatsAccess;
use crate::problem::Fault;
use crate::tree::Node;

/// What the engine itself is told. What is left out is as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSettings {
    /// The control socket: a path, or an abstract name after `@`. Default: where every worker of this user looks.
    pub address: Option<String>,
    /// The project, which tells several engines of one user apart. Default: `default`.
    pub project: Option<String>,
    /// The folder of everything durable; relative to the folder of this file. Default: `.ringway` beside this file.
    pub data_folder: Option<PathBuf>,
    /// How long workers may finish what they have begun when the engine stops, in milliseconds. Default: 5000. Changes
    /// while the engine runs.
    #[schemars(range(max = 86_400_000))]
    pub drain_ms: u64,
    /// Whether traces and logs are exported as the standard `OTEL_…` variables say. Default: true.
    pub export_telemetry: bool,
    /// Control sockets whose workers are in zones of their own. Default: none.
    pub zones: Vec<Zone>,
    /// Other users who attach at the main socket. Default: none.
    pub users: Vec<User>,
    /// Who may call what, in order: the first rule that fits decides. Default: none. Changes while the engine runs.
    pub rules: Vec<Rule>,
    /// Limits on every worker.
    pub limits: Limits,
    /// How many traces and logs are kept in memory.
    pub telemetry: Telemetry,
    /// The store under everything durable.
    pub store: Store,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            address: None,
            project: None,
            data_folder: None,
            drain_ms: 5000,
            export_telemetry: true,
            zones: Vec::new(),
            users: Vec::new(),
            rules: Vec::new(),
            limits: Limits::default(),
            telemetry: Telemetry::default(),
            store: Store::default(),
        }
    }
}

/// The zone that needs no word.
const ZONE_DEFAULT: &str = "default";

/// Keys of `engine` that are applied while it runs.
pub(crate) const LIVE: &[&str] = &["drain_ms", "rules"];

/// A control socket of its own. Whoever attaches there is in this zone, whatever they claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The zone's name, 1 to 128 bytes, not `default`.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// A path in a folder that is there, or an abstract name after `@`.
    #[schemars(length(min = 1))]
    pub address: String,
    /// Ids of users beside the engine's own whose processes may attach there. Default: none.
    #[serde(default)]
    pub users: Vec<u32>,
}

/// Another user, whose processes attach at the main socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The user's id.
    pub uid: u32,
    /// The zone in which their processes are, not `default`.
    #[schemars(length(min = 1, max = 128))]
    pub zone: String,
}

/// What a rule does with the calls that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// They are made.
    Allow,
    /// They are refused.
    Deny,
}

/// One rule. In each text `*` stands for any run of characters. `docs/policy.md` says what rules mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// The id of the function that is called.
    pub function: String,
    /// The caller's zone. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_zone: Option<String>,
    /// The caller's name. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The zone of the function's worker. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_zone: Option<String>,
}

impl Rule {
    /// Whether it is for the same calls as another, whatever either does with them.
    fn fits_as(&self, other: &Self) -> bool {
        let calls = |rule: &Self| {
            let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "*".to_owned());
            [part(&rule.from_zone), part(&rule.caller), part(&rule.to_zone), rule.function.clone()]
        };
        calls(self) == calls(other)
    }
}

/// Finds the rules that never decide anything, since one before each is for the same calls: the places of both, from 0.
#[must_use]
pub fn idle_rules(rules: &[Rule]) -> Vec<(usize, usize)> {
    let earlier = |at: usize| rules[..at].iter().position(|earlier| earlier.fits_as(&rules[at]));
    (0..rules.len()).filter_map(|at| Some((at, earlier(at)?))).collect()
}

/// Something that a part contradicts: another part, or what is known without the file.
pub(crate) struct Contradiction {
    /// Where it is, as a JSON pointer.
    pointer: String,
    message: String,
    /// What stands against it, as a JSON pointer.
    against: Option<String>,
}

impl Contradiction {
    /// As a fault of the file that this node was read from.
    pub(crate) fn at(self, node: &Node) -> Fault {
        let fault = Fault::new(node.place_of(&self.pointer), self.message);
        match self.against.map(|pointer| node.place_of(&pointer)) {
            Some(at) => fault
                .hint(format!("the other one stands at {}:{}; leave one of them out", at.line, at.column)),
            None => fault,
        }
    }
}

/// What no type says: rules that never decide anything, addresses and users that are taken twice, zones of a name that
/// means something else.
pub(crate) fn contradictions(settings: &EngineSettings) -> Vec<Contradiction> {
    let mut found: Vec<Contradiction> = Vec::new();
    let mut add = |pointer: String, message: &str, against: Option<String>| {
        found.push(Contradiction { pointer, message: message.to_owned(), against });
    };
    for (rule, earlier) in idle_rules(&settings.rules) {
        let text = "this rule never decides anything, since one before it is for the same calls";
        add(format!("/rules/{rule}"), text, Some(format!("/rules/{earlier}")));
    }
    let (zones, users) = (&settings.zones, &settings.users);
    let own = "`default` is the zone of the engine's own user, wanted another name";
    for (at, zone) in zones.iter().enumerate() {
        if zone.name == ZONE_DEFAULT {
            add(format!("/zones/{at}/name"), own, None);
        }
        if settings.address.as_ref() == Some(&zone.address) {
            let text = "this address is the engine's own already";
            add(format!("/zones/{at}/address"), text, Some("/address".to_owned()));
        } else if let Some(first) = zones[..at].iter().position(|other| other.address == zone.address) {
            let text = "another zone is at this address already";
            add(format!("/zones/{at}/address"), text, Some(format!("/zones/{first}/address")));
        }
    }
    for (at, user) in users.iter().enumerate() {
        if user.zone == ZONE_DEFAULT {
            add(format!("/users/{at}/zone"), own, None);
        }
        if let Some(first) = users[..at].iter().position(|other| other.uid == user.uid) {
            let text = "this user is in a zone already";
            add(format!("/users/{at}/uid"), text, Some(format!("/users/{first}/uid")));
        }
    }
    found
}

/// Limits on every worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of one control message. Default: the protocol's own limit.
    #[schemars(range(min = 4096))]
    pub message_bytes_max: Option<u32>,
    /// Functions of one worker. Default: the protocol's own limit.
    #[schemars(range(min = 1))]
    pub functions_max: Option<u32>,
    /// Triggers of one worker. Default: 16384.
    #[schemars(range(min = 1))]
    pub triggers_max: Option<u32>,
    /// Channels of one worker, both ways. Default: 4096.
    #[schemars(range(min = 1))]
    pub channels_max: Option<u32>,
    /// Bytes that may wait for a worker that does not read its control socket. Default: 83886080.
    #[schemars(range(min = 1_048_576))]
    pub queued_bytes_max: Option<usize>,
}

/// How many traces and logs are kept in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Spans of all traces together. Default: 100000.
    pub spans_max: Option<usize>,
    /// Bytes of all spans together. Default: 67108864.
    pub span_bytes_max: Option<usize>,
    /// Log lines. Default: 50000.
    pub logs_max: Option<usize>,
    /// Bytes of all log lines together. Default: 16777216.
    pub log_bytes_max: Option<usize>,
}

/// Where everything durable is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// In the engine's own folder.
    #[default]
    Embedded,
    /// On a NATS server: `JetStream` and a key-value bucket.
    Nats,
}

/// A text that is told to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// How the connection to a server is kept from others. Paths are relative to the folder of this file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Whether a server without TLS is refused. Default: false; an address that begins with `tls://` asks for it too.
    pub required: bool,
    /// A file of certificates of those who sign the server's, beside those that the system trusts. Default: none.
    pub roots: Option<PathBuf>,
    /// A file with a certificate of the engine's own; wants `key` beside it. Default: none.
    pub certificate: Option<PathBuf>,
    /// The file with the key of that certificate. Default: none.
    pub key: Option<PathBuf>,
}

/// The store under everything durable. `cache_bytes` and `memory_bytes` are for the embedded one, all else for NATS.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Where things are kept. Default: `embedded`, in the engine's data folder.
    pub kind: StoreKind,
    /// Cache for each of the two index files, in bytes. Default: 67108864.
    #[schemars(range(min = 1_048_576))]
    pub cache_bytes: Option<usize>,
    /// Changes held in memory before they move to the index, in bytes. Default: 33554432.
    #[schemars(range(min = 65_536))]
    pub memory_bytes: Option<usize>,
    /// Addresses of NATS servers of one cluster. Default: `nats://127.0.0.1:4222`.
    #[schemars(length(min = 1))]
    pub servers: Option<Vec<String>>,
    /// What stream, bucket and subjects are named after. Default: the project.
    pub name: Option<String>,
    /// A file of NATS credentials, as `nsc` writes it, relative to the folder of this file. Default: none.
    pub credentials: Option<PathBuf>,
    /// A NATS user; wants `password` beside it. Default: none.
    pub user: Option<String>,
    /// The password of that user, best as `${VARIABLE}`. Default: none.
    pub password: Option<Secret>,
    /// A NATS token, best as `${VARIABLE}`. Default: none.
    pub token: Option<Secret>,
    /// How the connection to NATS is kept from others.
    pub tls: Option<Tls>,
    /// On how many servers of the cluster everything is kept. Default: 1.
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<usize>,
    /// How long commits wait for a NATS server that is away before they are refused, in milliseconds. Default: 5000.
    pub patience_ms: Option<u64>,
    /// How long the log keeps what the bucket has, in seconds: longer than the server's `sync_interval`. Default: 300.
    pub keep_seconds: Option<u64>,
}

impl fmt::Debug for Store {
    /// Without what addresses may say of user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            cache_bytes,
            memory_bytes,
            servers: _,
            name,
            credentials,
            user,
            password,
            token,
            tls,
            replicas,
            patience_ms,
            keep_seconds,
        } = self;
        f.debug_struct("Store")
            .field("kind", kind)
            .field("cache_bytes", cache_bytes)
            .field("memory_bytes", memory_bytes)
            .field("servers", &self.nats().hosts())
            .field("name", name)
            .field("credentials", credentials)
            .field("user", user)
            .field("password", password)
            .field("token", token)
            .field("tls", tls)
            .field("replicas", replicas)
            .field("patience_ms", patience_ms)
            .field("keep_seconds", keep_seconds)
            .finish()
    }
}

impl Store {
    /// What the section says of the server.
    #[must_use]
    pub fn nats(&self) -> NatsAccess<'_> {
        NatsAccess {
            servers: self.servers.as_deref(),
            credentials: self.credentials.as_deref(),
            user: self.user.as_deref(),
            password: self.password.as_ref(),
            token: self.token.as_ref(),
            tls: self.tls.as_ref(),
        }
    }

    /// What does not fit together: keys of this section, each with what is wrong about it.
    pub(crate) fn faults(&self) -> Vec<(&'static str, String)> {
        let nats = [
            ("servers", self.servers.is_some()),
            ("name", self.name.is_some()),
            ("credentials", self.credentials.is_some()),
            ("user", self.user.is_some()),
            ("password", self.password.is_some()),
            ("token", self.token.is_some()),
            ("tls", self.tls.is_some()),
            ("replicas", self.replicas.is_some()),
            ("patience_ms", self.patience_ms.is_some()),
            ("keep_seconds", self.keep_seconds.is_some()),
        ];
        let embedded =
            [("cache_bytes", self.cache_bytes.is_some()), ("memory_bytes", self.memory_bytes.is_some())];
        let (others, other) = match self.kind {
            StoreKind::Embedded => (&nats[..], "nats"),
            StoreKind::Nats => (&embedded[..], "embedded"),
        };
        let foreign = others.iter().filter(|(_, is_set)| *is_set);
        let mut faults: Vec<_> = foreign
            .map(|(key, _)| (*key, format!("this means something with `kind: {other}` only")))
            .collect();
        faults.extend(self.nats().faults());
        faults
    }
}
