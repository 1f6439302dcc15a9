//! POSIX extended headers: records of `length key=value`. Pure.

use std::io;

use super::sparse::SparseHeader;

const XATTR: &str = "SCHILY.xattr.";

/// What an extended header says about the entry that follows it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Extensions {
    pub name: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub modified: Option<(i64, i64)>,
    pub xattrs: Vec<(String, Vec<u8>)>,
    pub sparse: SparseHeader,
}

impl Extensions {
    pub fn parse(mut content: &[u8]) -> io::Result<Self> {
        let mut extensions = Self::default();
        while !content.is_empty() {
            let (record, rest) = split_record(content).ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            let key = std::str::from_utf8(&record[..equals]).map_err(|_| malformed())?;
            extensions.add(key, &record[equals + 1..]).ok_or_else(malformed)?;
            content = rest;
        }
        if let Some(name) = extensions.sparse.name.take() {
            extensions.name = Some(name);
        }
        Ok(extensions)
    }

    fn add(&mut self, key: &str, value: &[u8]) -> Option<()> {
        match key {
            "path" => self.name = Some(value.to_vec()),
            "linkpath" => self.link = Some(value.to_vec()),
            "size" => self.size = Some(number(value)?),
            "uid" => self.uid = Some(number(value)?),
            "gid" => self.gid = Some(number(value)?),
            "mtime" => self.modified = Some(time(value)?),
            key => match key.strip_prefix(XATTR) {
                Some(name) => self.xattrs.push((name.to_owned(), value.to_vec())),
                None => self.sparse.add(key, value)?,
            },
        }
        Some(())
    }
}

/// Splits off the first record, without its length and line feed. The value may contain anything.
fn split_record(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = content.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&content[..space])?).ok()?;
    let (record, rest) = (length > space + 1).then(|| content.split_at_checked(length))??;
    Some((record[space + 1..].strip_suffix(b"\n")?, rest))
}

pub(super) fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `[-]seconds[.fraction]`.
fn time(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos: i64 = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").get(..9)?.parse().ok()? };
    let whole: i64 = seconds.parse().ok()?;
    match (text.starts_with('-'), nanos) {
        (false, nanos) => Some((whole, nanos)),
        (true, 0) => Some((whole, 0)),
        (true, nanos) => Some((whole - 1, 1_000_000_000 - nanos)),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a malformed extended header")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_contain_line_feeds_and_equals_signs() {
        let parsed = Extensions::parse(b"35 SCHILY.xattr.user.x=a\nb=\0 value\n12 uid=1000\n").expect("parses");
        assert_eq!(parsed.xattrs, [("user.x".to_owned(), b"a\nb=\0 value"[..].to_vec())]);
        assert_eq!(parsed.uid, Some(1000));
    }

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"x"), None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for content in [&b"x"[..], b"5 a=b", b"99 a=b\n", b"0 a=b\n", b"6 abcd\n", b"7 uid=x\n", b"3 \n", b"2 a=b\n"] {
            assert!(Extensions::parse(content).is_err(), "{:?}", String::from_utf8_lossy(content));
        }
    }
}
