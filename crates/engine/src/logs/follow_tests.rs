use std::io::Write;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::*;
use crate::options::LogsOptions;

fn entry(second: i64, text: &str) -> String {
    let time = jiff::Timestamp::from_second(second).unwrap();
    format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"{time}\"}}\n")
}

fn append(path: &Path, text: &str) {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

struct Followed {
    _dir: tempfile::TempDir,
    path: PathBuf,
    seen: watch::Sender<Seen>,
    lines: crate::logs::Batches,
    ready: std::collections::VecDeque<LogLine>,
}

impl Followed {
    fn start(before: &str, options: LogsOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c-json.log");
        append(&path, before);
        let seen = watch::Sender::new(Seen { running: true, ..Seen::default() });
        let (out, lines) = mpsc::channel(8);
        let follow = options.follow.then(|| seen.subscribe());
        let reader = Reader { path: path.clone(), options: LogsOptions { stdout: true, ..options }, out };
        tokio::spawn(async move { reader.run(follow).await.unwrap() });
        Self { _dir: dir, path, seen, lines, ready: Default::default() }
    }

    async fn next(&mut self) -> Option<String> {
        while self.ready.is_empty() {
            self.ready.extend(self.lines.recv().await?.unwrap());
        }
        let line = self.ready.pop_front()?;
        Some(String::from_utf8(line.line.to_vec()).unwrap().trim_end().to_owned())
    }

    async fn rest(mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(line) = self.next().await {
            all.push(line);
        }
        all
    }
}

#[tokio::test]
async fn since_until_and_tail_bound_what_is_read() {
    let log: String = (1..=9).map(|n| entry(n, &n.to_string())).collect();
    let at = |second| Some(jiff::Timestamp::from_second(second).unwrap());
    let options = LogsOptions { since: at(3), until: at(5), ..LogsOptions::default() };
    assert_eq!(Followed::start(&log, options).rest().await, ["3", "4", "5"]);
    let options = LogsOptions { tail: Some(2), ..LogsOptions::default() };
    assert_eq!(Followed::start(&log, options).rest().await, ["8", "9"]);
    let options = LogsOptions { tail: Some(0), ..LogsOptions::default() };
    assert!(Followed::start(&log, options).rest().await.is_empty());
    let options = LogsOptions { stdout: false, ..LogsOptions::default() };
    assert_eq!(Followed::start(&log, options).rest().await.len(), 9);
}

#[tokio::test]
async fn a_followed_log_gives_each_line_once_through_torn_writes_and_rotations() {
    let mut log = Followed::start(&entry(1, "one"), LogsOptions { follow: true, ..LogsOptions::default() });
    assert_eq!(log.next().await.unwrap(), "one");
    let two = entry(2, "two");
    append(&log.path, &two[..20]);
    append(&log.path, &two[20..]);
    assert_eq!(log.next().await.unwrap(), "two");
    // two rotations before the reader looks again
    append(&log.path, &entry(3, "three"));
    let name = |n: u32| PathBuf::from(format!("{}.{n}", log.path.display()));
    fs::rename(&log.path, name(1)).unwrap();
    append(&log.path, &entry(4, "four"));
    fs::rename(name(1), name(2)).unwrap();
    fs::rename(&log.path, name(1)).unwrap();
    append(&log.path, &entry(5, "five"));
    for expected in ["three", "four", "five"] {
        assert_eq!(log.next().await.unwrap(), expected);
    }
    append(&log.path, &entry(6, "last"));
    log.seen.send_modify(|seen| seen.exits += 1);
    assert_eq!(log.rest().await, ["last"], "what was written before the end is read after it");
}

#[tokio::test]
async fn a_truncated_log_is_read_from_its_beginning() {
    let mut log = Followed::start(&entry(1, "one"), LogsOptions { follow: true, ..LogsOptions::default() });
    assert_eq!(log.next().await.unwrap(), "one");
    File::create(&log.path).unwrap();
    append(&log.path, &entry(2, "2"));
    assert_eq!(log.next().await.unwrap(), "2");
    log.seen.send_modify(|seen| seen.removed = true);
    assert!(log.rest().await.is_empty());
}
