//! A service from nothing to fifty replicas, and the bare runtime beside it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use conformance::client::finish;
use conformance::cx::Cx;
use conformance::error::{Failure, Result};
use conformance::images;
use conformance::launch::clear;
use serde_json::{Value, json};

use super::report::{Better, Row};
use super::{Lab, Side, median};

const REPLICAS: usize = 50;
const ROUNDS: usize = 3;
/// How long fifty tasks may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(120);

/// Both engines, and `crun`.
///
/// # Errors
/// An engine refuses the service, or does not bring it up.
pub fn measure(lab: &Lab) -> Result<Vec<Row>> {
    lab.load_images()?;
    for side in [&lab.shoal, &lab.docker] {
        if !side.engine.in_swarm()? {
            side.engine.swarm_init()?;
        }
        let spec = json!({"Name": "scale", "Mode": {"Replicated": {"Replicas": 0}}, "TaskTemplate": {"ContainerSpec": {
            "Image": "busybox:latest", "Args": ["sleep", "1000"], "StopSignal": "SIGKILL"}}});
        side.engine.post("/services/create", &spec)?.status(201)?;
    }
    let (shoal, docker) = lab.by_turns(ROUNDS, |side| up_and_down(side).map(|took| took.as_secs_f64()))?;
    let mut rows = vec![Row {
        what: "50 replicas, from the scaling to all running",
        number: docker / shoal,
        unit: "times faster than dockerd",
        wanted: 8.0,
        better: Better::Higher,
    }];
    match crun() {
        Ok(floor) => rows.push(Row {
            what: "the same beside `crun run -d` 50 times",
            number: shoal / floor,
            unit: "times as long",
            wanted: 2.0,
            better: Better::Lower,
        }),
        Err(error) => println!("  crun was not measured: {error}"),
    }
    for side in [&lab.shoal, &lab.docker] {
        side.engine.swarm_leave()?;
    }
    Ok(rows)
}

/// Scales up, waits, scales down, waits; how long up took.
fn up_and_down(side: &Side) -> Result<Duration> {
    let cx = Cx::new(&side.engine, "scale".to_owned());
    let scale = |replicas: usize| cx.update("scale", json!({"Mode": {"Replicated": {"Replicas": replicas}}}));
    let start = Instant::now();
    scale(REPLICAS)?;
    cx.until_within("fifty tasks run", PATIENCE, || {
        let running = cx.running("scale")?.len();
        if running == REPLICAS {
            Ok(())
        } else {
            Err(Failure::wrong(format!("{running} run: {}", cx.states("scale")?)))
        }
    })?;
    let took = start.elapsed();
    scale(0)?;
    cx.until_within("nothing is left of them", PATIENCE, || {
        let filter = json!({"label": ["com.docker.swarm.service.name=scale"]});
        let (containers, tasks) = (cx.engine.list("/containers/json?all=1", &filter)?.len(), cx.tasks("scale")?.len());
        if containers + tasks == 0 {
            Ok(())
        } else {
            Err(Failure::wrong(format!("{containers} containers, {tasks} tasks: {}", cx.states("scale")?)))
        }
    })?;
    Ok(took)
}

/// Seconds that `crun run --detach` takes 50 times.
fn crun() -> Result<f64> {
    let bundle = std::env::temp_dir().join(format!("bench-crun-{}", std::process::id()));
    let mounted = mount_hugetlb()?;
    let measured =
        make_bundle(&bundle).and_then(|()| (0..ROUNDS).map(|_| crun_round(&bundle)).collect::<Result<Vec<f64>>>());
    clear("no-namespace", &bundle)?;
    if mounted {
        command("umount", &[HUGETLB])?;
        fs::remove_dir(HUGETLB)?;
    }
    measured.map(median)
}

/// crun takes a hybrid hierarchy for version 1 only where this controller is mounted too.
const HUGETLB: &str = "/sys/fs/cgroup/hugetlb";

fn mount_hugetlb() -> Result<bool> {
    let hybrid = Path::new("/sys/fs/cgroup/memory").exists();
    if !hybrid || Path::new(HUGETLB).exists() {
        return Ok(false);
    }
    fs::create_dir(HUGETLB)?;
    command("mount", &["-t", "cgroup", "-o", "hugetlb", "cgroup", HUGETLB])?;
    Ok(true)
}

fn make_bundle(bundle: &Path) -> Result<()> {
    fs::create_dir_all(bundle.join("rootfs"))?;
    let image = images::busybox()?;
    let archive = image.layers.first().map(Vec::as_slice).unwrap_or_default();
    tar::Archive::new(archive).unpack(bundle.join("rootfs"))?;
    let mut spec = Command::new("crun");
    spec.arg("spec").current_dir(bundle);
    finish(spec, None)?.ok()?;
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sleep", "1000"]);
    fs::write(&path, config.to_string())?;
    Ok(())
}

fn crun_round(bundle: &Path) -> Result<f64> {
    let state = bundle.join("state").display().to_string();
    let id = |number: usize| format!("bench-{}-{number}", std::process::id());
    let place = bundle.display().to_string();
    let start = Instant::now();
    let made = (0..REPLICAS)
        .try_for_each(|number| quiet("crun", &["--root", &state, "run", "--detach", "--bundle", &place, &id(number)]));
    let took = start.elapsed().as_secs_f64();
    for number in 0..REPLICAS {
        command("crun", &["--root", &state, "delete", "--force", &id(number)])?;
    }
    made.map(|()| took)
}

fn command(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command, None)?.ok()
}

/// Runs a command whose children keep its output open: it must not be a pipe.
fn quiet(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(Failure::wrong(format!("{program} {}: {status}", arguments.join(" ")))) }
}
