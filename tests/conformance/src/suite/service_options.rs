//! Options of a service that show in its containers.

use serde_json::{Value, json};

use crate::cx::{Cx, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, container_options_reach_the_container),
    case!(Swarm, command_replaces_the_entrypoint_and_args_the_command),
    case!(Swarm, mounts_reach_the_container),
    case!(Swarm, limits_reach_the_container),
    case!(Swarm, the_stop_signal_and_grace_period_are_obeyed),
    case!(Swarm, a_spec_reads_back_as_it_was_sent),
];

impl Cx<'_> {
    /// The inspection of the container of the service's only task.
    fn only_container(&self, service: &str) -> Result<Value> {
        let task = self.wait_running(service, 1)?.remove(0);
        self.inspect(&text(&task["Status"]["ContainerStatus"]["ContainerID"]))
    }
}

fn container_options_reach_the_container(cx: &Cx<'_>) -> Result<()> {
    let spec = json!({"TaskTemplate": {"ContainerSpec": {"Env": ["A=1"], "Hostname": "somehost", "User": "405:100", "Dir": "/tmp", "Init": true,
        "Groups": ["250"], "ReadOnly": true, "Labels": {"l": "m"}, "Hosts": ["1.2.3.4 elsewhere"], "TTY": true, "OpenStdin": true,
        "CapabilityAdd": ["CAP_NET_ADMIN"], "CapabilityDrop": ["CAP_CHOWN"], "Sysctls": {"net.core.somaxconn": "77"}}}});
    let service = cx.service("svc", spec)?;
    let container = cx.only_container(&service)?;
    let id = text(&container["Id"]);
    let (config, host) = (&container["Config"], &container["HostConfig"]);
    same!(config["Hostname"], "somehost", "host name");
    same!(config["User"], "405:100", "user");
    same!(config["WorkingDir"], "/tmp", "directory");
    same!(config["Tty"], true, "tty");
    same!(config["OpenStdin"], true, "stdin");
    same!(config["Labels"]["l"], "m", "label");
    same!(host["ReadonlyRootfs"], true, "read-only");
    same!(host["Init"], true, "init");
    same!(host["ExtraHosts"], json!(["elsewhere:1.2.3.4"]), "hosts");
    let (_, seen) = cx.exec(
        &id,
        &[
            "sh",
            "-c",
            "echo $A; hostname; id -u; id -g; id -G; pwd; cat /proc/sys/net/core/somaxconn; grep elsewhere /etc/hosts",
        ],
        json!({}),
    )?;
    same!(seen.out, "1\nsomehost\n405\n100\n100 250\n/tmp\n77\n1.2.3.4\telsewhere\n", "seen inside");
    let (code, _) = cx.exec(&id, &["touch", "/x"], json!({}))?;
    same!(code, 1, "writing to the read-only root");
    Ok(())
}

fn command_replaces_the_entrypoint_and_args_the_command(cx: &Cx<'_>) -> Result<()> {
    for (name, container, wanted) in [
        ("both", json!({"Image": "shoal/clock:1.0", "Command": ["sleep"], "Args": ["1000"]}), "sleep 1000"),
        ("args", json!({"Image": "busybox", "Command": null, "Args": ["sleep", "999"]}), "sleep 999"),
        ("none", json!({"Image": "shoal/clock:1.0", "Command": null}), "clock"),
    ] {
        let service = cx.service(name, json!({"TaskTemplate": {"ContainerSpec": container}}))?;
        let container = cx.only_container(&service)?;
        let (_, seen) = cx.exec(&text(&container["Id"]), &["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"], json!({}))?;
        same!(seen.out.trim_end(), wanted, "process 1 of {name}");
    }
    Ok(())
}

fn mounts_reach_the_container(cx: &Cx<'_>) -> Result<()> {
    let mounts = json!([
        {"Type": "volume", "Source": cx.name("vol"), "Target": "/vol"},
        {"Type": "tmpfs", "Target": "/mem", "TmpfsOptions": {"SizeBytes": 1_048_576}},
        {"Type": "bind", "Source": "/usr", "Target": "/host", "ReadOnly": true},
        {"Type": "volume", "Target": "/anonymous"},
    ]);
    let service = cx.service("svc", json!({"TaskTemplate": {"ContainerSpec": {"Mounts": mounts}}}))?;
    let container = cx.only_container(&service)?;
    let line = "touch /vol/a /mem/a /anonymous/a && ls -d /host/share && ! touch /host/x 2>/dev/null && grep ' /mem tmpfs' /proc/mounts | grep -o size=1024k";
    let (code, seen) = cx.exec(&text(&container["Id"]), &["sh", "-c", line], json!({}))?;
    same!((code, seen.out.as_str()), (0, "/host/share\nsize=1024k\n"), "seen inside");
    ensure!(cx.get(&format!("/volumes/{}", cx.name("vol")))?.json()?["Driver"] == "local", "the volume");
    Ok(())
}

