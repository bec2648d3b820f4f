//! What the standard `OTEL_*` variables say about export, read into plain data.
//!
//! [`Exporter::start`](super::Exporter::start) is the one user. There is no other way to configure export, so that
//! what is known from other OpenTelemetry programs holds here. This file must not open a connection; the
//! environment comes in as a function, so that a test need not change it.

use std::{path::PathBuf, time::Duration};

use thiserror::Error;

use super::text::{parse_pairs, percent_decode};

/// What is exported, where to, and in what batches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportConfig {
    /// Where spans go; `None` when they stay here.
    pub traces: Option<SignalConfig>,
    /// Where logs go; `None` when they stay here.
    pub logs: Option<SignalConfig>,
    /// What is said about every worker.
    pub resource: ResourceConfig,
    /// Values that the standard says to ignore with a warning, in words for the user.
    pub warnings: Vec<String>,
}

/// Where one signal goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalConfig {
    /// The full address of the POST, `/v1/traces` or `/v1/logs` included.
    pub url: String,
    /// Headers sent with every request, such as an API key.
    pub headers: Vec<(String, String)>,
    /// The limit of one attempt.
    pub timeout: Duration,
    /// Whether bodies are compressed with gzip.
    pub gzip: bool,
    /// A PEM file of the certificate authorities to trust instead of the built-in ones.
    pub certificate: Option<PathBuf>,
    /// How items are gathered.
    pub batch: BatchConfig,
}

/// How items are gathered into requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchConfig {
    /// How long the first item of a batch waits for company.
    pub schedule_delay: Duration,
    /// The limit of one batch, retries included.
    pub export_timeout: Duration,
    /// Items beyond this many are dropped and counted.
    pub queue_items_max: usize,
    /// A batch is sent at once when it has this many items.
    pub batch_items_max: usize,
}

