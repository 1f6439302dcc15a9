//! Creation, start, end.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;
use shoal_runtime::{
    CallError, Connected, ExitRecord, ExitStatus, LaunchError, Refusal, SpawnError, State, Supervisor, Target,
};

use crate::support::Container;

#[tokio::test]
async fn exit_codes_and_signal_deaths_are_told_and_recorded_and_nothing_is_left() {
    for (script, status) in [
        ("exit 0", ExitStatus::exited(0)),
        ("exit 42", ExitStatus::exited(42)),
        ("kill -9 $$; sleep 9", ExitStatus::exited(0)),
    ] {
        // a namespace's first process is not killed by itself: run the last one in the host's
        let mut container = Container::shell(script);
        let mut status = status;
        if script.starts_with("kill") {
            let namespaces = container.spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "pid");
            status = ExitStatus::killed(9);
        }
        let record = container.run().await;
        assert_eq!((record.status, record.oom_killed, &record.error), (status, false, &None), "{script}");
        assert!(record.started_at.unwrap() <= record.finished_at);
        assert_eq!(ExitRecord::load(&container.job.state_dir).unwrap(), Some(record));
        container.assert_no_cgroup();
    }
}

#[tokio::test]
async fn a_signal_reaches_the_command_with_clean_signal_handling() {
    let container = Container::shell("trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.01; done");
    let supervisor = container.start().await;
    container.wait_for_output("ready").await;
    supervisor.signal(Target::Main, Signal::SIGTERM as i32).await.unwrap();
    assert_eq!(supervisor.wait().await.unwrap().status, ExitStatus::exited(7));
    assert_eq!(container.stdout(), "ready\nterm\n");

    // nothing ignored, nothing blocked
    let container = Container::new(&["cat", "/proc/self/status"]);
    container.run().await;
    let status = container.stdout();
    assert!(status.contains("Umask:\t0022\n"), "{status}");
    for name in ["SigBlk", "SigIgn", "SigCgt"] {
        assert!(status.contains(&format!("{name}:\t0000000000000000\n")), "{status}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_run_fails_creation_with_dockers_text_and_leaves_nothing() {
    let cases = [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH", 127),
        ("/nosuch", "exec: \"/nosuch\": stat /nosuch: no such file or directory", 127),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied", 126),
        ("/etc", "exec: \"/etc\": is a directory", 126),
    ];
    for (command, text, code) in cases {
        let container = Container::new(&[command]);
        let Err(SpawnError::Launch(err)) = container.spawn().await else { panic!("{command} was created") };
        assert_eq!((err.to_string().as_str(), err.exit_code()), (text, code));
        container.assert_no_cgroup();
        let Connected::Ended(record) = Supervisor::connect(&container.job.run_dir).await.unwrap() else { panic!() };
        assert_eq!((record.status.code, record.started_at), (code, None));
    }
}

#[tokio::test]
async fn a_setup_that_fails_names_what_the_kernel_refused() {
    let mut container = Container::new(&["true"]);
    let mount = json!({"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["rbind"]});
    container.spec["mounts"].as_array_mut().unwrap().push(mount);
    let Err(SpawnError::Launch(LaunchError::Setup(text))) = container.spawn().await else { panic!() };
    assert!(text.contains("/no/such/source") && text.contains("No such file"), "{text}");
    container.assert_no_cgroup();

    let mut container = Container::new(&["true"]);
    container.spec["process"]["cwd"] = json!("/nowhere");
    let Err(SpawnError::Launch(err)) = container.spawn().await else { panic!() };
    assert_eq!(
        err,
        LaunchError::WorkingDirectory(
            "chdir to cwd (\"/nowhere\") set in config.json failed: no such file or directory".into()
        )
    );

    let mut container = Container::new(&["true"]);
    container.spec["hooks"] = json!({"poststop": [{"path": "/bin/true"}]});
    let err = container.spawn().await.unwrap_err();
    let SpawnError::Launch(LaunchError::Config(text)) = err else { panic!("{err:?}") };
    assert_eq!(text, "poststart and poststop hooks are not supported");

    let container = Container::new(&["true"]);
    let err = Supervisor::spawn(crate::support::exe(), &container.job).await.unwrap_err();
    assert!(matches!(&err, SpawnError::Launch(LaunchError::Config(text)) if text.contains("config.json")), "{err}");
}

#[tokio::test]
async fn a_file_that_is_no_program_is_told_on_stderr() {
    let container = Container::new(&["/bad"]);
    fs::write(container.rootfs().join("bad"), "\0not a program").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(container.rootfs().join("bad"), mode).unwrap();
    assert_eq!(container.run().await.status, ExitStatus::exited(255));
    assert_eq!(container.log(), [("stderr".to_owned(), "exec /bad: exec format error\n".to_owned())]);
}

#[tokio::test]
async fn created_waits_for_start_and_starts_once() {
    let container = Container::shell("echo ran; sleep 1000");
    let (supervisor, pid) = container.spawn().await.unwrap();
    let status = supervisor.status().await.unwrap();
    assert_eq!((status.state, status.pid), (State::Created, Some(pid)));
    assert_eq!(container.stdout(), "");
    let refused = supervisor.pause().await.unwrap_err();
    assert!(matches!(refused, CallError::Refused(Refusal::NotRunning(_))), "{refused}");
    supervisor.start().await.unwrap();
    let again = supervisor.start().await.unwrap_err();
    assert!(matches!(again, CallError::Refused(Refusal::AlreadyStarted(_))), "{again}");
    assert_eq!(supervisor.status().await.unwrap().state, State::Running);
    let second = container.spawn().await.unwrap_err();
    assert!(matches!(second, SpawnError::AlreadyRunning(_)), "{second}");
    container.wait_for_output("ran").await;
    supervisor.signal(Target::Main, libc::SIGKILL).await.unwrap();
    assert_eq!(supervisor.wait().await.unwrap().status, ExitStatus::killed(9));
    assert!(matches!(supervisor.status().await, Err(CallError::Gone(_))));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_created_container_can_be_killed_and_run_again() {
    let container = Container::shell("exit 3");
    let (supervisor, _) = container.spawn().await.unwrap();
    supervisor.signal(Target::Main, libc::SIGKILL).await.unwrap();
    let record = supervisor.wait().await.unwrap();
    assert_eq!((record.status, record.started_at), (ExitStatus::killed(9), None));
    for _ in 0..3 {
        assert_eq!(container.run().await.status, ExitStatus::exited(3));
    }
}

#[tokio::test]
async fn a_paused_container_stands_still_and_can_be_killed() {
    let container = Container::shell("while :; do echo x; usleep 1000; done");
    let supervisor = container.start().await;
    container.wait_for_output("x").await;
    supervisor.pause().await.unwrap();
    assert_eq!(supervisor.status().await.unwrap().state, State::Paused);
    let refused = supervisor.exec(container.exec("e", &["true"])).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused(Refusal::Paused(_))), "{refused}");
    // what it wrote before is taken; then nothing more comes
    supervisor.status().await.unwrap();
    let written = container.stdout().len();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(container.stdout().len(), written);
    supervisor.resume().await.unwrap();
    let more = || container.stdout().len() > written;
    crate::support::eventually("it goes on", more).await;
    supervisor.pause().await.unwrap();
    supervisor.signal(Target::Main, libc::SIGKILL).await.unwrap();
    assert_eq!(supervisor.wait().await.unwrap().status, ExitStatus::killed(9));
    container.assert_no_cgroup();
}

#[tokio::test]
async fn init_passes_signals_on_reaps_and_gives_the_commands_code() {
    let script =
        "sh -c 'sh -c \"exit 1\" & exec true' ; trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.01; done";
    let mut container = Container::new(&["/sbin/init", "init", "--", "sh", "-c", script]);
    let mount = json!({"destination": "/sbin/init", "type": "bind", "source": crate::support::exe(), "options": ["bind", "ro"]});
    container.spec["mounts"].as_array_mut().unwrap().push(mount);
    let supervisor = container.start().await;
    container.wait_for_output("ready").await;
    // the shell's own dead sleeps are the shell's to reap: init answers for the orphans, a moment after they die
    let orphans = "ps -o stat,ppid | grep -q '^Z *1$'";
    let reaped = format!("for i in $(seq 1000); do {orphans} || exit 0; usleep 10000; done; exit 9");
    supervisor.exec(container.exec("ps", &["sh", "-c", &reaped])).await.unwrap();
    assert_eq!(supervisor.exec_wait("ps").await.unwrap(), ExitStatus::exited(0));
    supervisor.signal(Target::Main, Signal::SIGUSR1 as i32).await.unwrap();
    assert_eq!(supervisor.wait().await.unwrap().status, ExitStatus::exited(5));

    let mut container = Container::new(&["/sbin/init", "init", "--", "nosuch"]);
    let mount = json!({"destination": "/sbin/init", "type": "bind", "source": crate::support::exe(), "options": ["bind", "ro"]});
    container.spec["mounts"].as_array_mut().unwrap().push(mount);
    assert_eq!(container.run().await.status, ExitStatus::exited(127));
}

#[tokio::test]
async fn many_containers_start_and_end_at_once() {
    let mut tasks = Vec::new();
    for number in 0..30 {
        let container = Container::shell(&format!("echo {number}; exit {number}"));
        tasks.push(tokio::spawn(async move {
            assert_eq!(container.run().await.status, ExitStatus::exited(number));
            assert_eq!(container.stdout(), format!("{number}\n"));
            container.assert_no_cgroup();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
