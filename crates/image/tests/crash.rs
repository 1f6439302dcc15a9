//! kill -9 of a process that works on a store, at every step that it tells of: what is recorded is whole, and nothing
//! else is there.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use shoal_image::{Progress, PullOptions, Reference, RegistryConfig, RemoveOptions};
use support::Store;
use support::image::{TestImage, layer};

const CHILD: &str = "SHOAL_IMAGE_CRASH_TEST";

/// Does nothing unless the other test starts it as a process of its own: then it works until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn worker() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    let (root, references) = arguments.split_once(' ').expect("two arguments");
    let store = Store::at(root.as_ref(), RegistryConfig::default()).store;
    let told = Progress::new(|event| println!("{}", serde_json::to_string(&event).expect("json")));
    loop {
        for reference in references.split(' ') {
            let reference = Reference::parse(reference).expect("valid");
            store.pull(&reference, &PullOptions::default(), &told).await.expect("pulls");
            println!("pulled");
            let id =
                store.tag(&reference.to_string(), &Reference::parse("copy:1").expect("valid")).await.expect("tags");
            println!("tagged");
            store.ensure_snapshot("container", &id).expect("made");
            println!("made");
            store.ensure_mounted("container").expect("mounted");
            println!("mounted");
            store.remove_snapshot("container").expect("removed");
            println!("unmade");
        }
        for image in store.list() {
            store.remove(&image.id.hex(), RemoveOptions { force: true }, &[]).await.expect("removes");
            println!("removed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_whole_after_a_kill_at_any_step() {
    let base = layer(&[("base", &[7; 300_000])]);
    let mut references = Vec::new();
    let mut fakes = Vec::new();
    for name in ["left", "right"] {
        let image = TestImage::new(&[base.clone(), layer(&[(name, &[9; 100_000])])]);
        let fake = image.serve_but(|_, _| None).await;
        references.push(fake.reference(&format!("{name}:1")).to_string());
        fakes.push(fake);
    }
    let dir = tempfile::tempdir().expect("temp dir");
    let mut seen = BTreeSet::new();
    for lines in 1..60 {
        work_for(lines, &format!("{} {}", dir.path().display(), references.join(" ")));
        let store = Store::at(dir.path(), RegistryConfig::default());
        let images = store.store.list();
        let chains: BTreeSet<_> =
            images.iter().flat_map(|image| image.layers.iter().map(|layer| layer.chain)).collect();
        assert!(images.iter().all(|image| image.layers.len() == 2), "an image without all its layers");
        for container in store.store.snapshots() {
            store.store.ensure_mounted(&container).expect("what is there can be used");
            store.store.remove_snapshot(&container).expect("removed");
        }
        store.assert_only(chains.len(), chains.len() + images.len());
        assert!(store.names("snapshots").is_empty());
        seen.insert(images.len());
        store.close();
    }
    assert!(seen.len() > 1, "the kills hit different moments: {seen:?}");
}

/// Runs the worker until it has told `lines` steps, and kills it.
fn work_for(lines: usize, arguments: &str) {
    let mut worker = Command::new(std::env::current_exe().expect("ourselves"))
        .args(["--exact", "worker", "--nocapture"])
        .env(CHILD, arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let output = BufReader::new(worker.stdout.take().expect("piped"));
    // the test harness says two lines of its own first
    let told = output.lines().map_while(Result::ok).filter(|line| !line.is_empty()).take(lines + 1).count();
    worker.kill().expect("ours to kill");
    worker.wait().expect("ended");
    assert_eq!(told, lines + 1, "the worker ended by itself");
}