/// What is said about every worker beside its own name and id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceConfig {
    /// The engine's own `service.name`; workers have their own names.
    pub engine_service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`, in their order.
    pub attributes: Vec<(String, String)>,
}

/// Why export cannot be set up as asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Only OTLP over HTTP with protobuf bodies is spoken.
    #[error(
        "{variable} is `{value}`, but only `http/protobuf` is supported: unset it, and point the endpoint to the \
         collector's HTTP port (usually 4318, not 4317)"
    )]
    Protocol {
        /// The variable that asks for it.
        variable: String,
        /// What it asks for.
        value: String,
    },
    /// The endpoint is no http or https address.
    #[error("{variable} is `{value}`: wanted an address such as http://localhost:4318")]
    Endpoint {
        /// The variable that names it.
        variable: String,
        /// What it names.
        value: String,
    },
}

#[derive(Clone, Copy)]
struct Signal {
    name: &'static str,
    path: &'static str,
    batch_prefix: &'static str,
    schedule_delay_ms: u64,
}

const TRACES: Signal =
    Signal { name: "TRACES", path: "v1/traces", batch_prefix: "OTEL_BSP", schedule_delay_ms: 5_000 };
const LOGS: Signal =
    Signal { name: "LOGS", path: "v1/logs", batch_prefix: "OTEL_BLRP", schedule_delay_ms: 1_000 };

const ENDPOINT_DEFAULT: &str = "http://localhost:4318";
const TIMEOUT_MS_DEFAULT: u64 = 10_000;
const EXPORT_TIMEOUT_MS_DEFAULT: u64 = 30_000;
const QUEUE_ITEMS_DEFAULT: u64 = 2_048;
const BATCH_ITEMS_DEFAULT: u64 = 512;

impl ExportConfig {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// As [`ExportConfig::from_lookup`].
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads the variables through `lookup`. An empty value counts as unset, as the standard says.
    ///
    /// # Errors
    /// [`ConfigError`] for a protocol that is not spoken here and for an endpoint that is no address. Other bad
    /// values are ignored and named in [`ExportConfig::warnings`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader { lookup: &lookup, warnings: Vec::new() };
        let resource = reader.resource();
        if reader.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(Self { resource, warnings: reader.warnings, ..Self::default() });
        }
        let traces = reader.signal(TRACES)?;
        let logs = reader.signal(LOGS)?;
        Ok(Self { traces, logs, resource, warnings: reader.warnings })
    }
}

struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Finds a setting under the signal's own name or else under the common one, and says which.
    fn get_for(&self, signal: Signal, setting: &str) -> Option<(String, String)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{setting}", signal.name);
        let common = format!("OTEL_EXPORTER_OTLP_{setting}");
        [own, common].into_iter().find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    fn signal(&mut self, signal: Signal) -> Result<Option<SignalConfig>, ConfigError> {
        if !self.enabled(signal) {
            return Ok(None);
        }
        if let Some((variable, value)) = self.get_for(signal, "PROTOCOL")
            && value != "http/protobuf"
        {
            return Err(ConfigError::Protocol { variable, value });
        }
        Ok(Some(SignalConfig {
            url: self.url(signal)?,
            headers: self.headers(signal),
            timeout: self.timeout(signal),
            gzip: self.gzip(signal),
            certificate: self.get_for(signal, "CERTIFICATE").map(|(_, path)| PathBuf::from(path)),
            batch: self.batch(signal),
        }))
    }

    /// Export is off until a variable asks for it: an engine on a desk must not look for a collector.
    fn enabled(&mut self, signal: Signal) -> bool {
        let variable = format!("OTEL_{}_EXPORTER", signal.name);
        let Some(exporters) = self.get(&variable) else {
            return self.get_for(signal, "ENDPOINT").is_some();
        };
        let mut enabled = false;
        for exporter in exporters.split(',').map(str::trim) {
            match exporter {
                "otlp" => enabled = true,
                "none" | "" => {}
                other => self
                    .warnings
                    .push(format!("{variable} names `{other}`, which is ignored: wanted `otlp` or `none`")),
            }
        }
        enabled
    }

    fn url(&self, signal: Signal) -> Result<String, ConfigError> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.name);
        let common = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let (variable, value, url) = if let Some(value) = self.get(&own) {
            let url = value.clone();
            (own, value, url)
        } else {
            let value = self.get(common).unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned());
            let url = format!("{}/{}", value.trim_end_matches('/'), signal.path);
            (common.to_owned(), value, url)
        };
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            return Err(ConfigError::Endpoint { variable, value });
        }
        Ok(url)
    }

    fn headers(&mut self, signal: Signal) -> Vec<(String, String)> {
        let Some((variable, value)) = self.get_for(signal, "HEADERS") else { return Vec::new() };
        let (pairs, bad) = parse_pairs(&value);
        self.warn_about_pairs(&variable, bad);
        pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
    }

    fn gzip(&mut self, signal: Signal) -> bool {
        match self.get_for(signal, "COMPRESSION") {
            None => false,
            Some((_, value)) if value == "none" => false,
            Some((_, value)) if value == "gzip" => true,
            Some((variable, value)) => {
                self.warnings.push(format!("{variable} `{value}` is ignored: wanted `gzip` or `none`"));
                false
            }
        }
    }

    fn timeout(&mut self, signal: Signal) -> Duration {
        let found = self.get_for(signal, "TIMEOUT");
        let variable = found.map_or_else(String::new, |(variable, _)| variable);
        Duration::from_millis(self.number(&variable, TIMEOUT_MS_DEFAULT))
    }

    fn batch(&mut self, signal: Signal) -> BatchConfig {
        let name = |setting: &str| format!("{}_{setting}", signal.batch_prefix);
        let delay_ms = self.number(&name("SCHEDULE_DELAY"), signal.schedule_delay_ms);
        let export_ms = self.number(&name("EXPORT_TIMEOUT"), EXPORT_TIMEOUT_MS_DEFAULT);
        let queue = self.number(&name("MAX_QUEUE_SIZE"), QUEUE_ITEMS_DEFAULT).max(1);
        let mut batch = self.number(&name("MAX_EXPORT_BATCH_SIZE"), BATCH_ITEMS_DEFAULT.min(queue)).max(1);
        if batch > queue {
            self.warnings.push(format!(
                "{} {batch} is above {} {queue}: {queue} is used",
                name("MAX_EXPORT_BATCH_SIZE"),
                name("MAX_QUEUE_SIZE")
            ));
            batch = queue;
        }
        BatchConfig {
            schedule_delay: Duration::from_millis(delay_ms),
            export_timeout: Duration::from_millis(export_ms),
            queue_items_max: usize::try_from(queue).unwrap_or(usize::MAX),
            batch_items_max: usize::try_from(batch).unwrap_or(usize::MAX),
        }
    }

    fn number(&mut self, variable: &str, default: u64) -> u64 {
        let Some(text) = self.get(variable) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.warnings.push(format!("{variable} `{text}` is no whole number: {default} is used"));
            default
        })
    }

    fn resource(&mut self) -> ResourceConfig {
        let variable = "OTEL_RESOURCE_ATTRIBUTES";
        let (mut attributes, bad) = parse_pairs(&self.get(variable).unwrap_or_default());
        self.warn_about_pairs(variable, bad);
        let listed_name =
            attributes.iter().find(|(key, _)| key == "service.name").map(|(_, name)| name.clone());
        attributes.retain(|(key, _)| key != "service.name");
        let engine_service_name = self.get("OTEL_SERVICE_NAME").or(listed_name);
        ResourceConfig { engine_service_name, attributes }
    }

    fn warn_about_pairs(&mut self, variable: &str, bad: Vec<String>) {
        let warnings = bad
            .into_iter()
            .map(|pair| format!("{variable}: `{}` is ignored: wanted key=value", redact(&pair)));
        self.warnings.extend(warnings);
    }
}

/// Shows the start of a malformed pair only: it may hold a key that belongs in no log.
fn redact(pair: &str) -> String {
    let start: String = percent_decode(pair).chars().take(4).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests;
