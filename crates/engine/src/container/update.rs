//! Changing limits and restart policy of a container.

use std::sync::Arc;

use bollard_stubs::models::{ContainerUpdateBody, HostConfig};

use super::check;
use super::spec::ContainerSpec;
use crate::engine::{Engine, detached};
use crate::error::{Error, Result};
use crate::record::Kind;

impl Engine {
    /// Changes limits and restart policy; what is not said stays. A running container has its new limits at once. Returns
    /// warnings.
    pub async fn update(self: &Arc<Self>, name: &str, body: ContainerUpdateBody) -> Result<Vec<String>> {
        let container = self.containers.find(name)?;
        let engine = self.clone();
        detached(async move {
            let _operation = container.operation.lock().await;
            let old = container.spec();
            let mut host = old.host_config.clone();
            refuse_unsupported(&body)?;
            apply(&mut host, body);
            check::check_resources(&host, &engine.node)?;
            check::check_restart(host.restart_policy.as_ref(), old.auto_remove())?;
            check::refuse_impossible(&host, &engine.node)?;
            let warnings = check::drop_impossible(&mut host, &engine.node);
            let limits = crate::spec::limits(&host)?;
            match container.supervisor() {
                Ok(supervisor) => supervisor.update(limits).await?,
                Err(Error::NotRunning(_)) => {}
                Err(other) => return Err(other),
            }
            let spec = ContainerSpec { host_config: host, ..(*old).clone() };
            engine.record.put(Kind::Container, &container.id, &spec).await?;
            container.data().spec = Arc::new(spec);
            engine.container_event(&container, "update", &[]);
            Ok(warnings)
        })
        .await
    }
}

/// What an update cannot change yet.
fn refuse_unsupported(body: &ContainerUpdateBody) -> Result<()> {
    fn some<T>(list: &Option<Vec<T>>) -> bool {
        list.as_ref().is_some_and(|list| !list.is_empty())
    }
    let nonzero = |value: Option<i64>| value.unwrap_or_default() != 0;
    let fields = [
        (body.cgroup_parent.as_ref().is_some_and(|parent| !parent.is_empty()), "CgroupParent"),
        (some(&body.devices), "Devices"),
        (some(&body.device_cgroup_rules), "DeviceCgroupRules"),
        (some(&body.device_requests), "DeviceRequests"),
        (some(&body.ulimits), "Ulimits"),
        (body.init == Some(true), "Init"),
        (some(&body.blkio_weight_device), "BlkioWeightDevice"),
        (some(&body.blkio_device_read_bps), "BlkioDeviceReadBps"),
        (some(&body.blkio_device_write_bps), "BlkioDeviceWriteBps"),
        (some(&body.blkio_device_read_iops), "BlkioDeviceReadIOps"),
        (some(&body.blkio_device_write_iops), "BlkioDeviceWriteIOps"),
        (nonzero(body.cpu_realtime_period), "CpuRealtimePeriod"),
        (nonzero(body.cpu_realtime_runtime), "CpuRealtimeRuntime"),
        (nonzero(body.cpu_count), "CpuCount"),
        (nonzero(body.cpu_percent), "CpuPercent"),
        (nonzero(body.io_maximum_iops), "IOMaximumIOps"),
        (nonzero(body.io_maximum_bandwidth), "IOMaximumBandwidth"),
    ];
    match fields.iter().find(|(set, _)| *set) {
        Some((_, name)) => Err(Error::unsupported(format!("{name} in an update"))),
        None => Ok(()),
    }
}

/// Puts what is set into the configuration; zero and empty mean "as it was".
fn apply(host: &mut HostConfig, body: ContainerUpdateBody) {
    for (own, new) in [
        (&mut host.cpu_shares, body.cpu_shares),
        (&mut host.memory, body.memory),
        (&mut host.memory_swap, body.memory_swap),
        (&mut host.memory_reservation, body.memory_reservation),
        (&mut host.nano_cpus, body.nano_cpus),
        (&mut host.cpu_period, body.cpu_period),
        (&mut host.cpu_quota, body.cpu_quota),
        (&mut host.pids_limit, body.pids_limit),
    ] {
        if new.unwrap_or_default() != 0 {
            *own = new;
        }
    }
    if let Some(swappiness) = body.memory_swappiness.filter(|s| *s >= 0) {
        host.memory_swappiness = Some(swappiness);
    }
    if body.oom_kill_disable.is_some() {
        host.oom_kill_disable = body.oom_kill_disable;
    }
    host.blkio_weight = body.blkio_weight.filter(|w| *w > 0).or(host.blkio_weight);
    for (own, new) in [(&mut host.cpuset_cpus, body.cpuset_cpus), (&mut host.cpuset_mems, body.cpuset_mems)] {
        if new.as_ref().is_some_and(|text| !text.is_empty()) {
            *own = new;
        }
    }
    if let Some(policy) = body.restart_policy
        && policy.name.is_some_and(|name| !name.to_string().is_empty())
    {
        host.restart_policy = Some(policy);
    }
}
