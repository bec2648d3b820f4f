//! `ringway link new`: makes what a link wants, and prints what to write on both sides.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ringway_access::address::{PORT, SCHEME};
use ringway_access::issue::ClientRequest;
use ringway_access::{Grant, LinkAddress, utc};
use serde_json::json;

use super::directory::{DIRECTORY, Directory, ServerPaths};
use crate::failure::Failure;
use crate::output;
use crate::output::words::unix_ms;

#[derive(Debug, Args)]
pub(crate) struct NewArguments {
    /// What the remote worker, or the other engine, is called
    name: String,
    /// By which name or address this engine is reached
    #[arg(long, value_name = "HOST[:PORT]", default_value = "127.0.0.1", value_parser = host)]
    host: LinkAddress,
    /// Functions that it may call; `*` stands for any run of characters. May be given several times
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    call: Vec<String>,
    /// Functions that it may register
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    offer: Vec<String>,
    /// Trigger types that it may use or provide
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    triggers: Vec<String>,
    /// Namespaces in which all of this holds [default: `default` alone]
    #[arg(long = "namespace", value_name = "NS", value_parser = pattern)]
    namespaces: Vec<String>,
    /// How long its token holds
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = lifetime)]
    valid: Duration,
    /// Where the files are written
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    directory: PathBuf,
    /// It is another engine, which dials this one
    #[arg(long)]
    engine: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Reads `HOST`, `HOST:PORT`, or the whole address of a link.
pub(super) fn host(text: &str) -> Result<LinkAddress, String> {
    let rest = text.strip_prefix(SCHEME).unwrap_or(text);
    // An IPv6 address has colons of its own.
    let bare = if rest.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{rest}]") } else { rest.to_owned() };
    let read = |text: &str| format!("{SCHEME}{text}").parse::<LinkAddress>();
    let found = read(&bare).or_else(|error| read(&format!("{bare}:{PORT}")).map_err(|_| error));
    found.map_err(|_| format!("wanted a host such as engine.example.org or 10.0.0.7:{PORT}, found `{text}`"))
}

