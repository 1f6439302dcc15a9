//! The log against openraft's own suite, and against what crashes leave behind.

use std::path::Path;

use openraft::testing::{StoreBuilder, Suite, blank_ent};
use openraft::{CommittedLeaderId, RaftLogReader};
use tempfile::TempDir;

use super::*;
use crate::machine::Machine;
use crate::snapshot::SnapshotDir;

pub fn key() -> DataKey {
    DataKey::new(&[3; 32])
}

fn files() -> Arc<dyn Media> {
    Arc::new(crate::media::Files)
}

fn open(dir: &Path, key: DataKey) -> Result<LogStore, OpenError> {
    LogStore::open(files(), dir, key, &mut || panic!("nothing that was safe is damaged"))
}

struct Builder;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let dir = TempDir::new().unwrap();
        let log = open(dir.path(), key()).unwrap();
        let machine = Machine::open(SnapshotDir::open(files(), dir.path(), key()).unwrap()).unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn it_is_what_the_algorithm_expects_of_a_log_and_a_state_machine() {
    Suite::test_all(Builder).unwrap();
}

async fn append(log: &mut LogStore, entries: Vec<Entry>) {
    use openraft::storage::RaftLogStorageExt;
    log.blocking_append(entries).await.unwrap();
}

fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    range.map(|index| blank_ent::<Types>(1, 1, index)).collect()
}

async fn indexes(log: &mut LogStore) -> Vec<u64> {
    log.try_get_log_entries(..).await.unwrap().iter().map(|e| e.log_id.index).collect()
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path());
    files.filter(|f| f.extension().is_some_and(|e| e == "log")).collect()
}

fn newest(dir: &Path) -> std::path::PathBuf {
    segments(dir).into_iter().max().unwrap()
}

fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), key()).unwrap();
    let vote = Vote::new(4, 7);
    log.save_vote(&vote).await.unwrap();
    append(&mut log, entries(0..=9)).await;
    log.truncate(log_id(8)).await.unwrap();
    append(&mut log, entries(8..=8)).await;
    log.purge(log_id(2)).await.unwrap();
    drop(log);

    let mut log = open(dir.path(), key()).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(indexes(&mut log).await, [3, 4, 5, 6, 7, 8]);
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(2)), Some(log_id(8))));
}

#[tokio::test]
async fn a_torn_last_record_is_cut_wherever_it_was_torn_and_the_log_goes_on() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), key()).unwrap();
    append(&mut log, entries(0..=4)).await;
    let whole = log.size();
    append(&mut log, entries(5..=5)).await;
    let end = log.size();
    drop(log);

    for at in whole..end {
        for zeroed in [true, false] {
            let dir = copy(dir.path());
            let path = newest(dir.path());
            let mut bytes = std::fs::read(&path).unwrap();
            if zeroed {
                bytes[at as usize..].fill(0);
            } else {
                bytes[at as usize] ^= 0x10;
            }
            std::fs::write(&path, bytes).unwrap();
            let mut log = open(dir.path(), key()).unwrap();
            assert_eq!(indexes(&mut log).await, [0, 1, 2, 3, 4], "torn at {at}, zeroed: {zeroed}");
            append(&mut log, entries(5..=6)).await;
            drop(log);
            let mut log = open(dir.path(), key()).unwrap();
            assert_eq!(indexes(&mut log).await, [0, 1, 2, 3, 4, 5, 6]);
        }
    }
}

#[tokio::test]
async fn old_segments_go_once_purged_and_entries_beyond_memory_are_read_back() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), key()).unwrap();
    let count = || segments(dir.path()).len();
    for index in 0..40 {
        log.reserve(1024 * 1024).await.unwrap();
        append(&mut log, vec![large(index)]).await;
    }
    assert!(count() > 4);
    assert!(log.lock().evicted > 0 && log.lock().cached <= CACHE);
    assert_eq!(log.try_get_log_entries(3..5).await.unwrap(), vec![large(3), large(4)]);
    assert_eq!(log.limited_get_log_entries(0, 40).await.unwrap().len(), 2, "a batch is bounded");
    log.purge(log_id(38)).await.unwrap();
    assert!(count() <= 2);
    drop(log);
    let mut log = open(dir.path(), key()).unwrap();
    assert_eq!(indexes(&mut log).await, [39]);
    append(&mut log, entries(40..=40)).await;
    assert_eq!(indexes(&mut log).await, [39, 40]);
}

fn large(index: u64) -> Entry {
    let mut entry = blank_ent::<Types>(1, 1, index);
    let addr = "x".repeat(600 * 1024);
    let member = crate::types::Member { node_id: None, addr, ..crate::types::Member::default() };
    let voters = vec![std::collections::BTreeSet::from([1])];
    let members = openraft::Membership::new(voters, std::collections::BTreeMap::from([(1, member)]));
    entry.payload = openraft::EntryPayload::Membership(members);
    entry
}

#[tokio::test]
async fn damage_before_the_tail_and_a_wrong_key_are_errors_and_change_nothing() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), key()).unwrap();
    for index in 0..8 {
        log.reserve(1024 * 1024).await.unwrap();
        append(&mut log, vec![large(index)]).await;
    }
    drop(log);
    let other = open(dir.path(), DataKey::new(&[4; 32])).unwrap_err();
    assert!(matches!(other, OpenError::Segment(segment::SegmentError::Key { .. })), "{other}");

    let first = dir.path().join(segment::file_name(1));
    let good = std::fs::read(&first).unwrap();
    let mut bad = good.clone();
    bad[1000] ^= 1;
    std::fs::write(&first, &bad).unwrap();
    let error = open(dir.path(), key()).unwrap_err();
    assert!(matches!(error, OpenError::Segment(segment::SegmentError::Damaged { .. })), "{error}");
    std::fs::write(&first, good).unwrap();
    assert_eq!(indexes(&mut open(dir.path(), key()).unwrap()).await, Vec::from_iter(0..8));

    std::fs::remove_file(&first).unwrap();
    assert!(open(dir.path(), key()).is_err(), "a missing beginning is noticed");
}

#[tokio::test]
async fn damage_to_what_was_safe_is_told_before_it_is_cut_and_the_vote_survives_it() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), key()).unwrap();
    append(&mut log, entries(0..=2)).await;
    append(&mut log, entries(3..=4)).await;
    let vote = Vote::new(4, 7);
    log.save_vote(&vote).await.unwrap();
    let place = log.lock().slots[3].place.clone().unwrap().offset as usize;
    drop(log);
    let path = newest(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[place + 20] ^= 1;
    std::fs::write(&path, &bytes).unwrap();

    let refused = || Err(io::Error::other("no space"));
    assert!(LogStore::open(files(), dir.path(), key(), &mut { refused }).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "what cannot be told is not cut");
    let mut told = 0;
    let mut tell = || {
        told += 1;
        Ok(())
    };
    let mut log = LogStore::open(files(), dir.path(), key(), &mut tell).unwrap();
    assert_eq!(told, 1);
    assert_eq!(indexes(&mut log).await, [0, 1, 2]);
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    append(&mut log, entries(3..=3)).await;
    drop(log);
    assert_eq!(indexes(&mut open(dir.path(), key()).unwrap()).await, [0, 1, 2, 3]);
}
