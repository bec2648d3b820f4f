//! The files behind links: an authority, certificates of servers, credentials of clients, and which tokens were given out and
//! taken back. Nothing that is there is ever written over. It must not know what is said about them.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringway_access::LinkAddress;
use ringway_access::file::{FileError, read_private, read_public, write_private};
use ringway_access::issue::{Authority, ClientFiles, ClientRequest, is_for_host};
use ringway_access::token::Revocations;

use crate::failure::Failure;
use crate::output::words::printable;

/// Where things are written unless another place is named.
pub(super) const DIRECTORY: &str = "ringway-links";

const DAY_S: u64 = 86_400;
/// As long as an authority holds.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * DAY_S);
/// As long as the certificate of a server holds.
const SERVER_LIFETIME: Duration = Duration::from_secs(2 * 365 * DAY_S);

/// What an authority is called in its certificate, with the time of its making: two of one name are hard to tell apart.
const AUTHORITY_NAME: &str = "ringway links";
const ISSUER_KEY: &str = "issuer.key";
const AUTHORITY_FILES: [&str; 3] = [ISSUER_KEY, "authority.pem", "authority.key"];
const REVOKED: &str = "revoked";
const ISSUED: &str = "issued";
const REVOKED_HEAD: &str =
    "# Ids of tokens that hold no more, one on each line. `ringway link revoke ID` adds one.\n";
const ISSUED_HEAD: &str = "# Tokens that were made here: id, name, end.\n";

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::error(error)
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::error(format_args!("cannot use {}: {error}", path.display()))
}

/// A server's two files.
pub(super) struct ServerPaths {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// See the module.
pub(super) struct Directory {
    path: PathBuf,
    /// What was written, in order.
    written: Vec<PathBuf>,
}

impl Directory {
    /// Takes one that is there.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let path = std::path::absolute(path)?;
        if !path.join(REVOKED).is_file() {
            let failure = Failure::not_found(format_args!("there are no links in {}", path.display()));
            return Err(failure.hint("`--directory DIR` names the folder that `ringway link new` wrote to"));
        }
        Ok(Self { path, written: Vec::new() })
    }

