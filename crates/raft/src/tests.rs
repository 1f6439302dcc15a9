//! The promise, kept with real files: what was answered survives.

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use shoal_types::object::Meta;
use shoal_types::spec::{Annotations, RaftConfig, TaskSpec};
use shoal_types::{Change, IdSource, Object, ServiceId, Task, TaskId, TaskPatch, TaskState, View};
use tempfile::TempDir;

use super::*;

mod cluster;
mod net;

/// Tells the test binary to be the process that is killed.
const CHILD: &str = "SHOAL_RAFT_TEST_DIR";

struct Numbered(u64);
impl IdSource for Numbered {
    fn random(&mut self) -> [u8; 17] {
        self.0 += 1;
        let mut bytes = [0; 17];
        bytes[1..9].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }
}

fn task_id(number: u64) -> TaskId {
    TaskId::new(&mut Numbered(number))
}

fn task(number: u64, bytes: usize) -> Change {
    Change::Put(Object::Task(Arc::new(Task {
        id: task_id(number),
        meta: Meta::default(),
        service_id: ServiceId::new(&mut Numbered(0)),
        slot: number,
        node_id: None,
        annotations: Arc::new(Annotations { name: "x".repeat(bytes), ..Annotations::default() }),
        spec: Arc::new(TaskSpec::default()),
        spec_version: 0,
        endpoint: None,
        registry_auth: None,
        status: Default::default(),
        desired_state: TaskState::Running,
        job_iteration: None,
        assigned_generic: Vec::new(),
    })))
}

/// What logs and snapshots are encrypted with.
pub const KEY: [u8; 32] = [9; 32];

fn config(dir: &Path) -> Config {
    limited(dir, 10_000, 500)
}

fn limited(dir: &Path, snapshot_interval: u64, log_entries_for_slow_followers: u64) -> Config {
    let limits = RaftConfig { snapshot_interval, log_entries_for_slow_followers, ..RaftConfig::default() };
    Config { dir: dir.to_owned(), key: DataKey::new(&KEY), limits, force_new: false }
}

async fn start(config: &Config) -> Raft {
    let raft = Raft::open(config, Arc::new(NoPeers)).await.unwrap();
    if !raft.has_begun().await.unwrap() {
        raft.begin(Member::default()).await.unwrap();
    }
    raft.leadership().wait_for(Option::is_some).await.unwrap();
    raft
}

async fn put(raft: &Raft, number: u64, bytes: usize) -> Result<(), WriteError<shoal_store::Conflict>> {
    raft.write(move |tx: &mut Tx| tx.change(task(number, bytes))).await
}

fn slots(raft: &Raft) -> Vec<u64> {
    raft.snapshot().tasks().map(|t| t.slot).collect()
}

#[tokio::test]
async fn a_write_is_visible_once_answered_and_carries_its_place_in_the_log_as_version() {
    let dir = TempDir::new().unwrap();
    let raft = start(&config(dir.path())).await;
    put(&raft, 1, 1).await.unwrap();
    let snapshot = raft.snapshot();
    let first = snapshot.task(task_id(1)).unwrap().meta;
    assert_eq!(first.version, snapshot.index());
    raft.write(|tx: &mut Tx| tx.change(TaskPatch::desire(task_id(1), TaskState::Shutdown))).await.unwrap();
    let second = raft.snapshot().task(task_id(1)).unwrap().meta;
    assert_eq!((second.version, second.created_at), (first.version + 1, first.created_at));
    assert!(second.updated_at > first.updated_at);
    raft.stop().await;
}

#[tokio::test]
async fn writes_that_wait_share_one_entry_and_a_refusal_undoes_only_its_own_part() {
    let dir = TempDir::new().unwrap();
    let raft = start(&config(dir.path())).await;
    let good = futures::future::join_all((1..=64).map(|n| put(&raft, n, 1)));
    let bad = raft.write(|tx: &mut Tx| {
        tx.change(task(99, 1)).unwrap();
        Err::<(), _>("no")
    });
    let (good, bad) = futures::join!(good, bad);
    assert!(good.iter().all(Result::is_ok));
    assert!(matches!(bad, Err(WriteError::Refused("no"))));
    assert_eq!(slots(&raft), Vec::from_iter(1..=64));
    let versions: std::collections::BTreeSet<u64> = raft.snapshot().tasks().map(|t| t.meta.version).collect();
    assert!(versions.len() <= 2, "64 writes took {} entries", versions.len());
    raft.stop().await;
}

#[tokio::test]
async fn a_panic_reaches_the_writer_and_the_queue_goes_on() {
    let dir = TempDir::new().unwrap();
    let raft = start(&config(dir.path())).await;
    let writer = raft.clone();
    let panicked = tokio::spawn(async move {
        writer.write(|_: &mut Tx| -> Result<(), ()> { std::panic::resume_unwind(Box::new("mine")) }).await
    });
    assert!(panicked.await.unwrap_err().is_panic());
    put(&raft, 1, 1).await.unwrap();
    raft.stop().await;
}

#[tokio::test]
async fn a_write_that_is_too_large_is_refused_and_those_beside_it_are_written() {
    let dir = TempDir::new().unwrap();
    let raft = start(&config(dir.path())).await;
    let (small, large, half, other) = futures::join!(
        put(&raft, 1, 1),
        put(&raft, 2, MAX_PROPOSAL),
        put(&raft, 3, 1_000_000),
        put(&raft, 4, 1_000_000)
    );
    assert!(matches!(large, Err(WriteError::Failed(WriteFailure::TooLarge))));
    assert!(small.is_ok() && half.is_ok() && other.is_ok());
    assert_eq!(slots(&raft), [1, 3, 4]);
    raft.stop().await;
}

