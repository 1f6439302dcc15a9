//! The container's log in Docker's `json-file` format.
//!
//! A line of output is one line of the file. A longer one than 16 KiB is written in parts, of which only the last ends
//! with `\n`: so a reader puts them together again. Written at once, in one system call per piece of output; a log
//! that cannot be written never stops the container, the loss is told once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::job::JsonFileLog;

/// Written at once: many short lines take many times the space of what was read.
const BATCH: usize = 256 << 10;
/// The longest part of a line.
const PART: usize = 16 << 10;

/// The stream that a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug)]
pub(super) struct Log {
    config: JsonFileLog,
    /// `"attrs":{…},` or nothing.
    attrs: String,
    file: Option<File>,
    size: u64,
    /// Whole lines of the file, not yet written.
    batch: Vec<u8>,
    /// The output after the last line's end, by stream.
    rest: [Vec<u8>; 2],
    clock: Clock,
    /// The first thing that went wrong.
    trouble: Option<String>,
}

impl Log {
    /// Opens the file for appending: a container that is started again goes on with its log.
    pub(super) fn open(config: &JsonFileLog) -> io::Result<Self> {
        let file = append(&config.path)?;
        let attrs = match config.attrs.is_empty() {
            true => String::new(),
            false => format!("\"attrs\":{},", serde_json::to_string(&config.attrs)?),
        };
        Ok(Self {
            size: file.metadata()?.len(),
            config: config.clone(),
            attrs,
            file: Some(file),
            batch: Vec::new(),
            rest: [Vec::new(), Vec::new()],
            clock: Clock::default(),
            trouble: None,
        })
    }

    /// Logs a piece of output, read at `now`.
    pub(super) fn write(&mut self, stream: Stream, mut data: &[u8], now: Timestamp) {
        self.clock.set(now);
        let mut rest = mem::take(&mut self.rest[stream as usize]);
        while !data.is_empty() {
            let room = &data[..data.len().min(PART - rest.len())];
            let (taken, ended) = match room.iter().position(|&byte| byte == b'\n') {
                Some(at) => (at, true),
                None => (room.len(), false),
            };
            rest.extend_from_slice(&data[..taken]);
            data = &data[taken + usize::from(ended)..];
            if ended || rest.len() == PART {
                self.entry(stream, &rest, ended);
                rest.clear();
            }
        }
        self.rest[stream as usize] = rest;
        self.flush();
    }

    /// Logs what came after the last line's end. Returns what went wrong, ever.
    pub(super) fn finish(&mut self, now: Timestamp) -> Option<String> {
        self.clock.set(now);
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = mem::take(&mut self.rest[stream as usize]);
            if !rest.is_empty() {
                self.entry(stream, &rest, false);
            }
        }
        self.flush();
        self.trouble.clone()
    }

    fn entry(&mut self, stream: Stream, line: &[u8], ended: bool) {
        let start = self.batch.len();
        self.batch.extend_from_slice(b"{\"log\":\"");
        escape(line, &mut self.batch);
        if ended {
            self.batch.extend_from_slice(b"\\n");
        }
        let stream: &[u8] = match stream {
            Stream::Stdout => b"\",\"stream\":\"stdout\",",
            Stream::Stderr => b"\",\"stream\":\"stderr\",",
        };
        self.batch.extend_from_slice(stream);
        self.batch.extend_from_slice(self.attrs.as_bytes());
        self.batch.extend_from_slice(b"\"time\":\"");
        self.batch.extend_from_slice(self.clock.text.as_bytes());
        self.batch.extend_from_slice(b"\"}\n");
        self.keep_below_limit(start);
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// Rotates before the entry that begins at `start` in the batch, if it would make the file too big.
    fn keep_below_limit(&mut self, start: usize) {
        let Some(max) = self.config.max_size else { return };
        let before = self.size + start as u64;
        if before > 0 && self.size + self.batch.len() as u64 > max {
            let entry = self.batch.split_off(start);
            self.flush();
            if let Err(err) = self.rotate() {
                self.note(&err);
            }
            self.batch = entry;
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.file.is_none() {
            match append(&self.config.path) {
                Ok(file) => self.file = Some(file),
                Err(err) => self.note(&err),
            }
        }
        if let Some(file) = &mut self.file {
            match file.write_all(&self.batch) {
                Ok(()) => self.size += self.batch.len() as u64,
                Err(err) => {
                    self.size = file.metadata().map_or(self.size, |meta| meta.len());
                    self.note(&err);
                }
            }
        }
        self.batch.clear();
    }

    /// `PATH` becomes `PATH.1`, that becomes `PATH.2`; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let path = self.config.path.clone();
        let keep = self.config.max_file.max(1) - 1;
        if keep == 0 {
            File::create(&path)?;
        } else {
            for from in (1..keep).rev() {
                for suffix in ["", ".gz"] {
                    rename_if_there(&rotated(&path, from, suffix), &rotated(&path, from + 1, suffix))?;
                }
            }
            let newest = rotated(&path, 1, "");
            fs::rename(&path, &newest)?;
            if self.config.compress {
                compress(&newest, &rotated(&path, 1, ".gz"))?;
            }
        }
        self.file = Some(append(&path)?);
        self.size = 0;
        Ok(())
    }

    fn note(&mut self, err: &io::Error) {
        if self.trouble.is_none() {
            let text = format!("log {}: {err}", self.config.path.display());
            eprintln!("{text}");
            self.trouble = Some(text);
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

fn rotated(path: &Path, number: u32, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}{suffix}"));
    name.into()
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(File::create(to)?, flate2::Compression::fast());
    io::copy(&mut File::open(from)?, &mut encoder)?;
    encoder.finish()?;
    fs::remove_file(from)
}

/// The inside of a JSON string, with the escapes that Docker uses. What is not UTF-8 becomes U+FFFD.
fn escape(line: &[u8], out: &mut Vec<u8>) {
    for chunk in line.utf8_chunks() {
        let text = chunk.valid().as_bytes();
        let mut start = 0;
        for (at, &byte) in text.iter().enumerate() {
            let plain = (0x20..0x80).contains(&byte) && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&');
            // U+2028 and U+2029 end lines in JavaScript
            let separator = byte == 0xe2 && matches!(text.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9]));
            if plain || (byte >= 0x80 && !separator) {
                continue;
            }
            out.extend_from_slice(&text[start..at]);
            start = at + 1;
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0xe2 => {
                    start = at + 3;
                    out.extend_from_slice(if text[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                }
                other => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    let (high, low) = (HEX[usize::from(other >> 4)], HEX[usize::from(other & 15)]);
                    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                }
            }
        }
        out.extend_from_slice(&text[start..]);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// The time as text, made anew only when it has changed.
#[derive(Debug, Default)]
struct Clock {
    now: Option<Timestamp>,
    text: String,
}

impl Clock {
    fn set(&mut self, now: Timestamp) {
        if self.now != Some(now) {
            self.now = Some(now);
            self.text = now.to_string();
        }
    }
}

#[cfg(test)]
mod tests;