    /// Takes one, which only its owner can look into if it is made here.
    pub(super) fn make(path: &Path) -> Result<Self, Failure> {
        let path = std::path::absolute(path)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| cannot(&path, &error))?;
        Ok(Self { path, written: Vec::new() })
    }

    pub(super) fn written(&self) -> &[PathBuf] {
        &self.written
    }

    pub(super) fn revoked(&self) -> PathBuf {
        self.path.join(REVOKED)
    }

    pub(super) fn credentials(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.toml"))
    }

    /// Writes a new file that only its owner can read.
    fn write(&mut self, path: PathBuf, text: &str) -> Result<(), Failure> {
        write_private(&path, text).map_err(|error| match error {
            FileError::System { path, problem } if problem.kind() == io::ErrorKind::AlreadyExists => {
                Failure::error(format_args!(
                    "{} is there already, and nothing is written over",
                    path.display()
                ))
            }
            error => failed(error),
        })?;
        self.written.push(path);
        Ok(())
    }

    /// The authority, which is made the first time.
    pub(super) fn authority(&mut self, now_s: u64) -> Result<Authority, Failure> {
        let paths = AUTHORITY_FILES.map(|name| self.path.join(name));
        let missing: Vec<&PathBuf> = paths.iter().filter(|path| !path.exists()).collect();
        if missing.is_empty() {
            let [issuer, certificate, key] = &paths;
            let (issuer, key) = (read_private(issuer).map_err(failed)?, read_private(key).map_err(failed)?);
            let certificate = read_public(certificate).map_err(failed)?;
            return Authority::from_pem(&issuer, &certificate, &key).map_err(failed);
        }
        if missing.len() < paths.len() {
            let text = format!("a part of the authority is missing: there is no {}", missing[0].display());
            return Err(Failure::error(text).hint("put it back, or use `--directory` with a new folder: then every client needs new credentials"));
        }
        let made = Authority::new(&format!("{AUTHORITY_NAME} {now_s}"), now_s, AUTHORITY_LIFETIME)
            .map_err(failed)?;
        let [issuer, certificate, key] = paths;
        self.write(key, &made.key())?;
        self.write(certificate, made.certificate())?;
        self.write(issuer, &made.issuer().to_pem())?;
        Ok(made)
    }

    /// The certificate and key of the server at a host, which are made the first time.
    pub(super) fn server(
        &mut self,
        authority: &Authority,
        host: &LinkAddress,
        now_s: u64,
    ) -> Result<ServerPaths, Failure> {
        let name = if host.is_loopback() { "localhost".to_owned() } else { host.host().replace(':', "-") };
        let paths = ServerPaths {
            certificate: self.path.join(format!("server-{name}.pem")),
            key: self.path.join(format!("server-{name}.key")),
        };
        let hosts: &[&str] =
            if host.is_loopback() { &["localhost", "127.0.0.1", "::1", host.host()] } else { &[host.host()] };
        match (paths.certificate.exists(), paths.key.exists()) {
            (false, false) => {
                let made = authority.server(&name, hosts, now_s, SERVER_LIFETIME).map_err(failed)?;
                self.write(paths.key.clone(), &made.key)?;
                self.write(paths.certificate.clone(), &made.certificate)?;
            }
            (true, true) => {
                let certificate = read_public(&paths.certificate).map_err(failed)?;
                if !is_for_host(&certificate, host.host()).map_err(failed)? {
                    let text =
                        format!("{} is no certificate for `{}`", paths.certificate.display(), host.host());
                    return Err(Failure::error(text).hint("move it and its key away, and a new one is made"));
                }
            }
            (true, false) | (false, true) => {
                let missing = if paths.key.exists() { &paths.certificate } else { &paths.key };
                let text = format!("there is no {}, and what goes with it is there", missing.display());
                return Err(Failure::error(text)
                    .hint("put it back, or move the other one away: then both are made anew"));
            }
        }
        Ok(paths)
    }

    /// Makes the files that lists of tokens are kept in.
    pub(super) fn lists(&mut self) -> Result<(), Failure> {
        for (name, head) in [(REVOKED, REVOKED_HEAD), (ISSUED, ISSUED_HEAD)] {
            let path = self.path.join(name);
            if !path.exists() {
                self.write(path, head)?;
            }
        }
        Ok(())
    }

    /// Refuses a name that is taken, before anything is made for it.
    pub(super) fn check_name(&self, name: &str) -> Result<(), Failure> {
        let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !letters || name.is_empty() || name.len() > 64 || name.starts_with(['.', '-']) {
            let text =
                format!("wanted a name of letters, digits, `-`, `_` and `.`, found `{}`", printable(name));
            return Err(
                Failure::usage(text).hint("it is the name of the client in tokens, logs and of its file")
            );
        }
        let path = self.credentials(name);
        if path.exists() {
            let failure = Failure::error(format_args!(
                "{} is there already, and nothing is written over",
                path.display()
            ));
            return Err(failure.hint("choose another name; or move the file away, and `ringway link revoke` its token if it is not to hold any more"));
        }
        Ok(())
    }

    /// Makes a client's credentials, and notes that they were given out.
    pub(super) fn client(
        &mut self,
        authority: &Authority,
        wanted: &ClientRequest<'_>,
        now_s: u64,
    ) -> Result<ClientFiles, Failure> {
        let made = authority.client(wanted, now_s).map_err(failed)?;
        self.write(self.credentials(wanted.name), &made.credentials)?;
        let until = ringway_access::utc(made.expires_s);
        self.append(ISSUED, &format!("{} {} until {until}", made.token_id, wanted.name))?;
        Ok(made)
    }

    /// Adds a line to a list.
    fn append(&self, name: &str, line: &str) -> Result<(), Failure> {
        let path = self.path.join(name);
        let write = || {
            let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            // Somebody may have edited the file and left its last line open.
            let begin = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            file.write_all(format!("{begin}{line}\n").as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| cannot(&path, &error))
    }

    /// Takes a token back. `false`: it was before.
    pub(super) fn revoke(&self, token: &str) -> Result<bool, Failure> {
        if Revocations::parse(token).map_or(0, |ids| ids.len()) != 1 || token.contains(char::is_whitespace) {
            let text = format!("wanted the id of a token, found `{}`", printable(token));
            return Err(Failure::usage(text).hint("`ringway link list` shows the ids of tokens"));
        }
        let known = read_public(&self.path.join(ISSUED)).unwrap_or_default();
        let issued: Vec<(&str, &str)> = known
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(' '))
            .map(|(id, rest)| (id, rest.split(' ').next().unwrap_or_default()))
            .collect();
        if !issued.iter().any(|(id, _)| *id == token) {
            let own: Vec<&str> =
                issued.iter().filter(|(_, name)| *name == token).map(|(id, _)| *id).collect();
            if !own.is_empty() {
                let text = format!("`{token}` is a name; its tokens are {}", own.join(", "));
                return Err(Failure::usage(text).hint("name the one that is not to hold any more"));
            }
            let failure =
                Failure::not_found(format_args!("no token `{token}` was made in {}", self.path.display()));
            let close = crate::suggest::closest(token, issued.iter().map(|(id, _)| *id));
            return Err(failure
                .did_you_mean(close)
                .hint("`--directory DIR` names the folder that `ringway link new` wrote to"));
        }
        let path = self.revoked();
        let now = Revocations::read(&path).map_err(|error| {
            Failure::error(format_args!("{}: {error}", path.display()))
                .hint("mend the file first: as it is, engines do not read it")
        })?;
        if now.contains(token) {
            return Ok(false);
        }
        self.append(REVOKED, token)?;
        Ok(true)
    }
}
