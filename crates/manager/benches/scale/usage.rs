//! What this process has used.

use std::time::Duration;

/// The name of the threads on which agents are simulated.
pub const AGENTS: &str = "agents";

/// What this process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Time on processors, all threads together.
    pub cpu: Duration,
    /// The part of it that simulated agents took.
    pub agents: Duration,
    /// The most memory that it had, in MiB.
    pub peak_mib: u64,
}

impl Usage {
    /// As the kernel says.
    pub fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("the kernel tells of this process");
        let threads = std::fs::read_dir("/proc/self/task").expect("the kernel tells of this process");
        // one that has ended meanwhile is no agent's
        let threads = threads.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("stat")).ok());
        let agents = threads.map(|stat| cpu(&stat)).filter(|(name, _)| name == AGENTS).map(|(_, cpu)| cpu).sum();
        let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells of this process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|p| p.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
        Self { cpu: cpu(&stat).1, agents, peak_mib: kib.unwrap_or(0) / 1024 }
    }

    /// Of one processor in percent, since `before`, which was `span` ago: all, and the part of agents.
    pub fn share(&self, before: &Self, span: Duration) -> [f64; 2] {
        [self.cpu - before.cpu, self.agents - before.agents].map(|cpu| 100.0 * cpu.as_secs_f64() / span.as_secs_f64())
    }
}

/// The name of a process or thread, and its time on processors, user's and system's.
fn cpu(stat: &str) -> (String, Duration) {
    // these times are the 14th and 15th field; the second is a name in brackets
    let (head, rest) = stat.rsplit_once(')').unwrap_or_default();
    let fields = rest.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|f| f.parse::<u64>().ok()).sum();
    let name = head.split_once('(').map_or("", |(_, name)| name);
    // a tick is a hundredth of a second on every Linux that we run on
    (name.to_owned(), Duration::from_millis(ticks * 10))
}
