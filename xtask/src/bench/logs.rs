//! A container that writes a hundred megabytes of log lines.

use std::io::{BufReader, Read};
use std::process::Command;
use std::time::Instant;

use conformance::client::finish;
use conformance::cx::Cx;
use conformance::error::{Failure, Result};
use conformance::images;
use serde_json::json;

use super::report::{Better, Row};
use super::{Lab, Side, median};

const LINES: u64 = 1_000_000;
const BYTES: u64 = 100;
const ROUNDS: usize = 3;

/// Both engines, and a pipe.
///
/// # Errors
/// An engine loses a line.
pub fn measure(lab: &Lab) -> Result<Vec<Row>> {
    lab.load_images()?;
    let (shoal, docker) = lab.by_turns(ROUNDS, write_and_count)?;
    let program = images::clock_program()?;
    let file = std::env::temp_dir().join(format!("bench-log-{}", std::process::id()));
    let line = format!("{} lines {LINES} {BYTES} | cat >{}", program.display(), file.display());
    let mut floor = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]);
        finish(shell, None)?.ok()?;
        floor.push(start.elapsed().as_secs_f64());
    }
    std::fs::remove_file(file)?;
    Ok(vec![
        Row {
            what: "a container that writes 100 MB of log",
            number: docker / shoal,
            unit: "times as fast as dockerd",
            wanted: 1.0,
            better: Better::Higher,
        },
        Row {
            what: "the same beside a pipe into a file",
            number: shoal / median(floor),
            unit: "times as long",
            wanted: 0.0,
            better: Better::Told,
        },
    ])
}

fn write_and_count(side: &Side) -> Result<f64> {
    let cx = Cx::new(&side.engine, "log".to_owned());
    let command = json!(["lines", LINES.to_string(), BYTES.to_string()]);
    let id = cx.create("c", json!({"Image": "shoal/clock:1.0", "Cmd": command}))?;
    let start = Instant::now();
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    let code = cx.wait(&id)?;
    let took = start.elapsed().as_secs_f64();
    let (lines, bytes) = count(&cx, &id)?;
    cx.clean()?;
    if (code, lines, bytes) != (0, LINES, LINES * BYTES) {
        return Err(Failure::wrong(format!(
            "exit code {code}, {lines} lines and {bytes} bytes of {LINES} lines of {BYTES}"
        )));
    }
    Ok(took)
}

/// Lines and bytes of a container's log, without keeping it.
fn count(cx: &Cx<'_>, id: &str) -> Result<(u64, u64)> {
    let stream = cx.engine.open("GET", &format!("/containers/{id}/logs?stdout=1"), &[], b"")?;
    let mut reader = BufReader::with_capacity(1 << 20, stream);
    let (mut lines, mut bytes) = (0, 0);
    let mut frame = Vec::new();
    loop {
        let mut header = [0; 8];
        match reader.read_exact(&mut header) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok((lines, bytes)),
            other => other?,
        }
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        frame.resize(length as usize, 0);
        reader.read_exact(&mut frame)?;
        bytes += u64::from(length);
        lines += frame.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}
