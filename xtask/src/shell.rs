//! Running other programs, and where things are in the project.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use conformance::client::finish;
use conformance::error::{Failure, Result};
use serde_json::Value;

/// The project's root directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the project's root")
}

/// A command of cargo, in the project's root.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.args(arguments).current_dir(root());
    // what cargo told this program of itself would make build scripts run again, and a third of the project compile anew
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Says what happens next.
pub fn say(text: &str) {
    println!("== {text}");
}

/// Says what is run, runs it with its output shown, and demands success.
///
/// # Errors
/// It cannot be started, or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    say(&shown);
    let status = command.status().map_err(|error| Failure::wrong(format!("{shown}: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure::wrong(format!("{shown}: {status}"))) }
}

/// Runs a command with its output shown, line by line, and gives every line to `look` besides; whether it succeeded.
///
/// # Errors
/// It cannot be started.
pub fn watch(command: &mut Command, look: impl FnMut(&str) + Send) -> Result<bool> {
    let shown = show(command);
    say(&shown);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::wrong(format!("{shown}: {error}")))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let look = Mutex::new(look);
    thread::scope(|scope| {
        scope.spawn(|| pass(out, &look));
        pass(err, &look);
    });
    Ok(child.wait()?.success())
}

/// Shows what comes through a pipe, line by line, and gives every line to `look`.
fn pass(pipe: Option<impl Read>, look: &Mutex<impl FnMut(&str)>) {
    for line in pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).split(b'\n')).map_while(io::Result::ok) {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Ok(mut look) = look.lock() {
            look(&line);
        }
    }
}

/// Builds a package's program and says where it is.
///
/// # Errors
/// cargo fails.
pub fn build(package: &str, release: bool) -> Result<PathBuf> {
    say(&format!("building {package}{}", if release { " (release)" } else { "" }));
    let mut command = cargo(&["build", "--package", package, "--message-format=json-render-diagnostics"]);
    if release {
        command.arg("--release");
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(Failure::wrong(format!("{package} does not build")));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = messages.filter(|message| message["target"]["name"] == package);
    let program = programs.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    program.ok_or_else(|| Failure::wrong(format!("cargo built {package} but names no program")))
}

/// Whether this process may do what only root may.
///
/// # Errors
/// It is not root; the sentence says why that is needed.
pub fn demand_root() -> Result<()> {
    let mut command = Command::new("id");
    command.arg("-u");
    match finish(command, None)?.ok()?.as_str() {
        "0" => Ok(()),
        _ => Err(Failure::wrong("this needs root: it runs containers and makes network namespaces")),
    }
}

fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
