//! The binary that the tests of this crate start: a supervisor, a container's init, or a daemon that opens an engine, runs
//! a container and then does nothing until it is killed.

use std::path::PathBuf;

use bollard_stubs::models::ContainerCreateBody;
use shoal_engine::{Engine, EngineConfig};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(shoal_runtime::SUPERVISE) => shoal_runtime::supervise_main(&args[2..]),
        Some(shoal_runtime::INIT) => shoal_runtime::init_main(&args[2..]),
        Some("daemon") => daemon(&args[2]),
        _ => std::process::exit(2),
    }
}

/// Opens an engine below a directory (`config.json` says how), starts the containers that `bodies.json` describes, says
/// so, and hangs.
fn daemon(dir: &str) {
    let dir = PathBuf::from(dir);
    let read = |name: &str| std::fs::read(dir.join(name)).expect("a file of the test");
    let bodies: Vec<(String, ContainerCreateBody)> = serde_json::from_slice(&read("bodies.json")).expect("bodies");
    let bridge = String::from_utf8(read("bridge")).expect("bridge");
    let exe = std::env::current_exe().expect("own path");
    let mut config = EngineConfig::new(dir.join("data"), dir.join("exec"), exe);
    config.cgroup_parent = format!("/{bridge}");
    config.bridge.name = bridge;
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let engine = Engine::open(config).await.expect("open");
        for (name, body) in bodies {
            engine.create(Some(&name), None, body).await.expect("create");
            engine.start(&name).await.expect("start");
        }
        println!("started");
        std::future::pending::<()>().await;
    });
}
