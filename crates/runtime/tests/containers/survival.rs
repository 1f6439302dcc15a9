//! Who outlives whom.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use shoal_runtime::{AttachOptions, ConnectError, Connected, ExitStatus, Frame, State, Supervisor, Target};

use crate::support::{Container, eventually, exe, read_until};

/// Another process spawns and starts the container.
fn spawn_by_daemon(container: &Container) -> Child {
    container.write_bundle();
    let job = container.dir.path().join("job");
    fs::write(&job, serde_json::to_vec(&container.job).unwrap()).unwrap();
    let mut daemon = Command::new(exe()).arg("daemon").arg(&job).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    daemon
}

async fn adopt(container: &Container) -> (Supervisor, i32) {
    match Supervisor::connect(&container.job.run_dir).await.unwrap() {
        Connected::Alive(supervisor, status) => {
            assert_eq!(status.state, State::Running);
            (supervisor, status.pid.unwrap())
        }
        other => panic!("{other:?}"),
    }
}

/// The supervisor's process id: the parent of the container's first process.
fn supervisor_of(pid: i32) -> Pid {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    Pid::from_raw(parent.trim().parse().unwrap())
}

#[tokio::test]
async fn a_container_outlives_its_daemon_and_is_adopted_with_its_log_and_input() {
    let mut container = Container::shell("echo up; while read line; do echo got $line; done; exit 5");
    container.job.open_stdin = true;
    let mut daemon = spawn_by_daemon(&container);
    container.wait_for_output("up").await;
    // what is meant for the daemon's process group does not reach the container either
    let group = nix::unistd::getpgid(Some(supervisor_of(adopt(&container).await.1))).unwrap();
    assert_ne!(group, nix::unistd::getpgrp());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let (supervisor, _) = adopt(&container).await;
    let options = AttachOptions { stdin: true, stdout: true, stderr: true };
    let (mut reader, mut writer) = supervisor.attach(Target::Main, options).await.unwrap().split();
    writer.write(b"word\n").await.unwrap();
    read_until(&mut reader, "got word\n").await;
    supervisor.close_stdin(Target::Main).await.unwrap();
    assert_eq!(supervisor.wait().await.unwrap().status, ExitStatus::exited(5));
    assert_eq!(container.stdout(), "up\ngot word\n");
}

#[tokio::test]
async fn a_container_that_ends_while_nobody_is_there_leaves_its_record_and_log() {
    let container = Container::shell("echo up; while ! test -e /tmp/go; do usleep 1000; done; seq 1 5000; exit 11");
    let mut daemon = spawn_by_daemon(&container);
    let (supervisor, pid) = adopt(&container).await;
    drop(supervisor);
    let process = supervisor_of(pid);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    fs::write(container.rootfs().join("tmp/go"), "").unwrap();
    eventually("the supervisor leaves", || kill(process, None).is_err() || is_zombie(process)).await;
    let Connected::Ended(record) = Supervisor::connect(&container.job.run_dir).await.unwrap() else { panic!() };
    assert_eq!((record.status, &record.error), (ExitStatus::exited(11), &None));
    let expected: String = (1..=5000).map(|number| format!("{number}\n")).collect();
    assert_eq!(container.stdout(), format!("up\n{expected}"));
    container.assert_no_cgroup();
}

fn is_zombie(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[tokio::test]
async fn an_exec_outlives_the_daemon_and_can_be_attached_to_again() {
    let container = Container::new(&["sleep", "1000"]);
    let first = container.start().await;
    let mut exec = container.exec("shell", &["sh", "-c", "while read line; do echo got $line; done; exit 3"]);
    exec.open_stdin = true;
    let options = AttachOptions { stdin: true, stdout: true, stderr: true };
    let (stream, _) = first.exec_attached(exec, options).await.unwrap();
    drop((first, stream));
    let (second, _) = adopt(&container).await;
    let target = Target::Exec("shell".into());
    let (mut reader, mut writer) = second.attach(target, options).await.unwrap().split();
    writer.write(b"again\n").await.unwrap();
    read_until(&mut reader, "got again\n").await;
    writer.finish().await.unwrap();
    assert_eq!(reader.next().await, Frame::Exited(ExitStatus::exited(3)));
}

#[tokio::test]
async fn a_killed_supervisors_container_is_killed_and_recorded_by_whoever_finds_it() {
    // in the host's pid namespace nothing but the control group holds the processes together
    let mut container = Container::shell("sleep 1000 & echo up; sleep 1000");
    let namespaces = container.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    let supervisor = container.start().await;
    container.wait_for_output("up").await;
    let pid = supervisor.status().await.unwrap().pid.unwrap();
    let (mut reader, _writer) = supervisor.attach(Target::Main, AttachOptions::default()).await.unwrap().split();
    kill(supervisor_of(pid), Signal::SIGKILL).unwrap();
    assert_eq!(reader.next().await, Frame::Lost);
    let record = supervisor.wait().await.unwrap();
    assert_eq!(record.status, ExitStatus::killed(9));
    assert_eq!(record.error.as_deref(), Some("the container's supervisor was killed"));
    container.assert_no_cgroup();
    let Connected::Ended(again) = Supervisor::connect(&container.job.run_dir).await.unwrap() else { panic!() };
    assert_eq!(*again, record);
}

#[tokio::test]
async fn no_signal_but_sigkill_ends_a_supervisor() {
    let container = Container::new(&["sleep", "1000"]);
    let supervisor = container.start().await;
    let pid = supervisor.status().await.unwrap().pid.unwrap();
    let process = supervisor_of(pid);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        killpg(process, signal).unwrap();
    }
    assert_eq!(supervisor.status().await.unwrap().state, State::Running);
}

#[tokio::test]
async fn where_nothing_was_started_there_is_nothing_to_find() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Supervisor::connect(dir.path()).await, Err(ConnectError::NoJob(_))));
}

#[tokio::test]
async fn a_supervisor_keeps_less_than_three_mebibytes_of_its_own() {
    let container = Container::new(&["sleep", "1000"]);
    let supervisor = container.start().await;
    for number in 0..5 {
        let id = format!("e{number}");
        supervisor.exec(container.exec(&id, &["true"])).await.unwrap();
        supervisor.exec_wait(&id).await.unwrap();
    }
    let private = private_kib(&supervisor).await;
    println!("private: {private} KiB");
    assert!(private < 3 << 10, "{private} KiB");
}

#[tokio::test]
async fn output_of_many_empty_lines_does_not_make_a_supervisor_big() {
    let mut container = Container::shell("yes '' | head -n 3000000; echo end >&2; sleep 1000");
    container.job.open_stdin = true;
    let supervisor = container.start().await;
    eventually("all is logged", || {
        let mut log = fs::File::open(container.dir.path().join("log")).unwrap();
        let mut end = String::new();
        let size = std::io::Seek::seek(&mut log, std::io::SeekFrom::End(0)).unwrap();
        std::io::Seek::seek(&mut log, std::io::SeekFrom::Start(size.saturating_sub(200))).unwrap();
        std::io::Read::read_to_string(&mut log, &mut end).unwrap();
        end.contains("end\\n")
    })
    .await;
    assert!(private_kib(&supervisor).await < 3 << 10);
}

/// What a supervisor keeps in memory for itself alone.
async fn private_kib(supervisor: &Supervisor) -> u64 {
    let process = supervisor_of(supervisor.status().await.unwrap().pid.unwrap());
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
