use bollard_stubs::models::{HealthConfig, ResourcesUlimits};

use super::*;

fn node() -> Host {
    Host { cpus: 4, ..Host::read() }
}

fn refused(config: ContainerConfig, host: HostConfig) -> String {
    let mut config = config;
    let unsupported = refuse_unsupported(&config, &host);
    unsupported.and_then(|()| check(&mut config, &host, &node())).unwrap_err().to_string()
}

fn host_refused(host: HostConfig) -> String {
    refused(ContainerConfig::default(), host)
}

#[test]
fn what_the_client_always_sends_is_accepted() {
    // the body of `docker run busybox true`, client 28.2
    let body = r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Tty":false,
        "OpenStdin":false,"StdinOnce":false,"Cmd":["true"],"Image":"busybox","Volumes":{},"WorkingDir":"","Labels":{},
        "HostConfig":{"ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"default","PortBindings":{},
        "RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":true,"VolumeDriver":"","ConsoleSize":[0,0],
        "CgroupnsMode":"","Dns":[],"DnsOptions":[],"DnsSearch":[],"IpcMode":"","Cgroup":"","OomScoreAdj":0,"PidMode":"",
        "Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"UTSMode":"","UsernsMode":"","ShmSize":0,
        "Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],
        "BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,
        "CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],
        "MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,"PidsLimit":0,"Ulimits":[],
        "CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0}}"#;
    let body: bollard_stubs::models::ContainerCreateBody = serde_json::from_str(body).unwrap();
    let mut host = body.host_config.clone().unwrap();
    let mut config = crate::merge::portable(body);
    refuse_unsupported(&config, &host).unwrap();
    check(&mut config, &host, &node()).unwrap();
    assert_eq!(drop_impossible(&mut host, &node()), Vec::<String>::new());
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    for (host, name) in [
        (HostConfig { links: Some(vec!["a:b".into()]), ..Default::default() }, "HostConfig.Links (--link)"),
        (HostConfig { userns_mode: Some("keep".into()), ..Default::default() }, "HostConfig.UsernsMode"),
        (HostConfig { cpu_count: Some(1), ..Default::default() }, "HostConfig.CpuCount"),
        (HostConfig { volume_driver: Some("nfs".into()), ..Default::default() }, "the volume driver \"nfs\""),
    ] {
        assert_eq!(host_refused(host), format!("{name} is not supported by Shoal yet"));
    }
    let config = ContainerConfig { network_disabled: Some(true), ..Default::default() };
    assert!(refused(config, HostConfig::default()).starts_with("NetworkDisabled "));
}

#[test]
fn limits_are_checked_in_dockers_words() {
    for (host, error) in [
        (HostConfig { memory: Some(1 << 20), ..Default::default() }, "Minimum memory limit allowed is 6MB"),
        (
            HostConfig { memory_swap: Some(8 << 20), ..Default::default() },
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            HostConfig { nano_cpus: Some(5_000_000_000), ..Default::default() },
            "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available",
        ),
        (HostConfig { cpuset_cpus: Some("0-x".into()), ..Default::default() }, "Invalid value 0-x for cpuset cpus"),
        (
            HostConfig {
                ulimits: Some(vec![ResourcesUlimits { name: Some("nope".into()), ..Default::default() }]),
                ..Default::default()
            },
            "invalid ulimit type: nope",
        ),
        (HostConfig { pid_mode: Some("container:".into()), ..Default::default() }, "invalid PID mode: container:"),
        (HostConfig { dns: Some(vec!["x".into()]), ..Default::default() }, "bad DNS address: \"x\""),
        (
            HostConfig { sysctls: Some([("kernel.panic".to_owned(), "1".to_owned())].into()), ..Default::default() },
            "sysctl 'kernel.panic' is not allowed: it is not of a namespace of the container's own",
        ),
    ] {
        assert_eq!(host_refused(host), error);
    }
}

#[test]
fn configurations_are_checked_in_dockers_words() {
    for (config, error) in [
        (
            ContainerConfig { working_dir: Some("a".into()), ..Default::default() },
            "the working directory 'a' is invalid, it needs to be an absolute path",
        ),
        (ContainerConfig { stop_signal: Some("SIGX".into()), ..Default::default() }, "invalid signal: SIGX"),
        (ContainerConfig { env: Some(vec!["=x".into()]), ..Default::default() }, "invalid environment variable: =x"),
        (
            ContainerConfig { hostname: Some("a b".into()), ..Default::default() },
            "invalid hostname format for container: a b",
        ),
        (
            ContainerConfig {
                healthcheck: Some(HealthConfig { interval: Some(5), ..Default::default() }),
                ..Default::default()
            },
            "Interval in Healthcheck cannot be less than 1ms",
        ),
    ] {
        assert_eq!(refused(config, HostConfig::default()), error);
    }
}

#[test]
fn retries_belong_to_on_failure_and_no_restart_to_auto_remove() {
    use RestartPolicyNameEnum as Name;
    let policy = |name, most| RestartPolicy { name: Some(name), maximum_retry_count: Some(most) };
    assert!(check_restart(Some(&policy(Name::ON_FAILURE, 3)), false).is_ok());
    assert!(check_restart(Some(&policy(Name::ALWAYS, 0)), false).is_ok());
    assert!(check_restart(Some(&policy(Name::NO, 0)), true).is_ok());
    assert!(check_restart(Some(&policy(Name::ALWAYS, 3)), false).is_err());
    assert!(check_restart(Some(&policy(Name::ON_FAILURE, -1)), false).is_err());
    assert_eq!(
        check_restart(Some(&policy(Name::ALWAYS, 0)), true).unwrap_err().to_string(),
        "can't create 'AutoRemove' container with restart policy"
    );
}

#[test]
fn cpu_sets() {
    assert_eq!(parse_cpuset("0-2,7"), Some(vec![0, 1, 2, 7]));
    assert_eq!(parse_cpuset(""), Some(vec![]));
    for bad in ["a", "2-1", "1,,2", "-1"] {
        assert_eq!(parse_cpuset(bad), None, "{bad}");
    }
}
