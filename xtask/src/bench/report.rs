//! What was measured, as lines on the terminal and as a page.

use std::fmt;

use conformance::error::Result;

use super::Lab;

/// How a number is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// At least the wanted number.
    Higher,
    /// At most the wanted number.
    Lower,
    /// Only told: a floor, or where time goes.
    Told,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub what: &'static str,
    /// The number, with what it counts.
    pub number: f64,
    /// What the number counts: `times faster than dockerd`, `MiB`.
    pub unit: &'static str,
    /// What is wanted.
    pub wanted: f64,
    /// Which way is better.
    pub better: Better,
}

impl Row {
    fn verdict(&self) -> &'static str {
        match self.better {
            Better::Higher if self.number >= self.wanted => "met",
            Better::Lower if self.number <= self.wanted => "met",
            Better::Told => "",
            _ => "**missed**",
        }
    }

    fn goal(&self) -> String {
        match self.better {
            Better::Higher => format!("at least {}", self.wanted),
            Better::Lower => format!("at most {}", self.wanted),
            Better::Told => String::new(),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}: {:.2} {} ({}) {}", self.what, self.number, self.unit, self.goal(), self.verdict())
    }
}

/// The page of all rows.
///
/// # Errors
/// An engine does not tell its version.
pub fn page(rows: &[Row], lab: &Lab) -> Result<String> {
    let version = lab.docker.engine.get("/version")?.json()?;
    let info = lab.shoal.engine.get("/info")?.json()?;
    let version = version["Version"].as_str().unwrap_or_default();
    let cores = info["NCPU"].as_u64().unwrap_or_default();
    let mut text = format!(
        "# Benchmarks\n\n`cargo xtask bench` wrote this page: Shoal beside Debian's dockerd {version}, both on one machine with {cores} cores, each in a network \
         namespace of its own, measured by turns in one run; medians. Only ratios and memory are told, since times say more about the machine.\n\n\
         | what | measured | wanted | |\n|---|---|---|---|\n"
    );
    for row in rows {
        text.push_str(&format!(
            "| {} | {:.2} {} | {} | {} |\n",
            row.what,
            row.number,
            row.unit,
            row.goal(),
            row.verdict()
        ));
    }
    text.push_str(NOTES);
    Ok(text)
}

const NOTES: &str = "
## How to read it

- The run directories of both are in memory (tmpfs), as `/run` is on any distribution; their data is on the same disk.
- *idle daemon after …*: fifteen seconds after the last of it.
- *50 replicas*: from the request that scales a service of `busybox sleep 1000` from 0 to 50 until the API lists 50 running tasks.
- *crun*: `crun run --detach` of the same program from one bundle, 50 times one after the other. It has no layers to mount, no network to
  make, no log to keep and no state to write; that is the floor for making the processes.
- *run --rm*: `docker run --rm busybox true`, the same client for both. The client's own share is a `docker version` of no engine.
- *private memory of a supervisor*: what `smaps_rollup` calls private, divided by the number of containers.
- *pull*: an image of 300 MB in 8 layers of mixed content from Debian's `docker-registry` on loopback, removed after each round. The floor is
  reading the same blobs over HTTP and throwing them away.
- *log*: a container that writes a million lines of 100 bytes as fast as it can, from its start to its end; then all of them are read back and counted. The floor is
  the same program writing to a file through a pipe.
";
