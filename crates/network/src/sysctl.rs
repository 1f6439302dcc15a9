//! Kernel parameters of the calling thread's network namespace.

use std::{fs, io, path::PathBuf};

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(key)
}

/// The value without its line end; `None` where the kernel has no such parameter.
pub fn read(key: &str) -> Option<String> {
    fs::read_to_string(path(key)).ok().map(|text| text.trim().to_owned())
}

/// Makes sure of a value; one that is right already is not written, so that a read-only `/proc/sys` is no obstacle.
pub fn ensure(key: &str, value: &str) -> io::Result<()> {
    if read(key).as_deref() == Some(value) { Ok(()) } else { fs::write(path(key), value) }
}

/// The first and last port of the kernel's ephemeral range.
pub fn ephemeral_ports() -> (u16, u16) {
    let text = read("ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => (first, last),
        _ => (49153, 65535),
    }
}
