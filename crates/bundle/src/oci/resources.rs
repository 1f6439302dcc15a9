//! Limits of a container, from Docker's fields to OCI's. Pure but for looking up block devices.

use std::os::unix::fs::MetadataExt;

use bollard_stubs::models::{HostConfig, ThrottleDevice};
use nix::sys::stat::{major, minor};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// One processor's time in a period of 100 ms.
const PERIOD: i64 = 100_000;

/// `linux.resources` without devices.
pub fn resources(host: &HostConfig) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    let mut put = |name: &str, value: Map<String, Value>| {
        if !value.is_empty() {
            all.insert(name.to_owned(), Value::Object(value));
        }
    };
    put("memory", memory(host));
    put("cpu", cpu(host));
    put("blockIO", block_io(host)?);
    if let Some(limit) = host.pids_limit.filter(|limit| *limit != 0) {
        put("pids", Map::from_iter([("limit".to_owned(), json!(if limit < 0 { -1 } else { limit }))]));
    }
    Ok(all)
}

fn memory(host: &HostConfig) -> Map<String, Value> {
    let mut memory = Map::new();
    let limit = host.memory.unwrap_or_default();
    if limit > 0 {
        memory.insert("limit".to_owned(), json!(limit));
        // as much swap as memory, unless told otherwise
        let swap = match host.memory_swap.unwrap_or_default() {
            0 => limit.saturating_mul(2),
            swap => swap,
        };
        memory.insert("swap".to_owned(), json!(swap));
    }
    if let Some(reservation) = host.memory_reservation.filter(|r| *r > 0) {
        memory.insert("reservation".to_owned(), json!(reservation));
    }
    if let Some(swappiness) = host.memory_swappiness.filter(|s| *s >= 0) {
        memory.insert("swappiness".to_owned(), json!(swappiness));
    }
    if host.oom_kill_disable == Some(true) {
        memory.insert("disableOOMKiller".to_owned(), json!(true));
    }
    memory
}

fn cpu(host: &HostConfig) -> Map<String, Value> {
    let mut cpu = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            cpu.insert(name.to_owned(), value);
        }
    };
    let positive = |value: Option<i64>| value.filter(|v| *v > 0);
    put("shares", positive(host.cpu_shares).map(Value::from));
    match positive(host.nano_cpus) {
        Some(nano) => {
            put("period", Some(json!(PERIOD)));
            put("quota", Some(json!((nano / 10_000).max(1000))));
        }
        None => {
            put("period", positive(host.cpu_period).map(Value::from));
            put("quota", host.cpu_quota.filter(|q| *q != 0).map(Value::from));
        }
    }
    let set = |text: &Option<String>| text.clone().filter(|t| !t.is_empty()).map(Value::from);
    put("cpus", set(&host.cpuset_cpus));
    put("mems", set(&host.cpuset_mems));
    cpu
}

fn block_io(host: &HostConfig) -> Result<Map<String, Value>> {
    let mut io = Map::new();
    if let Some(weight) = host.blkio_weight.filter(|w| *w > 0) {
        io.insert("weight".to_owned(), json!(weight));
    }
    for (name, devices) in [
        ("throttleReadBpsDevice", &host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", &host.blkio_device_write_iops),
    ] {
        let devices: Vec<Value> = devices.iter().flatten().map(throttle).collect::<Result<_>>()?;
        if !devices.is_empty() {
            io.insert(name.to_owned(), Value::Array(devices));
        }
    }
    Ok(io)
}

fn throttle(device: &ThrottleDevice) -> Result<Value> {
    let path = device.path.as_deref().unwrap_or_default();
    let meta = std::fs::metadata(path).map_err(|e| Error::invalid(format!("{path}: {e}")))?;
    let rate = device.rate.unwrap_or_default().max(0);
    Ok(json!({ "major": major(meta.rdev()), "minor": minor(meta.rdev()), "rate": rate }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_fields_become_ocis() {
        let host = HostConfig {
            memory: Some(64 << 20),
            nano_cpus: Some(1_500_000_000),
            pids_limit: Some(100),
            cpuset_cpus: Some("0-1".into()),
            memory_swappiness: Some(-1),
            ..HostConfig::default()
        };
        assert_eq!(
            Value::Object(resources(&host).unwrap()),
            json!({
                "memory": { "limit": 64 << 20, "swap": 128 << 20 },
                "cpu": { "period": 100_000, "quota": 150_000, "cpus": "0-1" },
                "pids": { "limit": 100 },
            })
        );
        assert!(resources(&HostConfig::default()).unwrap().is_empty());
    }
}
