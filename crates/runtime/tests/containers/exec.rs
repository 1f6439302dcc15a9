//! Processes beside the first.

use serde_json::json;
use shoal_runtime::{
    AttachOptions, CallError, ConsoleSize, ExecState, ExitStatus, Frame, LaunchError, Refusal, Target,
};

use crate::support::{Container, read_all, read_until};

const ALL: AttachOptions = AttachOptions { stdin: true, stdout: true, stderr: true };

#[tokio::test]
async fn an_exec_has_its_own_streams_and_code_and_shares_the_container() {
    let container = Container::shell("touch /tmp/made; echo up; sleep 1000");
    let supervisor = container.start().await;
    container.wait_for_output("up").await;
    let exec = container.exec("e1", &["sh", "-c", "ls /tmp; echo err >&2; echo $HOME; exit 9"]);
    let (stream, pid) = supervisor.exec_attached(exec, ALL).await.unwrap();
    assert!(pid > 1);
    let (stdout, stderr, last) = read_all(&mut stream.split().0).await;
    assert_eq!((stdout.as_str(), stderr.as_str()), ("made\n/root\n", "err\n"));
    assert_eq!(last, Frame::Exited(ExitStatus::exited(9)));
    assert_eq!(supervisor.exec_wait("e1").await.unwrap(), ExitStatus::exited(9));
    let status = supervisor.status().await.unwrap();
    assert_eq!(status.execs["e1"], ExecState::Ended(ExitStatus::exited(9)));
    assert_eq!(container.stdout(), "up\n", "an exec's output is not the container's log");
    let taken = supervisor.exec(container.exec("e1", &["true"])).await.unwrap_err();
    assert!(matches!(taken, CallError::Refused(Refusal::ExecExists(_))), "{taken}");
    let unknown = supervisor.exec_wait("e2").await.unwrap_err();
    assert!(matches!(unknown, CallError::Refused(Refusal::NoSuchExec(_))), "{unknown}");
}

#[tokio::test]
async fn an_exec_takes_input_to_its_end() {
    let container = Container::new(&["sleep", "1000"]);
    let supervisor = container.start().await;
    let mut exec = container.exec("e", &["wc", "-c"]);
    exec.open_stdin = true;
    let (stream, _) = supervisor.exec_attached(exec, ALL).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    writer.write(&vec![b'x'; 300_000]).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(read_all(&mut reader).await.0.trim(), "300000");
}

#[tokio::test]
async fn an_exec_on_a_terminal_is_a_terminal() {
    let container = Container::new(&["sleep", "1000"]);
    let supervisor = container.start().await;
    let mut exec = container.exec("e", &["sh", "-c", "stty size; read x; stty size; echo $x > /dev/tty"]);
    exec.process.set_terminal(Some(true));
    let size = serde_json::from_value(json!({"height": 30, "width": 90})).unwrap();
    exec.process.set_console_size(Some(size));
    exec.open_stdin = true;
    let (stream, _) = supervisor.exec_attached(exec, ALL).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    read_until(&mut reader, "30 90\r\n").await;
    supervisor.resize(Target::Exec("e".into()), ConsoleSize { height: 5, width: 6 }).await.unwrap();
    writer.write(b"word\n").await.unwrap();
    let (rest, _, last) = read_all(&mut reader).await;
    assert_eq!((rest.as_str(), last), ("word\r\n5 6\r\nword\r\n", Frame::Exited(ExitStatus::exited(0))));
}

