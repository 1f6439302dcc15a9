//! Log, attach, terminals, input.

use std::os::unix::fs::MetadataExt;

use serde_json::json;
use shoal_runtime::{AttachOptions, CallError, ConsoleSize, ExitStatus, Frame, LogConfig, Refusal, Target};

use crate::support::{Container, eventually, read_all, read_until};

const ALL: AttachOptions = AttachOptions { stdin: true, stdout: true, stderr: true };

#[tokio::test]
async fn stdout_and_stderr_are_apart_and_in_order_in_log_and_stream() {
    let container = Container::shell("echo 1; sync; echo 2 >&2; echo 3; printf end");
    let (supervisor, _) = container.spawn().await.unwrap();
    let (mut reader, _writer) = supervisor.attach(Target::Main, ALL).await.unwrap().split();
    supervisor.start().await.unwrap();
    let (stdout, stderr, last) = read_all(&mut reader).await;
    assert_eq!((stdout.as_str(), stderr.as_str(), last), ("1\n3\nend", "2\n", Frame::Exited(ExitStatus::exited(0))));
    supervisor.wait().await.unwrap();
    assert_eq!(container.stdout(), "1\n3\nend");
    let stderr: Vec<_> = container.log().into_iter().filter(|(stream, _)| stream == "stderr").collect();
    assert_eq!(stderr, [("stderr".to_owned(), "2\n".to_owned())]);
}

#[tokio::test]
async fn a_hundred_megabytes_of_lines_are_all_in_the_log_when_the_exit_is_told() {
    let line = "0123456789abcdef".repeat(6);
    let container = Container::shell(&format!("yes {line} | head -n 1000000"));
    container.run().await;
    let log = container.log();
    assert_eq!(log.len(), 1_000_000);
    assert!(log.iter().all(|(_, text)| text.trim_end() == line));
}

#[tokio::test]
async fn an_attacher_that_does_not_read_holds_up_neither_log_nor_others_and_loses_nothing() {
    let container = Container::shell("read go; seq 1 500000; echo done >&2; sleep 1000");
    let mut container = container;
    container.job.open_stdin = true;
    let (supervisor, _) = container.spawn().await.unwrap();
    let (mut lazy, mut writer) = supervisor.attach(Target::Main, ALL).await.unwrap().split();
    let (mut eager, _eager_writer) = supervisor.attach(Target::Main, ALL).await.unwrap().split();
    supervisor.start().await.unwrap();
    writer.write(b"go\n").await.unwrap();
    let mut read = 0;
    loop {
        match eager.next().await {
            Frame::Stdout(data) => read += data.len(),
            Frame::Stderr(_) => break,
            other => panic!("{other:?}"),
        }
    }
    let expected: String = (1..=500_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(read, expected.len());
    assert_eq!(container.stdout(), expected, "the log is complete though one attacher has read nothing");
    supervisor.signal(Target::Main, libc::SIGKILL).await.unwrap();
    let (stdout, _, last) = read_all(&mut lazy).await;
    assert!(stdout == expected, "and that one gets it all");
    assert_eq!(last, Frame::Exited(ExitStatus::killed(9)));
}

#[tokio::test]
async fn no_log_is_written_when_none_is_wanted() {
    let mut container = Container::shell("echo x");
    container.job.log = LogConfig::None;
    let (supervisor, _) = container.spawn().await.unwrap();
    let (mut reader, _writer) = supervisor.attach(Target::Main, ALL).await.unwrap().split();
    supervisor.start().await.unwrap();
    assert_eq!(read_all(&mut reader).await.0, "x\n");
    assert!(!container.dir.path().join("log").exists());
}

#[tokio::test]
async fn a_terminal_echoes_has_its_size_and_can_be_resized() {
    let container = Container::shell("stty size; read line; stty size; test -t 1 && id -u < /dev/tty").with_tty(24, 81);
    let (supervisor, _) = container.spawn().await.unwrap();
    let (mut reader, mut writer) = supervisor.attach(Target::Main, ALL).await.unwrap().split();
    supervisor.start().await.unwrap();
    read_until(&mut reader, "24 81\r\n").await;
    supervisor.resize(Target::Main, ConsoleSize { height: 50, width: 132 }).await.unwrap();
    writer.write(b"hello\n").await.unwrap();
    let (rest, _, last) = read_all(&mut reader).await;
    assert_eq!((rest.as_str(), last), ("hello\r\n50 132\r\n0\r\n", Frame::Exited(ExitStatus::exited(0))));
    supervisor.wait().await.unwrap();
    assert_eq!(container.stdout(), "24 81\r\nhello\r\n50 132\r\n0\r\n");
}

#[tokio::test]
async fn a_terminal_gives_all_that_was_written_before_the_end() {
    for _ in 0..10 {
        let container = Container::shell("seq 1 3000").with_tty(24, 80);
        container.run().await;
        let expected: String = (1..=3000).map(|number| format!("{number}\r\n")).collect();
        assert_eq!(container.stdout(), expected);
    }
}

#[tokio::test]
async fn only_a_terminal_can_be_resized() {
    let container = Container::new(&["sleep", "1000"]);
    let supervisor = container.start().await;
    let refused = supervisor.resize(Target::Main, ConsoleSize { height: 1, width: 1 }).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused(Refusal::NoTerminal(_))), "{refused}");
}

