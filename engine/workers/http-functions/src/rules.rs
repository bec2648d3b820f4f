//! Which addresses functions may have: schemes, hosts, variables, as the settings say. It must not know addresses behind
//! names; see `addresses`.

use hyper::Uri;
use hyper::http::uri::Authority;

use crate::addresses::{Allowed, Network};
use crate::config::{Config, ConfigError};
use crate::spec::SpecError;

/// Bytes of an address.
const URL_BYTES_MAX: usize = 8 << 10;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    require_https: bool,
    /// Patterns of hosts; empty means any.
    hosts: Vec<String>,
    variables: Vec<String>,
    pub(crate) allowed: Allowed,
}

impl Rules {
    pub(crate) fn of(config: &Config) -> Result<Self, ConfigError> {
        let security = &config.security;
        let named: Result<Vec<Network>, _> =
            security.addresses_allowed.iter().map(|text| text.parse()).collect();
        Ok(Self {
            require_https: security.require_https,
            hosts: security.url_allowlist.iter().map(|host| host.to_ascii_lowercase()).collect(),
            variables: config.environment_allowed.clone(),
            allowed: Allowed { public_only: security.block_private_ips, named: named? },
        })
    }

    /// Whether functions may use an environment variable.
    pub(crate) fn may_read(&self, variable: &str) -> bool {
        self.variables.iter().any(|pattern| fits(pattern, variable))
    }

    /// Reads an address.
    pub(crate) fn check(&self, url: &str) -> Result<Uri, SpecError> {
        if url.len() > URL_BYTES_MAX {
            return Err(SpecError::url(format!(
                "the URL has {} bytes, {URL_BYTES_MAX} are allowed",
                url.len()
            )));
        }
        // A part behind `#` is never sent.
        let sent = url.split('#').next().unwrap_or_default();
        let uri: Uri = sent.parse().map_err(|error| SpecError::url(format!("`{url}` is no URL: {error}")))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(SpecError::url(format!("`{url}` is no URL of http or https"))),
        };
        if self.require_https && !secure {
            return Err(SpecError::url(format!(
                "`{url}` is not https; `security.require_https: false` in the settings allows http"
            )));
        }
        let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
        if authority.contains('@') {
            return Err(SpecError::url("the URL has a user in it: use `auth` or `headers`".to_owned()));
        }
        let host = host_of(&uri);
        if host.is_empty() {
            return Err(SpecError::url(format!("`{url}` has no host")));
        }
        let host = host.to_ascii_lowercase();
        if !self.hosts.is_empty() && !self.hosts.iter().any(|pattern| fits(pattern, &host)) {
            return Err(SpecError::url(format!("the host `{host}` is not among `security.url_allowlist`")));
        }
        if let Ok(address) = host.parse()
            && !self.allowed.allows(address)
        {
            return Err(SpecError::url(refusal(&host)));
        }
        Ok(uri)
    }
}

/// The host of an address, without the brackets of version 6.
pub(crate) fn host_of(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// What is said where nothing may be connected to.
pub(crate) fn refusal(host: &str) -> String {
    format!(
        "`{host}` is no address of the public internet; `security.addresses_allowed` in the settings opens others, \
         `security.block_private_ips: false` all"
    )
}

/// Whether a text is of a pattern, in which `*` stands for any run of characters. Costs the product of their lengths.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = pattern.contains('*').then(|| parts.next_back()).flatten() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(place) => rest = &rest[place + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(change: impl FnOnce(&mut Config)) -> Rules {
        let mut config = Config::default();
        change(&mut config);
        Rules::of(&config).unwrap()
    }

    #[test]
    fn by_default_only_https_to_the_public_internet() {
        let rules = rules(|_| ());
        for good in [
            "https://example.com",
            "https://example.com:8443/a?b=c#d",
            "https://8.8.8.8/",
            "https://[2606:4700::1111]/x",
        ] {
            assert!(rules.check(good).is_ok(), "{good}: {:?}", rules.check(good));
        }
        for bad in [
            "",
            "example.com",
            "http://example.com/",
            "ftp://example.com/",
            "/path",
            "https://",
            "https:///x",
            "https://user:password@example.com/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest",
            "https://0.0.0.0",
            "file:///etc/passwd",
            "https://exa mple.com",
        ] {
            let error = rules.check(bad).unwrap_err();
            assert_eq!(error.code, "url_validation_failed", "{bad}");
        }
    }

    #[test]
    fn settings_open_and_close() {
        let local = rules(|config| {
            config.security.require_https = false;
            config.security.addresses_allowed = vec!["127.0.0.1".to_owned()];
        });
        assert!(local.check("http://127.0.0.1:8080/").is_ok());
        assert!(local.check("http://127.0.0.2:8080/").is_err());
        let open = rules(|config| config.security.block_private_ips = false);
        assert!(open.check("https://10.0.0.1/").is_ok());
        let few = rules(|config| {
            config.security.url_allowlist = vec!["api.example.com".to_owned(), "*.Example.ORG".to_owned()];
        });
        assert!(
            few.check("https://API.example.com/").is_ok() && few.check("https://a.b.example.org/").is_ok()
        );
        assert!(
            few.check("https://example.com/").is_err() && few.check("https://example.org.evil.com/").is_err()
        );
        let config = Config { environment_allowed: vec!["HOOK_*".to_owned()], ..Config::default() };
        let rules = Rules::of(&config).unwrap();
        assert!(rules.may_read("HOOK_A") && !rules.may_read("AWS_SECRET_ACCESS_KEY"));
    }

    #[test]
    fn patterns_are_whole() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        };
        check("*", "", true);
        check("*", "abc", true);
        check("abc", "abc", true);
        check("abc", "abcd", false);
        check("a*", "abc", true);
        check("*c", "abc", true);
        check("a*c", "ac", true);
        check("a*b*c", "axxbxxc", true);
        check("a*b*c", "axxc", false);
        check("ab*ba", "aba", false);
        check("", "", true);
        check("", "a", false);
    }
}
