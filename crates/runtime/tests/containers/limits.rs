//! Control groups.

use std::fs;

use serde_json::json;
use shoal_runtime::{ExitStatus, Target, cgroup};

use crate::support::Container;

/// A file of the container's group, by its name in version 1 and in version 2.
fn read(container: &Container, v1: &str, v2: &str) -> String {
    let name = container.job.cgroup.strip_prefix("/").unwrap();
    let split = fs::read_to_string(format!("/sys/fs/cgroup/{}", v1.replacen('/', &format!("/{}/", name.display()), 1)));
    let text = split.or_else(|_| fs::read_to_string(format!("/sys/fs/cgroup/{}/{v2}", name.display())));
    text.unwrap().trim().to_owned()
}

#[tokio::test]
async fn limits_are_applied_and_can_be_changed() {
    let mut container = Container::new(&["sleep", "1000"]);
    let resources = &mut container.spec["linux"]["resources"];
    resources["memory"] = json!({"limit": 64 << 20});
    resources["pids"] = json!({"limit": 33});
    resources["cpu"] = json!({"shares": 512, "quota": 50000, "period": 100000});
    let supervisor = container.start().await;
    assert_eq!(read(&container, "memory/memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(read(&container, "pids/pids.max", "pids.max"), "33");
    assert!(read(&container, "cpu/cpu.cfs_quota_us", "cpu.max").starts_with("50000"));
    let update = json!({"memory": {"limit": 128 << 20}, "pids": {"limit": 44}});
    supervisor.update(serde_json::from_value(update).unwrap()).await.unwrap();
    assert_eq!(read(&container, "memory/memory.limit_in_bytes", "memory.max"), (128 << 20).to_string());
    assert_eq!(read(&container, "pids/pids.max", "pids.max"), "44");
    assert!(read(&container, "cpu/cpu.cfs_quota_us", "cpu.max").starts_with("50000"), "left out, so left");
    let stats = cgroup::stats(&container.job.cgroup).unwrap();
    assert_eq!((stats.pids.current, stats.pids.limit), (1, 44));
    assert!(stats.memory.memory.usage > 0);
}

#[tokio::test]
async fn the_pids_limit_stops_forks() {
    let mut container = Container::shell("for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all");
    container.spec["linux"]["resources"]["pids"] = json!({"limit": 4});
    container.run().await;
    assert!(container.log().iter().any(|(_, text)| text.contains("can't fork")), "{:?}", container.log());
}

#[tokio::test]
async fn running_out_of_memory_is_told_as_it_happens_and_in_the_record() {
    let mut container =
        Container::shell("read go; head -c 100000000 /dev/zero | tail -c 90000000 > /dev/null; exit $?");
    container.job.open_stdin = true;
    container.spec["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    let supervisor = container.start().await;
    let options = shoal_runtime::AttachOptions { stdin: true, ..Default::default() };
    let (_reader, mut writer) = supervisor.attach(Target::Main, options).await.unwrap().split();
    let (oom, ()) = tokio::join!(supervisor.oom(), async { writer.write(b"go\n").await.unwrap() });
    // the kill may be the container's end, which then comes first
    drop(oom);
    let record = supervisor.wait().await.unwrap();
    assert!(record.oom_killed);
    // the kernel picks the pipe's end or the shell
    assert_eq!(record.status.code, 137);
}

#[tokio::test]
async fn an_exec_killed_for_memory_is_told_while_the_container_lives() {
    let mut container = Container::new(&["sleep", "1000"]);
    container.spec["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    let supervisor = container.start().await;
    assert!(!supervisor.status().await.unwrap().oom_killed);
    let exec = container.exec("e", &["sh", "-c", "head -c 100000000 /dev/zero | tail -c 90000000"]);
    let (oom, started) = tokio::join!(supervisor.oom(), supervisor.exec(exec));
    started.unwrap();
    oom.unwrap();
    assert!(supervisor.status().await.unwrap().oom_killed);
}

#[tokio::test]
async fn a_small_memory_limit_is_enough_to_start() {
    let mut container = Container::new(&["true"]);
    container.spec["linux"]["resources"]["memory"] = json!({"limit": 6 << 20, "swap": 6 << 20});
    assert_eq!(container.run().await.status, ExitStatus::exited(0));
}

#[tokio::test]
async fn devices_that_are_not_allowed_cannot_be_opened() {
    let script = "busybox mknod /tmp/kmsg c 1 11; cat < /tmp/kmsg; echo $?; echo x > /dev/null; echo $?";
    let container = Container::shell(script);
    container.run().await;
    assert_eq!(container.stdout(), "1\n0\n", "{:?}", container.log());
}
