//! Starting, stopping, ending, restarting, removing.

use bollard_stubs::models::{
    ContainerCreateBody, ContainerStateStatusEnum as Status, HostConfig, RestartPolicy, RestartPolicyNameEnum,
};
use futures::StreamExt;
use shoal_engine::{AttachOptions, ErrorKind, EventsOptions, ListOptions, RemoveOptions, StopOptions, WaitCondition};

use crate::support::{on_machine, read_all, shell, with_host};

#[test]
fn a_container_runs_ends_and_tells_how() {
    on_machine(|machine| async move {
        let (code, log) = machine.run("one", shell("echo out; echo err >&2; exit 7")).await;
        assert_eq!(code, 7);
        assert!(log.contains("out\n") && log.contains("err\n"), "{log}");
        let state = machine.state("one").await;
        assert_eq!((state.status, state.exit_code, state.running), (Some(Status::EXITED), Some(7), Some(false)));
        assert!(state.started_at < state.finished_at);
        let again = machine.engine.stop("one", StopOptions::default()).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotModified);
        machine.engine.start("one").await.unwrap();
        assert_eq!(machine.engine.wait("one", WaitCondition::NotRunning).unwrap().done().await.status_code, 7);
    });
}

#[test]
fn an_attachment_made_before_the_start_misses_nothing() {
    on_machine(|machine| async move {
        let body = ContainerCreateBody {
            open_stdin: Some(true),
            stdin_once: Some(true),
            ..shell("echo first; cat; echo last")
        };
        machine.engine.create(Some("cat"), None, body).await.unwrap();
        let mut attached = machine.attach("cat").await;
        machine.engine.start("cat").await.unwrap();
        let mut input = attached.input.take().unwrap();
        assert!(input.write(b"typed\n").await.unwrap());
        input.finish().await.unwrap();
        assert_eq!(read_all(&mut attached).await, "first\ntyped\nlast\n");
    });
}

#[test]
fn an_attachment_can_begin_with_what_was_written_before() {
    on_machine(|machine| async move {
        machine.start("late", shell("echo early; sleep 1000")).await;
        machine.wait_for_line("late", "early").await;
        let options = AttachOptions { logs: true, stdout: true, ..AttachOptions::default() };
        let mut attached = machine.engine.attach("late", options).await.unwrap();
        assert_eq!(read_all(&mut attached).await, "early\n");
    });
}

#[test]
fn stop_is_polite_first_and_kills_when_the_time_is_up() {
    on_machine(|machine| async move {
        machine.start("polite", shell("trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done")).await;
        machine.wait_for_line("polite", "up").await;
        machine.engine.stop("polite", StopOptions::default()).await.unwrap();
        assert_eq!(machine.state("polite").await.exit_code, Some(3));
        machine.start("deaf", shell("trap '' TERM; echo up; while :; do sleep 0.1; done")).await;
        machine.wait_for_line("deaf", "up").await;
        machine.engine.stop("deaf", StopOptions { timeout: Some(0), ..StopOptions::default() }).await.unwrap();
        assert_eq!(machine.state("deaf").await.exit_code, Some(137));
        let error = machine.engine.kill("deaf", None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().starts_with("cannot kill container: deaf: container "), "{error}");
    });
}

