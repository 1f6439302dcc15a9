//! `docker run --rm busybox true`.

use std::process::{Command, Stdio};
use std::time::Instant;

use conformance::error::{Failure, Result};

use super::report::{Better, Row};
use super::{Lab, Side, median};

const ROUNDS: usize = 15;

/// The same client against both, and by itself.
///
/// # Errors
/// There is no client that both accept.
pub fn measure(lab: &Lab) -> Result<Vec<Row>> {
    lab.load_images()?;
    let run = |side: &Side| -> Result<f64> {
        let start = Instant::now();
        side.engine.docker(&["run", "--rm", "busybox", "true"], None)?.ok()?;
        Ok(start.elapsed().as_secs_f64())
    };
    let (shoal, docker) = lab.by_turns(ROUNDS, run)?;
    let client =
        lab.shoal.engine.cli.clone().ok_or_else(|| Failure::wrong("no docker client here that Shoal accepts"))?;
    let mut alone = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        Command::new(&client)
            .args(["version", "--format", "{{.Client.Version}}"])
            .env("DOCKER_HOST", "unix:///nowhere")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        alone.push(start.elapsed().as_secs_f64());
    }
    Ok(vec![
        Row {
            what: "`docker run --rm busybox true`",
            number: docker / shoal,
            unit: "times faster than dockerd",
            wanted: 4.0,
            better: Better::Higher,
        },
        Row {
            what: "the client's own share of that",
            number: median(alone) / shoal * 100.0,
            unit: "%",
            wanted: 0.0,
            better: Better::Told,
        },
    ])
}
