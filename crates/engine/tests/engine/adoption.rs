//! A daemon that is killed, and the next one.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bollard_stubs::models::{
    ContainerCreateBody, ContainerStateStatusEnum as Status, HealthConfig, HostConfig, RestartPolicy,
    RestartPolicyNameEnum,
};
use shoal_engine::{Engine, OpenError, WaitCondition};

use crate::support::{Machine, config, in_namespaces, load_image, open, run_and_clean, shell, with_host};

/// Runs a daemon in a process of its own until its containers have started.
fn daemon(dir: &Path, name: &str, bodies: &[(&str, ContainerCreateBody)]) -> Child {
    std::fs::write(dir.join("bodies.json"), serde_json::to_vec(bodies).unwrap()).unwrap();
    std::fs::write(dir.join("bridge"), name).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_shoal-engine-test"))
        .arg("daemon")
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    child
}

fn kill(mut daemon: Child) {
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// Has the image loaded, so that the daemon finds it.
async fn prepared(dir: &Path, name: &str) {
    let engine = open(dir, name).await;
    load_image(&engine).await;
    close(engine).await;
}

/// Drops an engine and waits until its roots are free: tasks that are just ending hold it a moment longer.
async fn close(engine: Arc<Engine>) {
    let lock = engine.data_root().join("lock");
    drop(engine);
    let free = || {
        let file = std::fs::File::open(&lock).unwrap();
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockSharedNonblock).is_ok()
    };
    while !free() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn restarting(name: RestartPolicyNameEnum, script: &str) -> ContainerCreateBody {
    let restart_policy = Some(RestartPolicy { name: Some(name), maximum_retry_count: Some(0) });
    with_host(script, HostConfig { restart_policy, network_mode: Some("none".into()), ..HostConfig::default() })
}

#[test]
fn a_killed_daemon_stops_nothing_and_the_next_one_goes_on() {
    in_namespaces(|dir, name| async move {
        prepared(dir.path(), &name).await;
        let ports = r#"{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"0"}]}"#;
        let on_bridge =
            HostConfig { port_bindings: Some(serde_json::from_str(ports).unwrap()), ..HostConfig::default() };
        let checked = HealthConfig {
            test: Some(vec!["CMD".into(), "true".into()]),
            interval: Some(50_000_000),
            ..Default::default()
        };
        let bodies = [
            (
                "runs",
                ContainerCreateBody {
                    healthcheck: Some(checked),
                    ..with_host("n=0; while :; do echo $n; n=$((n+1)); sleep 0.05; done", on_bridge)
                },
            ),
            ("ends", shell("while test ! -e /proc/1/root/go; do sleep 0.05; done; exit 6")),
            ("gone", with_host("sleep 0.2", HostConfig { auto_remove: Some(true), ..Default::default() })),
            ("again", restarting(RestartPolicyNameEnum::ALWAYS, "sleep 0.2; exit 3")),
        ];
        let child = daemon(dir.path(), &name, &bodies);
        let refused = Engine::open(config(dir.path(), &name)).await.unwrap_err();
        assert!(matches!(&refused, OpenError::InUse { holder, .. } if *holder == child.id().to_string()), "{refused}");
        kill(child);
        for rootfs in std::fs::read_dir(dir.path().join("exec/mounts/all/rootfs")).unwrap().flatten() {
            std::fs::write(rootfs.path().join("go"), "").ok();
        }
        let record = |dir: &Path| {
            std::fs::read_dir(dir.join("data/containers"))
                .unwrap()
                .flatten()
                .filter(|e| e.path().join("exit.json").exists())
                .count()
        };
        while record(dir.path()) < 3 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let engine = open(dir.path(), &name).await;
        let machine = Arc::new(Machine { dir, name, engine });
        run_and_clean(machine.clone(), check_adopted(machine)).await;
    });
}

async fn check_adopted(machine: Arc<Machine>) {
    let engine = &machine.engine;
    let seen = machine.inspect("runs").await;
    let state = seen.state.unwrap();
    assert_eq!(state.status, Some(Status::RUNNING));
    assert!(Path::new(&format!("/proc/{}", state.pid.unwrap())).exists());
    assert!(
        !seen.network_settings.unwrap().ports.unwrap()["80/tcp"].as_ref().unwrap().is_empty(),
        "its ports are known"
    );
    let probes = |health: Option<bollard_stubs::models::Health>| {
        health.unwrap().log.unwrap().last().and_then(|p| p.start.clone())
    };
    let before = probes(machine.state("runs").await.health);
    while probes(machine.state("runs").await.health) == before {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    engine.wait("ends", WaitCondition::NotRunning).unwrap().done().await;
    let ended = machine.state("ends").await;
    assert_eq!((ended.status, ended.exit_code), (Some(Status::EXITED), Some(6)));
    machine.until("again", "restarted", |c| c.restart_count >= Some(1)).await;
    while engine.inspect("gone", false).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // not one line is missing, before, while and after there was no daemon
    engine.kill("runs", None).await.unwrap();
    engine.wait("runs", WaitCondition::NotRunning).unwrap().done().await;
    let log = machine.log("runs").await;
    assert!(log.lines().count() > 3 && log.lines().enumerate().all(|(n, line)| line == n.to_string()), "{log}");
}

#[test]
fn what_was_left_half_made_is_swept() {
    in_namespaces(|dir, name| async move {
        prepared(dir.path(), &name).await;
        let child = daemon(dir.path(), &name, &[("kept", shell("exit 0"))]);
        kill(child);
        let containers = dir.path().join("data/containers");
        std::fs::create_dir_all(containers.join("f".repeat(64))).unwrap();
        assert_ne!(std::fs::read_dir(&containers).unwrap().count(), 1);
        std::fs::create_dir_all(dir.path().join("exec/run/stray")).unwrap();
        let engine = open(dir.path(), &name).await;
        engine.wait("kept", WaitCondition::NotRunning).unwrap().done().await;
        let id = engine.inspect("kept", false).await.unwrap().id.unwrap();
        assert_eq!(std::fs::read_dir(&containers).unwrap().count(), 1);
        while std::fs::read_dir(dir.path().join("exec/run")).unwrap().count() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // a removal that was interrupted after its first step
        close(engine).await;
        std::fs::remove_dir_all(containers.join(id)).unwrap();
        let engine = open(dir.path(), &name).await;
        assert!(engine.inspect("kept", false).await.is_err());
        let machine = Arc::new(Machine { dir, name, engine });
        run_and_clean(machine, async {}).await;
    });
}

#[test]
fn a_lost_record_is_refused_and_nothing_is_taken_for_leavings() {
    in_namespaces(|dir, name| async move {
        prepared(dir.path(), &name).await;
        let data = dir.path().join("data");
        std::fs::create_dir_all(data.join("volumes/precious/_data")).unwrap();
        std::fs::remove_file(data.join("engine.redb")).unwrap();
        let error = Engine::open(config(dir.path(), &name)).await.unwrap_err();
        assert!(error.to_string().contains("engine.redb is missing"), "{error}");
        assert!(data.join("volumes/precious/_data").exists());
    });
}
