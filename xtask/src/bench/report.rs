//! What was measured, as lines on the terminal and as a page.

use std::{fmt, fs};

use conformance::error::Result;

use super::Lab;
use crate::shell::{root, say};

const PAGE: &str = "docs/benchmarks.md";

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

/// Where the part of the page begins that another command writes.
const CLUSTER: &str = "\n## A cluster\n";

/// Writes the part of the page about engines; the other stays as it is.
///
/// # Errors
/// An engine does not tell its version, or the page cannot be written.
pub fn write_engines(rows: &[Row], lab: &Lab) -> Result<()> {
    let (_, cluster) = parts()?;
    write(&format!("{}{cluster}", engines(rows, lab)?))
}

/// Writes the part of the page about clusters; the other stays as it is.
///
/// # Errors
/// The page cannot be written.
pub fn write_cluster(rows: &[Row]) -> Result<()> {
    let (engines, _) = parts()?;
    write(&format!("{engines}{CLUSTER}\n{ABOUT_CLUSTER}{}{CLUSTER_NOTES}", table(rows)))
}

/// The page as it is, in its two parts.
fn parts() -> Result<(String, String)> {
    let page = fs::read_to_string(root().join(PAGE))?;
    let at = page.find(CLUSTER).unwrap_or(page.len());
    Ok((page[..at].to_owned(), page[at..].to_owned()))
}

fn write(text: &str) -> Result<()> {
    let page = root().join(PAGE);
    fs::write(&page, text)?;
    say(&format!("wrote {}", page.display()));
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let line =
        |row: &Row| format!("| {} | {:.2} {} | {} | {} |\n", row.what, row.number, row.unit, row.goal(), row.verdict());
    format!("| what | measured | wanted | |\n|---|---|---|---|\n{}", rows.iter().map(line).collect::<String>())
}

fn engines(rows: &[Row], lab: &Lab) -> Result<String> {
    let version = lab.docker.engine.get("/version")?.json()?;
    let info = lab.shoal.engine.get("/info")?.json()?;
    let version = version["Version"].as_str().unwrap_or_default();
    let cores = info["NCPU"].as_u64().unwrap_or_default();
    Ok(format!(
        "# Benchmarks\n\n`cargo xtask bench` wrote this part of the page: Shoal beside Debian's dockerd {version}, both on one machine with {cores} cores, each in a network \
         namespace of its own, measured by turns in one run; medians. Only ratios and memory are told, since times say more about the machine.\n\n\
         {}{NOTES}",
        table(rows)
    ))
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

const ABOUT_CLUSTER: &str = "`cargo xtask bench cluster` wrote this part: three managers and two workers, each in a network namespace of its own on one machine \
     (`shoal lab`), Shoal and then Debian's dockerd in the same lab; medians of three.\n\n";

const CLUSTER_NOTES: &str = "
- *leader*: its cable is pulled and its daemon killed; a client at each of the other managers asks for a new config until one says 201.
- *node*: a worker's cable is pulled and its daemon killed; until all ten tasks of a service run on the other four nodes.
- *stalls*: SIGSTOP of the daemon of two workers and of the leader, for 2 s each; tasks of a service of ten that are not what they were.
- *changes*: new configs of a few bytes, from 64 clients at three managers, each waiting for its answer before it asks again. The
  clients, three managers and two workers share the machine's processors.
- *simulated*: one real manager, its nodes and the network between them in one process; see `cargo xtask bench scale-sim`.
";