fn limits_reach_the_container(cx: &Cx<'_>) -> Result<()> {
    let limits = json!({"MemoryBytes": 67_108_864, "NanoCPUs": 250_000_000, "Pids": 33});
    let reservations = json!({"MemoryBytes": 8_388_608, "NanoCPUs": 1_000_000});
    let service =
        cx.service("svc", json!({"TaskTemplate": {"Resources": {"Limits": limits, "Reservations": reservations}}}))?;
    let host = cx.only_container(&service)?["HostConfig"].clone();
    same!(host["Memory"], 67_108_864, "memory");
    same!(host["NanoCpus"], 250_000_000, "cpus");
    same!(host["PidsLimit"], 33, "processes");
    same!(
        cx.see_service(&service)?["Spec"]["TaskTemplate"]["Resources"],
        json!({"Limits": limits, "Reservations": reservations}),
        "resources"
    );
    Ok(())
}

fn the_stop_signal_and_grace_period_are_obeyed(cx: &Cx<'_>) -> Result<()> {
    let container = json!({"StopSignal": "SIGUSR1", "StopGracePeriod": 20_000_000_000_u64});
    let policy = json!({"Condition": "none"});
    let line = "trap 'echo got it; exit 5' USR1; trap 'exit 6' TERM; touch /tmp/ready; while :; do sleep 0.1; done";
    let spec = json!({"TaskTemplate": {"ContainerSpec": container, "RestartPolicy": policy}, "UpdateConfig": {"Monitor": 1_000_000, "Parallelism": 1}});
    let signalled = cx.shell_service("signalled", line, spec)?;
    let stubborn =
        json!({"TaskTemplate": {"ContainerSpec": {"StopSignal": "SIGTERM", "StopGracePeriod": 1_000_000_000_u64}}});
    let stubborn =
        cx.shell_service("stubborn", "trap '' TERM; touch /tmp/ready; while :; do sleep 0.1; done", stubborn)?;
    for (service, code) in [(signalled, 5), (stubborn, 137)] {
        let task = cx.wait_running(&service, 1)?.remove(0);
        cx.wait_ready(&task)?;
        cx.update(&service, json!({"TaskTemplate": {"ForceUpdate": 1}}))?;
        let stopped = cx.wait_task(&service, "the old task stops", |other| {
            other["ID"] == task["ID"] && other["Status"]["State"] == "shutdown"
        })?;
        let container = cx.inspect(&text(&stopped["Status"]["ContainerStatus"]["ContainerID"]))?;
        same!(container["State"]["ExitCode"], code, "exit code");
        same!(stopped["Status"]["Message"], "shutdown", "message");
    }
    Ok(())
}

fn a_spec_reads_back_as_it_was_sent(cx: &Cx<'_>) -> Result<()> {
    let spec = json!({"Name": cx.name("svc"), "Labels": {"a": "b"}, "Mode": {"Replicated": {"Replicas": 0}},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "busybox:latest", "Labels": {"c": "d"}, "Command": ["x"], "Args": ["y"], "Hostname": "h", "Env": ["E=1"],
                "Dir": "/d", "User": "u", "Groups": ["g"], "Init": false, "StopSignal": "SIGINT", "TTY": true, "OpenStdin": true, "ReadOnly": true,
                "Mounts": [{"Type": "bind", "Source": "/s", "Target": "/t", "ReadOnly": true, "BindOptions": {"Propagation": "rslave"}}],
                "StopGracePeriod": 7_000_000_000_u64, "Isolation": "default", "Hosts": ["1.1.1.1 h"], "Sysctls": {"k": "v"}, "CapabilityAdd": ["CAP_NET_ADMIN"],
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000_u64, "Timeout": 4_000_000_000_u64, "StartPeriod": 3_000_000_000_u64, "Retries": 2},
                "DNSConfig": {"Nameservers": ["8.8.8.8"], "Search": ["s"], "Options": ["o"]},
                "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}]},
            "Resources": {"Limits": {"NanoCPUs": 1_000_000_000, "MemoryBytes": 10_000_000, "Pids": 9}, "Reservations": {"NanoCPUs": 2_000_000, "MemoryBytes": 5_000_000}},
            "RestartPolicy": {"Condition": "on-failure", "Delay": 0, "MaxAttempts": 3, "Window": 9_000_000_000_u64},
            "Placement": {"Constraints": ["node.role==manager"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.z"}}], "MaxReplicas": 4,
                "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
            "LogDriver": {"Name": "json-file", "Options": {"max-file": "2"}}, "ForceUpdate": 6, "Runtime": "container"},
        "UpdateConfig": {"Parallelism": 2, "Delay": 1, "FailureAction": "rollback", "Monitor": 2, "MaxFailureRatio": 0.5, "Order": "start-first"},
        "RollbackConfig": {"Parallelism": 3, "FailureAction": "continue", "Monitor": 4, "MaxFailureRatio": 0, "Order": "stop-first"},
        "EndpointSpec": {"Mode": "vip"}});
    let service = cx.service("svc", spec.clone())?;
    let got = cx.see_service(&service)?["Spec"].clone();
    compare("Spec", &spec, &got)
}

/// Compares two JSON values and names the place where they differ.
fn compare(path: &str, wanted: &Value, got: &Value) -> Result<()> {
    match (wanted, got) {
        (Value::Object(left), Value::Object(right)) => {
            for key in left.keys().chain(right.keys()) {
                compare(&format!("{path}.{key}"), &wanted[key], &got[key])?;
            }
            Ok(())
        }
        _ => {
            same!(got, wanted, "{path}");
            Ok(())
        }
    }
}