#[test]
fn a_command_that_cannot_be_run_is_told_in_dockers_words() {
    on_machine(|machine| async move {
        for (command, code, text) in [
            ("nosuch", 127, "exec: \"nosuch\": executable file not found in $PATH"),
            ("/nosuch", 127, "no such file or directory"),
            ("/etc/passwd", 126, "permission denied"),
        ] {
            let body = ContainerCreateBody { cmd: Some(vec![command.into()]), ..shell("") };
            let id = machine.engine.create(None, None, body).await.unwrap().id;
            let wait = machine.engine.wait(&id, WaitCondition::NextExit).unwrap();
            let error = machine.engine.start(&id).await.unwrap_err();
            assert!(
                error.to_string().starts_with("failed to create task for container: ")
                    && error.to_string().contains(text),
                "{error}"
            );
            assert_eq!(error.kind(), ErrorKind::InvalidParameter);
            assert_eq!(wait.done().await.status_code, code);
            let state = machine.state(&id).await;
            assert_eq!((state.exit_code, state.status), (Some(code), Some(Status::CREATED)));
            assert!(state.error.unwrap().contains(text));
        }
        while std::fs::read_dir(machine.path("exec/run")).unwrap().count() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_container_with_rm_goes_with_its_end_and_its_anonymous_volumes() {
    on_machine(|machine| async move {
        let host = HostConfig { auto_remove: Some(true), network_mode: Some("none".into()), ..HostConfig::default() };
        let body = ContainerCreateBody { volumes: Some(vec!["/anonymous".into()]), ..with_host("exit 5", host) };
        let id = machine.engine.create(Some("gone"), None, body).await.unwrap().id;
        let wait = machine.engine.wait("gone", WaitCondition::Removed).unwrap();
        assert_eq!(machine.engine.list_volumes(&Default::default()).await.unwrap().volumes.unwrap().len(), 1);
        machine.engine.start("gone").await.unwrap();
        assert_eq!(wait.done().await.status_code, 5);
        assert_eq!(machine.engine.inspect("gone", false).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(machine.engine.list_volumes(&Default::default()).await.unwrap().volumes.unwrap().is_empty());
        assert!(!machine.path("data/containers").join(&id).exists());
        // soon: unmounting may wait for the disk
        while machine.path("data/images/snapshots").join(&id).exists() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn policies_restart_and_a_person_ends_it() {
    on_machine(|machine| async move {
        let policy = |name, most| Some(RestartPolicy { name: Some(name), maximum_retry_count: Some(most) });
        let host =
            |restart_policy| HostConfig { restart_policy, network_mode: Some("none".into()), ..HostConfig::default() };
        let twice = host(policy(RestartPolicyNameEnum::ON_FAILURE, 2));
        machine.start("twice", with_host("echo run; exit 1", twice)).await;
        machine
            .until("twice", "exited for good", |c| {
                c.restart_count == Some(2) && c.state.as_ref().unwrap().status == Some(Status::EXITED)
            })
            .await;
        assert_eq!(machine.log("twice").await, "run\nrun\nrun\n");
        machine.start("always", with_host("exit 0", host(policy(RestartPolicyNameEnum::ALWAYS, 0)))).await;
        machine.until("always", "restarted", |c| c.restart_count >= Some(2)).await;
        // between two runs or in one of them: it must stay stopped
        machine.engine.stop("always", StopOptions::default()).await.unwrap();
        let state = machine.state("always").await;
        assert_eq!((state.status, state.running), (Some(Status::EXITED), Some(false)));
        machine.engine.remove("always", RemoveOptions::default()).await.unwrap();
    });
}

#[test]
fn running_containers_are_removed_by_force_only_and_once() {
    on_machine(|machine| async move {
        machine.start("busy", shell("sleep 1000")).await;
        let error = machine.engine.remove("busy", RemoveOptions::default()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot remove container \"/busy\": container is running: stop the container before removing or force remove"
        );
        let force = RemoveOptions { force: true, ..RemoveOptions::default() };
        let (one, two) = tokio::join!(machine.engine.remove("busy", force), machine.engine.remove("busy", force));
        let failed: Vec<_> = [one, two].into_iter().filter_map(Result::err).collect();
        assert_eq!(failed.len(), 1, "one removal does it");
        assert!(failed[0].to_string().ends_with("is already in progress"), "{}", failed[0]);
        assert_eq!(machine.engine.remove("busy", force).await.unwrap_err().to_string(), "No such container: busy");
    });
}

#[test]
fn names_are_unique_and_can_be_changed() {
    on_machine(|machine| async move {
        let id = machine.engine.create(Some("web"), None, shell("true")).await.unwrap().id;
        let error = machine.engine.create(Some("web"), None, shell("true")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
            )
        );
        machine.engine.rename("web", "old").await.unwrap();
        let other = machine.engine.create(Some("web"), None, shell("true")).await.unwrap().id;
        assert_eq!(machine.inspect("web").await.id.unwrap(), other);
        assert_eq!(machine.inspect(&id[..10]).await.name.unwrap(), "/old");
        assert!(machine.engine.rename("old", "web").await.is_err());
    });
}

#[test]
fn fifty_containers_start_side_by_side_and_are_listed() {
    on_machine(|machine| async move {
        let started = std::time::Instant::now();
        let starts = (0..50).map(|n| {
            let machine = machine.clone();
            async move {
                let host = HostConfig::default();
                machine.start(&format!("c{n}"), with_host("sleep 1000", host)).await;
            }
        });
        futures::future::join_all(starts).await;
        eprintln!("fifty containers on the bridge in {:?}", started.elapsed());
        let listed = machine.engine.list(ListOptions::default()).await.unwrap();
        assert_eq!(listed.len(), 50);
        assert!(listed.iter().all(|c| c.status.as_deref().unwrap().starts_with("Up ")));
        let options =
            ListOptions { filters: [("name".to_owned(), vec!["^/c1$".to_owned()])].into(), ..ListOptions::default() };
        assert_eq!(machine.engine.list(options).await.unwrap().len(), 1);
        let limited = ListOptions { limit: Some(3), ..ListOptions::default() };
        assert_eq!(machine.engine.list(limited).await.unwrap().len(), 3);
    });
}

#[test]
fn events_tell_a_containers_life_in_order() {
    on_machine(|machine| async move {
        let events = machine.engine.events(EventsOptions::default()).unwrap();
        let host = HostConfig { auto_remove: Some(true), ..HostConfig::default() };
        machine.engine.create(Some("told"), None, with_host("exit 4", host)).await.unwrap();
        machine.engine.start("told").await.unwrap();
        let mut seen = Vec::new();
        let mut events = Box::pin(events);
        while seen.last().map(String::as_str) != Some("container destroy") {
            let event = events.next().await.unwrap();
            let attributes = event.actor.unwrap().attributes.unwrap();
            let action = event.action.unwrap();
            if action == "die" {
                assert_eq!((attributes["exitCode"].as_str(), attributes["name"].as_str()), ("4", "told"));
                assert!(attributes.contains_key("execDuration") && attributes["image"] == "busybox");
            }
            seen.push(format!("{} {action}", event.typ.unwrap()));
        }
        assert_eq!(
            seen,
            [
                "container create",
                "network connect",
                "container start",
                "network disconnect",
                "container die",
                "container destroy"
            ]
        );
    });
}

#[test]
fn memory_beyond_the_limit_is_told_as_such() {
    on_machine(|machine| async move {
        let host = HostConfig { memory: Some(16 << 20), network_mode: Some("none".into()), ..HostConfig::default() };
        let (code, _) = machine.run("hungry", with_host("head -c 100000000 /dev/zero | tail", host)).await;
        assert_ne!(code, 0);
        assert_eq!(machine.state("hungry").await.oom_killed, Some(true));
    });
}

#[test]
fn a_paused_container_stands_still_and_can_be_stopped() {
    on_machine(|machine| async move {
        machine.start("still", shell("sleep 1000")).await;
        machine.engine.pause("still").await.unwrap();
        assert_eq!(machine.state("still").await.status, Some(Status::PAUSED));
        assert!(machine.engine.exec_create("still", Default::default()).await.is_err());
        machine.engine.unpause("still").await.unwrap();
        machine.engine.pause("still").await.unwrap();
        machine.engine.stop("still", StopOptions { timeout: Some(1), ..StopOptions::default() }).await.unwrap();
        assert_eq!(machine.state("still").await.status, Some(Status::EXITED));
    });
}
