//! Gathers the pages of `docs/errors` into the program, so that `ringway errors` needs no network and no list of its own.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../docs/errors").canonicalize()?;
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|ending| ending == "md") && stem != "README" {
            names.push((stem.to_owned(), path.clone()));
        }
    }
    names.sort();
    let mut text = String::from("/// Codes with their pages, in order.\nconst PAGES: &[(&str, &str)] = &[\n");
    for (name, path) in names {
        writeln!(text, "    ({name:?}, include_str!({:?})),", path.display().to_string())?;
    }
    text.push_str("];\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("error_pages.rs"), text)?;
    Ok(())
}
