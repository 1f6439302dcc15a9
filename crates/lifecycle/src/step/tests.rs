use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn status(state: TaskState) -> TaskStatus {
    TaskStatus { state, message: "before".into(), ..TaskStatus::default() }
}

fn next(state: TaskState, desired: TaskState) -> Next {
    plan_next(&status(state), Wanted::State(desired), NOW)
}

fn finished(state: TaskState, action: Action, outcome: Result<(), Failure>) -> Finished {
    finish(&status(state), action, outcome, Facts::default(), NOW)
}

fn reported(finished: Finished) -> (TaskState, String, String) {
    let Finished::Report(status) = finished else { panic!("{finished:?}") };
    (status.state, status.message, status.err)
}

/// Walks a task to its end with every action succeeding; the messages it reports on the way.
fn walk(desired: TaskState) -> Vec<String> {
    let (mut now, mut messages) = (status(TaskState::Assigned), Vec::new());
    loop {
        now = match plan_next(&now, Wanted::State(desired), NOW) {
            Next::Report(status) => status,
            Next::Do(action) => match finish(&now, action, Ok(()), Facts::default(), NOW) {
                Finished::Report(status) => status,
                other => panic!("{other:?}"),
            },
            Next::Idle => return messages,
        };
        messages.push(now.message.clone());
    }
}

#[test]
fn a_wanted_task_goes_through_all_states_with_dockers_messages() {
    let all = ["accepted", "preparing", "prepared", "starting", "started", "finished"];
    assert_eq!(walk(TaskState::Running), all);
    assert_eq!(walk(TaskState::Complete), all);
}

#[test]
fn a_task_desired_ready_is_prepared_and_parked() {
    assert_eq!(walk(TaskState::Ready), ["accepted", "preparing", "prepared"]);
}

#[test]
fn an_unwanted_task_is_shut_down_from_any_living_state_and_an_ended_one_is_left() {
    for desired in [TaskState::Shutdown, TaskState::Remove] {
        for state in TaskState::ALL {
            let expected = if state >= TaskState::Complete { Next::Idle } else { Next::Do(Action::Shutdown) };
            assert_eq!(next(state, desired), expected, "{state}");
        }
    }
    let (state, message, err) = reported(finished(TaskState::Running, Action::Shutdown, Ok(())));
    assert_eq!((state, &*message, &*err), (TaskState::Shutdown, "shutdown", ""));
}

#[test]
fn a_deleted_task_is_stopped_then_removed_then_forgotten() {
    assert_eq!(plan_next(&status(TaskState::Running), Wanted::Gone, NOW), Next::Do(Action::Shutdown));
    assert_eq!(plan_next(&status(TaskState::Shutdown), Wanted::Gone, NOW), Next::Do(Action::Remove));
    assert_eq!(finished(TaskState::Shutdown, Action::Remove, Ok(())), Finished::Forget);
    let failure = Err(Failure::Final("device busy".into()));
    assert_eq!(finished(TaskState::Shutdown, Action::Remove, failure), Finished::Retry(after(NOW, RETRY)));
}

#[test]
fn a_final_error_rejects_before_starting_and_fails_from_there() {
    let failure = || Err(Failure::Final("boom".into()));
    let rejected = (TaskState::Rejected, "before".to_owned(), "boom".to_owned());
    assert_eq!(reported(finished(TaskState::Preparing, Action::Prepare, failure())), rejected);
    let failed = (TaskState::Failed, "before".to_owned(), "boom".to_owned());
    assert_eq!(reported(finished(TaskState::Starting, Action::Start, failure())), failed);
    assert_eq!(reported(finished(TaskState::Running, Action::Wait, failure())), failed);
    let (state, message, err) = reported(finished(TaskState::Assigned, Action::Accept, failure()));
    assert_eq!((state, &*message, &*err), (TaskState::Rejected, "resolving controller failed", "boom"));
}

#[test]
fn a_temporary_error_is_retried_after_a_second_and_a_cancelled_step_at_once() {
    let temporary = Err(Failure::Temporary("registry is away".into()));
    assert_eq!(finished(TaskState::Preparing, Action::Prepare, temporary), Finished::Retry(after(NOW, 1_000_000_000)));
    assert_eq!(finished(TaskState::Preparing, Action::Prepare, Err(Failure::Cancelled)), Finished::Retry(NOW));
}

#[test]
fn facts_are_kept_until_newer_ones_come_and_a_task_that_ended_has_no_process_and_no_ports() {
    let container = ContainerStatus { container_id: "c".into(), pid: 7, exit_code: 0 };
    let facts = Facts { container: Some(container.clone()), ports: Some(vec![PortConfig::default()]) };
    let Finished::Report(running) = finish(&status(TaskState::Starting), Action::Start, Ok(()), facts, NOW) else {
        panic!("not reported")
    };
    assert_eq!((running.container.as_ref(), running.ports.len()), (Some(&container), 1));
    let Finished::Report(ended) = finish(&running, Action::Wait, Ok(()), Facts::default(), NOW) else {
        panic!("not reported")
    };
    assert_eq!((ended.container, ended.ports.len()), (Some(ContainerStatus { pid: 0, ..container }), 0));
}

fn outcomes() -> impl Strategy<Value = Result<(), Failure>> {
    prop_oneof![
        5 => Just(Ok(())),
        1 => Just(Err(Failure::Cancelled)),
        1 => Just(Err(Failure::Temporary("t".into()))),
        1 => Just(Err(Failure::Final("f".into()))),
    ]
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let desired = [TaskState::Ready, TaskState::Running, TaskState::Complete, TaskState::Shutdown, TaskState::Remove];
    prop_oneof![4 => prop::sample::select(desired.to_vec()).prop_map(Wanted::State), 1 => Just(Wanted::Gone)]
}

proptest! {
    #[test]
    fn states_only_grow_and_every_report_moves_on(steps in prop::collection::vec((wanted(), outcomes()), 1..40)) {
        let mut now = status(TaskState::Assigned);
        for (wanted, outcome) in steps {
            let reported = match plan_next(&now, wanted, NOW) {
                Next::Report(status) => Some(status),
                Next::Idle => None,
                Next::Do(action) => {
                    let ended = now.state.is_terminal();
                    prop_assert_eq!(action == Action::Remove, ended);
                    match finish(&now, action, outcome.clone(), Facts::default(), NOW) {
                        Finished::Report(status) => {
                            prop_assert_eq!(status.err.is_empty(), outcome.is_ok());
                            Some(status)
                        }
                        Finished::Retry(at) => { prop_assert!(at >= NOW && outcome.is_err()); None }
                        Finished::Forget => { prop_assert!(ended && wanted == Wanted::Gone); break }
                    }
                }
            };
            if let Some(status) = reported {
                prop_assert!(status.state > now.state);
                now = status;
            }
        }
    }

    #[test]
    fn nothing_is_done_beyond_what_is_desired(state in prop::sample::select(TaskState::ALL.to_vec()),
                                             desired in prop::sample::select(TaskState::ALL.to_vec())) {
        if let Next::Report(status) = next(state, desired) {
            prop_assert!(status.state <= desired && status.state > state);
        }
        if desired < TaskState::Shutdown && state > desired {
            prop_assert_eq!(next(state, desired), Next::Idle);
        }
    }
}
