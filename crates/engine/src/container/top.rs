//! Processes of a container.

use std::sync::Arc;

use bollard_stubs::models::ContainerTopResponse;
use tokio::process::Command;

use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

impl Engine {
    /// The processes of a running container, as the host's `ps` tells them; `args` as for `ps`, `-ef` if there are none.
    pub async fn top(self: &Arc<Self>, name: &str, args: Option<&str>) -> Result<ContainerTopResponse> {
        let container = self.containers.find(name)?;
        let supervisor = container.supervisor()?;
        let cgroup = supervisor.job().cgroup.clone();
        let pids = blocking(move || shoal_runtime::cgroup::pids(&cgroup)).await;
        let pids = pids
            .map_err(|e| Error::at("list processes of", container.id.as_str())(std::io::Error::other(e.to_string())))?;
        let args: Vec<&str> = args.filter(|args| !args.trim().is_empty()).unwrap_or("-ef").split_whitespace().collect();
        let listed = Command::new("ps").args(&args).output().await.map_err(Error::at("run", "ps"))?;
        if !listed.status.success() {
            let said = String::from_utf8_lossy(&listed.stderr).trim().to_owned();
            return Err(Error::invalid(format!("ps: {said}")));
        }
        parse(&String::from_utf8_lossy(&listed.stdout), &pids)
    }
}

/// Keeps the lines of our processes.
fn parse(output: &str, pids: &[i32]) -> Result<ContainerTopResponse> {
    let mut lines = output.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let at = titles.iter().position(|title| title == "PID");
    let at = at.ok_or_else(|| Error::invalid("Couldn't find PID field in ps output"))?;
    let rows = lines.filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let pid: i32 = fields.get(at)?.parse().ok()?;
        if !pids.contains(&pid) {
            return None;
        }
        // the last column is the command with its arguments
        let (head, tail) = fields.split_at(titles.len().saturating_sub(1).min(fields.len()));
        let mut row: Vec<String> = head.iter().map(|field| (*field).to_owned()).collect();
        row.push(tail.join(" "));
        Some(row)
    });
    let processes = rows.collect();
    Ok(ContainerTopResponse { titles: Some(titles), processes: Some(processes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes_are_shown_with_their_whole_command() {
        let output = "UID PID CMD\nroot 1 /sbin/init\nweb 42 sleep  1000\nweb 43 sh -c x y\n";
        let top = parse(output, &[42, 43]).unwrap();
        assert_eq!(top.titles.unwrap(), ["UID", "PID", "CMD"]);
        assert_eq!(top.processes.unwrap(), [["web", "42", "sleep 1000"], ["web", "43", "sh -c x y"]]);
        assert!(parse("UID CMD\n", &[1]).is_err());
    }
}