fn pattern(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err("wanted a text such as `orders::*`, without blanks".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads how long something holds: a number with `s`, `m`, `h`, `d`, `w` or `y`.
fn lifetime(text: &str) -> Result<Duration, String> {
    let wanted = || format!("wanted a time such as 12h, 90d or 1y, found `{text}`");
    let (number, unit) =
        text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| wanted())?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "y" => 365 * 86_400,
        _ => return Err(wanted()),
    };
    let seconds = number.checked_mul(unit).filter(|seconds| (1..=100 * 365 * 86_400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(wanted)
}

impl NewArguments {
    fn grant(&self) -> Grant {
        let grant = self.call.iter().fold(Grant::default(), |grant, pattern| grant.with_call(pattern));
        let grant = self.offer.iter().fold(grant, |grant, pattern| grant.with_offer(pattern));
        let grant = self.triggers.iter().fold(grant, |grant, pattern| grant.with_trigger(pattern));
        if self.namespaces.is_empty() {
            return grant;
        }
        let namespaces: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
        grant.with_namespaces(&namespaces)
    }
}

pub(super) fn run(arguments: &NewArguments) -> Result<ExitCode, Failure> {
    let NewArguments { name, host, .. } = arguments;
    if arguments.call.is_empty() && arguments.offer.is_empty() && arguments.triggers.is_empty() {
        let text = "wanted at least one of --call, --offer and --triggers: without, the link may do nothing";
        return Err(
            Failure::usage(text).hint("`--call '*' --offer '*'` lets it call and register everything")
        );
    }
    if ["0.0.0.0", "::"].contains(&host.host()) || host.port() == 0 {
        let text =
            format!("nobody can dial `{host}`: wanted the name or address by which this engine is reached");
        return Err(
            Failure::usage(text).hint("the certificate is for it, and whoever dials holds it against that")
        );
    }
    let now_s = unix_ms() / 1000;
    let mut directory = Directory::make(&arguments.directory)?;
    directory.check_name(name)?;
    let authority = directory.authority(now_s)?;
    let server = directory.server(&authority, host, now_s)?;
    directory.lists()?;
    let wanted = ClientRequest {
        name,
        grant: arguments.grant(),
        address: Some(host.clone()),
        server_name: None,
        pin: None,
        with_certificate: false,
        lifetime: arguments.valid,
    };
    let made = directory.client(&authority, &wanted, now_s)?;
    let issuer = authority.issuer().public().to_string();
    let settings = server_settings(arguments, &server, &issuer, &directory.revoked());
    let credentials = directory.credentials(name);
    let client =
        if arguments.engine { peer_settings(arguments, &credentials) } else { variables(host, &credentials) };
    if arguments.json {
        output::json(&json!({
            "name": name,
            "address": host,
            "credentials": credentials,
            "token": made.token_id,
            "expires_s": made.expires_s,
            "issuer": issuer,
            "written": directory.written(),
            "server_settings": settings,
            "client_settings": client,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for path in directory.written() {
        output::note(&format!("wrote {}", path.display()));
    }
    let whom = if arguments.engine {
        format!("In ringway.yaml of the engine `{name}`, which gets a copy of that file (mode 0600)")
    } else {
        format!("In the environment of the worker `{name}`, which gets a copy of that file (mode 0600)")
    };
    output::text(&format!(
        "# In ringway.yaml of the engine at {host}:\n{settings}\n# {whom}:\n{client}\n# Token {token}, good until {until}.\n# `ringway \
         link revoke {token}` ends it before.\n",
        token = made.token_id,
        until = utc(made.expires_s),
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// A text as YAML takes it, and in which nothing is a variable.
fn quoted(text: &str) -> String {
    json!(text.replace("${", "$${")).to_string()
}

fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

fn list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(", "))
}

fn server_settings(arguments: &NewArguments, server: &ServerPaths, issuer: &str, revoked: &Path) -> String {
    let host = &arguments.host;
    let all = if host.host().contains(':') { "[::]" } else { "0.0.0.0" };
    let listen = match host.host() {
        "::1" => "[::1]",
        name if host.is_loopback() => {
            if name == "localhost" {
                "127.0.0.1"
            } else {
                name
            }
        }
        _ => all,
    };
    let mut text = format!(
        "links:\n  listen: {}\n  tls:\n    certificate: {}\n    key: {}\n  issuers: [{}]\n  revoked: {}\n",
        quoted(&format!("{listen}:{}", host.port())),
        path(&server.certificate),
        path(&server.key),
        quoted(issuer),
        path(revoked),
    );
    if arguments.engine && !arguments.call.is_empty() {
        text.push_str(&format!("  offer: {}\n", list(&arguments.call)));
    }
    text
}

fn peer_settings(arguments: &NewArguments, credentials: &Path) -> String {
    let address = quoted(&arguments.host.to_string());
    let mut text =
        format!("links:\n  peers:\n    - address: {address}\n      credentials: {}\n", path(credentials));
    for (key, patterns) in [("call", &arguments.call), ("offer", &arguments.offer)] {
        if !patterns.is_empty() {
            text.push_str(&format!("      {key}: {}\n", list(patterns)));
        }
    }
    text
}

fn variables(host: &LinkAddress, credentials: &Path) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/-_.:@%+".contains(c);
    let path = credentials.display().to_string();
    let path = if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) };
    format!("RINGWAY_SOCKET={host}\nRINGWAY_CREDENTIALS={path}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_port_or_the_usual_one() {
        let check = |text: &str, expected: Option<&str>| {
            let found = host(text).ok().map(|host| host.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("engine.example.org", Some("ringway://engine.example.org:49135"));
        check("engine.example.org:7", Some("ringway://engine.example.org:7"));
        check("ringway://10.0.0.7:7", Some("ringway://10.0.0.7:7"));
        check("ringway://10.0.0.7", Some("ringway://10.0.0.7:49135"));
        check("::1", Some("ringway://[::1]:49135"));
        check("[::1]:7", Some("ringway://[::1]:7"));
        for bad in ["", "a b", "http://a", "a:b:c", "a:99999"] {
            check(bad, None);
        }
    }

    #[test]
    fn lifetimes_have_units() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(lifetime(text).ok().map(|time| time.as_secs()), expected, "{text}");
        };
        check("90d", Some(7_776_000));
        check("12h", Some(43_200));
        check("1y", Some(31_536_000));
        check("30s", Some(30));
        for bad in ["", "d", "90", "0d", "1.5d", "-1d", "200y", "99999999999999999999d"] {
            check(bad, None);
        }
    }

    #[test]
    fn texts_are_quoted_where_they_are_read() {
        assert_eq!(quoted("a: ${b}\"c"), r#""a: $${b}\"c""#);
        let found = variables(&host("localhost").unwrap(), Path::new("/it's here/a.toml"));
        assert!(found.ends_with("RINGWAY_CREDENTIALS='/it'\\''s here/a.toml'\n"), "{found}");
    }
}