#[tokio::test]
async fn an_exec_obeys_its_user_directory_environment_and_capabilities() {
    let container = Container::new(&["sleep", "1000"]);
    let supervisor = container.start().await;
    let script = "id -u; id -g; id -G; pwd; echo $A $HOME; while read k v; do case $k in CapEff*) echo $v;; esac; done < /proc/self/status";
    let mut exec = container.exec("e", &["sh", "-c", script]);
    let mut process = serde_json::to_value(&exec.process).unwrap();
    process["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [1001, 7]});
    process["cwd"] = json!("/tmp");
    process["env"] = json!(["PATH=/bin", "A=b c"]);
    exec.process = serde_json::from_value(process).unwrap();
    let (stream, _) = supervisor.exec_attached(exec, ALL).await.unwrap();
    let (stdout, stderr, _) = read_all(&mut stream.split().0).await;
    assert_eq!((stdout.as_str(), stderr.as_str()), ("1000\n1001\n1001 7\n/tmp\nb c /srv\n0000000000000000\n", ""));

    let mut exec = container.exec("privileged", &["sh", "-c", script]);
    let all: Vec<String> = caps();
    let mut process = serde_json::to_value(&exec.process).unwrap();
    process["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    exec.process = serde_json::from_value(process).unwrap();
    let (stream, _) = supervisor.exec_attached(exec, ALL).await.unwrap();
    let (stdout, _, _) = read_all(&mut stream.split().0).await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ours = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim().to_owned();
    assert!(stdout.ends_with(&format!("{ours}\n")), "all that there are: {stdout} {ours}");
}

fn caps() -> Vec<String> {
    let names = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
                 NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT \
                 SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE \
                 AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ \
                 PERFMON BPF CHECKPOINT_RESTORE";
    names.split_whitespace().map(|name| format!("CAP_{name}")).collect()
}

#[tokio::test]
async fn the_seccomp_filter_and_capabilities_hold_for_the_container_and_its_execs_however_they_are_put_on() {
    let deny = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95});
    let plain = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [deny]});
    // for this one the container library compiles it; for the other a compiled program is loaded
    let listened = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/none", "syscalls": [deny]});
    let script = "mkdir /tmp/x; while read k v; do case $k in CapEff*|CapBnd*|Seccomp:*|NoNewPrivs*) echo $v;; esac; done < /proc/self/status";
    for (profile, user) in [(&plain, 0), (&plain, 1000), (&listened, 0)] {
        for no_new_privileges in [None, Some(false), Some(true)] {
            let mut container = Container::shell(&format!("({script}) 2>&1; sleep 1000"));
            container.spec["linux"]["seccomp"] = profile.clone();
            let process = &mut container.spec["process"];
            process["user"] = json!({"uid": user, "gid": user});
            process["noNewPrivileges"] = json!(no_new_privileges);
            process["capabilities"] =
                json!({"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]});
            let supervisor = container.start().await;
            let exec = container.exec("e", &["sh", "-c", script]);
            let (stream, _) = supervisor.exec_attached(exec, ALL).await.unwrap();
            let (stdout, stderr, _) = read_all(&mut stream.split().0).await;
            // the shell is executed with what its user's id leaves it
            let effective = if user == 0 { "0000000000000001" } else { "0000000000000000" };
            let nnp = u8::from(no_new_privileges == Some(true));
            let expected = format!("{effective}\n0000000000000001\n{nnp}\n2\n");
            assert_eq!(stdout, expected);
            assert!(stderr.contains("not supported"), "{stderr}");
            container.wait_for_output(&expected).await;
            assert!(container.stdout().contains("not supported"));
        }
    }
}

#[tokio::test]
async fn an_exec_that_cannot_be_run_is_refused_with_dockers_text() {
    let container = Container::new(&["sleep", "1000"]);
    let supervisor = container.start().await;
    let err = supervisor.exec(container.exec("a", &["nosuch"])).await.unwrap_err();
    let text = "exec: \"nosuch\": executable file not found in $PATH";
    assert!(
        matches!(&err, CallError::Refused(Refusal::Launch(LaunchError::CommandNotFound(it))) if it == text),
        "{err}"
    );
    let err = supervisor.exec_attached(container.exec("b", &["/etc"]), ALL).await.unwrap_err();
    assert!(matches!(&err, CallError::Refused(Refusal::Launch(LaunchError::CommandNotExecutable(_)))), "{err}");
    let mut exec = container.exec("c", &["true"]);
    exec.process.set_cwd("/nowhere".into());
    let err = supervisor.exec(exec).await.unwrap_err();
    assert!(matches!(&err, CallError::Refused(Refusal::Launch(LaunchError::WorkingDirectory(_)))), "{err}");
    // the id is free again, and the container as it was
    supervisor.exec(container.exec("a", &["true"])).await.unwrap();
    assert_eq!(supervisor.exec_wait("a").await.unwrap(), ExitStatus::exited(0));
}

#[tokio::test]
async fn a_stopped_container_runs_nothing_more_and_its_execs_are_remembered() {
    let container = Container::new(&["sleep", "1000"]);
    let supervisor = container.start().await;
    supervisor.exec(container.exec("early", &["sh", "-c", "exit 4"])).await.unwrap();
    supervisor.exec_wait("early").await.unwrap();
    supervisor.exec(container.exec("late", &["sleep", "1000"])).await.unwrap();
    let waiting = supervisor.exec_wait("late");
    let kill = supervisor.signal(Target::Main, libc::SIGKILL);
    let (late, killed) = tokio::join!(waiting, kill);
    killed.unwrap();
    assert_eq!(late.unwrap(), ExitStatus::killed(9));
    let record = supervisor.wait().await.unwrap();
    assert_eq!(record.execs["early"], ExitStatus::exited(4));
    assert_eq!(record.execs["late"], ExitStatus::killed(9));
    assert!(matches!(supervisor.exec(container.exec("x", &["true"])).await, Err(CallError::Gone(_))));
    assert_eq!(supervisor.exec_wait("early").await.unwrap(), ExitStatus::exited(4));
}

#[tokio::test]
async fn an_exec_can_be_signalled_and_its_background_children_do_not_hold_it_up() {
    let container = Container::new(&["sleep", "1000"]);
    let supervisor = container.start().await;
    let exec = container.exec("loop", &["sh", "-c", "trap 'exit 6' USR1; echo on; while :; do sleep 0.01; done"]);
    let (stream, _) = supervisor.exec_attached(exec, ALL).await.unwrap();
    let mut reader = stream.split().0;
    read_until(&mut reader, "on\n").await;
    supervisor.signal(Target::Exec("loop".into()), libc::SIGUSR1).await.unwrap();
    assert_eq!(read_all(&mut reader).await.2, Frame::Exited(ExitStatus::exited(6)));
    let exec = container.exec("bg", &["sh", "-c", "sleep 1000 & echo back"]);
    let (stream, _) = supervisor.exec_attached(exec, ALL).await.unwrap();
    let (stdout, _, last) = read_all(&mut stream.split().0).await;
    assert_eq!((stdout.as_str(), last), ("back\n", Frame::Exited(ExitStatus::exited(0))));
}

#[tokio::test]
async fn many_execs_at_once_each_get_their_own_end() {
    let container = Container::new(&["sleep", "1000"]);
    let supervisor = container.start().await;
    let mut tasks = Vec::new();
    for number in 0..40 {
        let exec = container.exec(&format!("e{number}"), &["sh", "-c", &format!("echo {number}; exit {number}")]);
        let supervisor = supervisor.clone();
        tasks.push(tokio::spawn(async move {
            let (stream, _) = supervisor.exec_attached(exec, ALL).await.unwrap();
            let (stdout, _, last) = read_all(&mut stream.split().0).await;
            assert_eq!((stdout, last), (format!("{number}\n"), Frame::Exited(ExitStatus::exited(number))));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
