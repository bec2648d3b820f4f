//! Which addresses may be listened on, and which pages may connect. It must not know who checks those who connect.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

/// Why an address is not listened on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// It is none.
    #[error("`host` is `{0}`, an IP address such as 127.0.0.1 or ::1 was wanted")]
    NoAddress(String),
    /// Strangers could connect.
    #[error(
        "`host` is {address}, which lets other machines connect, and nobody checks who they are: name a function in \
         `{guard}`, or listen on 127.0.0.1 behind a proxy that authenticates"
    )]
    Open {
        /// The address.
        address: IpAddr,
        /// The setting that names who checks.
        guard: &'static str,
    },
}

/// The address that a setting `host` means. One that others can reach is listened on only where somebody checks who they are,
/// which the setting of that name says.
///
/// # Errors
/// [`HostError`].
pub fn host(text: &str, guard: &'static str, is_guarded: bool) -> Result<IpAddr, HostError> {
    let named = if text == "localhost" { "127.0.0.1" } else { text };
    let address: IpAddr = named.parse().map_err(|_| HostError::NoAddress(text.to_owned()))?;
    if !address.is_loopback() && !is_guarded {
        return Err(HostError::Open { address, guard });
    }
    Ok(address)
}

/// The origin of a page that may not connect: neither one of this host nor a known one. Any page can connect to any address,
/// so what a browser says of it must be known; other clients say nothing.
#[must_use]
pub fn strange_origin<'h>(headers: &'h HeaderMap, known: &[String]) -> Option<&'h str> {
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or_default();
    let may = is_of_this_host(origin) || known.iter().any(|known| known == origin);
    (!may).then_some(origin)
}

/// Whether a page was served by this host itself.
fn is_of_this_host(origin: &str) -> bool {
    let Some(rest) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        return false;
    };
    let host = match rest.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => rest.split(':').next().unwrap_or_default(),
    };
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn others_are_let_in_only_where_somebody_checks() {
        for text in ["127.0.0.1", "::1", "localhost"] {
            assert!(host(text, "guard", false).unwrap().is_loopback(), "{text}");
        }
        for text in ["0.0.0.0", "::", "192.168.1.1", "::ffff:127.0.0.1"] {
            let error = host(text, "guard", false).unwrap_err();
            assert!(error.to_string().contains("`guard`"), "{text}: {error}");
            assert_eq!(host(text, "guard", true).unwrap().to_string(), text);
        }
        for text in ["", "example.com", "127.0.0.1:80"] {
            assert_eq!(host(text, "guard", true), Err(HostError::NoAddress(text.to_owned())));
        }
    }

    #[test]
    fn pages_of_this_host_and_known_ones_are_told_from_others() {
        let known = ["https://app.example.com".to_owned()];
        let is_strange = |origin: &[u8]| {
            let value = HeaderValue::from_bytes(origin).unwrap();
            strange_origin(&HeaderMap::from_iter([(header::ORIGIN, value)]), &known).is_some()
        };
        for origin in [
            "http://localhost:3000",
            "https://127.0.0.1",
            "http://[::1]:80",
            "http://app.localhost",
            "https://app.example.com",
        ] {
            assert!(!is_strange(origin.as_bytes()), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://localhost.evil.com",
            "http://127.0.0.1.evil.com",
            "http://evil",
            "ftp://localhost",
            "http://app.example.com",
        ] {
            assert!(is_strange(origin.as_bytes()), "{origin}");
        }
        assert!(is_strange(b"http://localhost\xff"));
        assert_eq!(strange_origin(&HeaderMap::new(), &known), None);
    }
}
