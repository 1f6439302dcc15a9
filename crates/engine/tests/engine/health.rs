//! Health checks of real containers.

use bollard_stubs::models::{ContainerCreateBody, HealthConfig, HealthStatusEnum};

use crate::support::{on_machine, shell};

const MS: i64 = 1_000_000;

fn checked(script: &str, test: &str, config: HealthConfig) -> ContainerCreateBody {
    let healthcheck = HealthConfig {
        test: Some(vec!["CMD-SHELL".into(), test.into()]),
        interval: config.interval.or(Some(50 * MS)),
        retries: config.retries.or(Some(2)),
        ..config
    };
    ContainerCreateBody { healthcheck: Some(healthcheck), ..shell(script) }
}

#[test]
fn health_follows_the_probe() {
    on_machine(|machine| async move {
        let status = |wanted| {
            move |c: &bollard_stubs::models::ContainerInspectResponse| {
                c.state.as_ref().unwrap().health.as_ref().unwrap().status == Some(wanted)
            }
        };
        machine.start("web", checked("sleep 1000", "echo probed; test ! -e /sick", HealthConfig::default())).await;
        machine.until("web", "healthy", status(HealthStatusEnum::HEALTHY)).await;
        let sick =
            bollard_stubs::models::ExecConfig { cmd: Some(vec!["touch".into(), "/sick".into()]), ..Default::default() };
        let id = machine.engine.exec_create("web", sick).await.unwrap();
        machine.engine.exec_start_detached(&id, Default::default()).await.unwrap();
        machine.until("web", "unhealthy", status(HealthStatusEnum::UNHEALTHY)).await;
        let health = machine.state("web").await.health.unwrap();
        assert!(health.failing_streak >= Some(2));
        assert!(health.log.unwrap().iter().any(|probe| probe.output.as_deref() == Some("probed\n")));
        let listed = machine.engine.list(Default::default()).await.unwrap();
        assert!(listed[0].status.as_ref().unwrap().ends_with("(unhealthy)"));
    });
}

#[test]
fn a_probe_that_hangs_is_ended_and_counts_as_a_failure() {
    on_machine(|machine| async move {
        let config = HealthConfig { timeout: Some(100 * MS), retries: Some(1), ..HealthConfig::default() };
        machine.start("slow", checked("sleep 1000", "echo begun; sleep 500", config)).await;
        machine
            .until("slow", "unhealthy", |c| {
                c.state.as_ref().unwrap().health.as_ref().unwrap().status == Some(HealthStatusEnum::UNHEALTHY)
            })
            .await;
        let log = machine.state("slow").await.health.unwrap().log.unwrap();
        assert_eq!(log[0].exit_code, Some(-1));
        assert!(
            log[0].output.as_ref().unwrap().starts_with("Health check exceeded timeout (100ms)"),
            "{:?}",
            log[0].output
        );
    });
}
