//! Processes in running containers, terminals, top.

use bollard_stubs::models::{ContainerCreateBody, ExecConfig};
use shoal_engine::{ErrorKind, ExecStartOptions};

use crate::support::{on_machine, read_all, shell};

fn exec(command: &[&str]) -> ExecConfig {
    ExecConfig {
        cmd: Some(command.iter().map(|s| (*s).to_owned()).collect()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    }
}

#[test]
fn a_process_in_a_container_has_its_streams_and_exit_code() {
    on_machine(|machine| async move {
        machine.start("box", shell("sleep 1000")).await;
        let config = ExecConfig {
            attach_stdin: Some(true),
            env: Some(vec!["E=x".into()]),
            user: Some("nobody".into()),
            working_dir: Some("/tmp".into()),
            ..exec(&["sh", "-c", "cat; echo $E $FROM; pwd; id -u; exit 9"])
        };
        let id = machine.engine.exec_create("box", config).await.unwrap();
        let mut attached = machine.engine.exec_start(&id, ExecStartOptions::default()).await.unwrap();
        let mut input = attached.input.take().unwrap();
        input.write(b"in\n").await.unwrap();
        input.finish().await.unwrap();
        assert_eq!(read_all(&mut attached).await, "in\nx image\n/tmp\n65534\n");
        let seen = machine.engine.exec_inspect(&id).await.unwrap();
        assert_eq!((seen.running, seen.exit_code), (Some(false), Some(9)), "known with the last byte");
        let again = machine.engine.exec_start(&id, ExecStartOptions::default()).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Conflict);
    });
}

#[test]
fn a_process_that_cannot_be_run_is_told_and_remembered() {
    on_machine(|machine| async move {
        machine.start("box", shell("sleep 1000")).await;
        let id = machine.engine.exec_create("box", exec(&["nosuch"])).await.unwrap();
        let mut attached = machine.engine.exec_start(&id, ExecStartOptions::default()).await.unwrap();
        assert_eq!(
            read_all(&mut attached).await,
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH: unknown\r\n"
        );
        assert_eq!(machine.engine.exec_inspect(&id).await.unwrap().exit_code, Some(127));
        machine.engine.kill("box", None).await.unwrap();
        machine.until("box", "ended", |c| c.state.as_ref().unwrap().running == Some(false)).await;
        let error = machine.engine.exec_create("box", exec(&["true"])).await.unwrap_err();
        assert!(error.to_string().ends_with(" is not running"), "{error}");
        assert_eq!(
            machine.engine.exec_inspect("nosuch").await.unwrap_err().to_string(),
            "No such exec instance: nosuch"
        );
    });
}

#[test]
fn a_terminal_has_a_size_and_detaches_by_keys() {
    on_machine(|machine| async move {
        let body = ContainerCreateBody {
            tty: Some(true),
            open_stdin: Some(true),
            ..shell("read line; stty size 2>/dev/null || echo no; sleep 1000")
        };
        machine.engine.create(Some("term"), None, body).await.unwrap();
        let mut attached = machine.attach("term").await;
        machine.engine.start("term").await.unwrap();
        assert!(attached.tty);
        machine.engine.resize("term", 40, 100).await.unwrap();
        let mut input = attached.input.take().unwrap();
        input.write(b"go\n").await.unwrap();
        let mut text = String::new();
        while !text.contains("40 100") && !text.contains("no") {
            text += &String::from_utf8_lossy(&attached.output.next().await.unwrap().bytes);
        }
        assert!(!input.write(b"\x10\x11").await.unwrap(), "ctrl-p ctrl-q");
        while attached.output.next().await.is_some() {}
        assert_eq!(machine.state("term").await.running, Some(true));
        let top = machine.engine.top("term", None).await.unwrap();
        assert!(top.processes.unwrap().iter().any(|row| row.last().unwrap().contains("sleep 1000")));
    });
}