#[tokio::test]
async fn a_subscriber_sees_what_follows_on_its_snapshot_without_gap() {
    let dir = TempDir::new().unwrap();
    let raft = start(&config(dir.path())).await;
    put(&raft, 1, 1).await.unwrap();
    let (snapshot, mut feed) = raft.subscribe();
    assert_eq!(snapshot.tasks().count(), 1);
    put(&raft, 2, 1).await.unwrap();
    put(&raft, 3, 1).await.unwrap();
    for count in 2..=3 {
        let Update::Commit(commit) = feed.next().await else { panic!("a reader that keeps up is not told to resync") };
        assert_eq!((commit.events.len(), commit.snapshot.tasks().count()), (1, count));
    }
    raft.stop().await;
}

#[tokio::test]
async fn the_log_stays_short_and_a_restart_finds_everything() {
    let dir = TempDir::new().unwrap();
    let config = limited(dir.path(), 20, 5);
    let raft = start(&config).await;
    for number in 1..=100 {
        put(&raft, number, 60_000).await.unwrap();
    }
    let snapshots = dir.path().join("snapshots");
    while std::fs::read_dir(&snapshots).unwrap().count() == 0 {
        tokio::task::yield_now().await;
    }
    raft.stop().await;
    for round in 0..3 {
        let raft = start(&config).await;
        assert_eq!(slots(&raft), Vec::from_iter(1..=100 + round));
        put(&raft, 101 + round, 1).await.unwrap();
        raft.stop().await;
    }
    let names: Vec<_> = std::fs::read_dir(dir.path().join("log")).unwrap().collect();
    assert!(names.len() <= 4, "6 MB were written, {} segments are left", names.len());
}

#[tokio::test]
async fn nothing_readable_is_on_disk() {
    let dir = TempDir::new().unwrap();
    let config = limited(dir.path(), 1, 500);
    let raft = start(&config).await;
    put(&raft, 1, 100).await.unwrap();
    let snapshots = dir.path().join("snapshots");
    while std::fs::read_dir(&snapshots).unwrap().count() == 0 {
        tokio::task::yield_now().await;
    }
    raft.stop().await;
    for sub in ["log", "snapshots"] {
        for file in std::fs::read_dir(dir.path().join(sub)).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(20).any(|w| w == [b'x'; 20]));
        }
    }
}

/// Not a test of its own: what `acknowledged_writes_survive_sigkill` kills. Writes without end, and prints the number of
/// each write once it is answered.
#[test]
fn child_writes_until_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let config = limited(&PathBuf::from(dir), 25, 5);
        let raft = start(&config).await;
        let mut number = slots(&raft).last().map_or(1, |last| last + 1);
        loop {
            let batch = number..number + 4;
            let written = futures::future::join_all(batch.clone().map(|n| put(&raft, n, 30_000))).await;
            assert!(written.iter().all(Result::is_ok));
            println!("acknowledged {}", batch.end - 1);
            std::io::stdout().flush().unwrap();
            number = batch.end;
        }
    });
}

#[test]
fn acknowledged_writes_survive_sigkill_at_any_instant() {
    let dir = TempDir::new().unwrap();
    let mut acknowledged = 0;
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::child_writes_until_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Some rounds die while the log is opened, some after a few writes.
        let until = acknowledged + 4 * round;
        let mut seen = 0;
        while round % 3 != 0 && seen < until {
            let Some(Ok(line)) = lines.next() else { panic!("the child ended by itself") };
            if let Some(number) = line.split("acknowledged ").nth(1) {
                seen = number.parse().unwrap();
            }
        }
        if round % 3 == 0 {
            std::thread::sleep(Duration::from_millis(5 + round * 5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let late = lines.map_while(Result::ok).filter_map(|l| l.split("acknowledged ").nth(1)?.parse().ok()).max();
        acknowledged = acknowledged.max(seen).max(late.unwrap_or(0));

        let found = tokio::runtime::Runtime::new().unwrap().block_on(async {
            let raft = start(&config(dir.path())).await;
            let found = slots(&raft);
            raft.stop().await;
            found
        });
        assert!(found.len() as u64 >= acknowledged, "{acknowledged} acknowledged, {} found", found.len());
        assert_eq!(found, Vec::from_iter(1..=found.len() as u64), "no hole");
    }
    assert!(acknowledged > 50, "the test did write: {acknowledged}");
}

/// A small file system of its own, gone with it.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let options = format!("size={size}");
        nix::mount::mount(Some("tmpfs"), dir.path(), Some("tmpfs"), nix::mount::MsFlags::empty(), Some(&*options))
            .unwrap();
        Self(dir)
    }

    /// Takes all space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for block in [65_536, 4_096] {
            while file.write_all(&vec![1; block]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_everything_goes_on_once_there_is_space() {
    let disk = SmallDisk::new("16m");
    let config = limited(&disk.0.path().join("raft"), 10, 2);
    let raft = start(&config).await;
    put(&raft, 1, 100).await.unwrap();
    let filler = disk.fill();

    let mut number = 1;
    let refused = loop {
        match put(&raft, number + 1, 200_000).await {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, WriteError::Failed(WriteFailure::NoSpace(_))), "{refused}");
    assert!(refused.to_string().contains("No space left on device"), "{refused}");
    assert_eq!(slots(&raft), Vec::from_iter(1..=number), "reading goes on");
    assert!(raft.leadership().borrow().is_some(), "leading goes on");

    std::fs::remove_file(&filler).unwrap();
    put(&raft, number + 1, 100).await.unwrap();
    disk.fill();
    raft.stop().await;
    // Opening needs no space either.
    let raft = start(&config).await;
    assert_eq!(slots(&raft), Vec::from_iter(1..=number + 1));
    raft.stop().await;
}
