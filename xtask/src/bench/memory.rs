//! What the daemons and their helpers keep in memory.

use std::fs;
use std::time::Duration;

use conformance::cx::Cx;
use conformance::error::{Failure, Result};
use serde_json::json;

use super::report::{Better, Row};
use super::{Lab, Side};

const CONTAINERS: usize = 20;
const MIB: f64 = 1024.0;
/// An idle daemon is one that has had nothing to do for this long.
const IDLE: Duration = Duration::from_secs(15);

/// Daemons that have just started, then helpers of containers that sleep.
///
/// # Errors
/// An engine refuses a container, or its processes cannot be looked at.
pub fn measure(lab: &Lab) -> Result<Vec<Row>> {
    let idle = |side: &Side| total(side, |line| !is_helper(line), "VmRSS:");
    let (shoal, docker) = (idle(&lab.shoal)?, idle(&lab.docker)?);
    lab.load_images()?;
    let (own, theirs) = (helpers(&lab.shoal)?, helpers(&lab.docker)?);
    std::thread::sleep(IDLE);
    let after = idle(&lab.shoal)?;
    Ok(vec![
        Row { what: "idle daemon, resident", number: shoal, unit: "MiB", wanted: 30.0, better: Better::Lower },
        Row {
            what: "dockerd with its containerd, resident",
            number: docker,
            unit: "MiB",
            wanted: 0.0,
            better: Better::Told,
        },
        Row { what: "private memory of a supervisor", number: own.0, unit: "MiB", wanted: 3.0, better: Better::Lower },
        Row {
            what: "Docker's shim of a container, resident",
            number: theirs.1,
            unit: "MiB",
            wanted: 0.0,
            better: Better::Told,
        },
        Row {
            what: "idle daemon after loading images and 20 containers, resident",
            number: after,
            unit: "MiB",
            wanted: 30.0,
            better: Better::Lower,
        },
    ])
}

fn is_helper(line: &str) -> bool {
    line.contains("containerd-shim") || line.contains(" supervise")
}

/// Private and resident memory of the helper of one container, in MiB.
fn helpers(side: &Side) -> Result<(f64, f64)> {
    let cx = Cx::new(&side.engine, "memory".to_owned());
    for number in 0..CONTAINERS {
        cx.run(&format!("c{number}"), json!({"Cmd": ["sleep", "1000"]}))?;
    }
    let private = total(side, is_helper, "Private_Clean:")? + total(side, is_helper, "Private_Dirty:")?;
    let resident = total(side, is_helper, "Rss:")?;
    cx.clean()?;
    Ok((private / CONTAINERS as f64, resident / CONTAINERS as f64))
}

/// Sums a line of memory statistics over the side's processes, in MiB.
fn total(side: &Side, wanted: impl Fn(&str) -> bool, line: &str) -> Result<f64> {
    let mark = side.daemon.directory().display().to_string();
    let (mut sum, mut processes) = (0.0, 0);
    for process in fs::read_dir("/proc")?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
    {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        if !arguments.contains(&mark) || !wanted(&arguments) {
            continue;
        }
        let file = if line == "VmRSS:" { "status" } else { "smaps_rollup" };
        let statistics = fs::read_to_string(process.path().join(file)).unwrap_or_default();
        let number = statistics
            .lines()
            .find_map(|found| found.strip_prefix(line))
            .and_then(|rest| rest.trim().split(' ').next()?.parse::<f64>().ok());
        if let Some(kib) = number {
            sum += kib / MIB;
            processes += 1;
        }
    }
    if processes == 0 { Err(Failure::wrong(format!("no process of {mark} has {line}"))) } else { Ok(sum) }
}
