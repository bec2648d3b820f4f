//! The licences of everything that we build with, held against a list. The expressions are SPDX, as crates state them.
//! It must not know who depends on whom; that is `layering`.

use ringway_tests::repository;

/// Licences that ask for no more than a notice. `MPL-2.0` binds the file that has it, not those that use it.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_has_an_allowed_licence() {
    let metadata = repository::metadata(&["--filter-platform", host()]).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let mut wrong = Vec::new();
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_default();
        if !allows(licence) {
            wrong.push(format!("{} {}: `{licence}`", package["name"], package["version"]));
        }
    }
    assert!(packages.len() > 12, "cargo names too few packages: {}", packages.len());
    assert!(wrong.is_empty(), "not in the list of allowed licences:\n{}", wrong.join("\n"));
}

/// The platform on which the tests run, as cargo names it.
const fn host() -> &'static str {
    match (cfg!(target_arch = "aarch64"), cfg!(target_os = "macos")) {
        (true, true) => "aarch64-apple-darwin",
        (true, false) => "aarch64-unknown-linux-gnu",
        (false, true) => "x86_64-apple-darwin",
        (false, false) => "x86_64-unknown-linux-gnu",
    }
}

/// Whether the expression can be met with allowed licences alone. Old crates write `/` for `OR`.
fn allows(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest) == Some(true) && rest.is_empty()
}

/// `a OR b …`, where `AND` binds more tightly. `None` if it is no expression.
fn either(rest: &mut &[&str]) -> Option<bool> {
    let mut met = both(rest)?;
    while let ["OR", after @ ..] = *rest {
        *rest = after;
        met |= both(rest)?;
    }
    Some(met)
}

fn both(rest: &mut &[&str]) -> Option<bool> {
    let mut met = one(rest)?;
    while let ["AND", after @ ..] = *rest {
        *rest = after;
        met &= one(rest)?;
    }
    Some(met)
}

fn one(rest: &mut &[&str]) -> Option<bool> {
    match *rest {
        ["(", after @ ..] => {
            *rest = after;
            let met = either(rest)?;
            let [")", after @ ..] = *rest else { return None };
            *rest = after;
            Some(met)
        }
        [")" | "OR" | "AND" | "WITH", ..] | [] => None,
        [name, "WITH", exception, after @ ..] => {
            *rest = after;
            // An exception only ever permits more, so the bare licence will do as well.
            Some(ALLOWED.contains(&format!("{name} WITH {exception}").as_str()) || ALLOWED.contains(name))
        }
        [name, after @ ..] => {
            *rest = after;
            Some(ALLOWED.contains(name))
        }
    }
}

#[test]
fn expressions_are_understood() {
    let check = |expression: &str, expected: bool| assert_eq!(allows(expression), expected, "{expression}");
    check("MIT", true);
    check("GPL-3.0-only", false);
    check("MIT/Apache-2.0", true);
    check("GPL-3.0-only OR MIT", true);
    check("MIT AND GPL-3.0-only", false);
    check("(MIT OR Apache-2.0) AND Unicode-3.0", true);
    check("(MIT OR GPL-2.0-only) AND AGPL-3.0-only", false);
    check("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true);
    check("", false);
    check("(MIT", false);
    check("MIT Apache-2.0", false);
}
