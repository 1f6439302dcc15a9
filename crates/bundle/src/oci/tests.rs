use bollard_stubs::models::{ContainerConfig, ResourcesUlimits};

use super::*;
use crate::container::{LogSpec, NetworkSpec};

fn container(host: HostConfig, config: ContainerConfig) -> ContainerSpec {
    ContainerSpec {
        id: "c".repeat(64),
        name: "web".into(),
        created: jiff::Timestamp::UNIX_EPOCH,
        image_id: shoal_image::Digest::of(b"image"),
        config,
        host_config: host,
        path: "sleep".into(),
        args: vec!["1".into()],
        mounts: Vec::new(),
        network: NetworkSpec::Own { mode: shoal_network::NetworkMode::Bridge, mac: None },
        log: LogSpec::default(),
        files: Vec::new(),
    }
}

fn built(host: HostConfig, config: ContainerConfig, mounts: &[MountSpec]) -> Value {
    let spec = container(host, config);
    let input = Input {
        spec: &spec,
        node: &Host::read(),
        rootfs: "/rootfs".into(),
        user: User { uid: 5, gid: 6, groups: vec![6, 7], home: "/home/x".into() },
        hostname: "box",
        network: Namespace::Join("/run/netns/x".into()),
        pid: Namespace::Own,
        ipc: Namespace::Own,
        uts: Namespace::Own,
        shm: Shm::Own(1 << 20),
        mounts,
        files: [
            ("/d/resolv".into(), "/etc/resolv.conf"),
            ("/d/hostname".into(), "/etc/hostname"),
            ("/d/hosts".into(), "/etc/hosts"),
        ],
        private: &[],
        exe: "/exe".into(),
    };
    serde_json::to_value(build(&input).unwrap()).unwrap()
}

fn mount<'a>(spec: &'a Value, destination: &str) -> Option<&'a Value> {
    spec["mounts"].as_array().unwrap().iter().find(|mount| mount["destination"] == destination)
}

#[test]
fn a_plain_container_is_confined_as_docker_confines_it() {
    let spec = built(HostConfig::default(), ContainerConfig::default(), &[]);
    let process = &spec["process"];
    assert_eq!(process["args"], json!(["sleep", "1"]));
    assert_eq!(process["user"]["additionalGids"], json!([6, 7]));
    assert_eq!(process["capabilities"]["effective"], json!([]), "not root: only the bounding set");
    assert_eq!(process["capabilities"]["bounding"].as_array().unwrap().len(), 14);
    assert!(process["env"].as_array().unwrap().contains(&json!("HOME=/home/x")));
    assert_eq!(spec["linux"]["readonlyPaths"].as_array().unwrap().len(), READ_ONLY.len());
    assert!(spec["linux"]["maskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
    assert!(spec["linux"]["seccomp"]["syscalls"].is_array());
    assert_eq!(spec["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"], "0");
    assert_eq!(spec["hostname"], "box");
    assert!(mount(&spec, "/etc/hosts").is_some());
    assert_eq!(mount(&spec, "/sys").unwrap()["options"], json!(["nosuid", "noexec", "nodev", "ro"]));
}

#[test]
fn privileged_lifts_masks_and_filters() {
    let spec = built(HostConfig { privileged: Some(true), ..Default::default() }, ContainerConfig::default(), &[]);
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert!(spec["linux"]["seccomp"].is_null());
    assert_eq!(spec["linux"]["resources"]["devices"].as_array().unwrap().len(), 1);
    assert!(spec["linux"]["devices"].as_array().unwrap().iter().any(|device| device["path"] == "/dev/null"));
}

#[test]
fn options_end_up_where_oci_wants_them() {
    let host = HostConfig {
        init: Some(true),
        readonly_rootfs: Some(true),
        oom_score_adj: Some(-5),
        security_opt: Some(vec!["no-new-privileges".into(), "seccomp=unconfined".into()]),
        ulimits: Some(vec![ResourcesUlimits { name: Some("nofile".into()), soft: Some(10), hard: Some(-1) }]),
        masked_paths: Some(vec![]),
        ..HostConfig::default()
    };
    let config = ContainerConfig { working_dir: Some("/w".into()), tty: Some(true), ..ContainerConfig::default() };
    let spec = built(host, config, &[]);
    let process = &spec["process"];
    assert_eq!(process["args"], json!(["/sbin/docker-init", "init", "--", "sleep", "1"]));
    assert_eq!(
        (&process["cwd"], &process["terminal"], &process["noNewPrivileges"]),
        (&json!("/w"), &json!(true), &json!(true))
    );
    assert_eq!(process["rlimits"], json!([{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": u64::MAX }]));
    assert_eq!(process["oomScoreAdj"], -5);
    assert!(process["env"].as_array().unwrap().contains(&json!("TERM=xterm")));
    assert_eq!(spec["root"]["readonly"], true);
    assert!(spec["linux"]["seccomp"].is_null());
    assert!(mount(&spec, "/sbin/docker-init").is_some());
}

#[test]
fn what_the_user_mounts_takes_the_place_of_ours() {
    let own = MountSpec {
        source: "/h".into(),
        destination: "/etc/hosts".into(),
        propagation: "rshared".into(),
        rw: true,
        ..Default::default()
    };
    let shm = MountSpec { source: "/s".into(), destination: "/dev/shm".into(), rw: true, ..Default::default() };
    let spec = built(HostConfig::default(), ContainerConfig::default(), &[shm, own]);
    assert_eq!(mount(&spec, "/etc/hosts").unwrap()["source"], "/h");
    assert_eq!(mount(&spec, "/dev/shm").unwrap()["source"], "/s");
    assert_eq!(spec["mounts"].as_array().unwrap().iter().filter(|m| m["destination"] == "/etc/hosts").count(), 1);
    assert_eq!(spec["linux"]["rootfsPropagation"], "shared");
}
