//! Signals by name or number. Pure.

use nix::libc;
use nix::sys::signal::Signal;

use crate::error::{Error, Result};

/// `SIGTERM`, `term`, `15`, `RTMIN+3`.
///
/// # Errors
/// 400 `invalid signal: …` where there is none such.
pub fn parse(text: &str) -> Result<i32> {
    let invalid = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(invalid()) };
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = real_time(bare) {
        return Ok(number);
    }
    let name = match bare {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    let signal: Signal = format!("SIG{name}").parse().map_err(|_| invalid())?;
    Ok(signal as i32)
}

/// The number as an event's `signal` attribute has it.
pub fn text(signal: i32) -> String {
    signal.to_string()
}

/// glibc keeps two real-time signals to itself: the first that programs see is 34.
fn real_time(name: &str) -> Option<i32> {
    let number = match name {
        "RTMIN" => 34,
        "RTMAX" => 64,
        _ => {
            if let Some(offset) = name.strip_prefix("RTMIN+") {
                34 + offset.parse::<i32>().ok()?
            } else {
                64 - name.strip_prefix("RTMAX-")?.parse::<i32>().ok()?
            }
        }
    };
    (34..=64).contains(&number).then_some(number)
}

/// SIGKILL.
pub const KILL: i32 = libc::SIGKILL;
/// SIGTERM, what stops a container that names nothing else.
pub const TERM: i32 = libc::SIGTERM;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_real_time_signals() {
        for (text, number) in
            [("SIGTERM", 15), ("term", 15), ("9", 9), ("Kill", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63), ("SIGCLD", 17)]
        {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "SIG", "NOPE", "RTMIN+31", "-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