#[tokio::test]
async fn input_arrives_and_ends_once_for_a_container_that_wants_it_so() {
    let mut container = Container::shell("cat; echo end");
    container.job.open_stdin = true;
    container.job.stdin_once = true;
    let (supervisor, _) = container.spawn().await.unwrap();
    let (mut reader, mut writer) = supervisor.attach(Target::Main, ALL).await.unwrap().split();
    supervisor.start().await.unwrap();
    let big: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let write = async {
        writer.write(big.as_bytes()).await.unwrap();
        writer.finish().await.unwrap();
    };
    let ((), (stdout, _, last)) = tokio::join!(write, read_all(&mut reader));
    assert!(stdout == format!("{big}end\n"));
    assert_eq!(last, Frame::Exited(ExitStatus::exited(0)));
}

#[tokio::test]
async fn input_stays_open_across_attachers_and_detaching_ends_nothing() {
    let mut container = Container::shell("cat; echo end");
    container.job.open_stdin = true;
    let (supervisor, _) = container.spawn().await.unwrap();
    supervisor.start().await.unwrap();
    for name in ["first\n", "second\n"] {
        let (mut reader, mut writer) = supervisor.attach(Target::Main, ALL).await.unwrap().split();
        writer.write(name.as_bytes()).await.unwrap();
        read_until(&mut reader, name).await;
        writer.finish().await.unwrap();
    }
    let (mut reader, mut writer) = supervisor.attach(Target::Main, ALL).await.unwrap().split();
    writer.write(b"third\n").await.unwrap();
    read_until(&mut reader, "third\n").await;
    supervisor.close_stdin(Target::Main).await.unwrap();
    assert_eq!(read_all(&mut reader).await.0, "end\n");
}

#[tokio::test]
async fn without_open_stdin_the_command_reads_nothing() {
    let container = Container::shell("cat; readlink /proc/self/fd/0");
    assert_eq!(container.run().await.status, ExitStatus::exited(0));
    assert_eq!(container.stdout(), "/dev/null\n");
}

#[tokio::test]
async fn no_descriptor_leaks_into_the_container() {
    // ls itself opens the directory
    let container = Container::new(&["ls", "/proc/self/fd"]);
    let supervisor = container.start().await;
    supervisor.wait().await.unwrap();
    assert_eq!(container.stdout(), "0\n1\n2\n3\n");

    let container = Container::new(&["sleep", "1000"]).with_tty(24, 80);
    let supervisor = container.start().await;
    let options = AttachOptions { stdout: true, ..Default::default() };
    let exec = container.exec("fds", &["ls", "/proc/1/fd", "/proc/self/fd"]);
    let (stream, _) = supervisor.exec_attached(exec, options).await.unwrap();
    let (stdout, _, _) = read_all(&mut stream.split().0).await;
    assert_eq!(stdout, "/proc/1/fd:\n0\n1\n2\n\n/proc/self/fd:\n0\n1\n2\n3\n");
}

#[tokio::test]
async fn another_user_may_open_its_own_output_again() {
    for tty in [false, true] {
        let mut container = Container::shell("echo pipe > /dev/stdout; id -u");
        if tty {
            container = container.with_tty(24, 80);
        }
        container.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        assert_eq!(container.run().await.status, ExitStatus::exited(0));
        assert_eq!(container.stdout().replace('\r', ""), "pipe\n1000\n");
    }
}

#[tokio::test]
async fn a_process_that_keeps_the_output_open_does_not_hold_up_the_end() {
    let container = Container::shell("sleep 1000 & echo main");
    assert_eq!(container.run().await.status, ExitStatus::exited(0));
    // the same without a pid namespace, where the kernel does not kill it
    let mut container = Container::shell("sleep 1000 & echo main");
    let namespaces = container.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    assert_eq!(container.run().await.status, ExitStatus::exited(0));
    assert_eq!(container.stdout(), "main\n");
    container.assert_no_cgroup();
}

#[tokio::test]
async fn the_log_may_be_moved_aside_by_rotation_while_it_is_written() {
    let mut container = Container::shell("seq 1 20000");
    if let LogConfig::JsonFile(log) = &mut container.job.log {
        log.max_size = Some(100_000);
        log.max_file = 3;
    }
    container.run().await;
    let sizes = ["log", "log.1", "log.2"].map(|name| container.dir.path().join(name).metadata().unwrap().size());
    assert!(sizes.iter().all(|&size| size <= 100_000), "{sizes:?}");
    assert!(!container.dir.path().join("log.3").exists());
    eventually("the newest line is in the newest file", || container.stdout().ends_with("\n20000\n")).await;
}
