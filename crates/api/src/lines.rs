//! Log lines on their way to a client: what may stand before a line, and how far back a client wants to read
//! (swarm-semantics 12).

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::{Answer, ApiError};
use crate::query::Query;
use crate::stream::{Channel, frame};

/// What Go's `url.QueryEscape` leaves as it is (it writes a space as `+`).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

/// How lines are written.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// With the time before each line.
    pub timestamps: bool,
    /// With the attributes before each line.
    pub details: bool,
    /// Bytes as they are, without frames.
    pub tty: bool,
}

impl Style {
    /// One line as the client gets it.
    pub fn line(&self, channel: Channel, time: Timestamp, attrs: &BTreeMap<String, String>, line: &[u8]) -> Bytes {
        let mut text = Vec::with_capacity(line.len() + 64);
        if self.timestamps {
            text.extend_from_slice(format!("{time:.9} ").as_bytes());
        }
        if self.details {
            text.extend_from_slice(details(attrs).as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(line);
        if self.tty { text.into() } else { frame(channel, &text) }
    }

    /// An error in the middle of the stream.
    pub fn error(&self, message: &str) -> Bytes {
        let text = format!("Error grabbing logs: {message}\n");
        if self.tty { text.into() } else { frame(Channel::Error, text.as_bytes()) }
    }
}

fn details(attrs: &BTreeMap<String, String>) -> String {
    let escape = |text: &str| utf8_percent_encode(text, PLAIN).to_string().replace(' ', "+");
    attrs.iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect::<Vec<_>>().join(",")
}

/// A time parameter: seconds since 1970, with or without a fraction, or RFC 3339.
///
/// # Errors
/// 400 where it is neither.
pub fn time(query: &Query, name: &str) -> Answer<Option<Timestamp>> {
    let Some(text) = query.get(name) else { return Ok(None) };
    match parse_time(text) {
        // What clients send for "no limit".
        Some(time) if time == Timestamp::UNIX_EPOCH => Ok(None),
        Some(time) => Ok(Some(time)),
        None => {
            Err(ApiError::bad_request(format!("invalid value for \"{name}\": failed to parse value as time: {text}")))
        }
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Timestamp::new(seconds.parse().ok()?, digits.parse().ok()?).ok()
}

/// How many lines from the end of a container's log; what is no number means all of them, as in Docker.
pub fn container_tail(query: &Query) -> Option<u64> {
    query.get("tail").and_then(|t| t.parse().ok())
}

/// How many lines from the end of a service's log.
///
/// # Errors
/// 500 with Docker's texts where it is neither a number nor `all`.
pub fn service_tail(query: &Query) -> Answer<Option<u64>> {
    match query.get("tail") {
        None | Some("all") => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(lines) if lines < 0 => Err(ApiError::internal("negative tail values not supported")),
            Ok(lines) => Ok(Some(lines.unsigned_abs())),
            Err(_) => Err(ApiError::internal("tail value must be a positive integer or \"all\"")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_time_and_details_before_it() {
        let style = Style { timestamps: true, details: true, tty: true };
        let attrs = BTreeMap::from([("a b".to_owned(), "c/d".to_owned()), ("e".to_owned(), "f".to_owned())]);
        let line = style.line(Channel::Stdout, Timestamp::new(1, 5).unwrap(), &attrs, b"hello\n");
        assert_eq!(&line[..], b"1970-01-01T00:00:01.000000005Z a+b=c%2Fd,e=f hello\n");
    }

    #[test]
    fn times_have_three_forms_and_zero_is_no_limit() {
        let read = |text: &str| time(&Query::parse(&format!("since={text}")), "since");
        assert_eq!(read("1.5").unwrap(), Some(Timestamp::new(1, 500_000_000).unwrap()));
        assert_eq!(read("1970-01-01T00:00:02Z").unwrap(), Some(Timestamp::new(2, 0).unwrap()));
        assert_eq!(read("0.000000000").unwrap(), None);
        assert_eq!(read("soon").unwrap_err().status, 400);
    }

    #[test]
    fn tails_of_services_are_checked_and_those_of_containers_are_not() {
        let query = |text: &str| Query::parse(&format!("tail={text}"));
        assert_eq!(service_tail(&query("3")).unwrap(), Some(3));
        assert_eq!(service_tail(&query("-3")).unwrap_err().status, 500);
        assert_eq!(service_tail(&query("x")).unwrap_err().status, 500);
        assert_eq!((container_tail(&query("3")), container_tail(&query("all"))), (Some(3), None));
    }
}
