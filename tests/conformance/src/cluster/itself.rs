//! The lab itself: what it promises to those who learn and to these tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use crate::client::{Done, finish};
use crate::cx::Cx;
use crate::error::Result;
use crate::harness::{self, Tally};
use crate::lab::{Lab, Shape};
use crate::launch::Kind;
use crate::{ensure, same};

/// A check: it gets the program.
type Check = (&'static str, fn(&Path) -> Result<()>);

const CHECKS: &[Check] = &[
    ("the_lab_says_mistakes_in_one_sentence", mistakes_are_one_sentence),
    ("a_lab_that_cannot_be_made_leaves_nothing", a_failed_up_leaves_nothing),
    ("two_labs_live_side_by_side_and_run_commands_inside", two_labs_live_side_by_side),
    ("a_lab_goes_down_with_everything_that_runs_in_it", everything_goes_down),
];

/// Makes the checks whose names are wanted.
pub fn check(program: &Path, wanted: impl Fn(&str) -> bool, tally: &mut Tally) {
    for (name, check) in CHECKS.iter().filter(|(name, _)| wanted(name)) {
        let begin = Instant::now();
        harness::report(tally, name, begin, &check(program));
    }
}

fn name(suffix: &str) -> String {
    format!("it{}-{suffix}", std::process::id())
}

fn lab(program: &Path, name: &str, arguments: &[&str]) -> Result<Done> {
    let mut command = Command::new(program);
    command.args(["lab", "--name", name]).args(arguments);
    finish(command, None)
}

fn one(program: &Path) -> Result<Lab> {
    Lab::up(program, &Kind::Shoal(program.to_owned()), &Shape { managers: 1, workers: 0, swarm: false })
}

fn mistakes_are_one_sentence(program: &Path) -> Result<()> {
    let none = name("none");
    let full = std::env::temp_dir().display().to_string();
    for (name, arguments, wanted) in [
        (none.as_str(), &["ls"][..], "there is no lab"),
        (&none, &["down"], "there is no lab"),
        (&none, &["kill", "x"], "invalid value 'x'"),
        ("No/Name", &["up"], "invalid lab name"),
        (&none, &["up", "--managers", "0"], "at least one manager"),
        (&none, &["up", "--managers", "300"], "do not fit into 10.77.0.0/24"),
        (&none, &["up", "--dir", &full], "is not empty"),
    ] {
        let done = lab(program, name, arguments)?;
        same!((done.code, done.err.trim_end().lines().count()), (1, 1), "{arguments:?}: {}", done.err);
        ensure!(done.err.contains(wanted), "{arguments:?}: {:?}, wanted {wanted:?}", done.err);
    }
    Ok(())
}

fn a_failed_up_leaves_nothing(program: &Path) -> Result<()> {
    let name = name("bad");
    // the second of three engines never comes up: the first runs already
    let engine = format!(
        "test $NODE = 2 && exit 3; exec {} daemon -H unix://$SOCK --data-root $DIR/data --exec-root $DIR/run",
        program.display()
    );
    let done = lab(program, &name, &["up", "--managers", "3", "--workers", "0", "--engine", &engine])?;
    same!(done.code, 1, "exit code");
    ensure!(done.err.contains("the engine of node 2 ended"), "{:?}", done.err);
    let mut left: Vec<PathBuf> = Vec::new();
    for place in ["/run/netns", "/var/lib/shoal-lab"] {
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        left.extend(entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(&name)));
    }
    same!(left, Vec::<PathBuf>::new(), "left behind");
    let again = lab(program, &name, &["ls"])?;
    ensure!(again.err.contains("there is no lab"), "{:?}", again.err);
    Ok(())
}

fn two_labs_live_side_by_side(program: &Path) -> Result<()> {
    let (first, second) = (one(program)?, one(program)?);
    let line = "echo $NODE $ADDR $DOCKER_HOST; cat /proc/net/dev | grep -c eth0; ls /sys/fs/cgroup | wc -l";
    for lab in [&first, &second] {
        let said = lab.inside(1, &["sh", "-c", line])?;
        let socket = lab.home(1).join("sock").display().to_string();
        let lines: Vec<&str> = said.lines().collect();
        same!(lines[0], format!("1 10.77.0.1 unix://{socket}"), "environment");
        ensure!(lines[1] == "1" && lines[2] != "0", "the interface or the control groups are missing: {lines:?}");
        let listed = lab.run(&["ls"])?;
        ensure!(listed.contains(&socket) && listed.contains(" up ") && listed.contains(" in "), "{listed}");
    }
    first.down()?;
    same!(second.engine(1).get("/_ping")?.status, 200, "the other one goes on");
    second.act("cut", &[1])?;
    second.act("pause", &[1])?;
    let listed = second.run(&["ls"])?;
    ensure!(listed.contains(" paused ") && listed.contains(" cut "), "{listed}");
    second.down()
}

fn everything_goes_down(program: &Path) -> Result<()> {
    let lab = one(program)?;
    let cx = Cx::new(lab.engine(1), name("c"));
    let bridged = cx.sleeper("bridged")?;
    let host = cx.run("host", json!({"Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "host"}}))?;
    let mut pids = Vec::new();
    for id in [&bridged, &host] {
        pids.push(cx.inspect(id)?["State"]["Pid"].as_u64().unwrap_or_default());
    }
    // one whose daemon is gone is as much the lab's
    lab.act("kill", &[1])?;
    ensure!(pids.iter().all(|pid| lives(*pid)), "a container ended with its daemon");
    lab.down()?;
    ensure!(!pids.iter().any(|pid| lives(*pid)), "a container goes on without its lab");
    Ok(())
}

/// Whether a process is there and not only waits to be forgotten.
fn lives(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next().map(|state| state != "Z")).unwrap_or(false)
}
