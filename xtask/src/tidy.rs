//! `cargo xtask tidy`: files and functions stay small, nothing is left half done, and the map names only what exists.

use std::fs;
use std::path::{Path, PathBuf};

use conformance::error::{Failure, Result};

use crate::shell::root;

/// The most lines that a file may have.
const FILE: usize = 800;
/// The most lines that a function may have.
const FUNCTION: usize = 100;
/// Where our sources are.
const SOURCES: &[&str] = &["crates", "tests", "examples", "xtask", "benches", "fuzz"];
/// What must not be left in a source; in two parts, or this file would be an offender itself.
const LEFT_OVER: &[(&str, &str)] =
    &[("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("todo", "!("), ("unimplemented", "!("), ("#[igno", "re")];
/// Pages whose paths must exist.
const MAPS: &[&str] = &["ARCHITECTURE.md", "README.md"];

/// Checks every source of the project.
///
/// # Errors
/// Something is too large, half done or not there; everything that is gets listed.
pub fn check() -> Result<()> {
    let mut files = Vec::new();
    for place in SOURCES {
        collect(&root().join(place), &mut files)?;
    }
    let mut wrong = Vec::new();
    let mut sizes = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file)?;
        let name = file.strip_prefix(root()).unwrap_or(file).display().to_string();
        sizes.push((text.lines().count(), name.clone()));
        wrong.extend(offences(&name, &text));
    }
    for map in MAPS {
        wrong.extend(missing_paths(map)?);
    }
    sizes.sort();
    let at = |share: usize| sizes.get(sizes.len() * share / 100).map_or(0, |(lines, _)| *lines);
    println!(
        "{} files, {} lines: median {}, 90th percentile {}",
        sizes.len(),
        sizes.iter().map(|(lines, _)| lines).sum::<usize>(),
        at(50),
        at(90)
    );
    for (lines, name) in sizes.iter().rev().take(5) {
        println!("  {lines:5} {name}");
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::wrong(format!("untidy:\n  {}", wrong.join("\n  ")))) }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn offences(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > FILE {
        wrong.push(format!("{name}: {} lines, at most {FILE}", lines.len()));
    }
    for (number, line) in lines.iter().enumerate() {
        for (first, second) in LEFT_OVER {
            if line.contains(&format!("{first}{second}")) {
                wrong.push(format!("{name}:{}: {first}{second}", number + 1));
            }
        }
        let length = function_length(&lines[number..]);
        if length > FUNCTION {
            wrong.push(format!("{name}:{}: a function of {length} lines, at most {FUNCTION}", number + 1));
        }
    }
    wrong
}

/// The lines of the function that begins here; 0 where none does. Formatted code ends it with a brace at its own indentation.
fn function_length(lines: &[&str]) -> usize {
    let first = lines[0];
    let code = first.trim_start();
    let indentation = first.len() - code.len();
    let mut words = code
        .split(' ')
        .skip_while(|word| word.starts_with("pub") || ["async", "const", "unsafe", "extern", "\"C\""].contains(word));
    if words.next() != Some("fn") || code.ends_with(';') || code.ends_with('}') {
        return 0;
    }
    let end = lines.iter().position(|line| line.trim_end() == format!("{}}}", " ".repeat(indentation)));
    end.map_or(0, |end| end + 1)
}

/// Paths in backquotes that a page names and that are not there.
fn missing_paths(page: &str) -> Result<Vec<String>> {
    let path = root().join(page);
    let text = fs::read_to_string(&path).map_err(|error| Failure::wrong(format!("{page}: {error}")))?;
    let quoted = text.split('`').skip(1).step_by(2);
    let paths = quoted.filter(|word| word.contains('/') && !word.contains([' ', '\n', '*', '{', '<', ':']));
    let ours = paths.filter(|path| {
        let first = path.split('/').next().unwrap_or_default();
        SOURCES.contains(&first) || ["docs", "packaging", ".ci", ".cargo"].contains(&first)
    });
    Ok(ours.filter(|path| !root().join(path).exists()).map(|path| format!("{page}: `{path}` does not exist")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured_by_their_closing_brace() {
        let text =
            format!("impl X {{\n    pub async fn long() {{\n{}    }}\n}}\n", "        {\n        }\n".repeat(60));
        assert_eq!(offences("f.rs", &text), ["f.rs:2: a function of 122 lines, at most 100"]);
        assert_eq!(offences("f.rs", "trait T {\n    fn declared();\n    fn one() {}\n}\n"), Vec::<String>::new());
    }

    #[test]
    fn what_is_left_over_is_found() {
        let marker = format!("// {}{}: later\n", "TO", "DO");
        assert_eq!(offences("f.rs", &marker).len(), 1);
    }

    #[test]
    fn a_large_file_is_found() {
        assert_eq!(offences("f.rs", &"\n".repeat(801)), ["f.rs: 801 lines, at most 800"]);
    }
}
