//! What this process has used.

use std::time::Duration;

/// What this process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Time on processors, all threads together.
    pub cpu: Duration,
    /// The most memory that it had, in MiB.
    pub peak_mib: u64,
}

impl Usage {
    /// As the kernel says.
    pub fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("the kernel tells of this process");
        // user and system time are the 14th and 15th field; the second is a name in brackets
        let fields: Vec<_> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().filter_map(|f| f.parse::<u64>().ok()).sum();
        let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells of this process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|p| p.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
        // a tick is a hundredth of a second on every Linux that we run on
        Self { cpu: Duration::from_millis(ticks * 10), peak_mib: kib.unwrap_or(0) / 1024 }
    }
}
