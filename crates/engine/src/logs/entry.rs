//! One line of a `json-file` log. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

use crate::options::{LogLine, StdStream};

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    time: jiff::Timestamp,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// Reads a line; `None`: it is none (torn by a crash of the machine).
pub(super) fn parse(line: &[u8]) -> Option<LogLine> {
    let entry: Entry<'_> = serde_json::from_slice(line).ok()?;
    let stream = match &*entry.stream {
        "stdout" => StdStream::Stdout,
        "stderr" => StdStream::Stderr,
        _ => return None,
    };
    Some(LogLine { stream, time: entry.time, line: Bytes::from(entry.log.into_owned()), attrs: entry.attrs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_and_a_torn_one_is_skipped() {
        let line =
            br#"{"log":"a \"b\"\n","stream":"stderr","attrs":{"k":"v"},"time":"2026-01-02T03:04:05.000000006Z"}"#;
        let parsed = parse(line).unwrap();
        assert_eq!((&parsed.line[..], parsed.stream), (&b"a \"b\"\n"[..], StdStream::Stderr));
        assert_eq!(parsed.time.to_string(), "2026-01-02T03:04:05.000000006Z");
        assert_eq!(parsed.attrs["k"], "v");
        assert_eq!(parse(&line[..30]), None);
        assert_eq!(parse(b"\0\0\0\0"), None);
    }
}
