//! The keys that detach a client from a terminal. Pure.

use crate::error::{Error, Result};

/// A key sequence and how much of it has been typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

impl DetachKeys {
    /// `ctrl-p,ctrl-q`, `a,b`; empty is the first of these.
    pub fn parse(text: &str) -> Result<Self> {
        let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
        let keys = text.split(',').map(key).collect::<Option<_>>();
        let keys = keys.ok_or_else(|| Error::invalid(format!("Invalid detach keys ({text}) provided")))?;
        Ok(Self { keys, typed: 0 })
    }

    /// What of the input goes on to the process, and whether the sequence is complete. Keys that turn out not to be the
    /// sequence go on late.
    pub fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(input.len());
        for &byte in input {
            if byte == self.keys[self.typed] {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(&self.keys[..self.typed]);
            self.typed = 0;
            if byte == self.keys[0] {
                self.typed = 1;
            } else {
                pass.push(byte);
            }
        }
        (pass, false)
    }
}

fn key(text: &str) -> Option<u8> {
    if let [byte] = text.as_bytes() {
        return Some(*byte);
    }
    match text.strip_prefix("ctrl-")?.as_bytes() {
        [letter] if letter.is_ascii_lowercase() => Some(letter - b'a' + 1),
        [b'@'] => Some(0),
        [b'['] => Some(27),
        [b'\\'] => Some(28),
        [b']'] => Some(29),
        [b'^'] => Some(30),
        [b'_'] => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_detaches_even_in_pieces_and_anything_else_goes_on() {
        let mut keys = DetachKeys::parse("").unwrap();
        assert_eq!(keys.filter(b"ls\x10"), (b"ls".to_vec(), false));
        assert_eq!(keys.filter(b"\x11rest"), (vec![], true));
        assert_eq!(keys.filter(b"\x10x"), (b"\x10x".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10\x11"), (b"\x10".to_vec(), true));
    }

    #[test]
    fn sequences_are_read() {
        assert_eq!(DetachKeys::parse("a,ctrl-],ctrl-@").unwrap().keys, [b'a', 29, 0]);
        for bad in ["ctrl-", "ctrl-1", "ab", "a,,b"] {
            let error = DetachKeys::parse(bad).unwrap_err().to_string();
            assert_eq!(error, format!("Invalid detach keys ({bad}) provided"));
        }
    }
}
