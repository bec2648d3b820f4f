//! One OTLP request: the POST, its limit, and what the answer means.
//!
//! Used by the export threads. This file must not know spans or logs: a body is bytes, and what the collector
//! answered is handed back as bytes for the signal to read.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::{Compression, write::GzEncoder};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::config::SignalConfig;
use super::text::parse_retry_after;

/// The most of an answer that is read: partial-success messages are short.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What became of one attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The collector took the batch; its answer may still name what it rejected.
    Delivered(Vec<u8>),
    /// Worth another try, not before the given time if one was named.
    TryAgain { reason: String, after: Option<Duration> },
    /// Another try would end the same way.
    Refused(String),
}

/// A connection to one address of a collector.
#[derive(Debug)]
pub(super) struct Transport {
    agent: ureq::Agent,
    url: String,
    headers: Vec<(String, String)>,
    timeout: Duration,
    gzip: bool,
}

impl Transport {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// The certificate file cannot be read or holds no certificate.
    pub(super) fn new(config: &SignalConfig) -> io::Result<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &config.certificate {
            tls = tls.root_certs(RootCerts::from(read_certificates(path)?));
        }
        let agent = ureq::Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("OTel-OTLP-Exporter-ringway/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            url: config.url.clone(),
            headers: config.headers.clone(),
            timeout: config.timeout,
            gzip: config.gzip,
        })
    }

    /// Prepares a body as it goes over the wire, once for all attempts.
    pub(super) fn pack(&self, body: Vec<u8>) -> Vec<u8> {
        if self.gzip { gzip(&body).unwrap_or(body) } else { body }
    }

    /// Sends a packed body once, within the configured limit and `time_left`. Blocks.
    pub(super) fn attempt(&self, body: &[u8], time_left: Duration) -> Attempt {
        let mut request = self
            .agent
            .post(&self.url)
            .config()
            .timeout_global(Some(self.timeout.min(time_left)))
            .build()
            .header("content-type", "application/x-protobuf");
        if self.gzip && body.starts_with(&GZIP_MAGIC) {
            request = request.header("content-encoding", "gzip");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match request.send(body) {
            Ok(response) => read_answer(response),
            Err(error) if is_lasting(&error) => Attempt::Refused(error.to_string()),
            Err(error) => Attempt::TryAgain { reason: error.to_string(), after: None },
        }
    }
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

fn read_certificates(path: &Path) -> io::Result<Vec<Certificate<'static>>> {
    let pem = fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("certificate {}: {error}", path.display())))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let message = format!("certificate {}: wanted PEM certificates, found none", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(certificates)
}

/// Says whether an error lies in the request itself rather than on the way.
fn is_lasting(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_))
}

fn read_answer(response: ureq::http::Response<ureq::Body>) -> Attempt {
    let status = response.status().as_u16();
    let retry_after =
        response.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let answer = response.into_body().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    match status {
        200..=299 => Attempt::Delivered(answer.unwrap_or_default()),
        429 | 502 | 503 | 504 => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let after = retry_after.and_then(|value| parse_retry_after(&value, now));
            Attempt::TryAgain { reason: format!("the collector answered {status}"), after }
        }
        _ => Attempt::Refused(format!("the collector answered {status}")),
    }
}
