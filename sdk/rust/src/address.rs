//! Where the engine's control socket is: the rules that workers, the engine and the command line share, so that
//! they meet without being told. Looks at the environment and at one directory; opens nothing.
//!
//! `RINGWAY_SOCKET` wins. Otherwise the socket is `ringway/PROJECT.sock` in the user's runtime directory, which is
//! `XDG_RUNTIME_DIR`, else `/run/user/UID` if that exists, else `/tmp/ringway-UID`. The project is `RINGWAY_PROJECT`
//! or `default`. An address that starts with `@` is an abstract socket, which has no file.

use std::fmt;
use std::path::Path;

/// The variable that names the control socket itself.
pub const SOCKET_VARIABLE: &str = "RINGWAY_SOCKET";
/// The variable that names the project, and so one of several engines of a user.
pub const PROJECT_VARIABLE: &str = "RINGWAY_PROJECT";
/// The variable that names the credentials file of a worker whose engine is on another host.
pub const CREDENTIALS_VARIABLE: &str = "RINGWAY_CREDENTIALS";
/// The project of whoever names none.
pub const PROJECT_DEFAULT: &str = "default";

const RUNTIME_VARIABLE: &str = "XDG_RUNTIME_DIR";

/// How an address was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressOrigin {
    /// The program named it.
    Explicit,
    /// `RINGWAY_SOCKET` names it.
    SocketVariable,
    /// It lies in `XDG_RUNTIME_DIR`.
    RuntimeVariable,
    /// It lies in `/run/user/UID`.
    RuntimeDirectory,
    /// It lies in `/tmp`, since there is no runtime directory.
    Temporary,
}

impl fmt::Display for AddressOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explicit => "named by the program",
            Self::SocketVariable => "from RINGWAY_SOCKET",
            Self::RuntimeVariable => "in XDG_RUNTIME_DIR",
            Self::RuntimeDirectory => "in the user's runtime directory",
            Self::Temporary => "in /tmp, since there is no runtime directory",
        })
    }
}

/// The address of a control socket, and how it was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ControlAddress {
    text: String,
    origin: AddressOrigin,
}

impl ControlAddress {
    /// Takes an address that the program names.
    #[must_use]
    pub fn explicit(address: impl Into<String>) -> Self {
        Self { text: address.into(), origin: AddressOrigin::Explicit }
    }

    /// Returns the path, or the abstract name after `@`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns how it was chosen.
    #[must_use]
    pub const fn origin(&self) -> AddressOrigin {
        self.origin
    }

    /// Says whether it is an engine on another host, reached over a link.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.text.starts_with(ringway_access::address::SCHEME)
    }

    /// Says whether it is an abstract socket, which has no file.
    #[must_use]
    pub fn is_abstract(&self) -> bool {
        self.text.starts_with('@')
    }
}

impl fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the rules look at, so that tests need not change the process.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Reads an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Says whether a directory exists.
    pub is_directory: &'a dyn Fn(&Path) -> bool,
    /// This process's user.
    pub user: u32,
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Applies the rules. `explicit` wins over everything; `project` wins over `RINGWAY_PROJECT` and, since whoever names
/// a project wants that one, over `RINGWAY_SOCKET`. Empty texts count as none.
#[must_use]
pub fn resolve(
    explicit: Option<&str>,
    project: Option<&str>,
    surroundings: &Surroundings<'_>,
) -> ControlAddress {
    let variable = |name: &str| (surroundings.variable)(name).filter(|text| !text.is_empty());
    let project = project.filter(|text| !text.is_empty());
    if let Some(address) = explicit.filter(|text| !text.is_empty()) {
        return ControlAddress::explicit(address);
    }
    if project.is_none()
        && let Some(text) = variable(SOCKET_VARIABLE)
    {
        return ControlAddress { text, origin: AddressOrigin::SocketVariable };
    }
    let project = project.map(str::to_owned).or_else(|| variable(PROJECT_VARIABLE));
    let project = file_name(project.as_deref().unwrap_or(PROJECT_DEFAULT));
    let user = surroundings.user;
    let run_user = format!("/run/user/{user}");
    let (directory, origin) = match variable(RUNTIME_VARIABLE) {
        Some(directory) => (directory, AddressOrigin::RuntimeVariable),
        None if (surroundings.is_directory)(Path::new(&run_user)) => {
            (run_user, AddressOrigin::RuntimeDirectory)
        }
        None => (format!("/tmp/ringway-{user}"), AddressOrigin::Temporary),
    };
    let directory = directory.trim_end_matches('/');
    ControlAddress { text: format!("{directory}/ringway/{project}.sock"), origin }
}

/// Makes a project's name fit for one path component.
fn file_name(project: &str) -> String {
    project.chars().map(|letter| if letter == '/' || letter.is_control() { '-' } else { letter }).collect()
}

/// Applies the rules to this process.
#[must_use]
pub fn control_address(explicit: Option<&str>, project: Option<&str>) -> ControlAddress {
    let variable = |name: &str| std::env::var(name).ok();
    let surroundings = Surroundings {
        variable: &variable,
        is_directory: &|path| path.is_dir(),
        user: ringway_ipc::sys::process::user_id(),
    };
    resolve(explicit, project, &surroundings)
}

/// Returns the address that a worker of this process uses if it is told nothing.
#[must_use]
pub fn default_address() -> String {
    control_address(None, None).text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        explicit: Option<&str>,
        project: Option<&str>,
        set: &[(&str, &str)],
        directory: &str,
        expected: &str,
    ) {
        let variable =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let is_directory = |path: &Path| path == Path::new(directory);
        let surroundings = Surroundings { variable: &variable, is_directory: &is_directory, user: 7 };
        assert_eq!(resolve(explicit, project, &surroundings).as_str(), expected);
    }

    #[test]
    fn the_first_rule_that_holds_wins() {
        let xdg = ("XDG_RUNTIME_DIR", "/run/me/");
        check(None, None, &[], "", "/tmp/ringway-7/ringway/default.sock");
        check(None, None, &[], "/run/user/7", "/run/user/7/ringway/default.sock");
        check(None, None, &[xdg], "/run/user/7", "/run/me/ringway/default.sock");
        check(None, None, &[xdg, ("RINGWAY_PROJECT", "shop")], "", "/run/me/ringway/shop.sock");
        check(None, None, &[xdg, ("RINGWAY_SOCKET", "@here")], "", "@here");
        check(None, Some("b"), &[xdg, ("RINGWAY_SOCKET", "@here")], "", "/run/me/ringway/b.sock");
        check(Some("/x"), Some("b"), &[xdg, ("RINGWAY_SOCKET", "@here")], "", "/x");
    }

    #[test]
    fn empty_texts_count_as_none_and_projects_are_file_names() {
        let empty = [("RINGWAY_SOCKET", ""), ("XDG_RUNTIME_DIR", ""), ("RINGWAY_PROJECT", "")];
        check(Some(""), Some(""), &empty, "", "/tmp/ringway-7/ringway/default.sock");
        check(None, Some("../a/b"), &empty, "", "/tmp/ringway-7/ringway/..-a-b.sock");
    }
}
