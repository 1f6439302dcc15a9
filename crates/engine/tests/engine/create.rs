//! What a created container gets, and what is refused.

use bollard_stubs::models::{ContainerCreateBody, HostConfig, Mount, MountType, ResourcesUlimits};
use shoal_engine::ErrorKind;

use crate::support::{on_machine, shell, with_host};

#[test]
fn options_reach_the_process() {
    on_machine(|machine| async move {
        let host = HostConfig {
            network_mode: Some("none".into()),
            group_add: Some(vec!["5".into()]),
            cap_drop: Some(vec!["ALL".into()]),
            ulimits: Some(vec![ResourcesUlimits { name: Some("nofile".into()), soft: Some(77), hard: Some(99) }]),
            security_opt: Some(vec!["no-new-privileges".into()]),
            pids_limit: Some(50),
            shm_size: Some(1 << 20),
            init: Some(true),
            extra_hosts: Some(vec!["other:10.9.8.7".into()]),
            ..HostConfig::default()
        };
        let script = "id; pwd; echo $FROM-$OWN; ulimit -n; cat /etc/hostname; hostname; grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/1/status; \
                      cat /proc/1/cmdline | tail -c 300; echo; cat /etc/hosts; stat -f -c %b:%S /dev/shm; echo $HOME";
        let body = ContainerCreateBody {
            user: Some("nobody".into()),
            working_dir: Some("/made/here".into()),
            env: Some(vec!["OWN=mine".into()]),
            hostname: Some("box".into()),
            ..with_host(script, host)
        };
        let (code, log) = machine.run("options", body).await;
        assert_eq!(code, 0, "{log}");
        for wanted in [
            "uid=65534(nobody) gid=65534(nogroup) groups=5,77(extra),65534(nogroup)",
            "/made/here\n",
            "image-mine\n",
            "\n77\n",
            "box\nbox\n",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "/sbin/docker-init",
            "10.9.8.7\tother",
            "256:4096",
            "/nowhere\n",
        ] {
            assert!(log.contains(wanted), "{wanted:?} in {log}");
        }
    });
}

#[test]
fn a_plain_container_cannot_change_the_host() {
    on_machine(|machine| async move {
        let script = "mount -t tmpfs x /tmp 2>&1; echo 1 > /proc/sys/kernel/panic; cat /proc/kcore | head -c 1 | wc -c; \
                      touch /sys/x 2>&1; grep CapEff /proc/self/status; ls /dev";
        let (_, log) = machine.run("plain", shell(script)).await;
        assert!(log.contains("Operation not permitted") || log.contains("permission denied"), "{log}");
        assert!(log.contains("Read-only file system"), "{log}");
        assert!(log.contains("CapEff:\t00000000a80425fb"), "{log}");
        assert!(log.lines().any(|line| line == "null") && !log.lines().any(|line| line == "kmsg"), "{log}");
    });
}

#[test]
fn a_read_only_root_has_writable_mounts() {
    on_machine(|machine| async move {
        let host = HostConfig {
            network_mode: Some("none".into()),
            readonly_rootfs: Some(true),
            tmpfs: Some([("/scratch".to_owned(), "size=1m".to_owned())].into()),
            ..HostConfig::default()
        };
        let (_, log) = machine
            .run("ro", with_host("touch /x 2>&1; touch /scratch/y && echo wrote; mount | grep scratch", host))
            .await;
        assert!(
            log.contains("Read-only file system") && log.contains("wrote\n") && log.contains("size=1024k"),
            "{log}"
        );
    });
}

#[test]
fn refusals_leave_nothing_behind() {
    on_machine(|machine| async move {
        let missing = Mount {
            typ: Some(MountType::BIND),
            source: Some("/nosuch".into()),
            target: Some("/t".into()),
            ..Mount::default()
        };
        let cases = [
            (
                with_host("", HostConfig { mounts: Some(vec![missing]), ..Default::default() }),
                ErrorKind::InvalidParameter,
                "invalid mount config for type \"bind\": bind source path does not exist: /nosuch",
            ),
            (
                ContainerCreateBody { image: Some("nosuch".into()), ..shell("") },
                ErrorKind::NotFound,
                "No such image: nosuch:latest",
            ),
            (
                with_host("", HostConfig { network_mode: Some("mine".into()), ..Default::default() }),
                ErrorKind::InvalidParameter,
                "network mine not found",
            ),
            (
                with_host("", HostConfig { links: Some(vec!["a".into()]), ..Default::default() }),
                ErrorKind::Unsupported,
                "HostConfig.Links (--link) is not supported by Shoal yet",
            ),
        ];
        for (body, kind, text) in cases {
            let error = machine.engine.create(Some("never"), None, body).await.unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
        }
        let error = machine.engine.create(Some("a b"), None, shell("")).await.unwrap_err();
        assert_eq!(error.to_string(), "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
        assert_eq!(std::fs::read_dir(machine.path("data/containers")).unwrap().count(), 0);
        machine.engine.create(Some("never"), None, shell("true")).await.expect("the name is free");
    });
}

#[test]
fn a_container_on_the_bridge_has_an_address_and_publishes_ports() {
    on_machine(|machine| async move {
        let host = HostConfig {
            port_bindings: Some(serde_json::from_str(r#"{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"0"}]}"#).unwrap()),
            ..HostConfig::default()
        };
        machine.start("net", with_host("sleep 1000", host)).await;
        let seen = machine.inspect("net").await;
        let settings = seen.network_settings.unwrap();
        let address = settings.networks.unwrap()["bridge"].ip_address.clone().unwrap();
        assert!(address.parse::<std::net::Ipv4Addr>().is_ok(), "{address}");
        let ports = settings.ports.unwrap();
        let bound = &ports["80/tcp"].as_ref().unwrap()[0];
        assert!(bound.host_port.as_ref().unwrap().parse::<u16>().unwrap() > 0);
        let network = machine.engine.inspect_network("bridge").unwrap();
        assert_eq!(network.containers.unwrap().len(), 1);
        let hosts = std::fs::read_to_string(seen.hosts_path.unwrap()).unwrap();
        assert!(hosts.contains(&address), "{hosts}");
    });
}

#[test]
fn containers_share_namespaces_when_asked() {
    on_machine(|machine| async move {
        let donor = HostConfig { ipc_mode: Some("shareable".into()), ..HostConfig::default() };
        let body = ContainerCreateBody {
            hostname: Some("donor".into()),
            ..with_host("touch /dev/shm/shared; echo up; sleep 1000", donor)
        };
        machine.start("donor", body).await;
        machine.wait_for_line("donor", "up").await;
        let guest = HostConfig {
            network_mode: Some("container:donor".into()),
            pid_mode: Some("container:donor".into()),
            ipc_mode: Some("container:donor".into()),
            ..HostConfig::default()
        };
        let (code, log) = machine
            .run("guest", with_host("hostname; ls /dev/shm; ps | grep -c 'sleep 1000'; ip addr show eth0", guest))
            .await;
        assert_eq!(code, 0, "{log}");
        let address = machine.inspect("donor").await.network_settings.unwrap().networks.unwrap()["bridge"]
            .ip_address
            .clone()
            .unwrap();
        assert!(log.starts_with("donor\nshared\n") && log.contains(&address), "{log}");
        let host = HostConfig { network_mode: Some("host".into()), ..HostConfig::default() };
        let (_, log) = machine.run("hosted", with_host("ip addr", host)).await;
        assert!(log.contains(&machine.name), "the bridge is seen: {log}");
    });
}
