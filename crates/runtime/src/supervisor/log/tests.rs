use std::collections::BTreeMap;

use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn config(dir: &Path) -> JsonFileLog {
    JsonFileLog { path: dir.join("c-json.log"), max_size: None, max_file: 1, compress: false, attrs: BTreeMap::new() }
}

/// The `log` fields of a file.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let entry = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
    text.lines().map(|line| entry(line)["log"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_line_is_an_entry_in_dockers_words() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut log = Log::open(&config).unwrap();
    log.write(Stream::Stdout, b"a <b> \"c\"\t\x01\xff\n", NOW);
    log.write(Stream::Stderr, b"oh", NOW);
    assert_eq!(log.finish(NOW), None);
    let text = fs::read_to_string(&config.path).unwrap();
    assert_eq!(
        text,
        "{\"log\":\"a \\u003cb\\u003e \\\"c\\\"\\t\\u0001\\ufffd\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:00Z\"}\n\
         {\"log\":\"oh\",\"stream\":\"stderr\",\"time\":\"1970-01-01T00:00:00Z\"}\n"
    );
}

#[test]
fn streams_keep_their_unfinished_lines_apart_and_line_separators_survive() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut log = Log::open(&config).unwrap();
    log.write(Stream::Stdout, b"on", NOW);
    log.write(Stream::Stderr, b"err\n", NOW);
    log.write(Stream::Stdout, "e\u{2028}\u{2029}é\n".as_bytes(), NOW);
    log.finish(NOW);
    assert_eq!(lines(&config.path), ["err\n", "one\u{2028}\u{2029}é\n"]);
}

#[test]
fn a_long_line_is_split_into_parts_that_make_it_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut log = Log::open(&config).unwrap();
    let line = "x".repeat(2 * PART + 5);
    for piece in line.as_bytes().chunks(1000) {
        log.write(Stream::Stdout, piece, NOW);
    }
    log.write(Stream::Stdout, b"\n\n", NOW);
    log.finish(NOW);
    let parts = lines(&config.path);
    assert_eq!(parts.iter().map(String::len).collect::<Vec<_>>(), [PART, PART, 6, 1]);
    assert_eq!(parts[..3].concat(), format!("{line}\n"));
}

#[test]
fn attributes_are_in_every_line() {
    let dir = tempfile::tempdir().unwrap();
    let config = JsonFileLog { attrs: BTreeMap::from([("tag".into(), "t1".into())]), ..config(dir.path()) };
    let mut log = Log::open(&config).unwrap();
    log.write(Stream::Stdout, b"x\n", NOW);
    log.finish(NOW);
    let text = fs::read_to_string(&config.path).unwrap();
    assert!(text.contains("\"stream\":\"stdout\",\"attrs\":{\"tag\":\"t1\"},\"time\""), "{text}");
}

#[test]
fn rotation_keeps_the_newest_files_whole_lines_only_and_none_too_big() {
    for compress in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = JsonFileLog { max_size: Some(1000), max_file: 3, compress, ..config(dir.path()) };
        let mut log = Log::open(&config).unwrap();
        let mut all = String::new();
        for number in 0..100 {
            all.push_str(&format!("line {number}\n"));
        }
        log.write(Stream::Stdout, all.as_bytes(), NOW);
        assert_eq!(log.finish(NOW), None);
        let mut read = Vec::new();
        for number in [2, 1] {
            let plain = rotated(&config.path, number, "");
            if compress {
                let mut decoder =
                    flate2::read::GzDecoder::new(File::open(rotated(&config.path, number, ".gz")).unwrap());
                io::copy(&mut decoder, &mut File::create(&plain).unwrap()).unwrap();
            }
            assert!(plain.metadata().unwrap().len() <= 1000);
            read.extend(lines(&plain));
        }
        read.extend(lines(&config.path));
        let first = 100 - read.len();
        let expected: Vec<String> = (first..100).map(|number| format!("line {number}\n")).collect();
        assert_eq!(read, expected, "the newest lines, in order, none missing");
        assert!(!rotated(&config.path, 3, "").exists() && !rotated(&config.path, 3, ".gz").exists());
    }
}

#[test]
fn one_file_is_truncated_when_full_and_a_reopened_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = JsonFileLog { max_size: Some(200), ..config(dir.path()) };
    let mut log = Log::open(&config).unwrap();
    log.write(Stream::Stdout, b"1\n2\n", NOW);
    log.finish(NOW);
    let mut log = Log::open(&config).unwrap();
    log.write(Stream::Stdout, b"3\n4\n", NOW);
    log.finish(NOW);
    assert_eq!(lines(&config.path), ["4\n"]);
}

#[test]
fn a_log_that_cannot_be_written_is_told_and_does_not_panic() {
    let mut log = Log::open(&JsonFileLog { path: "/dev/full".into(), ..config(Path::new("/")) }).unwrap();
    log.write(Stream::Stdout, b"lost\n", NOW);
    let trouble = log.finish(NOW).unwrap();
    assert!(trouble.contains("/dev/full") && trouble.contains("No space left"), "{trouble}");
}
