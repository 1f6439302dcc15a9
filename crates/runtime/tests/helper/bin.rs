//! The binary that the tests of this crate start: a supervisor, a container's init, or a daemon that spawns a
//! container and then does nothing until it is killed.

use std::path::Path;

use shoal_runtime::{Job, Supervisor};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(shoal_runtime::SUPERVISE) => shoal_runtime::supervise_main(&args[2..]),
        Some(shoal_runtime::INIT) => shoal_runtime::init_main(&args[2..]),
        Some("daemon") => daemon(&args[2]),
        _ => std::process::exit(2),
    }
}

/// Starts the container of a job file, says so, and hangs.
fn daemon(job: &str) {
    let job: Job = serde_json::from_slice(&std::fs::read(job).expect("job file")).expect("job");
    let exe = std::env::current_exe().expect("own path");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let (supervisor, _) = Supervisor::spawn(Path::new(&exe), &job).await.expect("spawn");
        supervisor.start().await.expect("start");
        println!("started");
        std::future::pending::<()>().await;
    });
}
