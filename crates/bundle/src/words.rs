//! System errors in the words that Docker's clients know, which are Go's. Pure.

use std::io;

/// `no such file or directory`.
pub fn io(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => {
            let text = nix::errno::Errno::from_raw(code).desc();
            let mut chars = text.chars();
            chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
        }
        None => error.to_string(),
    }
}
