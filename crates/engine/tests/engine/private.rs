//! Files that are in memory only.

use std::path::PathBuf;

use shoal_engine::{ErrorKind, PrivateFile, RemoveOptions, StopOptions, WaitCondition};

use crate::support::{Machine, on_machine, shell};

fn file(target: &str, data: &str) -> PrivateFile {
    PrivateFile { target: target.into(), uid: 0, gid: 0, mode: 0o444, data: data.into() }
}

/// Every file under `dir` that is not in memory, as the machine itself sees it, and holds `text`.
fn on_disk(dir: &std::path::Path, text: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(on_disk(&path, text)),
            kind if kind.is_file() && std::fs::read(&path).unwrap().windows(text.len()).any(|w| w == text) => {
                found.push(path);
            }
            _ => {}
        }
    }
    found
}

fn mounted(machine: &Machine) -> usize {
    let exec = machine.path("exec/files");
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
    mounts.lines().filter(|line| line.contains(exec.to_str().unwrap())).count()
}

#[test]
fn private_files_are_where_and_whose_they_are_to_be_and_on_no_disk() {
    on_machine(|machine| async move {
        let script = "cat /run/secrets/pass; mount | grep -c '/run/secrets/pass type tmpfs (ro,'; \
                      stat -c '%u:%g %a' /run/secrets/pass /etc/app.conf; echo x > /etc/app.conf; sleep 60";
        machine.engine.create(Some("box"), None, shell(script)).await.unwrap();
        let pass = PrivateFile { uid: 1000, gid: 1001, mode: 0o400, ..file("/run/secrets/pass", "s3cr3t-of-box\n") };
        machine.engine.place_files("box", vec![pass, file("/etc/../etc/app.conf", "a=1")]).await.unwrap();
        machine.engine.start("box").await.unwrap();
        let wanted = "s3cr3t-of-box\n1\n1000:1001 400\n0:0 444\n";
        while machine.log("box").await.lines().count() < 5 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let log = machine.log("box").await;
        assert!(log.starts_with(wanted) && log.contains("Read-only file system"), "{log}");
        let data = machine.path("data");
        let logs = on_disk(&data, b"s3cr3t-of-box");
        assert!(logs.iter().all(|p| p.to_str().unwrap().contains("-json.log")), "{logs:?}");
        let shown = serde_json::to_string(&machine.inspect("box").await).unwrap();
        assert!(!shown.contains("s3cr3t-of-box"));
        let error = machine.engine.place_files("box", Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "not under a running container: {error}");
        assert_eq!(machine.engine.drop_files("box").await.unwrap_err().kind(), ErrorKind::Conflict);
        machine.engine.remove("box", RemoveOptions { force: true, volumes: true }).await.unwrap();
        assert_eq!(mounted(&machine), 0, "they go with the container");
        assert_eq!(std::fs::read_dir(machine.path("exec/files")).unwrap().count(), 0);
    });
}

#[test]
fn private_files_are_not_dropped_in_the_middle_of_a_restart() {
    on_machine(|machine| async move {
        machine.engine.create(Some("box"), None, shell("cat /run/secrets/a; sleep 1000")).await.unwrap();
        machine.engine.place_files("box", vec![file("/run/secrets/a", "one\n")]).await.unwrap();
        machine.engine.start("box").await.unwrap();
        for _ in 0..5 {
            let ended = machine.engine.wait("box", WaitCondition::NextExit).unwrap();
            let options = StopOptions { signal: Some("KILL".to_owned()), ..StopOptions::default() };
            let dropped = async {
                ended.done().await;
                machine.engine.drop_files("box").await
            };
            let (restarted, dropped) = tokio::join!(machine.engine.restart("box", options), dropped);
            restarted.unwrap();
            assert_eq!(dropped.unwrap_err().kind(), ErrorKind::Conflict);
        }
    });
}

#[test]
fn private_files_stay_from_start_to_start_until_they_are_dropped() {
    on_machine(|machine| async move {
        machine.engine.create(Some("box"), None, shell("cat /run/secrets/a")).await.unwrap();
        machine.engine.place_files("box", vec![file("/run/secrets/a", "one\n")]).await.unwrap();
        for _ in 0..2 {
            machine.engine.start("box").await.unwrap();
            machine.engine.wait("box", WaitCondition::NotRunning).unwrap().done().await;
        }
        machine.engine.place_files("box", vec![file("/run/secrets/a", "two\n")]).await.unwrap();
        machine.engine.start("box").await.unwrap();
        machine.engine.wait("box", WaitCondition::NotRunning).unwrap().done().await;
        assert_eq!(machine.log("box").await, "one\none\ntwo\n");
        machine.engine.drop_files("box").await.unwrap();
        assert_eq!(mounted(&machine), 0);
        let error = machine.engine.start("box").await.unwrap_err();
        assert!(error.to_string().ends_with("are not in memory any more"), "{error}");
        let relative = machine.engine.place_files("box", vec![file("a", "")]).await.unwrap_err();
        assert_eq!(relative.kind(), ErrorKind::InvalidParameter);
    });
}
