use std::time::Instant;
use bollard_stubs::models::HostConfig;
use shoal_engine::WaitCondition;
use crate::support::{on_machine, with_host};
#[test]
fn timing() {
    on_machine(|machine| async move {
        for n in 0..12 {
            let host = HostConfig { auto_remove: Some(true), ..HostConfig::default() };
            let name = format!("t{n}");
            let t = Instant::now();
            machine.engine.create(Some(&name), None, with_host("true", host)).await.unwrap();
            let created = t.elapsed();
            let wait = machine.engine.wait(&name, WaitCondition::Removed).unwrap();
            machine.engine.start(&name).await.unwrap();
            let started = t.elapsed();
            wait.done().await;
            eprintln!("create {created:?} start {:?} end {:?} all {:?}", started - created, t.elapsed() - started, t.elapsed());
        }
    });
}
