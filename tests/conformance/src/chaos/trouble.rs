//! What befalls the nodes: one player a node, who kills, stops, stalls and cuts it off, and after a while puts it right again;
//! and one who kills a container's process, or the supervisor of one.

use std::fs;
use std::sync::Mutex;
use std::time::Instant;

use super::Game;
use super::dice::Dice;
use crate::client::finish;
use crate::error::{Failure, Result};

/// What can befall a node, by the lab's words: what begins it and what ends it.
const TROUBLES: &[(&str, &[&str], &[&str])] = &[
    ("killed", &["kill"], &["start"]),
    ("stopped", &["stop"], &["start"]),
    ("stalled", &["pause"], &["resume"]),
    ("cut off", &["cut"], &["mend"]),
    ("killed and cut off", &["cut", "kill"], &["mend", "start"]),
    ("stalled and cut off", &["cut", "pause"], &["mend", "resume"]),
];
/// Milliseconds that a trouble lasts: some are noticed by nobody, some by everybody.
const LASTS: (u64, u64) = (100, 7_000);
/// Milliseconds between two troubles of one node.
const CALM: (u64, u64) = (500, 9_000);
/// Milliseconds between two deaths of a container's process.
const DEATHS: (u64, u64) = (1_000, 5_000);

/// What happened, for whoever has to find out why.
#[derive(Debug, Default)]
pub struct Diary(Mutex<Vec<String>>);

impl Diary {
    /// Notes it, with the time.
    pub fn note(&self, game: &Game<'_>, what: String) {
        if let Ok(mut lines) = self.0.lock() {
            lines.push(format!("{:8.3} {what}", game.began.elapsed().as_secs_f64()));
        }
    }

    /// All of it.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.lock().map(|lines| lines.join("\n")).unwrap_or_default()
    }

    /// How many things happened.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().map(|lines| lines.len()).unwrap_or_default()
    }
}

/// Troubles one node until the time is over; leaves it well.
///
/// # Errors
/// The lab does not do what it is told.
pub fn trouble(game: &Game<'_>, node: usize) -> Result<()> {
    let mut dice = Dice::new(game.seed, node as u64);
    loop {
        if !game.sleep(dice.pause(CALM.0, CALM.1)) {
            return Ok(());
        }
        let (name, begin, end) = dice.pick(TROUBLES);
        game.diary.note(game, format!("node {node} is {name}"));
        let begun = begin.iter().try_for_each(|verb| game.lab.act(verb, &[node]));
        game.sleep(dice.pause(LASTS.0, LASTS.1));
        let ended = end.iter().try_for_each(|verb| game.lab.act(verb, &[node]));
        game.diary.note(game, format!("node {node} is well"));
        begun.and(ended)?;
    }
}

/// Kills a process of a container, or a supervisor, now and then.
///
/// # Errors
/// A process cannot be killed.
pub fn kill_containers(game: &Game<'_>) -> Result<()> {
    let mut dice = Dice::new(game.seed, 0);
    while game.sleep(dice.pause(DEATHS.0, DEATHS.1)) {
        let victims = victims(&game.lab.home(dice.below(game.lab.nodes().count()) + 1).display().to_string());
        if victims.is_empty() {
            continue;
        }
        let (pid, what) = dice.pick(&victims);
        game.diary.note(game, format!("{what} {pid} is killed"));
        let mut kill = std::process::Command::new("kill");
        kill.args(["-KILL", &pid.to_string()]);
        let done = finish(kill, None)?;
        // one that has ended by itself meanwhile is as dead
        if done.code != 0 && !done.err.contains("No such process") {
            return Err(Failure::wrong(format!("{}: {}", done.command, done.err)));
        }
    }
    Ok(())
}

/// Supervisors of a node and what runs under them.
fn victims(home: &str) -> Vec<(u32, &'static str)> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if !(line.contains(" supervise ") && line.contains(&format!("{home}/"))) {
            continue;
        }
        found.push((pid, "supervisor"));
        let children = fs::read_to_string(process.path().join(format!("task/{pid}/children"))).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|child| Some((child.parse().ok()?, "container process"))));
    }
    found
}

/// When this much time has passed since `began`, the game is over.
pub fn is_over(began: Instant, seconds: u64) -> bool {
    began.elapsed().as_secs() >= seconds
}
