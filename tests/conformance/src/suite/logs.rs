//! Logs of containers.

use serde_json::{Value, json};

use crate::cx::{Cx, text};
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, logs_come_back_by_stream),
    case!(Engine, logs_tail_and_timestamps_and_since),
    case!(Engine, logs_are_followed_to_the_end),
    case!(Engine, logs_need_a_stream_and_a_sensible_tail),
    case!(Engine, a_long_line_survives),
    case!(Engine, logs_of_a_terminal_are_raw),
];

/// The seconds since 1970, with the fraction, of a time as logs print it.
pub fn unix_seconds(time: &str) -> Result<String> {
    let bad = || Failure::wrong(format!("not a time: {time:?}"));
    let number =
        |range: std::ops::Range<usize>| time.get(range).and_then(|digits| digits.parse::<i64>().ok()).ok_or_else(bad);
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // days since 1970 in the proleptic Gregorian calendar, with years that begin in March
    let (years, months) = (if month <= 2 { year - 1 } else { year }, (month + 9) % 12);
    let days = 365 * years + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day - 1 - 719_468;
    let fraction = time.get(19..).unwrap_or_default().trim_end_matches('Z');
    Ok(format!("{}{fraction}", ((days * 24 + hour) * 60 + minute) * 60 + second))
}

/// The nanoseconds since 1970 of a time as the engine prints it.
pub fn unix_nanos(time: &Value) -> Result<i128> {
    let seconds = unix_seconds(&text(time))?;
    let (whole, fraction) = seconds.split_once('.').unwrap_or((&seconds, ""));
    Ok(whole.parse::<i128>()? * 1_000_000_000 + format!("{fraction:0<9}").parse::<i128>()?)
}

fn logs_come_back_by_stream(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", json!({"Cmd": ["sh", "-c", "echo out; echo err >&2"]}))?;
    same!(cx.wait(&id)?, 0, "exit code");
    let both = cx.logs(&id, "stdout=1&stderr=1")?;
    same!((both.out.as_str(), both.err.as_str()), ("out\n", "err\n"), "both streams");
    let only = cx.logs(&id, "stderr=1")?;
    same!((only.out.as_str(), only.err.as_str()), ("", "err\n"), "only one stream");
    Ok(())
}

fn logs_tail_and_timestamps_and_since(cx: &Cx<'_>) -> Result<()> {
    let id =
        cx.run("c", json!({"Cmd": ["sh", "-c", "for i in 1 2 3; do echo line $i; done; sleep 1.2; echo late"]}))?;
    cx.wait(&id)?;
    same!(cx.logs(&id, "stdout=1&tail=2")?.out, "line 3\nlate\n", "the last two");
    same!(cx.logs(&id, "stdout=1&tail=0")?.out, "", "the last none");
    let stamped = cx.logs(&id, "stdout=1&timestamps=1")?.out;
    let last = stamped.lines().last().unwrap_or_default();
    let (time, said) = last.split_once(' ').unwrap_or_default();
    same!(said, "late", "the last line");
    same!((time.len(), &time[10..11], &time[29..]), (30, "T", "Z"), "form of {time:?}");
    let clock = unix_seconds(time)?;
    same!(cx.logs(&id, &format!("stdout=1&since={clock}"))?.out, "late\n", "since the last line");
    let (second, _) = clock.split_once('.').unwrap_or((&clock, ""));
    ensure!(!cx.logs(&id, &format!("stdout=1&until={second}"))?.out.contains("late"), "a line after `until`");
    Ok(())
}

fn logs_are_followed_to_the_end(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", json!({"Tty": true, "Cmd": ["sh", "-c", "echo first; while ! test -e /tmp/go; do sleep 0.05; done; echo second"]}))?;
    let mut stream = cx.engine.open("GET", &format!("/containers/{id}/logs?stdout=1&follow=1"), &[], b"")?;
    same!(stream.line()?.unwrap_or_default().trim_end(), "first", "first line");
    cx.exec(&id, &["touch", "/tmp/go"], json!({}))?;
    same!(stream.line()?.unwrap_or_default().trim_end(), "second", "second line");
    same!(stream.line()?, None, "after the container's end");
    Ok(())
}

fn logs_need_a_stream_and_a_sensible_tail(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create("c", json!({"Cmd": ["true"]}))?;
    cx.get(&format!("/containers/{id}/logs"))?.refused(400, "you must choose at least one stream")?;
    cx.get("/containers/nosuchcontainer/logs?stdout=1")?.refused(404, "No such container: nosuchcontainer")?;
    same!(cx.logs(&id, "stdout=1")?.out, "", "log of a container that never ran");
    Ok(())
}

fn a_long_line_survives(cx: &Cx<'_>) -> Result<()> {
    let line = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end";
    let id = cx.run("c", json!({"Cmd": ["sh", "-c", line]}))?;
    cx.wait(&id)?;
    let out = cx.logs(&id, "stdout=1")?.out;
    same!(out.len(), 100_005, "bytes of output");
    ensure!(out.ends_with("x\nend\n"), "ends with {:?}", &out[out.len() - 10..]);
    same!(cx.logs(&id, "stdout=1&tail=1")?.out, "end\n", "last line");
    Ok(())
}

fn logs_of_a_terminal_are_raw(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", json!({"Tty": true, "Cmd": ["sh", "-c", "test -t 1 && echo terminal"]}))?;
    cx.wait(&id)?;
    same!(cx.get(&format!("/containers/{id}/logs?stdout=1"))?.ok()?.text(), "terminal\r\n", "output");
    Ok(())
}
