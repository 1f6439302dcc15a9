//! Which requests are refused: what makes no sense (Docker's texts), and what Docker has and Shoal does not have yet.
//! Nothing that is set is ever ignored. Pure but for the facts about the host that are handed in.

use bollard_stubs::models::{
    ContainerConfig, HostConfig, HostConfigIsolationEnum as Isolation, RestartPolicy, RestartPolicyNameEnum,
};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::mounts::clean;
use crate::{health, signal};

const MIN_MEMORY: i64 = 6 << 20;
const MIN_HEALTH_NANOS: i64 = 1_000_000;

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

fn some<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

/// Refuses what is not there yet, by its name in the API.
pub fn refuse_unsupported(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let nonzero = |value: Option<i64>| value.unwrap_or_default() != 0;
    let fields = [
        (config.network_disabled.unwrap_or_default(), "NetworkDisabled"),
        (config.args_escaped.unwrap_or_default(), "ArgsEscaped"),
        (some(&host.device_requests), "HostConfig.DeviceRequests (--gpus)"),
        (some(&host.links), "HostConfig.Links (--link)"),
        (some(&host.blkio_weight_device), "HostConfig.BlkioWeightDevice"),
        (nonzero(host.cpu_realtime_period), "HostConfig.CpuRealtimePeriod"),
        (nonzero(host.cpu_realtime_runtime), "HostConfig.CpuRealtimeRuntime"),
        (nonzero(host.cpu_count), "HostConfig.CpuCount"),
        (nonzero(host.cpu_percent), "HostConfig.CpuPercent"),
        (nonzero(host.io_maximum_iops), "HostConfig.IOMaximumIOps"),
        (nonzero(host.io_maximum_bandwidth), "HostConfig.IOMaximumBandwidth"),
        (!text(&host.cgroup).is_empty(), "HostConfig.Cgroup"),
        (!matches!(text(&host.userns_mode), "" | "host"), "HostConfig.UsernsMode"),
        (host.storage_opt.as_ref().is_some_and(|o| !o.is_empty()), "HostConfig.StorageOpt"),
    ];
    if let Some((_, name)) = fields.iter().find(|(set, _)| *set) {
        return Err(Error::unsupported(*name));
    }
    match text(&host.volume_driver) {
        "" | "local" => {}
        other => return Err(Error::unsupported(format!("the volume driver {other:?}"))),
    }
    if !matches!(text(&host.runtime), "" | crate::RUNTIME) {
        return Err(Error::invalid(format!("unknown or invalid runtime name: {}", text(&host.runtime))));
    }
    match host.isolation {
        None | Some(Isolation::EMPTY | Isolation::DEFAULT) => Ok(()),
        Some(other) => Err(Error::invalid(format!("invalid isolation ({other}) on linux"))),
    }
}

/// Refuses what makes no sense.
pub fn check(config: &mut ContainerConfig, host: &HostConfig, node: &Host) -> Result<()> {
    let workdir = text(&config.working_dir);
    if !workdir.is_empty() {
        if !workdir.starts_with('/') {
            return Err(Error::invalid(format!(
                "the working directory '{workdir}' is invalid, it needs to be an absolute path"
            )));
        }
        config.working_dir = Some(clean(workdir));
    }
    if !text(&config.stop_signal).is_empty() {
        signal::parse(text(&config.stop_signal))?;
    }
    for entry in config.env.iter().flatten() {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(Error::invalid(format!("invalid environment variable: {entry}")));
        }
    }
    check_hostname(config)?;
    check_health(config)?;
    check_restart(host.restart_policy.as_ref(), host.auto_remove.unwrap_or_default())?;
    check_namespaces(config, host)?;
    for extra in host.extra_hosts.iter().flatten() {
        shoal_network::parse_extra_host(extra).map_err(Error::InvalidParameter)?;
    }
    for server in host.dns.iter().flatten() {
        if server.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!("bad DNS address: {server:?}")));
        }
    }
    check_resources(host, node)
}

fn check_hostname(config: &ContainerConfig) -> Result<()> {
    let name = text(&config.hostname);
    let label = |part: &str| {
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        !part.is_empty() && part.bytes().all(ok) && !part.starts_with('-') && !part.ends_with('-')
    };
    if name.is_empty() || (name.len() <= 63 && name.split('.').all(label)) {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid hostname format for container: {name}")))
}

fn check_health(config: &ContainerConfig) -> Result<()> {
    let Some(check) = &config.healthcheck else { return Ok(()) };
    for (value, name) in [
        (check.interval, "Interval"),
        (check.timeout, "Timeout"),
        (check.start_period, "StartPeriod"),
        (check.start_interval, "StartInterval"),
    ] {
        let value = value.unwrap_or_default();
        if value != 0 && value < MIN_HEALTH_NANOS {
            return Err(Error::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries.unwrap_or_default() < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    let kind = check.test.as_ref().and_then(|test| test.first()).map(String::as_str);
    let planned = health::HealthPlan::new(Some(check), &[]).is_some();
    match kind {
        None | Some("NONE") => Ok(()),
        Some("CMD" | "CMD-SHELL") if planned => Ok(()),
        Some("CMD" | "CMD-SHELL") => Err(Error::invalid("missing command in Healthcheck")),
        Some(other) => Err(Error::invalid(format!("unknown type {other:?} in Healthcheck.Test"))),
    }
}

/// Also for `update`.
pub fn check_restart(policy: Option<&RestartPolicy>, auto_remove: bool) -> Result<()> {
    use RestartPolicyNameEnum as Name;
    let Some(policy) = policy else { return Ok(()) };
    let retries = policy.maximum_retry_count.unwrap_or_default();
    let name = crate::restart::name(Some(policy));
    match name {
        Name::ON_FAILURE if retries < 0 => {
            return Err(Error::invalid("invalid restart policy: maximum retry count cannot be negative"));
        }
        Name::ON_FAILURE | Name::EMPTY | Name::NO if retries == 0 || name == Name::ON_FAILURE => {}
        _ if retries == 0 => {}
        _ => {
            return Err(Error::invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ));
        }
    }
    if auto_remove && !matches!(name, Name::EMPTY | Name::NO) {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(())
}

fn check_namespaces(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let container = |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    for (field, mode, allowed) in [
        ("PID", text(&host.pid_mode), &["", "host", "private"][..]),
        ("IPC", text(&host.ipc_mode), &["", "none", "host", "private", "shareable"]),
    ] {
        if !allowed.contains(&mode) && !container(mode) {
            return Err(Error::invalid(format!("invalid {field} mode: {mode}")));
        }
    }
    let uts = text(&host.uts_mode);
    if !matches!(uts, "" | "host" | "private") {
        return Err(Error::invalid(format!("invalid UTS mode: {uts}")));
    }
    if uts == "host" && !text(&config.hostname).is_empty() {
        return Err(Error::invalid("conflicting options: hostname and the UTS mode"));
    }
    let network = text(&host.network_mode);
    if network.starts_with("container:") {
        let clash = |set: bool, what: &str| {
            let sentence = format!("conflicting options: {what} and the network mode");
            if set { Err(Error::invalid(sentence)) } else { Ok(()) }
        };
        clash(!text(&config.hostname).is_empty(), "hostname")?;
        clash(some(&host.dns), "dns")?;
        clash(some(&host.extra_hosts), "custom host-to-IP mapping")?;
        let ports = host.port_bindings.as_ref().is_some_and(|p| !p.is_empty()) || host.publish_all_ports == Some(true);
        clash(ports, "port publishing")?;
        clash(some(&config.exposed_ports), "port exposing")?;
    }
    for key in host.sysctls.iter().flatten().map(|(key, _)| key) {
        check_sysctl(key, network == "host", text(&host.ipc_mode) == "host")?;
    }
    Ok(())
}

/// Only what belongs to a namespace of the container's own can be set for it alone.
fn check_sysctl(key: &str, host_network: bool, host_ipc: bool) -> Result<()> {
    const IPC: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let dotted = key.replace('/', ".");
    if dotted.starts_with("net.") {
        if host_network {
            return Err(Error::invalid(format!("sysctl '{key}' not allowed in host network namespace")));
        }
        return Ok(());
    }
    if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        if host_ipc {
            return Err(Error::invalid(format!("sysctl '{key}' not allowed in host ipc namespace")));
        }
        return Ok(());
    }
    Err(Error::invalid(format!("sysctl '{key}' is not allowed: it is not of a namespace of the container's own")))
}

/// Also for `update`.
pub fn check_resources(host: &HostConfig, node: &Host) -> Result<()> {
    let value = |field: Option<i64>| field.unwrap_or_default();
    let (memory, swap) = (value(host.memory), value(host.memory_swap));
    let refuse = |wrong: bool, sentence: &str| if wrong { Err(Error::invalid(sentence)) } else { Ok(()) };
    refuse(memory != 0 && memory < MIN_MEMORY, "Minimum memory limit allowed is 6MB")?;
    refuse(
        memory > 0 && swap > 0 && swap < memory,
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    )?;
    refuse(memory == 0 && swap > 0, "You should always set the Memory limit when using Memoryswap limit, see usage")?;
    let reservation = value(host.memory_reservation);
    refuse(reservation != 0 && reservation < MIN_MEMORY, "Minimum memory reservation allowed is 6MB")?;
    refuse(
        memory > 0 && reservation > memory,
        "Minimum memory limit can not be less than memory reservation limit, see usage",
    )?;
    let swappiness = host.memory_swappiness.unwrap_or(-1);
    if !(-1..=100).contains(&swappiness) {
        return Err(Error::invalid(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100")));
    }
    check_cpus(host, node)?;
    let weight = host.blkio_weight.unwrap_or_default();
    refuse(weight != 0 && !(10..=1000).contains(&weight), "Range of blkio weight is from 10 to 1000")?;
    let score = host.oom_score_adj.unwrap_or_default();
    if !(-1000..=1000).contains(&score) {
        return Err(Error::invalid(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]")));
    }
    refuse(host.shm_size.unwrap_or_default() < 0, "SHM size can not be less than 0")?;
    check_ulimits(host)
}

fn check_cpus(host: &HostConfig, node: &Host) -> Result<()> {
    let value = |field: Option<i64>| field.unwrap_or_default();
    let (nano, period, quota) = (value(host.nano_cpus), value(host.cpu_period), value(host.cpu_quota));
    let refuse = |wrong: bool, sentence: &str| if wrong { Err(Error::invalid(sentence)) } else { Ok(()) };
    refuse(nano > 0 && period > 0, "Conflicting options: Nano CPUs and CPU Period cannot both be set")?;
    refuse(nano > 0 && quota > 0, "Conflicting options: Nano CPUs and CPU Quota cannot both be set")?;
    let most = i64::try_from(node.cpus).unwrap_or(i64::MAX / 1_000_000_000) * 1_000_000_000;
    if nano < 0 || nano > most {
        return Err(Error::invalid(format!(
            "range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available",
            node.cpus
        )));
    }
    refuse(
        period != 0 && !(1000..=1_000_000).contains(&period),
        "CPU cfs period cannot be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
    )?;
    refuse(quota > 0 && quota < 1000, "CPU cfs quota cannot be less than 1ms (i.e. 1000)")?;
    refuse(value(host.cpu_shares) < 0, "invalid CPU shares: must not be negative")?;
    for (set, name) in [(text(&host.cpuset_cpus), "cpus"), (text(&host.cpuset_mems), "mems")] {
        if parse_cpuset(set).is_none() {
            return Err(Error::invalid(format!("Invalid value {set} for cpuset {name}")));
        }
    }
    let asked = parse_cpuset(text(&host.cpuset_cpus)).unwrap_or_default();
    if asked.iter().any(|cpu| *cpu >= node.cpus.max(online_cpus())) {
        return Err(Error::invalid(format!(
            "Requested CPUs are not available - requested {}, available: 0-{}",
            text(&host.cpuset_cpus),
            node.cpus.saturating_sub(1)
        )));
    }
    Ok(())
}

fn online_cpus() -> usize {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    parse_cpuset(text.trim()).and_then(|cpus| cpus.iter().max().map(|last| last + 1)).unwrap_or(0)
}

/// `0-2,7` as numbers.
pub fn parse_cpuset(text: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > 8191 {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

fn check_ulimits(host: &HostConfig) -> Result<()> {
    for limit in host.ulimits.iter().flatten() {
        let name = text(&limit.name);
        if crate::oci::rlimit(name).is_none() {
            return Err(Error::invalid(format!("invalid ulimit type: {name}")));
        }
        let (soft, hard) = (limit.soft.unwrap_or_default(), limit.hard.unwrap_or_default());
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
    }
    Ok(())
}

/// Takes out what this kernel cannot do and says so, as Docker does.
pub fn drop_impossible(host: &mut HostConfig, node: &Host) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut drop_if = |impossible: bool, set: bool, clear: &mut dyn FnMut(), what: &str| {
        if impossible && set {
            clear();
            warnings.push(what.to_owned());
        }
    };
    let limits = node.limits;
    let set = |value: Option<i64>| value.unwrap_or_default() > 0;
    drop_if(
        !limits.memory,
        set(host.memory),
        &mut || (host.memory, host.memory_swap) = (None, None),
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
    );
    drop_if(
        !limits.memory,
        set(host.memory_reservation),
        &mut || host.memory_reservation = None,
        "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
    );
    drop_if(
        !limits.swap,
        set(host.memory) && host.memory_swap.unwrap_or_default() != -1,
        &mut || host.memory_swap = Some(-1),
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
    );
    drop_if(
        !limits.swappiness,
        host.memory_swappiness.unwrap_or(-1) != -1,
        &mut || host.memory_swappiness = None,
        "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
    );
    drop_if(
        !limits.oom_kill_disable,
        host.oom_kill_disable == Some(true),
        &mut || host.oom_kill_disable = None,
        "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
    );
    drop_if(
        !limits.pids,
        set(host.pids_limit),
        &mut || host.pids_limit = None,
        "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
    );
    drop_if(
        !limits.cpu_shares,
        set(host.cpu_shares),
        &mut || host.cpu_shares = None,
        "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
    );
    drop_if(
        !limits.blkio_weight,
        host.blkio_weight.unwrap_or_default() > 0,
        &mut || host.blkio_weight = None,
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
    );
    warnings
}

/// What the kernel must be able to do for a request, and cannot.
pub fn refuse_impossible(host: &HostConfig, node: &Host) -> Result<()> {
    let quota = host.nano_cpus.unwrap_or_default() > 0 || host.cpu_quota.unwrap_or_default() > 0;
    if quota && !node.limits.cpu_quota {
        return Err(Error::invalid(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        ));
    }
    let sets = !text(&host.cpuset_cpus).is_empty() || !text(&host.cpuset_mems).is_empty();
    if sets && !node.limits.cpuset {
        return Err(Error::invalid("cpusets can not be set, as this kernel has no cpuset control group"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
